"""The ASGI application behind a WebSocket route: from the upgrade request to the connection's life."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import trio
from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from verbtrio.base.errors import NotRunning
from verbtrio.base.types import EXTENSION, Shared
from verbtrio.connection.handler import Handler
from verbtrio.connection.handler_kinds import HandlerKind
from verbtrio.connection.lifecycle import Connection
from verbtrio.connection.parameters import ParameterError
from verbtrio.connection.peer import WebSocketPeer
from verbtrio.connection.websocket import WebSocket
from verbtrio.guards.middleware import deny
from verbtrio.guards.origin import server_origin
from verbtrio.guards.quotas import Denial, Slot, client_key, user_key
from verbtrio.guards.refusals import MAX_SHOWN, Refusals
from verbtrio.hub.hub import Hub
from verbtrio.routes.settings import RouteSettings
from verbtrio.server.unwind import nobody_waits
from verbtrio.wire.asgi_transport import ASGITransport
from verbtrio.wire.transport import Transport

if TYPE_CHECKING:
    from verbtrio.server.session import Session

logger = logging.getLogger("verbtrio.endpoint")


class WebSocketEndpoint(Shared):
    """One route's WebSocket, as an ASGI application.

    Args:
        path: the route's path; its name among the rooms of everybody connected to it.
        kind: the handler.
        hub: gives the app's hub; raises `NotRunning` outside the app's lifespan.
        settings: the route's.
        subprotocols: what the route speaks, in its order of preference.
        sends, description: for the AsyncAPI document.
    """

    is_described = True
    """Whether the AsyncAPI document has it: whether its messages are the handler's own."""

    def __init__(
        self,
        path: str,
        kind: HandlerKind,
        hub: Callable[[], Hub],
        settings: RouteSettings,
        *,
        subprotocols: Sequence[str],
        sends: Any = None,
        description: str | None = None,
    ) -> None:
        self._room = ("verbtrio", "route", path)
        self._kind = kind
        self._hub = hub
        self._origins = settings.origins
        self._refusals = Refusals(logger)
        self._limits = settings.limits
        self._quotas = settings.quotas
        self._heartbeat = settings.heartbeat
        self._compression = settings.compression
        self._subprotocols = tuple(subprotocols)
        self.receives = kind.decoder.kind
        self.sends = sends
        self.description = description
        self.__name__ = kind.name  # what Starlette names the route by

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer the upgrade request, then run the connection until nothing of it is left."""
        try:
            hub = self._hub()
        except NotRunning as error:
            logger.error("%s", error)
            await deny(PlainTextResponse("Internal Server Error", 500), scope, receive, send)
            return
        if hub.draining:
            response = PlainTextResponse("Service Unavailable", 503, headers={"Retry-After": "1"})
            await deny(response, scope, receive, send)
            return
        if (reason := self._refusal(scope)) is not None:
            self._refusals.tell(f"the upgrade of {scope['path'][:MAX_SHOWN]!r} is refused: {reason}")
            await deny(PlainTextResponse("Forbidden", 403), scope, receive, send)
            return
        try:
            # A class that can't be made is answered with 500, not with a broken WebSocket.
            handler = self._kind.make(scope.get("path_params", {}))
        except ParameterError as error:
            logger.info("the upgrade of %r is refused: %s", scope["path"][:MAX_SHOWN], error)
            await deny(PlainTextResponse("Not Found", 404), scope, receive, send)
            return
        slot = Slot(hub.quotas, *self._quotas)
        client, user = client_key(scope.get("client")), user_key(scope.get("user"))
        full = slot.take(trio.current_time(), client=client, user=user)
        if full is not None:
            logger.info("the upgrade of %r is refused: %s", scope["path"][:MAX_SHOWN], full.message)
            await deny(no_slot(full), scope, receive, send)
            return
        connection: Connection | None = None
        try:
            peer = await self._accept(scope, receive, send, hub)
            if peer is not None:
                connection = self._connection(peer, handler, slot, hub)
        finally:
            if connection is None:
                slot.leave(trio.current_time())
        if connection is None:
            return
        session: Session | None = scope["extensions"].get(EXTENSION) if "extensions" in scope else None
        if session is not None and nobody_waits():
            session.remain = partial(connection.run, hub)
        else:
            await connection.run(hub)

    def _connection(self, peer: WebSocketPeer[Any], handler: Handler, slot: Slot, hub: Hub) -> Connection:
        """The connection of a peer that has been let in."""
        return Connection(peer, handler, self._heartbeat, slot)

    def _refusal(self, scope: Scope) -> str | None:
        """Why the page that asks may not come in; `None` where it may."""
        headers = Headers(scope=scope)
        hosts = headers.getlist("host")
        own = server_origin(scope.get("scheme", "ws"), hosts[0]) if len(hosts) == 1 else None
        return self._origins.refusal(headers.getlist("origin"), own, session="session" in scope)

    async def _accept(self, scope: Scope, receive: Receive, send: Send, hub: Hub) -> WebSocketPeer[Any] | None:
        """Grant the upgrade, through whatever middleware is around us; `None` where the peer has left."""
        session: Session | None = scope.get("extensions", {}).get(EXTENSION)
        if session is not None:
            session.configure(self._limits, compression=self._compression)
        offered = scope.get("subprotocols", ())
        subprotocol = next((name for name in self._subprotocols if name in offered), None)
        await receive()  # websocket.connect
        try:
            await send({"type": "websocket.accept", "subprotocol": subprotocol, "headers": []})
        except OSError:
            return None
        transport: Transport
        if session is None:
            transport = ASGITransport(receive, send, max_message_bytes=self._limits.max_message_bytes)
        else:
            transport = session.take()
            subprotocol = session.subprotocol  # middleware may have answered the offer
            hub.watch(session.terminated)
        scope["verbtrio.route"] = self._room
        peer = WebSocketPeer(transport, hub.rooms, self._limits, self._kind.decoder)
        WebSocket(scope, peer, subprotocol=subprotocol)
        return peer


def no_slot(full: Denial) -> PlainTextResponse:
    """The answer to a client for whom there is no room: why, and when to try again."""
    return PlainTextResponse(full.message, full.status, headers={"Retry-After": str(full.retry_after)})
