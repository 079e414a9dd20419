"""What a client's session does for the application: what the facade, `Client`, asks of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import trio

from verbtrio.base.errors import ConnectionClosed
from verbtrio.base.types import Data
from verbtrio.multiplex.admission import Admission
from verbtrio.multiplex.client import Client, Subscription
from verbtrio.multiplex.peer import ClientPeer
from verbtrio.multiplex.server_side import subscribe_client
from verbtrio.multiplex.settings import App
from verbtrio.multiplex.subscriptions import Subscriptions


class ApplicationSide:
    """A `ClientSession`, as far as applications reach it. See `Client` for what its methods do.

    Args:
        peer: the client's.
        app: the app's parts.
        subscriptions: the client's.
        admission: the client's, until it is in.
    """

    __slots__ = ("_admission", "_app", "_nursery", "_peer", "_subscriptions")

    def __init__(self, peer: ClientPeer, app: App, subscriptions: Subscriptions, admission: Admission) -> None:
        self._peer = peer
        self._app = app
        self._subscriptions = subscriptions
        self._admission: Admission | None = admission
        self._nursery: trio.Nursery | None = None

    @property
    def client(self) -> Client:
        client: Client = self._peer.client
        return client

    @property
    def nursery(self) -> trio.Nursery:
        if self._nursery is None:
            raise AttributeError("a client's nursery is opened when it connects: use it from there on")
        return self._nursery

    @property
    def subscriptions(self) -> Mapping[str, Subscription[Any]]:
        return {life.name: Subscription(life) for life in self._subscriptions.lives() if life.is_accepted}

    async def subscribe(self, name: str, *, data: Data, presence: Any) -> Subscription[Any]:
        """See `Client.subscribe`."""
        self._app.rooms.check()
        if (closed := self._peer.closed) is not None:
            raise ConnectionClosed(closed)
        if self._admission is not None:
            if self._admission.is_asking:
                return await self._admission.subscribe(name, data, presence)
            raise RuntimeError("the client has not connected yet: subscribe it in `connect=`, or in a call")
        return await subscribe_client(self._peer, self._subscriptions, name, data, presence)

    def unsubscribe(self, name: str, code: int, reason: str) -> bool:
        """See `Client.unsubscribe`."""
        self._app.rooms.check()
        return self._subscriptions.end(name, code, reason)
