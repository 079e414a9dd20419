"""What the framework keeps about one WebSocket connection: its queues, its rooms, its phase, and how it ended.

Handlers hold the connection's facade, a `WebSocket`. Whatever ends a connection does so through `WebSocketPeer.end`.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from contextvars import ContextVar
from dataclasses import replace
from functools import partial
from typing import Any, Generic, Protocol, TypeVar
from weakref import ref

import trio

from verbtrio.base.calls import Calls
from verbtrio.base.close import CANCEL_GRACE, PEERS_ENDS, POLICY_VIOLATION, Cause, CloseInfo, check_close
from verbtrio.base.errors import ConnectionClosed, LimitExceeded, MessageError
from verbtrio.base.limits import Limits
from verbtrio.base.position import Position
from verbtrio.base.types import Hook, ReadyState
from verbtrio.connection.answers import error_answer, ref_in
from verbtrio.connection.dialect import Dialect, closing, ended
from verbtrio.connection.inbox import Inbox
from verbtrio.connection.membership import Membership, Memberships
from verbtrio.connection.outbox import Outbox
from verbtrio.messages.decoder import Decoder
from verbtrio.messages.frame import Frame, encode
from verbtrio.rooms.local import Rooms
from verbtrio.rooms.member import Member
from verbtrio.rooms.room import check_name
from verbtrio.wire.transport import Close, Transport

T = TypeVar("T")

handled_by: ContextVar[ref[Member] | None] = ContextVar("handled_by", default=None)
"""The connection whose handler is running: in its task, in those it starts, and in hooks that are called in place."""


class Owner(Protocol):
    """What tells of the connection's end: its life. (A callback would be 64 bytes more for each connection.)"""

    def ended(self) -> None:
        """The connection has begun to end, and its Close frame is on its way."""


class WebSocketPeer(Generic[T]):
    """One connection, as the framework knows it. All its methods are synchronous.

    Attributes:
        ws: the facade, a `WebSocket`, whose constructor sets this; where there is a `dialect`, what that has instead.
            (It is typed `Any`: its module imports this one.)
        phase: how far the connection has got. It never goes back.
        closed: how it ended; set with the phase CLOSING (a moment later where a `dialect` has last words), never
            changed.
        dialect: the protocol that its messages are of; `None` on plain routes.
        nursery: the handler's; `None` before the handler starts.
        outbox: set when the connection opens.
    """

    __slots__ = (
        "_dismissed",
        "_owner",
        "_refused",
        "check",
        "closed",
        "decoder",
        "dialect",
        "encode",
        "inbox",
        "limits",
        "memberships",
        "nursery",
        "outbox",
        "phase",
        "rooms",
        "sent",
        "transport",
        "ws",
    )

    ws: Any
    outbox: Outbox

    def __init__(self, transport: Transport, rooms: Rooms, limits: Limits, decoder: Decoder[T]) -> None:
        self.transport = transport
        self.rooms = rooms
        self.check = rooms.check
        self.encode = rooms.encode
        self.limits = limits
        self.decoder = decoder
        self.inbox = Inbox(max_messages=limits.max_inbox_messages, max_bytes=limits.max_inbox_bytes)
        self.memberships = Memberships(self, rooms, limits.hook_timeout)
        self.nursery: trio.Nursery | None = None
        self.phase = ReadyState.CONNECTING
        self.closed: CloseInfo | None = None
        self.dialect: Dialect | None = None
        self.sent = 0
        self._owner: Owner
        self._refused = 0  # messages that were not what the handler takes
        self._dismissed: CloseInfo | None = None  # how it will end: set by a kick from `ws.route` or `app.connections`

    def __repr__(self) -> str:
        return repr(self.ws)

    def open(self, outbox: Outbox, calls: Calls, owner: Owner) -> None:
        """The handshake is done.

        Args:
            calls: calls its leave hooks.
            owner: told of its end.
        """
        self.outbox = outbox
        self.memberships.calls = calls
        self._owner = owner
        self.phase = ReadyState.OPEN

    @property
    def outlet(self) -> Outbox:
        """What rooms hand their frames to."""
        return self.outbox

    @property
    def dropped(self) -> int:
        """Messages dropped or replaced by `Limits.backlog_policy`, or late by their `ttl`."""
        return 0 if self.phase is ReadyState.CONNECTING else self.outbox.dropped

    def drop(self, messages: int) -> None:
        """See `Outbox.drop`."""
        self.outbox.drop(messages)

    def put(self, frame: Frame) -> Outbox:
        """Write `frame`, or queue it.

        Raises:
            ConnectionClosed: the connection has ended.
            RuntimeError: called in another thread than the app's.
        """
        self.check()
        if self.closed is not None:
            raise ConnectionClosed(self.closed)
        self.outbox.put_nowait(frame)
        return self.outbox

    @property
    def queued(self) -> int:
        """Bytes that are queued."""
        return self.outbox.size

    async def wait_below(self, size: int) -> None:
        """Wait while more than so many bytes are queued, and can be written. Always a checkpoint."""
        await self.outbox.wait_below(size)

    def answer_error(self, text: str, ref: Any) -> None:
        """Answer a message with an error message. `ref`: that message's (see `ref_in`)."""
        if self.closed is None:
            self.put(encode(error_answer(text, ref)))

    def refuse(self, error: MessageError, message: str | bytes) -> None:
        """Answer a message that is not what the handler takes; end the connection if there were too many."""
        if self.closed is not None:
            return
        self.answer_error(str(error), ref_in(message))
        self._refused += 1
        self.outbox.counters.invalid += 1
        if self.limits.max_bad_messages is not None and self._refused > self.limits.max_bad_messages:
            self.end(CloseInfo(Cause.INVALID, POLICY_VIOLATION, "Too many invalid messages"))

    # Rooms

    def join(
        self, name: str, on_leave: Hook | None, *, exist_ok: bool, since: Position | str | None, presence: Any
    ) -> Membership:
        """See `WebSocket.join`."""
        self.check()
        check_name(name)
        if self.closed is not None:
            raise ConnectionClosed(self.closed)
        if name in self.memberships:
            if not exist_ok:
                raise RuntimeError(f"this connection is in the room {name!r} already: exist_ok=True allows for that")
        elif self.limits.max_rooms is not None and len(self.memberships) >= self.limits.max_rooms:
            raise LimitExceeded(f"Too many rooms: at most {self.limits.max_rooms}")
        return self.memberships.join(name, on_leave, since, presence)

    def membership(self, name: str) -> Membership | None:
        """Its membership in the room `name`, if it is in it."""
        self.check()
        check_name(name)
        return self.memberships.get(name)

    def gap_in(self, key: Hashable) -> bool:
        """Nothing: what the client is told is up to the application (`on_gap` of `app.rooms`)."""
        return False

    def dismiss(self, key: Hashable, info: CloseInfo) -> Callable[[], object]:
        """The connection was removed from the room `key`. If that was its route's, or that of all connections, it
        ends."""
        if isinstance(key, str):
            return self.memberships.dismiss(key, info)
        self._dismissed = info
        return partial(self.end, info)

    # The end

    def close(self, code: int, reason: str) -> None:
        """Close on the application's behalf: called by its own handler or hooks (`CLOSED`) or by other code (`KICKED`).

        Raises:
            ValueError, TypeError: `code` or `reason` must not be sent; nothing has changed.
        """
        self.check()
        check_close(code, reason)
        mine = handled_by.get()
        self.end(CloseInfo(Cause.KICKED if mine is None or mine() is not self.ws else Cause.CLOSED, code, reason))

    def end(self, info: CloseInfo, *, is_reported: bool = False) -> None:
        """End the connection; the first call decides how. It leaves all rooms and lists at once, is not counted any
        more, and its Close frame is queued after everything sent before.

        The handler is cancelled `CANCEL_GRACE` later.

        Args:
            is_reported: the transport has reported the end, and has answered it where there is an answer.
        """
        if self.closed is not None or self.phase is ReadyState.CLOSING:  # the latter: in the middle of `closing`
            return
        if self._dismissed is not None and info.cause not in PEERS_ENDS:
            info = replace(self._dismissed, exception=info.exception)  # the kick came first
        is_open, self.phase = self.phase is ReadyState.OPEN, ReadyState.CLOSING
        if is_open and self.dialect is not None and not is_reported and info.cause not in PEERS_ENDS:
            info = closing(self.dialect, info)
        self.closed = info
        self.inbox.close(discard=info.cause not in PEERS_ENDS)
        if is_open:
            if info.cause is Cause.SLOW:
                self.outbox.clear()  # a peer that does not read has no use for more of the same
            if info.cause is not Cause.GONE:
                self.outbox.put_nowait(Close(info.code, info.reason))
            if self.dialect is not None:
                ended(self.dialect, info)
            self.memberships.leave_all()
            self._owner.ended()
        if self.nursery is not None:
            scope = self.nursery.cancel_scope
            scope.deadline = min(scope.deadline, trio.current_time() + CANCEL_GRACE)

    def over(self) -> None:
        """The connection is gone."""
        self.phase = ReadyState.CLOSED
