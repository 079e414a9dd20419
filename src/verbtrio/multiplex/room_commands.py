"""What one client asks about rooms, and says in them: publish, presence, history and the like."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Mapping

import trio

from verbtrio.base.errors import BrokerUnavailable, MessageError
from verbtrio.base.position import Position
from verbtrio.brokers.records import Page
from verbtrio.guards.quotas import user_key
from verbtrio.messages.published import SignedFrame
from verbtrio.multiplex.calls import error_of
from verbtrio.multiplex.life import SubscriptionLife
from verbtrio.multiplex.peer import ClientPeer
from verbtrio.multiplex.recovery import RECOVERED_BYTES, size_in_reply
from verbtrio.multiplex.settings import App, ClientSettings
from verbtrio.multiplex.subscriptions import Subscriptions, check_channel
from verbtrio.multiplex.tokens import info_in, subscription_claims
from verbtrio.protocols import codes
from verbtrio.protocols.codes import ProtocolError, Refused
from verbtrio.protocols.commands import NO_DATA, ChannelRequest, HistoryRequest, PublishRequest, SubRefreshRequest
from verbtrio.protocols.replies import (
    ClientInfo,
    HistoryResult,
    PresenceResult,
    PresenceStatsResult,
    Publication,
    Reply,
    SubRefreshResult,
)
from verbtrio.rooms.rules import RoomRule
from verbtrio.rooms.settings import Opening

logger = logging.getLogger("verbtrio.clients")

NO_OBJECT = ProtocolError(codes.BAD_REQUEST.code, "data must be a JSON object here")
"""The room's history adds a field to what is published there."""


class RoomCommands:
    """The commands of one client about rooms: each method has its command's name.

    Args:
        peer: the client's.
        app: the app's parts.
        settings: the endpoint's.
        subscriptions: the client's.
    """

    __slots__ = ("_app", "_peer", "_settings", "_subscriptions")

    def __init__(self, peer: ClientPeer, app: App, settings: ClientSettings, subscriptions: Subscriptions) -> None:
        self._peer = peer
        self._app = app
        self._settings = settings
        self._subscriptions = subscriptions

    def publish(self, command: int, request: PublishRequest) -> Awaitable[None] | None:
        """The client says something in a room.

        Raises:
            Refused: it may not, or what it says is not what the room's handler receives.
        """
        if request.data == NO_DATA:
            raise Refused(codes.BAD_REQUEST)
        life = self._subscriptions.publishing(request.channel)
        if life is not None and life.intake is not None:
            if life.intake.is_closed or not life.is_accepted:
                raise Refused(codes.PERMISSION_DENIED)
            if life.intake.is_full:
                raise Refused(codes.TOO_MANY_REQUESTS)
            try:
                message = life.handler.decode(request.data, is_binary=self._peer.encoding.is_binary)
            except MessageError as error:
                self._app.counters.invalid += 1
                raise Refused(ProtocolError(codes.BAD_REQUEST.code, str(error))) from error
            life.intake.put(message, len(bytes(request.data)))
            self._peer.answer_publish(command)
            return None
        rule = self._publishable(request.channel, life)
        signed = SignedFrame(self._peer.encoding.frame_of(request.data), self._info(life))
        if rule.settings.history is not None:
            try:
                self._app.host.publish_nowait(request.channel, signed)
            except trio.WouldBlock:
                return self._publish(command, request.channel, signed)
            except TypeError as error:
                raise Refused(NO_OBJECT) from error
            self._peer.answer_publish(command)
            return None
        rooms = self._app.rooms
        if rooms.relays:
            self._app.host.relay(request.channel, signed, None, None)
        rooms.deliver(request.channel, signed)
        self._peer.answer_publish(command)
        return None

    async def _publish(self, command: int, channel: str, frame: SignedFrame) -> None:
        try:
            await self._app.host.publish(channel, frame)
        except BrokerUnavailable as error:
            raise Refused(error_of(error) or codes.INTERNAL) from error
        except TypeError as error:  # the room's history adds a field, and this is not a JSON object
            raise Refused(NO_OBJECT) from error
        self._peer.answer_publish(command)

    def _publishable(self, channel: str, life: SubscriptionLife | None) -> RoomRule:
        """The rule of a room in which the client may publish as it is."""
        if life is not None and life.rule is not None and life.rule.settings.opening is not None:
            rule, opening = life.rule, life.rule.settings.opening
        else:
            rule, opening = self._opening(channel)
        if not opening.publish or opening.handler is not None:
            raise Refused(codes.PERMISSION_DENIED)
        if life is None or not life.is_accepted:
            self._ask_guard(rule, opening, channel)
        return rule

    def _info(self, life: SubscriptionLife | None) -> ClientInfo:
        if life is not None:
            return life.info
        client = self._peer.client
        return ClientInfo(user_key(client.user) or "", client.id, info_in(client.claims))

    def _askable(self, channel: str) -> RoomRule:
        """The rule of a room that the client may ask about: it is in it, or may subscribe as it is."""
        life = self._subscriptions.get(channel)
        if life is not None and life.is_accepted:
            if life.rule is None:
                raise Refused(codes.NOT_AVAILABLE)
            return life.rule
        rule, opening = self._opening(channel)
        if opening.handler is not None:
            raise Refused(codes.PERMISSION_DENIED)
        self._ask_guard(rule, opening, channel)
        return rule

    def _opening(self, channel: str) -> tuple[RoomRule, Opening]:
        """What clients may do in a room, and its rule."""
        check_channel(channel)
        rule = self._app.host.rule(channel)
        if rule is None:
            raise Refused(codes.UNKNOWN_CHANNEL)
        opening = rule.settings.opening
        if opening is None:
            raise Refused(codes.PERMISSION_DENIED)
        return rule, opening

    def _ask_guard(self, rule: RoomRule, opening: Opening, channel: str) -> None:
        """Raise `Refused` if the client, which is not in the room, could not subscribe as it is."""
        if opening.token or self._settings.is_personal(channel):
            raise Refused(codes.PERMISSION_DENIED)
        try:
            rule.ask_guard(self._peer.client, channel)
        except Exception as error:  # the guard's: the application's own
            if (reply := error_of(error)) is None:
                logger.error("the guard of %r failed for %r", channel, self._peer, exc_info=error)
            raise Refused(reply or codes.INTERNAL) from error

    async def presence(self, command: int, request: ChannelRequest) -> None:
        """Who is there.

        Raises:
            Refused: the client may not ask, or the room has no presence; or more are there than may be queued for it.
        """
        clients = await self._present(request.channel)
        reply = self._peer.encoding.reply(Reply(id=command, presence=PresenceResult(dict(clients))))
        if len(reply) > self._peer.limits.max_backlog_bytes:  # Python's SDK would be gone, and come back, for ever
            raise Refused(codes.LIMIT_EXCEEDED)
        self._peer.hold(reply)

    async def presence_stats(self, command: int, request: ChannelRequest) -> None:
        """How many are there. Raises as `presence`."""
        clients = await self._present(request.channel)
        users = {info.user for info in clients.values()}
        self._peer.reply(Reply(id=command, presence_stats=PresenceStatsResult(len(clients), len(users))))

    async def _present(self, channel: str) -> Mapping[str, ClientInfo]:
        if self._askable(channel).settings.presence is None:
            raise Refused(codes.NOT_AVAILABLE)
        try:
            return await self._app.present_clients.of(channel)
        except BrokerUnavailable as error:
            raise Refused(error_of(error) or codes.INTERNAL) from error

    async def history(self, command: int, request: HistoryRequest) -> None:
        """What the room remembers: no more than fits into a reply, but one message at least. Who wants the rest asks
        for what comes after that.

        Raises:
            Refused: the client may not ask, or the room has no history, or not one with that position.
        """
        rule, since = self._askable(request.channel), request.since
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
        publications = self._first_of(page)
        result = HistoryResult(publications, page.position.epoch, page.position.offset)
        self._peer.reply(Reply(id=command, history=result))

    def _first_of(self, page: Page) -> list[Publication]:
        """As many of a page's messages as fit into a reply, the first at least."""
        publications: list[Publication] = []
        left = RECOVERED_BYTES
        for message in page.messages:
            publication = self._peer.encoding.remembered(message.frame, message.position)
            left -= size_in_reply(publication)
            if publications and left < 0:
                break
            publications.append(publication)
        return publications

    async def sub_refresh(self, command: int, request: SubRefreshRequest) -> None:
        """Another token for a subscription.

        Raises:
            Refused: the client is not in the room, or the token is not accepted.
        """
        life = self._subscriptions.get(request.channel)
        if life is None or not life.is_accepted or not request.token:
            raise Refused(codes.PERMISSION_DENIED)
        user = user_key(self._peer.client.user) or ""
        claims = await subscription_claims(self._settings.auth, request.token, request.channel, user)
        if life.is_over:
            raise Refused(codes.PERMISSION_DENIED)
        expiry = life.take_token(claims)
        self._peer.reply(Reply(id=command, sub_refresh=SubRefreshResult(expiry.expires, expiry.ttl)))
