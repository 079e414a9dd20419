"""What a handler holds: one connection, to send, receive, join rooms and close."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Awaitable, Callable, Coroutine, Hashable
from contextvars import ContextVar
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, cast
from weakref import ref

import trio
from starlette.requests import HTTPConnection
from starlette.types import Scope

from verbtrio.base.calls import Calls
from verbtrio.base.close import (
    CANCEL_GRACE,
    NORMAL_CLOSURE,
    PEERS_ENDS,
    POLICY_VIOLATION,
    Cause,
    CloseInfo,
    check_close,
)
from verbtrio.base.errors import ConnectionClosed, LimitExceeded, MessageError
from verbtrio.base.limits import Limits
from verbtrio.base.mistakes import with_habits
from verbtrio.base.types import Data, Hook, ReadyState
from verbtrio.connection.answers import error_answer, is_message, ref_in, with_ref
from verbtrio.connection.inbox import Inbox
from verbtrio.connection.membership import Membership, Memberships
from verbtrio.connection.outbox import Outbox
from verbtrio.messages.decoder import Decoder
from verbtrio.messages.frame import Frame, encode
from verbtrio.rooms.local import Room, Rooms, check_name
from verbtrio.rooms.member import Outlet
from verbtrio.wire.transport import Close, Transport

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    T = TypeVar("T", default=str | bytes)
    U = TypeVar("U", default=Any)
else:
    from types import GenericAlias
    from typing import TypeVar

    T = TypeVar("T")
    U = TypeVar("U")

logger = logging.getLogger("verbtrio.websocket")

PATIENCE = 16
"""`send` gives way to other tasks at every so manieth message, if it has no need to wait."""

handled_by: ContextVar[ref[WebSocket[Any]] | None] = ContextVar("handled_by", default=None)
"""Whose handler is at work: in its task, in those it starts, and in hooks that are called in place."""


@with_habits
class WebSocket(HTTPConnection, Generic[T, U]):
    """One connection. `T` is what it receives: see `Decoder`; without it, text and bytes as they come. `U` is what its
    `user` is, for the type checker alone: `WebSocket[Say, Claims]`; without it, `Any`.

    From Starlette's `HTTPConnection`: `url`, `headers`, `query_params`, `cookies`, `client`, `state`, `scope`, `app`.

    Its properties may be read in any thread. Its methods, and a membership's, raise `RuntimeError` in any other than
    the one in which the app is served (see `threads`), and change nothing there.

    Attributes:
        user: what the authentication has found out (`JWTAuth`: the token's claims), else `None`.
        nursery: the connection's nursery: tasks started in it are cancelled with the connection.
        subprotocol: what was agreed on in the handshake (over plain ASGI: what the route itself has chosen).
    """

    nursery: trio.Nursery
    _id: str
    _dismissed: CloseInfo | None = None
    """How it is to end, since somebody has removed it from a room that it is in for as long as it lives."""

    if not TYPE_CHECKING:  # `typing.Generic` knows no defaults before Python 3.13: it would want both
        __class_getitem__ = classmethod(GenericAlias)

    def __init__(
        self,
        scope: Scope,
        transport: Transport,
        rooms: Rooms,
        limits: Limits,
        decoder: Decoder[T],
        *,
        subprotocol: str | None = None,
    ) -> None:
        super().__init__(scope)
        self.subprotocol = subprotocol
        self._transport = transport
        self._rooms = rooms
        self._limits = limits
        self._decoder = decoder
        self._refused = 0  # messages that were not what it takes
        self._inbox = Inbox(max_messages=limits.max_inbox_messages, max_bytes=limits.max_inbox_bytes)
        self._outbox: Outbox | None = None  # there is one while the connection lives
        self._memberships = Memberships(self, rooms, limits.hook_timeout)
        self._on_end: Callable[[], None]
        self._info: CloseInfo | None = None
        self._over = False
        self._sent = 0

    def __repr__(self) -> str:
        return f"<WebSocket {self.id[:8]} {self.scope['path']!r} {self.ready_state.name}>"

    @property
    def id(self) -> str:
        """Unique among all connections of all processes."""
        try:
            return self._id
        except AttributeError:  # made by one step: another thread may ask, too, and there is one answer
            made: str = vars(self).setdefault("_id", uuid.uuid4().hex)
            return made

    @property
    def params(self) -> dict[str, Any]:
        """The path's parameters: `"/ws/:room"` gives `ws.params["room"]`."""
        params: dict[str, Any] = self.scope.get("path_params", {})
        return params

    @property
    def user(self) -> U:
        """Who it is: `scope["user"]`, set by middleware (`JWTAuth`, Starlette's `AuthenticationMiddleware`, yours).

        `None` without one. Its type is the handler's word (`WebSocket[Say, Claims]`): nothing checks it.
        """
        return cast("U", self.scope.get("user"))

    @property
    def ready_state(self) -> ReadyState:
        if self._over:
            return ReadyState.CLOSED
        if self._info is not None:
            return ReadyState.CLOSING
        return ReadyState.CONNECTING if self._outbox is None else ReadyState.OPEN

    @property
    def closed(self) -> CloseInfo | None:
        """How the connection ended; `None` while it is open."""
        return self._info

    @property
    def rooms(self) -> frozenset[str]:
        """The names of the rooms it is in."""
        return self._memberships.names

    @property
    def route(self) -> Room:
        """Everybody connected to this route, this connection included: for broadcasts."""
        return self._rooms.room(self.scope["verbtrio.route"])

    @property
    def dropped(self) -> int:
        """Messages that `Limits.backlog_policy` has dropped because the peer reads too slowly."""
        return 0 if self._outbox is None else self._outbox.dropped

    def send_nowait(self, data: Data) -> None:
        """Send `data` (see `encode`), or queue it where the peer reads slowly. For hooks that are plain functions.

        Raises:
            ConnectionClosed: the connection has ended.
            TypeError: `data` can't be encoded; or what the app's `encode=` hook raises.
        """
        self._put(self._rooms.encode(data))

    async def send(self, data: Data) -> None:
        """Send `data` (see `encode`), and wait while more than `Limits.high_water_bytes` is queued for the peer.

        The message is on its way, in its place behind what was sent before, when the first checkpoint comes: if
        cancelled, it is still sent, whole. Others have their turn at every 16th message at the latest.

        Raises:
            ConnectionClosed: the connection has ended, before or while waiting.
            TypeError: `data` can't be encoded; or what the app's `encode=` hook raises.
        """
        outbox = self._put(self._rooms.encode(data))
        self._sent += 1
        if outbox.is_low and self._sent % PATIENCE:
            await trio.lowlevel.checkpoint_if_cancelled()
        else:
            await outbox.wait_low()
        if self._info is not None:
            raise ConnectionClosed(self._info)

    async def receive(self) -> T:
        """Wait for a message. One that is not what `T` says is answered with an error message and skipped.

        What arrived before the peer ended the connection is still received; nothing is after the server has. If
        cancelled, no message is lost.

        Raises:
            ConnectionClosed: the connection has ended and there are no more messages.
            trio.BusyResourceError: another task receives: one can. (The first may hand over to another one, which then
                has the connection to itself until it ends.)
        """
        self._rooms.check()
        while (message := await self._inbox.get()) is not None:
            try:
                return self._decoder(message)
            except MessageError as error:
                self._refuse(error, message)
        assert self._info is not None, "the inbox is closed by the connection's end alone"
        raise ConnectionClosed(self._info)

    def __aiter__(self) -> WebSocket[T, U]:
        return self

    async def __anext__(self) -> T:
        """The next message; the loop ends when the connection does."""
        # Not by `receive`: a coroutine more on the stack of every connection that waits, 0.2 KB.
        self._rooms.check()
        while (message := await self._inbox.get()) is not None:
            try:
                return self._decoder(message)
            except MessageError as error:
                self._refuse(error, message)
        raise StopAsyncIteration

    async def close(self, code: int = NORMAL_CLOSURE, reason: str = "") -> None:
        """Close the connection, and wait until what was sent before is with the peer's system.

        The handler is cancelled shortly after (`CANCEL_GRACE`); the rest of the closing handshake is the framework's.
        Closing a connection that has ended does nothing. If cancelled, it is closed all the same.

        Raises:
            ValueError: `code` or `reason` must not be sent; nothing has changed.
            TypeError: `code` is no `int`, or `reason` no `str`; nothing has changed.
        """
        self.close_nowait(code, reason)
        await trio.lowlevel.checkpoint()
        if self._outbox is not None:
            await self._outbox.wait_empty()

    def close_nowait(self, code: int = NORMAL_CLOSURE, reason: str = "") -> None:
        """Close the connection, without waiting. See `close`."""
        self._rooms.check()
        check_close(code, reason)
        mine = handled_by.get()
        self._end(CloseInfo(Cause.KICKED if mine is None or mine() is not self else Cause.CLOSED, code, reason))

    def join(self, name: str, *, on_leave: Hook | None = None, exist_ok: bool = False) -> Membership:
        """Join the room `name`, now. The membership ends with the connection, if not before:

            async with ws.join("lobby") as members:     # leaving the block leaves the room
                members.broadcast("hello", exclude=ws)

        Args:
            name: the room's name.
            on_leave: `(room, ws)`, called once this connection has left the room, whatever the reason; a plain function
                or a coroutine function, within `Limits.hook_timeout`. What it raises is logged and goes to the error
                hook; the connection goes on.
            exist_ok: where it is in that room already, give the membership there is. That has one leave hook: the first
                `on_leave` it was given.

        Returns:
            The membership: a `Room`, which `leave` and `leave_nowait` end.

        Raises:
            ConnectionClosed: the connection has ended.
            LimitExceeded: it is in `Limits.max_rooms` rooms.
            RuntimeError: it is in that room already, without `exist_ok`.
            TypeError: `name` is no text, or `on_leave` can't be called with `(room, ws)`.
        """
        self._rooms.check()
        check_name(name)
        if self._info is not None:
            raise ConnectionClosed(self._info)
        if name in self._memberships:
            if not exist_ok:
                raise RuntimeError(f"this connection is in the room {name!r} already: exist_ok=True allows for that")
        elif self._limits.max_rooms is not None and len(self._memberships) >= self._limits.max_rooms:
            raise LimitExceeded(f"Too many rooms: at most {self._limits.max_rooms}")
        return self._memberships.join(name, on_leave)

    async def leave(self, name: str) -> bool:
        """Leave the room `name`, as by its membership's `leave`: its block is cancelled, the leave hook called.

        Returns whether it was in the room; if not, nothing happens.

        If cancelled, it has left, and the hook still has its time limit.

        Raises:
            TypeError: `name` is no text.
        """
        if (membership := self._membership(name)) is not None:
            return await membership.leave()
        await trio.lowlevel.checkpoint()
        return False

    def leave_nowait(self, name: str) -> bool:
        """Leave the room `name`, as by its membership's `leave_nowait`: for hooks that are plain functions."""
        membership = self._membership(name)
        return membership is not None and membership.leave_nowait()

    def _membership(self, name: str) -> Membership | None:
        self._rooms.check()
        check_name(name)
        return self._memberships.get(name)

    @property
    def outlet(self) -> Outlet:
        """For rooms (see `rooms.Member`)."""
        assert self._outbox is not None, "who is in a room is open"
        return self._outbox

    def _dismiss(self, key: Hashable, info: CloseInfo) -> Callable[[], object]:
        """For rooms (see `rooms.Member`). Its route's, and everybody's, it is in for as long as it lives."""
        if isinstance(key, str):
            return self._memberships.dismiss(key, info)
        self._dismissed = info
        return partial(self._end, info)

    def _open(self, outbox: Outbox, calls: Calls, on_end: Callable[[], None]) -> None:
        """From now on there is a peer.

        Args:
            calls: calls its leave hooks.
            on_end: called when the connection has begun to end, and its Close frame is on its way.
        """
        self._outbox = outbox
        self._memberships.calls = calls
        self._on_end = on_end

    def _serve(self, hook: Callable[[WebSocket[T, U], T], Any]) -> Awaitable[None]:
        """Call `hook` for each message, in place where that can be (see `Inbox.serve`)."""

        def handle(message: str | bytes) -> Any:
            try:
                decoded = self._decoder(message)
            except MessageError as error:
                self._refuse(error, message)
                return None
            result = hook(self, decoded)
            return None if result is None else self._answer(result, decoded)

        return self._inbox.serve(handle)

    def _answer(self, result: Any, message: Any = None) -> Coroutine[Any, Any, None] | None:
        """Send what a hook has returned, or return what awaits that and sends what it comes to.

        Who has gone is sent nothing: the messages that it has left are still to be handled.
        """
        if hasattr(result, "__await__"):
            return self._answer_later(result, message)
        if self._info is None and is_message(result):
            self._put(self._rooms.encode(with_ref(result, message)))
        return None

    async def _answer_later(self, hook: Awaitable[Any], message: Any) -> None:
        result = await hook
        if result is not None:
            await self._reply(result, message)

    async def _reply(self, result: Any, message: Any) -> None:
        """Send what a hook has returned, as `send` does: wait while the peer reads too slowly."""
        if self._info is None and is_message(result):
            try:
                await self.send(with_ref(result, message))
            except ConnectionClosed:
                pass  # its own end, which the loop over its messages sees

    def _refuse(self, error: MessageError, message: str | bytes) -> None:
        """Answer a message that is not what the handler takes."""
        if self._info is not None:
            return
        self._put(encode(error_answer(str(error), ref_in(message))))
        self._refused += 1
        if self._outbox is not None:
            self._outbox.counters.invalid += 1
        if self._limits.max_bad_messages is not None and self._refused > self._limits.max_bad_messages:
            self._end(CloseInfo(Cause.INVALID, POLICY_VIOLATION, "Too many invalid messages"))

    def _put(self, frame: Frame) -> Outbox:
        self._rooms.check()
        if self._info is not None:
            raise ConnectionClosed(self._info)
        assert self._outbox is not None, "handlers and hooks run while the connection's nursery is open"
        self._outbox.put_nowait(frame)
        return self._outbox

    def _end(self, info: CloseInfo) -> None:
        """The connection ends: the first call decides how. Synchronous: whoever runs next finds it in no room, no list
        and no count any more, and its Close frame behind all that it was sent."""
        if self._info is not None:
            return
        if self._dismissed is not None and info.cause not in PEERS_ENDS:
            info = replace(self._dismissed, exception=info.exception)  # it was decided then
        self._info = info
        self._inbox.close(discard=info.cause not in PEERS_ENDS)
        if self._outbox is not None:
            if info.cause is Cause.SLOW:
                self._outbox.clear()  # a peer that does not read has no use for more of the same
            if info.cause is not Cause.GONE:
                self._outbox.put_nowait(Close(info.code, info.reason))
            self._memberships.leave_all()
            self._on_end()
        if hasattr(self, "nursery"):
            scope = self.nursery.cancel_scope
            scope.deadline = min(scope.deadline, trio.current_time() + CANCEL_GRACE)
