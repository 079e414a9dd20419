"""What a handler holds: one connection, to send, receive, join rooms and close. Its state is its peer's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, cast

import trio
from starlette.types import Scope

from verbtrio.base.close import NORMAL_CLOSURE
from verbtrio.base.errors import ConnectionClosed, MessageError
from verbtrio.base.habits import with_habits
from verbtrio.base.position import Position
from verbtrio.base.types import Data, Hook, ReadyState
from verbtrio.connection.membership import Membership
from verbtrio.connection.peer import WebSocketPeer
from verbtrio.rooms.member import Member
from verbtrio.rooms.room import Room

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    T = TypeVar("T", default=str | bytes)
    U = TypeVar("U", default=Any)
else:
    from types import GenericAlias
    from typing import TypeVar

    T = TypeVar("T")
    U = TypeVar("U")

SEND_TURNS = 16
"""`send` gives way to other tasks at every 16th message, if it does not wait anyway."""


@with_habits
class WebSocket(Member, Generic[T, U]):
    """One connection. `T` is the type of its messages: see `Decoder`; without it, text and bytes as they come. `U` is
    the type of its `user`, for the type checker alone: `WebSocket[Say, Claims]`; without it, `Any`.

    From Starlette's `HTTPConnection`: `url`, `headers`, `query_params`, `cookies`, `client`, `state`, `scope`, `app`.

    Its properties may be read in any thread. Its methods, and a membership's, raise `RuntimeError` in any thread but
    the one in which the app is served, and change nothing there.

    Attributes:
        subprotocol: what was agreed on in the handshake (over plain ASGI: what the route itself has chosen).
    """

    _peer: WebSocketPeer[T]

    if not TYPE_CHECKING:  # `typing.Generic` knows no defaults before Python 3.13: it would want both
        __class_getitem__ = classmethod(GenericAlias)

    def __init__(self, scope: Scope, peer: WebSocketPeer[T], *, subprotocol: str | None = None) -> None:
        super().__init__(scope, peer)
        self.subprotocol = subprotocol
        peer.ws = self

    def __repr__(self) -> str:
        return f"<WebSocket {self.id[:8]} {self.scope['path']!r} {self.ready_state.name}>"

    @property
    def user(self) -> U:
        """The authenticated user: `scope["user"]`, set by middleware (`JWTAuth`, Starlette's
        `AuthenticationMiddleware`, yours); `None` without one.

        Its type is what the handler's annotation says (`WebSocket[Say, Claims]`): nothing checks it.
        """
        return cast("U", self.scope.get("user"))

    @property
    def nursery(self) -> trio.Nursery:
        """The connection's nursery: tasks started in it are cancelled with the connection."""
        if self._peer.nursery is None:
            raise AttributeError("a connection's nursery is opened when its handler starts: use it from there on")
        return self._peer.nursery

    @property
    def ready_state(self) -> ReadyState:
        return self._peer.phase

    @property
    def rooms(self) -> frozenset[str]:
        """The names of the rooms it is in."""
        return self._peer.memberships.names

    @property
    def route(self) -> Room:
        """Everybody connected to this route, this connection included: for broadcasts."""
        return Room(self._peer.rooms, self.scope["verbtrio.route"])

    async def send(self, data: Data) -> None:
        """Send `data` (see `encode`), and wait while more than `Limits.high_water_bytes` is queued for the peer.

        By the first checkpoint the message is already queued, after everything sent before it: if cancelled, it is
        still sent, whole. Other tasks get a turn at every 16th message at the latest.

        Raises:
            ConnectionClosed: the connection has ended, before or while waiting.
            TypeError: `data` can't be encoded; or what the app's `encode=` hook raises.
        """
        peer = self._peer
        outbox = peer.put(peer.encode(data))
        peer.sent += 1
        if outbox.is_low and peer.sent % SEND_TURNS:
            await trio.lowlevel.checkpoint_if_cancelled()
        else:
            await outbox.wait_low()
        if peer.closed is not None:
            raise ConnectionClosed(peer.closed)

    async def receive(self) -> T:
        """Wait for a message. One that is not what `T` says is answered with an error message and skipped.

        What arrived before the peer ended the connection is still received; nothing is after the server has. If
        cancelled, no message is lost.

        Raises:
            ConnectionClosed: the connection has ended and there are no more messages.
            trio.BusyResourceError: another task receives; only one may. (The first may hand over to another task, which
                then has the connection to itself until that task ends.)
        """
        peer = self._peer
        peer.check()
        while (message := await peer.inbox.get()) is not None:
            try:
                return peer.decoder(message)
            except MessageError as error:
                peer.refuse(error, message)
        assert peer.closed is not None, "only the connection's end closes the inbox"
        raise ConnectionClosed(peer.closed)

    def __aiter__(self) -> WebSocket[T, U]:
        return self

    async def __anext__(self) -> T:
        """The next message; the loop ends when the connection does."""
        # Not by `receive`: that would be one more coroutine, 0.2 KB, for every connection that waits.
        peer = self._peer
        peer.check()
        while (message := await peer.inbox.get()) is not None:
            try:
                return peer.decoder(message)
            except MessageError as error:
                peer.refuse(error, message)
        raise StopAsyncIteration

    async def close(self, code: int = NORMAL_CLOSURE, reason: str = "") -> None:
        """Close the connection, and wait until what was sent before is handed to the system.

        The handler is cancelled 100 ms later. The framework does the rest of the closing handshake.
        Closing a connection that has ended does nothing. If cancelled, it is closed all the same.

        Raises:
            ValueError: `code` or `reason` must not be sent; nothing has changed.
            TypeError: `code` is not an `int`, or `reason` not a `str`; nothing has changed.
        """
        self.close_nowait(code, reason)
        await trio.lowlevel.checkpoint()
        await self._peer.outbox.wait_empty()

    def join(
        self,
        name: str,
        *,
        on_leave: Hook | None = None,
        exist_ok: bool = False,
        since: Position | str | None = None,
        presence: Any = None,
    ) -> Membership:
        """Join the room `name`. The membership ends with the connection, if not before:

            async with ws.join("lobby") as members:     # leaving the block leaves the room
                members.broadcast("hello", exclude=ws)

        It takes effect at once. In a room with a task, with `since`, or in a room that tells who is there, something is
        left to wait for: `await ws.join(...)`, or the beginning of the block, waits for it.

        Args:
            name: the room's name.
            on_leave: `(room, ws)`, called once this connection has left the room, whatever the reason; a plain function
                or a coroutine function, within `Limits.hook_timeout`. What it raises is logged and goes to the error
                hook; the connection goes on. It is not called for a join that was waited for in vain.
            exist_ok: if it is in that room already, return that membership. It has one leave hook: the first `on_leave`
                it was given.
            since: for a client that comes back to a room with history: the position of the last message it has, or that
                position's text. It is sent what it has missed, in order, then what is said from now on, without gap or
                duplicate.
            presence: in a room with presence, the user's public info. It is sent to others as JSON. Default: what the
                user has there already, by another connection; else none.

        Returns:
            The membership: a `Room`, which `leave` and `leave_nowait` end.

        Raises:
            ConnectionClosed: the connection has ended.
            Denied: the room's guard does not let it in.
            LimitExceeded: it is in `Limits.max_rooms` rooms; or the room is full (`max_members`).
            RoomUnavailable: the room's task has failed a short while ago; there are `Limits.max_rooms_with_tasks`; or
                the server is shutting down.
            RuntimeError: it is in that room already, without `exist_ok`; or the room has no history, or no presence,
                and it is asked for.
            TypeError: `name` is not text; `on_leave` can't be called with `(room, ws)`; `since` is not a position; or
                `presence` can't be encoded.

        Waiting for it raises:
            HistoryGap: the room does not remember everything since `since`. The connection is not in the room.
            RoomUnavailable: the room's task has failed, or is not ready in time. The connection is not in the room.
            BrokerUnavailable: the broker can't be reached. The connection is not in the room.
            Denied: the connection was removed from the room, or has left it, before the join was complete.
            ConnectionClosed: the connection has ended before the join was complete.
        """
        return self._peer.join(name, on_leave, exist_ok=exist_ok, since=since, presence=presence)

    async def leave(self, name: str) -> bool:
        """Leave the room `name`, as by its membership's `leave`: its block is cancelled, and the leave hook called.
        Return whether it was in the room; if not, nothing happens.

        If cancelled, the room has been left, and the hook still has its time limit.

        Raises:
            TypeError: `name` is not text.
        """
        if (membership := self._peer.membership(name)) is not None:
            return await membership.leave()
        await trio.lowlevel.checkpoint()
        return False

    def leave_nowait(self, name: str) -> bool:
        """Leave the room `name`, as by its membership's `leave_nowait`: for hooks that are plain functions."""
        membership = self._peer.membership(name)
        return membership is not None and membership.leave_nowait()
