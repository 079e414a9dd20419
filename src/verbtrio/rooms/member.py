"""A member of a room: what applications hold of it (`Member`), and what rooms know of it (`Peer`, `Outlet`)."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Collection, Container, Hashable, Iterable
from typing import Any, Protocol

from starlette.requests import HTTPConnection
from starlette.types import Scope

from verbtrio.base.close import NORMAL_CLOSURE, CloseInfo
from verbtrio.base.limits import Limits
from verbtrio.base.types import Data
from verbtrio.messages.frame import Frame


class Outlet(Protocol):
    """Where a member's frames go."""

    @property
    def held(self) -> list[Frame]:
        """What goes out with the next `flush`. Always the same list: broadcasts append to it. (An append takes 0.04 us
        a member; the cheapest Python function takes 0.15.)"""

    def flush(self) -> None:
        """Send what is held now, or queue it within a bound. Never blocks, never raises for a slow or gone peer. Such a
        member may leave its rooms meanwhile."""


class Peer(Protocol):
    """One connection, so far as rooms and the registry of users know it. Applications hold its `Member`."""

    @property
    def outlet(self) -> Outlet:
        """Always the same."""

    @property
    def limits(self) -> Limits:
        """The connection's."""

    @property
    def closed(self) -> CloseInfo | None:
        """How the connection ended; `None` while it is open."""

    @property
    def dropped(self) -> int:
        """Messages dropped or replaced by `Limits.backlog_policy`, or late by their `ttl`."""

    def drop(self, messages: int) -> None:
        """So many messages were dropped before they came to the outlet."""

    def encode(self, data: Data) -> Frame:
        """The app's encoder."""

    def put(self, frame: Frame) -> object:
        """Send a frame to this connection alone. Raises `ConnectionClosed` where it has ended."""

    @property
    def queued(self) -> int:
        """Bytes that are queued for this connection."""

    async def wait_below(self, size: int) -> None:
        """Wait while more than so many bytes are queued for this connection, and it has not ended. Always a
        checkpoint."""

    def close(self, code: int, reason: str) -> None:
        """The application closes the connection."""

    def end(self, info: CloseInfo) -> object:
        """End the connection. The first call decides how."""

    def gap_in(self, key: Hashable) -> bool:
        """Messages of the room `key` are lost, although it has a history. Takes an instant. Returns whether the member
        has to leave the room, since its client will come again and find out what it has missed."""

    def dismiss(self, key: Hashable, info: CloseInfo) -> Callable[[], object]:
        """The connection has been removed from the room `key`. Takes an instant; returns what has to be done soon."""


class Member(HTTPConnection):
    """A member of a room, or one of a user's connections: a `WebSocket`, or an `EventSubscriber` (of `app.sse`).

    It has what both have; `isinstance(member, WebSocket)` tells them apart. From Starlette's `HTTPConnection`: `url`,
    `headers`, `query_params`, `cookies`, `client`, `state`, `scope`, `app`.

    Its properties may be read in any thread. Its methods raise `RuntimeError` in any thread but the one in which the
    app is served, and change nothing there.
    """

    _id: str

    def __init__(self, scope: Scope, peer: Peer) -> None:
        super().__init__(scope)
        self._peer = peer

    @property
    def id(self) -> str:
        """Unique among all connections of all processes."""
        try:
            return self._id
        except AttributeError:  # made in one step: another thread may ask at the same time, and gets the same id
            made: str = vars(self).setdefault("_id", uuid.uuid4().hex)
            return made

    @property
    def params(self) -> dict[str, Any]:
        """The path's parameters: `"/ws/:room"` gives `member.params["room"]`."""
        params: dict[str, Any] = self.scope.get("path_params", {})
        return params

    @property
    def user(self) -> Any:
        """The authenticated user: `scope["user"]`, set by middleware (`JWTAuth`, Starlette's
        `AuthenticationMiddleware`, yours); `None` without one."""
        return self.scope.get("user")

    @property
    def closed(self) -> CloseInfo | None:
        """How the connection ended; `None` while it is open."""
        return self._peer.closed

    @property
    def dropped(self) -> int:
        """Messages that the client did not get because it reads too slowly: dropped or replaced by
        `Limits.backlog_policy`, or late by their `ttl`."""
        return self._peer.dropped

    def send_nowait(self, data: Data) -> None:
        """Send `data` (see `encode`), or queue it if the client reads slowly. For hooks that are plain functions.

        Raises:
            ConnectionClosed: the connection has ended.
            TypeError: `data` can't be encoded; or what the app's `encode=` hook raises.
        """
        self._peer.put(self._peer.encode(data))

    def close_nowait(self, code: int = NORMAL_CLOSURE, reason: str = "") -> None:
        """Close the connection, without waiting. Closing a connection that has ended does nothing.

        Raises:
            ValueError: `code` or `reason` must not be sent; nothing has changed.
            TypeError: `code` is not an `int`, or `reason` not a `str`; nothing has changed.
        """
        self._peer.close(code, reason)


def with_ids(members: Iterable[Member], ids: Container[str]) -> list[Member]:
    """Those of `members` whose id is one of `ids`. It makes no ids: one that nobody has asked for is nobody's yet."""
    return [member for member in members if vars(member).get("_id") in ids]


def chosen(members: Iterable[Member], whom: Member | str | Collection[Member | str] | None) -> list[Member]:
    """Whom `whom` names: a member, an id, or a collection of both (`None`: nobody). Ids are looked for among `members`;
    one that none of them has is passed over.

    Raises:
        TypeError: `whom` is something else, or has something else in it.
    """
    if whom is None:
        return []
    named: tuple[object, ...] = (whom,)
    # A member is a collection itself, of its scope's keys, and text one of characters.
    if not isinstance(whom, Member | str | bytes) and isinstance(whom, Collection):
        named = tuple(whom)
    for one in named:
        if not isinstance(one, Member | str):
            raise TypeError(
                f"this takes a member, its id (`ws.id`), or a collection of both, not {type(one).__name__}; for a "
                "user's id: `broadcast(data, exclude_user=...)`, `kick(user=...)`"
            )
    found = [one for one in named if isinstance(one, Member)]
    ids = {one for one in named if isinstance(one, str)}
    return found + with_ids(members, ids) if ids else found
