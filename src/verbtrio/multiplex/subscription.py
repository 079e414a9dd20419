"""What the handler of a room holds of one client's subscription to it: `Subscription`.

    @app.rooms("chat:{room}", history=History(), presence=True)
    async def chat(sub: Subscription[Say], room: str) -> None:
        await sub.accept(data={"topic": "..."})
        async for said in sub:
            await sub.publish({"text": said.text})
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol, cast

import trio
from msgspec import Raw

from verbtrio.base.errors import ConnectionClosed, Denied
from verbtrio.base.position import Position
from verbtrio.base.types import JSON, Data
from verbtrio.multiplex.client import Client
from verbtrio.protocols.codes import UNSUBSCRIBED
from verbtrio.rooms.room import Room

if TYPE_CHECKING:
    from typing import Generic

    from typing_extensions import TypeVar

    T = TypeVar("T", default=JSON)
    U = TypeVar("U", default=Any)
else:
    from types import GenericAlias
    from typing import Generic, TypeVar

    T = TypeVar("T")
    U = TypeVar("U")


class Intake:
    """What a client has published and the handler has not taken. One task puts, one task gets.

    Args:
        max_messages, max_bytes: full at so many.
    """

    __slots__ = ("_bytes", "_is_closed", "_max_bytes", "_max_messages", "_messages", "_waiter")

    def __init__(self, max_messages: int, max_bytes: int) -> None:
        self._max_messages = max_messages
        self._max_bytes = max_bytes
        self._messages: deque[tuple[Any, int]] = deque()
        self._bytes = 0
        self._is_closed = False
        self._waiter: trio.lowlevel.Task | None = None

    @property
    def is_closed(self) -> bool:
        return self._is_closed

    @property
    def is_full(self) -> bool:
        return len(self._messages) >= self._max_messages or self._bytes >= self._max_bytes

    def put(self, message: Any, size: int) -> None:
        """Add a message. Once this is closed, it is thrown away."""
        if self._is_closed:
            return
        self._messages.append((message, size))
        self._bytes += size
        self._wake()

    async def get(self) -> Any:
        """Wait for a message. If cancelled, none is lost.

        Raises:
            trio.EndOfChannel: this is closed, and empty.
            trio.BusyResourceError: another task waits.
        """
        if self._messages:
            await trio.lowlevel.checkpoint()
        else:
            await trio.lowlevel.checkpoint_if_cancelled()
        while not self._messages:
            if self._is_closed:
                raise trio.EndOfChannel
            if self._waiter is not None:
                raise trio.BusyResourceError("another task receives from this subscription: only one may at a time")
            self._waiter = trio.lowlevel.current_task()
            await trio.lowlevel.wait_task_rescheduled(self._stop_waiting)
        message, size = self._messages.popleft()
        self._bytes -= size
        return message

    def close(self, *, discard: bool) -> None:
        """No more messages. With `discard`, those that wait are thrown away."""
        self._is_closed = True
        if discard:
            self._messages.clear()
            self._bytes = 0
        self._wake()

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None:
            trio.lowlevel.reschedule(waiter)

    def _stop_waiting(self, _: Any) -> trio.lowlevel.Abort:
        self._waiter = None
        return trio.lowlevel.Abort.SUCCEEDED


class Life(Protocol):
    """What the framework keeps about a subscription."""

    name: str
    claims: Mapping[str, Any]
    data: Raw
    nursery: trio.Nursery | None
    intake: Intake
    is_server_side: bool
    is_accepted: bool
    is_recovered: bool

    @property
    def is_over(self) -> bool: ...

    @property
    def client(self) -> Client: ...

    @property
    def room(self) -> Room: ...

    async def accept(self, data: Data, presence: Any) -> None: ...

    async def accept_as_given(self) -> None: ...

    async def publish(self, data: Data) -> Position | None: ...

    def end(self, code: int, reason: str) -> bool: ...


class Subscription(Generic[T, U]):
    """One client's subscription to one room. `T` is the type of what the client may publish in it (default: any JSON
    value); `U` that of its `user`, for the type checker alone.

    It lasts from the client's subscribe to its unsubscribe, whatever ends it; then its nursery is cancelled 100 ms
    later. What the client has published before is still received within that time.
    """

    __slots__ = ("_life",)

    if not TYPE_CHECKING:  # `typing.Generic` knows no defaults before Python 3.13: it would want both
        __class_getitem__ = classmethod(GenericAlias)

    def __init__(self, life: Life) -> None:
        self._life = life

    def __repr__(self) -> str:
        state = "ended" if self._life.is_over else "accepted" if self._life.is_accepted else "not accepted yet"
        return f"<Subscription {self._life.name!r:.100} of {self._life.client!r} ({state})>"

    @property
    def name(self) -> str:
        """The room's name."""
        return self._life.name

    @property
    def client(self) -> Client:
        return self._life.client

    @property
    def user(self) -> U:
        """The client's: see `Client.user`. Its type is what the annotation says: nothing checks it."""
        return cast("U", self._life.client.user)

    @property
    def room(self) -> Room:
        """The room, for all that is done in it: `broadcast`, `publish`, `history`, `presence`."""
        return self._life.room

    @property
    def claims(self) -> Mapping[str, Any]:
        """Those of the subscription's own token; empty without one."""
        return self._life.claims

    @property
    def data(self) -> bytes:
        """What the client has sent with its subscribe, as it came: JSON, or any bytes from a Protobuf client. Empty
        without any."""
        return bytes(self._life.data)

    @property
    def nursery(self) -> trio.Nursery:
        """The subscription's nursery: tasks started in it are cancelled with the subscription."""
        if self._life.nursery is None:
            raise AttributeError("a subscription's nursery is open while its handler runs: use it there")
        return self._life.nursery

    @property
    def is_server_side(self) -> bool:
        """Whether the server has subscribed the client: its token, or `client.subscribe`."""
        return self._life.is_server_side

    @property
    def is_accepted(self) -> bool:
        return self._life.is_accepted

    @property
    def is_over(self) -> bool:
        """Whether it has ended."""
        return self._life.is_over

    @property
    def is_recovered(self) -> bool:
        """Whether the client came back, and has been sent everything that it had missed. Known once it is accepted."""
        return self._life.is_recovered

    async def accept(self, *, data: Data = None, presence: Any = None) -> None:
        """Let the client in: it is told so, and receives what is said in the room from now on, behind what it has
        missed if it comes back. Without this, it is let in when the handler first receives, or returns.

        If cancelled, the client has not been let in.

        Args:
            data: for the client: its SDK shows it as the subscription's data.
            presence: in a room with presence, the client's public info. Default: the `info` of the subscription's
                token, else of the connection's.

        Raises:
            RuntimeError: it has been accepted already.
            ConnectionClosed, Denied: the client has gone, or does not want the subscription any more.
            BrokerUnavailable: the broker can't be reached.
            TypeError: `data` or `presence` can't be encoded.
        """
        await self._life.accept(data, presence)

    async def receive(self) -> T:
        """Wait for what the client publishes; accept the client first, if that has not been done. What is not of the
        type `T` has been answered with an error (107), and is not received. If cancelled, nothing is lost.

        Raises:
            ConnectionClosed: the connection has ended, and everything has been received.
            Denied: the subscription has ended otherwise, and everything has been received.
            trio.BusyResourceError: another task receives.
        """
        if not self._life.is_accepted:
            await self._life.accept_as_given()
        try:
            return cast("T", await self._life.intake.get())
        except trio.EndOfChannel:
            closed = self._life.client.closed
            raise Denied("The subscription has ended") if closed is None else ConnectionClosed(closed) from None

    def __aiter__(self) -> Subscription[T, U]:
        return self

    async def __anext__(self) -> T:
        """The next one; the loop ends when the subscription does."""
        if not self._life.is_accepted:
            await self._life.accept_as_given()
        try:
            return cast("T", await self._life.intake.get())
        except trio.EndOfChannel:
            raise StopAsyncIteration from None

    async def publish(self, data: Data) -> Position | None:
        """Publish `data` in the room in the client's name: as `sub.room.publish`, but others see who it is from.

        Raises:
            TypeError, BrokerUnavailable, RuntimeError: as in `Room.publish`. Nothing was published.
        """
        return await self._life.publish(data)

    async def unsubscribe(self, code: int = UNSUBSCRIBED, reason: str = "") -> None:
        """End the subscription; the client is told. Its handler is cancelled 100 ms later. One that has ended stays as
        it is. Always a checkpoint; if cancelled, it has ended all the same.

        Args:
            code: 2000 to 2499: for good. From 2500 to 2999 the SDK subscribes again.

        Raises:
            ValueError: `code` is not one of these.
        """
        self._life.end(code, reason)
        await trio.lowlevel.checkpoint()
