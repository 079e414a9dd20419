"""The WebSocket of an `app.centrifuge` endpoint, as an ASGI application."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from verbtrio.connection.handler import Handler
from verbtrio.connection.handler_kinds import HandlerKind
from verbtrio.connection.lifecycle import Connection
from verbtrio.connection.peer import WebSocketPeer
from verbtrio.guards.quotas import Slot
from verbtrio.hub.hub import Hub
from verbtrio.messages.decoder import Decoder
from verbtrio.multiplex.settings import ClientSettings
from verbtrio.multiplex.websocket import ClientHandler
from verbtrio.protocols.encoding import Encoding
from verbtrio.protocols.json_encoding import JSON
from verbtrio.routes.settings import RouteSettings
from verbtrio.routes.websocket_route import WebSocketEndpoint


class ClientEndpoint(WebSocketEndpoint):
    """Lets clients of the Centrifuge protocol in.

    Args:
        path: the endpoint's, without what is added to it: the name of the room of all its clients.
        hub: gives the app's hub; raises `NotRunning` outside the app's lifespan.
        settings: the route's.
        clients: the endpoint's.
        encodings: by their subprotocols; a client that offers none of them speaks JSON.
    """

    is_described = False

    def __init__(
        self,
        path: str,
        hub: Callable[[], Hub],
        settings: RouteSettings,
        clients: ClientSettings,
        encodings: Mapping[str, Encoding],
    ) -> None:
        kind: HandlerKind = HandlerKind(lambda params: Handler(), Decoder(str | bytes), "centrifuge")
        super().__init__(path, kind, hub, settings, subprotocols=tuple(encodings))
        self._clients = clients
        self._encodings = encodings

    def _connection(self, peer: WebSocketPeer[Any], handler: Handler, slot: Slot, hub: Hub) -> Connection:
        encoding = self._encodings.get(peer.ws.subprotocol or "", JSON)
        return Connection(peer, ClientHandler(peer, encoding, hub, self._clients, slot), None, slot)
