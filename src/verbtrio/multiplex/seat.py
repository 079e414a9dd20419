"""One client's place in one room: from the join, of which it is not told at once, until it leaves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Raw

from verbtrio.base.position import Position
from verbtrio.base.types import Data
from verbtrio.guards.quotas import user_key
from verbtrio.messages.frame import ProtocolFrame
from verbtrio.messages.published import SignedFrame
from verbtrio.multiplex.client import Client
from verbtrio.multiplex.peer import ClientPeer
from verbtrio.multiplex.settings import App, ClientSettings
from verbtrio.multiplex.tokens import Expiry, TokenTimer, info_in
from verbtrio.protocols.commands import SubscribeRequest
from verbtrio.protocols.replies import ClientInfo, Publication, Push
from verbtrio.rooms.room import Room
from verbtrio.rooms.rules import RoomRule
from verbtrio.rooms.stand_in import StandIn


class Seat:
    """A client's place in a room: what a `SubscriptionLife` is, whatever its course.

    Args:
        request: what the client has asked for; for a subscription that the server makes: with its position alone.
        rule: the room's.
        peer: the client's.
        app: the app's parts.
        settings: the endpoint's.
    """

    __slots__ = ("_app", "_info", "_is_joined", "_peer", "_request", "_settings", "_stand_in", "_token", "rule")

    def __init__(
        self,
        request: SubscribeRequest,
        rule: RoomRule | None,
        peer: ClientPeer,
        app: App,
        settings: ClientSettings,
    ) -> None:
        self.rule = rule
        self._request = request
        self._peer = peer
        self._app = app
        self._settings = settings
        self._is_joined = False
        self._stand_in: StandIn | None = None
        self._token: TokenTimer | None = None
        self._info: tuple[Any, Mapping[str, Any] | None, ClientInfo] | None = None  # and of whom, by which claims

    @property
    def name(self) -> str:
        """The room's."""
        return self._request.channel

    @property
    def room(self) -> Room:
        return Room(self._app.rooms, self.name)

    @property
    def client(self) -> Client:
        client: Client = self._peer.client
        return client

    @property
    def data(self) -> Raw:
        """What the client has sent with its request."""
        return self._request.data

    @property
    def claims(self) -> Mapping[str, Any]:
        """Those of the subscription's own token."""
        return {} if self._token is None else self._token.claims

    @property
    def handler(self) -> Any:
        """What runs for each subscription to the room; `None`: nothing."""
        opening = None if self.rule is None else self.rule.settings.opening
        return None if opening is None else opening.handler

    @property
    def info(self) -> ClientInfo:
        """Who the client is, for the others in this room."""
        client, token = self._peer.client, self._token
        user, own = client.user, None if token is None else token.claims
        if (known := self._info) is not None and known[0] is user and known[1] is own:
            return known[2]
        info = ClientInfo(user_key(user) or "", client.id, info_in(client.claims), info_in(self.claims))
        self._info = user, own, info
        return info

    def check(self) -> None:
        """Raise `RuntimeError` in any other thread than the app's."""
        self._app.rooms.check()

    async def publish(self, data: Data) -> Position | None:
        """See `Subscription.publish`."""
        self._app.rooms.check()
        return await self._app.host.publish(self.name, SignedFrame(self._peer.encode(data), self.info))

    def send(self, data: Data) -> None:
        """Send `data` to this client alone, as what is said in the room: behind the reply that lets it in."""
        peer = self._peer
        push = Push(channel=self.name, pub=Publication(peer.encoding.data(peer.encode(data))))
        frame = ProtocolFrame(peer.encoding.encode_push(push), text=not peer.encoding.is_binary)
        if self._stand_in is None:
            peer.hold(frame)
        else:
            self._stand_in.held.append(frame)
            self._stand_in.flush()

    async def wait_low(self) -> None:
        """Wait while more than `Limits.high_water_bytes` is queued for the client, and the connection has not ended.
        Always a checkpoint."""
        await self._peer.wait_below(self._peer.limits.high_water_bytes)

    # Its token

    def take_token(self, claims: Mapping[str, Any]) -> Expiry:
        """These are the token's claims from now on."""
        if self._token is None:
            self._token = TokenTimer(self._app.timers, self._settings.token_slack, self._expire)
        return self._token.take(claims)

    def _expire(self) -> None:
        """The token is over. `SubscriptionLife` says what follows."""
        raise NotImplementedError

    # Its course

    @property
    def waits(self) -> bool:
        """Whether there is anything to wait for; if not, `accept_nowait` will do."""
        if self._request.token or self.handler is not None:
            return True
        return self.rule is not None and (
            self.rule.settings.history is not None or not self._app.host.joins.is_ready(self.name, self.rule)
        )

    def join_room(self) -> None:
        """Join the room. What is said there waits until `receive_from`.

        Raises:
            Denied, LimitExceeded, RoomUnavailable: the room does not let the client in.
        """
        self._stand_in = StandIn(self._peer)
        self._app.host.joins.admit(self.name, self.client, self._stand_in)
        self._is_joined = True

    def receive_from(self, after: Position | None, presence: Any) -> bool:
        """From now on the client receives what is said in the room, what has waited first. Twice does nothing.

        Args:
            after: what was published up to here it has already.
            presence: its public info; `None` for that of its tokens.

        Returns:
            Whether messages of the room were lost meanwhile.
        """
        stand_in, self._stand_in = self._stand_in, None
        if stand_in is None:
            return False
        self._app.rooms.replace(self.name, self.client, self._peer)
        if self.rule is not None and self.rule.settings.presence is not None:
            wants_news = self._request.join_leave or self._settings.force_join_leave
            if self.rule.settings.join_leave and wants_news:
                self._app.client_news.add(self.name, self._peer)
            self._enter(self.rule, presence)
        stand_in.hand_over(after)  # last: it may be too much for the client, which ends then
        return stand_in.has_gap

    def _enter(self, rule: RoomRule, presence: Any) -> None:
        mine = self.info
        details = {"conn_info": _json(mine.conn_info), "chan_info": _json(mine.chan_info)}
        if presence is not None:
            details["chan_info"] = presence
        shown = details["conn_info"] if details["chan_info"] is None else details["chan_info"]
        user = user_key(self.client.user) or self.client.id
        self._app.host.joins.enter(self.name, rule, self.client, user, shown, details)

    def leave_room(self, *, may_return: bool) -> None:
        """Leave the room. `may_return`: see `Rooms.leave`."""
        self.vacate()
        if self._is_joined:
            self._is_joined = False
            self._app.rooms.leave(self.name, self.client, may_return=may_return)

    def vacate(self) -> None:
        """The client is not in the room any more, or is about to leave it: tell it nothing more."""
        self._stand_in = None
        self._app.client_news.discard(self.name, self._peer)


def _json(raw: Raw | None) -> Any:
    return None if raw is None else msgspec.json.decode(raw)
