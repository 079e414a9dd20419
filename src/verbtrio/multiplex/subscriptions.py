"""The subscriptions of one client, and the commands about rooms: subscribe, publish, presence, history and the like."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from verbtrio.base.close import CloseInfo
from verbtrio.base.errors import BrokerUnavailable, Denied, MessageError, VerbtrioError
from verbtrio.base.position import Position
from verbtrio.guards.quotas import user_key
from verbtrio.messages.published import SignedFrame
from verbtrio.multiplex.calls import error_of
from verbtrio.multiplex.life import SubscriptionLife
from verbtrio.multiplex.news import info_of
from verbtrio.multiplex.peer import ClientPeer
from verbtrio.multiplex.server_side import ServerSide
from verbtrio.multiplex.settings import App, ClientSettings
from verbtrio.multiplex.tokens import info_in, subscription_claims
from verbtrio.protocols import codes
from verbtrio.protocols.codes import ProtocolError, Refused
from verbtrio.protocols.commands import (
    ChannelRequest,
    HistoryRequest,
    PublishRequest,
    SubRefreshRequest,
    SubscribeRequest,
)
from verbtrio.protocols.replies import (
    ClientInfo,
    Empty,
    HistoryResult,
    PresenceResult,
    PresenceStatsResult,
    Reply,
    SubRefreshResult,
    SubscribeResult,
)
from verbtrio.rooms.rules import RoomRule

MAX_CHANNEL_BYTES = 255
"""A longer name of a channel is refused."""


class Subscriptions:
    """One client's subscriptions, by the rooms' names.

    Args:
        peer: the client's.
        app: the app's parts.
        settings: the endpoint's.
        start: starts a task in the client's nursery.
    """

    __slots__ = ("_app", "_by_name", "_peer", "_running", "_settings", "_start")

    def __init__(self, peer: ClientPeer, app: App, settings: ClientSettings, start: Callable[..., None]) -> None:
        self._peer = peer
        self._app = app
        self._settings = settings
        self._start = start
        self._by_name: dict[str, SubscriptionLife] = {}
        self._running = 0  # tasks of subscriptions, of those that have ended and still clean up, too

    def __len__(self) -> int:
        return len(self._by_name)

    def lives(self) -> tuple[SubscriptionLife, ...]:
        return tuple(self._by_name.values())

    # Coming in

    def subscribe(self, command: int, request: SubscribeRequest) -> None:
        """The client wants to be in a room. It is answered at once, or later.

        Raises:
            Refused: it may not.
        """
        self._check_new(request.channel)
        rule = self._open_rule(request.channel, request.token)

        def tell(life: SubscriptionLife, result: SubscribeResult) -> None:
            self._peer.reply(Reply(id=command, subscribe=result))
            life.open()

        def refuse(life: SubscriptionLife, error: ProtocolError) -> None:
            self._peer.reply(Reply(id=command, error=error))

        self._begin(self._life(request, rule, tell, refuse))

    def subscribe_by_server(
        self,
        request: SubscribeRequest,
        outcome: ServerSide,
    ) -> SubscriptionLife:
        """The server wants the client to be in a room.

        Raises:
            Refused: it is there already, or in as many rooms as it may be.
        """
        self._check_new(request.channel)
        rule = self._app.host.rule(request.channel)
        life = self._life(request, rule, outcome.tell, outcome.refuse, is_server_side=True, given=outcome.given)
        self._begin(life)
        return life

    def _check_new(self, channel: str) -> None:
        if len(channel.encode(errors="surrogatepass")) > MAX_CHANNEL_BYTES:
            raise Refused(codes.BAD_REQUEST)
        if channel in self._by_name:
            raise Refused(codes.ALREADY_SUBSCRIBED)
        most = self._peer.limits.max_rooms
        if most is not None and len(self._by_name) >= most:
            raise Refused(codes.LIMIT_EXCEEDED)
        if most is not None and self._running >= most + len(self._by_name):
            raise Refused(codes.TOO_MANY_REQUESTS)  # it comes and goes faster than what it leaves can end

    def _open_rule(self, channel: str, token: str) -> RoomRule:
        """The rule of a room that clients may subscribe to. A room's name alone opens nothing."""
        rule = self._app.host.rule(channel)
        if rule is None:
            raise Refused(codes.UNKNOWN_CHANNEL)
        opening = rule.settings.opening
        if opening is None or not opening.subscribe or (opening.token and not token):
            raise Refused(codes.PERMISSION_DENIED)
        return rule

    def _life(self, request: SubscribeRequest, rule: RoomRule | None, tell: Any, refuse: Any, **kind: Any) -> SubscriptionLife:
        return SubscriptionLife(
            request,
            rule,
            self._peer,
            self._app,
            self._settings,
            tell=tell,
            refuse=refuse,
            forget=self._forget,
            **kind,
        )

    def _begin(self, life: SubscriptionLife) -> None:
        self._by_name[life.name] = life
        if life.waits or not self._app.host.joins.is_ready(life.name, life.rule):
            self._running += 1
            self._start(self._run, life, name=f"subscription to {life.name!r:.100}")
            return
        try:
            life.accept_nowait()
        except VerbtrioError as error:
            life.refuse(error_of(error) or codes.INTERNAL)

    async def _run(self, life: SubscriptionLife) -> None:
        try:
            await life.run()
        finally:
            self._running -= 1

    def _forget(self, life: SubscriptionLife) -> None:
        if self._by_name.get(life.name) is life:
            del self._by_name[life.name]

    # Going

    def unsubscribe(self, command: int, request: ChannelRequest) -> None:
        """The client does not want to be in the room any more."""
        life = self._by_name.get(request.channel)
        if life is not None:
            life.unsubscribe()
        self._peer.reply(Reply(id=command, unsubscribe=Empty()))

    def end(self, name: str, code: int, reason: str) -> bool:
        """See `Client.unsubscribe`."""
        codes.check_unsubscribe(code)
        life = self._by_name.get(name)
        return life is not None and life.end(code, reason)

    def dismissed(self, name: str, info: CloseInfo) -> Callable[[], object]:
        """The client was removed from a room."""
        return self._by_name[name].dismissed(info)

    def leave_all(self, *, discard: bool) -> None:
        """The connection has ended."""
        for life in self.lives():
            life.leave(discard=discard, may_return=True)

    # What is asked about a room, and said in it

    def publish(self, command: int, request: PublishRequest) -> Awaitable[None] | None:
        """The client says something in a room.

        Raises:
            Refused: it may not, or what it says is not what the room's handler receives.
        """
        if not bytes(request.data):
            raise Refused(codes.BAD_REQUEST)
        life = self._by_name.get(request.channel)
        if life is not None and life.intake is not None:
            if life.intake.is_closed:
                raise Refused(codes.PERMISSION_DENIED)
            if life.intake.is_full:
                raise Refused(codes.TOO_MANY_REQUESTS)
            try:
                message = life.handler.decode(request.data, is_binary=self._peer.encoding.is_binary)
            except MessageError as error:
                self._app.counters.invalid += 1
                raise Refused(ProtocolError(codes.BAD_REQUEST.code, str(error))) from error
            life.intake.put(message, len(bytes(request.data)))
            self._peer.reply(Reply(id=command, publish=Empty()))
            return None
        rule = self._publishable(request.channel, life)
        frame = self._peer.encoding.frame_of(request.data)
        signed = SignedFrame(frame, self._info(life))
        if rule.settings.history is not None:
            return self._publish(command, request.channel, signed)
        rooms = self._app.rooms
        if rooms.relays:
            self._app.host.relay(request.channel, signed, None, None)
        rooms.deliver(request.channel, signed)
        self._peer.reply(Reply(id=command, publish=Empty()))
        return None

    async def _publish(self, command: int, channel: str, frame: SignedFrame) -> None:
        try:
            await self._app.host.publish(channel, frame)
        except BrokerUnavailable as error:
            raise Refused(error_of(error) or codes.INTERNAL) from error
        except TypeError as error:  # the room's history adds a field, and this is not a JSON object
            raise Refused(ProtocolError(codes.BAD_REQUEST.code, "data must be a JSON object here")) from error
        self._peer.reply(Reply(id=command, publish=Empty()))

    def _publishable(self, channel: str, life: SubscriptionLife | None) -> RoomRule:
        """The rule of a room in which the client may publish as it is."""
        if len(channel.encode(errors="surrogatepass")) > MAX_CHANNEL_BYTES:
            raise Refused(codes.BAD_REQUEST)
        rule = self._app.host.rule(channel)
        if rule is None:
            raise Refused(codes.UNKNOWN_CHANNEL)
        opening = rule.settings.opening
        if opening is None or not opening.publish or opening.handler is not None:
            raise Refused(codes.PERMISSION_DENIED)
        if life is None:
            if opening.token:
                raise Refused(codes.PERMISSION_DENIED)
            try:
                rule.ask_guard(self._peer.client, channel)
            except Denied as error:
                raise Refused(codes.PERMISSION_DENIED) from error
        elif not life.is_accepted:
            raise Refused(codes.PERMISSION_DENIED)
        return rule

    def _info(self, life: SubscriptionLife | None) -> ClientInfo:
        if life is not None:
            return life.info
        client = self._peer.client
        return ClientInfo(user_key(client.user) or "", client.id, info_in(client.claims))

    def _accepted(self, channel: str) -> RoomRule:
        """The rule of a room that the client is in: only then it may ask about it."""
        life = self._by_name.get(channel)
        if life is None or not life.is_accepted:
            raise Refused(codes.PERMISSION_DENIED)
        if life.rule is None:
            raise Refused(codes.NOT_AVAILABLE)
        return life.rule

    async def presence(self, command: int, request: ChannelRequest) -> None:
        """Who is there.

        Raises:
            Refused: the client is not in the room, or it has no presence.
        """
        clients = await self._present(request.channel)
        self._peer.reply(Reply(id=command, presence=PresenceResult(clients)))

    async def presence_stats(self, command: int, request: ChannelRequest) -> None:
        """How many are there. Raises as `presence`."""
        clients = await self._present(request.channel)
        users = {info.user for info in clients.values()}
        self._peer.reply(Reply(id=command, presence_stats=PresenceStatsResult(len(clients), len(users))))

    async def _present(self, channel: str) -> dict[str, ClientInfo]:
        if self._accepted(channel).settings.presence is None:
            raise Refused(codes.NOT_AVAILABLE)
        try:
            connections = await self._app.host.connections(channel)
        except BrokerUnavailable as error:
            raise Refused(error_of(error) or codes.INTERNAL) from error
        return {connection: info_of(connection, known) for connection, known in connections.items()}

    async def history(self, command: int, request: HistoryRequest) -> None:
        """What the room remembers.

        Raises:
            Refused: the client is not in the room, it has no history, or not one with that position.
        """
        rule, since = self._accepted(request.channel), request.since
        if rule.settings.history is None:
            raise Refused(codes.NOT_AVAILABLE)
        if request.reverse and since is not None and since.offset == 0:
            raise Refused(codes.BAD_REQUEST)
        limit = None if request.limit < 0 else request.limit
        host, channel = self._app.host, request.channel
        try:
            position = None
            if since is not None:
                now = (await host.page(channel, None, 0, reverse=False)).position
                if since.epoch and since.epoch != now.epoch:
                    raise Refused(codes.UNRECOVERABLE_POSITION)
                position = Position(now.epoch, since.offset)
            page = await host.page(channel, position, limit, reverse=request.reverse)
        except BrokerUnavailable as error:
            raise Refused(error_of(error) or codes.INTERNAL) from error
        remembered = self._peer.encoding.remembered
        self._peer.reply(
            Reply(
                id=command,
                history=HistoryResult(
                    [remembered(message.frame, message.position) for message in page.messages],
                    page.position.epoch,
                    page.position.offset,
                ),
            )
        )

    async def refresh(self, command: int, request: SubRefreshRequest) -> None:
        """Another token for a subscription.

        Raises:
            Refused: the client is not in the room, or the token is not accepted.
        """
        life = self._by_name.get(request.channel)
        if life is None or not life.is_accepted or not request.token:
            raise Refused(codes.PERMISSION_DENIED)
        user = user_key(self._peer.client.user) or ""
        claims = await subscription_claims(self._settings.auth, request.token, request.channel, user)
        if life.is_over:
            raise Refused(codes.PERMISSION_DENIED)
        expiry = life.take_token(claims)
        self._peer.reply(Reply(id=command, sub_refresh=SubRefreshResult(expiry.expires, expiry.ttl)))
