"""What an application holds of a client that has many rooms on one connection."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

import trio
from starlette.types import Scope

from verbtrio.base.types import Data
from verbtrio.multiplex.peer import ClientPeer
from verbtrio.protocols.codes import FORCE_DISCONNECT, UNSUBSCRIBED
from verbtrio.rooms.member import Member

if TYPE_CHECKING:
    from verbtrio.multiplex.subscription import Subscription


class Session(Protocol):
    """What a client's facade asks of its session."""

    @property
    def nursery(self) -> trio.Nursery: ...

    @property
    def subscriptions(self) -> Mapping[str, Subscription[Any]]: ...

    async def subscribe(self, name: str, *, data: Data, presence: Any) -> Subscription[Any]: ...

    def unsubscribe(self, name: str, code: int, reason: str) -> bool: ...


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
        """Its subscriptions now, by the rooms' names."""
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
        again is not subscribed again by this.

        Args:
            name: the room's name.
            data: for the client: what its SDK shows as the subscription's data.
            presence: as in `ws.join`.

        If cancelled before the client was told, it is not in the room.

        Raises:
            ConnectionClosed: the connection has ended.
            Denied, LimitExceeded, RoomUnavailable, BrokerUnavailable: the client can't be in the room, and is not.
            RuntimeError: it is subscribed already; or it has not connected yet.
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
