"""What an application holds of a client that has many rooms on one connection: the `Client`, and its `Subscription`s.

@app.rooms("chat:{room}", history=History(), presence=True)
async def chat(sub: Subscription[Say], room: str) -> None:
    await sub.accept(data={"topic": "..."})
    async for said in sub:
        await sub.publish({"text": said.text})
"""

from __future__ import annotations

from collections.abc import Coroutine, Mapping
from typing import TYPE_CHECKING, Any, Protocol, cast

import trio
from msgspec import Raw
from starlette.types import Scope

from verbtrio.base.errors import ConnectionClosed, Denied
from verbtrio.base.habits import with_habits
from verbtrio.base.position import Position
from verbtrio.base.types import JSON, Data
from verbtrio.multiplex.intake import Intake
from verbtrio.multiplex.peer import ClientPeer
from verbtrio.protocols.codes import FORCE_DISCONNECT, UNSUBSCRIBED
from verbtrio.rooms.member import Member
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


class Session(Protocol):
    """What a client's facade asks of its session."""

    @property
    def nursery(self) -> trio.Nursery: ...

    @property
    def subscriptions(self) -> Mapping[str, Subscription[Any]]: ...

    async def subscribe(self, name: str, *, data: Data, presence: Any) -> Subscription[Any]: ...

    def unsubscribe(self, name: str, code: int, reason: str) -> bool: ...


@with_habits
class Client(Member):
    """One client of `app.centrifuge`. It may be in many rooms, by subscriptions.

    From Starlette's `HTTPConnection`: `url`, `headers`, `query_params`, `cookies`, `client`, `state`, `scope`, `app`.
    (`client` is the address that it has connected from.)

    Its properties may be read in any thread. Its methods raise `RuntimeError` in any thread but the one in which the
    app is served, and change nothing there.

    Attributes:
        name, version: what it says of itself: "js", "python", or whatever the SDK was told.
        transport: how it is connected: "websocket", "http_stream" or "sse".
        encoding: "json" or "protobuf".
        claims: those of its token; empty without one.
        sent_headers: what it has sent as headers within its first command, since a browser can't set a WebSocket's. Any
            client can write anything there.
    """

    _peer: ClientPeer

    def __init__(self, scope: Scope, peer: ClientPeer, session: Session) -> None:
        super().__init__(scope, peer)
        self._session = session
        self.name = ""
        self.version = ""
        self.transport = peer.carrier.name
        self.encoding = "protobuf" if peer.encoding.is_binary else "json"
        self.claims: Mapping[str, Any] = {}
        self.sent_headers: Mapping[str, str] = {}
        peer.client = self

    def __repr__(self) -> str:
        return f"<Client {self.id[:8]} {self.scope['path']!r} ({self.transport})>"

    @property
    def user(self) -> Any:
        """Who it is: its token's claims; without a token what middleware has set (`scope["user"]`); `None` for an
        anonymous client."""
        return self.claims or self.scope.get("user")

    @property
    def nursery(self) -> trio.Nursery:
        """The connection's nursery: tasks started in it are cancelled with the connection."""
        return self._session.nursery

    @property
    def subscriptions(self) -> Mapping[str, Subscription[Any]]:
        """The subscriptions that it has been let in by, and that have not ended, by the rooms' names."""
        return self._session.subscriptions

    async def send(self, data: Data) -> None:
        """Send `data` to this client alone, and wait while more than `Limits.high_water_bytes` is queued for it. (SDKs
        call it a message.)

        By the first checkpoint it is already queued: if cancelled, it is still sent.

        Raises:
            ConnectionClosed: the connection has ended.
            TypeError: `data` can't be encoded; or what the app's `encode=` hook raises.
        """
        self.send_nowait(data)
        await self._peer.wait_below(self._peer.limits.high_water_bytes)

    async def disconnect(self, code: int = FORCE_DISCONNECT, reason: str = "") -> None:
        """Close the connection. Its handlers and calls are cancelled soon after. Closing one that has ended does
        nothing. Always a checkpoint; if cancelled, it is closed all the same.

        Args:
            code: what the SDK goes by: it does not come back after 3500 to 3999 and 4500 to 4999, and connects again
                after 3000 to 3499 and 4000 to 4499. An application's own begin at 4000.
            reason: what its user is told. Default: the protocol's words for the code.

        Raises:
            ValueError: `code` or `reason` must not be sent; nothing has changed.
            TypeError: `code` is not an `int`, or `reason` not a `str`; nothing has changed.
        """
        self.close_nowait(code, reason)
        await trio.lowlevel.checkpoint()

    def close_nowait(self, code: int = FORCE_DISCONNECT, reason: str = "") -> None:
        """Close the connection, without waiting: see `disconnect`."""
        super().close_nowait(code, reason)

    async def subscribe(self, name: str, *, data: Data = None, presence: Any = None) -> Subscription[Any]:
        """Subscribe the client to a room, on the server's behalf: the client need not ask, and may not refuse. The
        room's guard and its handler still decide. It ends with the connection, if not before; a client that connects
        again is not subscribed again by this. (By a call in `app.centrifuge(connect=...)` it is: then it is told with
        the reply, and recovers what it has missed.)

        Args:
            name: the room's name.
            data: for the client: what its SDK shows as the subscription's data. A handler's `accept(data=)` takes its
                place.
            presence: as in `ws.join`.

        If cancelled before the client was told, it is not in the room.

        Raises:
            ConnectionClosed: the connection has ended.
            Denied, LimitExceeded, RoomUnavailable: the client can't be in the room, and is not. (`RoomUnavailable` also
                where the broker can't be reached, or the room's handler has failed.)
            CallError: the room's handler has raised it; the client is not in the room.
            RuntimeError: it is subscribed already; or it has not connected yet, and is not connecting.
            TypeError: `name` is not text; or `data` or `presence` can't be encoded.
            ValueError: `name` is empty, or has more than 255 bytes.
        """
        return await self._session.subscribe(name, data=data, presence=presence)

    def unsubscribe(self, name: str, *, code: int = UNSUBSCRIBED, reason: str = "") -> bool:
        """End the client's subscription to a room; return whether there was one. The client is told.

        Args:
            code: 2000 to 2499: for good. From 2500 to 2999 the SDK subscribes again.

        Raises:
            ValueError: `code` is not one of these.
        """
        return self._session.unsubscribe(name, code, reason)


class Life(Protocol):
    """What the framework keeps about a subscription."""

    nursery: trio.Nursery | None
    intake: Intake | None
    is_server_side: bool
    is_accepted: bool
    is_recovered: bool
    is_over: bool

    @property
    def name(self) -> str: ...

    @property
    def claims(self) -> Mapping[str, Any]: ...

    @property
    def data(self) -> Raw: ...

    @property
    def client(self) -> Client: ...

    @property
    def room(self) -> Room: ...

    def check(self) -> None: ...

    async def accept(self, data: Data, presence: Any) -> None: ...

    async def accept_as_given(self) -> None: ...

    async def publish(self, data: Data) -> Position | None: ...

    def send(self, data: Data) -> None: ...

    async def wait_low(self) -> None: ...

    def end(self, code: int, reason: str) -> bool: ...


@with_habits
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
        try:
            return await self.__anext__()
        except StopAsyncIteration:
            closed = self._life.client.closed
            raise Denied("The subscription has ended") if closed is None else ConnectionClosed(closed) from None

    def __aiter__(self) -> Subscription[T, U]:
        return self

    def __anext__(self) -> Coroutine[Any, Any, T]:
        """The next one; the loop ends when the subscription does."""
        life = self._life
        life.check()
        if life.intake is None:
            raise RuntimeError(f"the room {life.name!r:.100} has no handler, so nothing is received here")
        # Awaited here, it would cost a frame for each subscription.
        return life.intake.get(None if life.is_accepted else life.accept_as_given, ended=StopAsyncIteration)

    def send_nowait(self, data: Data) -> None:
        """Send `data` to this client alone, in this room: its SDK shows it as any other message there. It is not
        remembered.

        Raises:
            ConnectionClosed, Denied: the connection, or the subscription, has ended.
            RuntimeError: the client has not been let in yet: `accept` it first; or this is another thread than the one
                in which the app is served.
            TypeError: `data` can't be encoded; or what the app's `encode=` hook raises.
        """
        life = self._life
        life.check()
        if (closed := life.client.closed) is not None:
            raise ConnectionClosed(closed)
        if life.is_over:
            raise Denied("The subscription has ended")
        if not life.is_accepted:
            raise RuntimeError("the client has not been let in yet: `await sub.accept()` first")
        life.send(data)

    async def send(self, data: Data) -> None:
        """As `send_nowait`, and wait while more than `Limits.high_water_bytes` is queued for the client. By the first
        checkpoint it is already queued: if cancelled, it is still sent."""
        self.send_nowait(data)
        await self._life.wait_low()

    async def publish(self, data: Data) -> Position | None:
        """Publish `data` in the room in the client's name: as `sub.room.publish`, but others see who it is from.

        Raises:
            TypeError, BrokerUnavailable, RuntimeError: as in `Room.publish`.
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
