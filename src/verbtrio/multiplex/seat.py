"""One client's place in one room: from the join, of which it is not told at once, until it leaves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Raw

from verbtrio.base.position import Position
from verbtrio.base.types import Data
from verbtrio.guards.quotas import user_key
from verbtrio.messages.published import SignedFrame
from verbtrio.multiplex.client import Client
from verbtrio.multiplex.peer import ClientPeer
from verbtrio.multiplex.settings import App
from verbtrio.multiplex.tokens import info_in
from verbtrio.protocols.replies import ClientInfo
from verbtrio.rooms.rules import RoomRule
from verbtrio.rooms.stand_in import StandIn


class Seat:
    """A client's place in a room.

    Args:
        name: the room's.
        rule: the room's.
        peer: the client's.
        app: the app's parts.
    """

    __slots__ = ("_app", "_is_joined", "_peer", "_stand_in", "name", "rule")

    def __init__(self, name: str, rule: RoomRule | None, peer: ClientPeer, app: App) -> None:
        self.name = name
        self.rule = rule
        self._peer = peer
        self._app = app
        self._is_joined = False
        self._stand_in: StandIn | None = None

    @property
    def client(self) -> Client:
        client: Client = self._peer.client
        return client

    def take(self) -> None:
        """Join the room. What is said there waits until `open`.

        Raises:
            Denied, LimitExceeded, RoomUnavailable: the room does not let the client in.
        """
        self._stand_in = StandIn(self._peer)
        self._app.host.joins.admit(self.name, self.client, self._stand_in)
        self._is_joined = True

    def open(self, after: Position | None, presence: Any, claims: Mapping[str, Any], *, tell_joins: bool) -> None:
        """From now on the client receives what is said in the room, what has waited first. Twice does nothing.

        Args:
            after: what was published up to here it has already.
            presence: its public info; `None` for that of its tokens.
            claims: those of the subscription's own token.
            tell_joins: whether it wants to know who comes and goes.
        """
        stand_in, self._stand_in = self._stand_in, None
        if stand_in is None:
            return
        self._app.rooms.replace(self.name, self.client, self._peer)
        if self.rule is not None and self.rule.settings.presence is not None:
            if self.rule.settings.join_leave and tell_joins:
                self._app.client_news.add(self.name, self._peer)
            self._enter(self.rule, presence, claims)
        stand_in.hand_over(after)  # last: it may be too much for the client, which ends then

    def _enter(self, rule: RoomRule, presence: Any, claims: Mapping[str, Any]) -> None:
        mine = self.info(claims)
        details = {"conn_info": _json(mine.conn_info), "chan_info": _json(mine.chan_info)}
        if presence is not None:
            details["chan_info"] = presence
        shown = details["conn_info"] if details["chan_info"] is None else details["chan_info"]
        user = user_key(self.client.user) or self.client.id
        self._app.host.joins.enter(self.name, rule, self.client, user, shown, details)

    def leave(self, *, may_return: bool) -> None:
        """Leave the room. `may_return`: see `Rooms.leave`."""
        self.vacate()
        if self._is_joined:
            self._is_joined = False
            self._app.rooms.leave(self.name, self.client, may_return=may_return)

    def vacate(self) -> None:
        """The client is not in the room any more, or is about to leave it: tell it nothing more."""
        self._stand_in = None
        self._app.client_news.discard(self.name, self._peer)

    def info(self, claims: Mapping[str, Any]) -> ClientInfo:
        """Who the client is, for the others in this room."""
        client = self.client
        return ClientInfo(user_key(client.user) or "", client.id, info_in(client.claims), info_in(claims))

    async def publish(self, data: Data, claims: Mapping[str, Any]) -> Position | None:
        """Publish in the client's name. See `Room.publish`."""
        self._app.rooms.check()
        return await self._app.host.publish(self.name, SignedFrame(self._peer.encode(data), self.info(claims)))


def _json(raw: Raw | None) -> Any:
    return None if raw is None else msgspec.json.decode(raw)
