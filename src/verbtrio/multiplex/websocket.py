"""A client on a WebSocket: the connection's handler is its session."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from verbtrio.connection.handler import Handler
from verbtrio.connection.peer import WebSocketPeer
from verbtrio.guards.quotas import Slot
from verbtrio.multiplex.carrier import WebSocketCarrier
from verbtrio.multiplex.client import Client
from verbtrio.multiplex.peer import ClientPeer
from verbtrio.multiplex.session import ClientSession
from verbtrio.multiplex.settings import App, ClientSettings
from verbtrio.protocols.encoding import Encoding


class ClientHandler(Handler):
    """What a connection runs whose messages are commands.

    Args:
        peer: the connection.
        encoding: the one that was agreed on.
        app: the app's parts.
        settings: the endpoint's.
        slot: its place in the connection counts.
    """

    __slots__ = ("_session",)

    def __init__(
        self, peer: WebSocketPeer[Any], encoding: Encoding, app: App, settings: ClientSettings, slot: Slot
    ) -> None:
        client = ClientPeer(WebSocketCarrier(peer), encoding, app.rooms)
        self._session = ClientSession(client, app, settings, slot, peer.inbox)
        peer.ws = Client(peer.ws.scope, client, self._session)  # nobody holds the `WebSocket`
        peer.dialect = client

    def run(self, peer: WebSocketPeer[Any]) -> Coroutine[Any, Any, None]:
        """See `ClientSession.run`. (Awaited here, it would cost a frame for each connection.)"""
        assert peer.nursery is not None, "a handler runs in its connection's nursery"
        return self._session.run(peer.nursery)
