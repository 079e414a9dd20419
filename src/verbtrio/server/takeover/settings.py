"""The settings of one application's take-over, and how a connection finds them."""

from __future__ import annotations

from dataclasses import dataclass, field

from verbtrio.base.limits import Limits
from verbtrio.base.types import Shared
from verbtrio.connection.heartbeat import Heartbeat
from verbtrio.guards.proxies import TrustedProxies
from verbtrio.server.host import Host
from verbtrio.server.takeover.clients import Clients

STATE_KEY = "verbtrio.take_over"
"""Where the lifespan's state carries the `TakeOverSettings` to the connections of its own server."""


@dataclass(slots=True)
class TakeOverSettings(Shared):
    """The settings of one application's take-over."""

    host: Host
    limits: Limits
    proxies: TrustedProxies
    http2_websockets: bool
    heartbeat: Heartbeat | None
    http2_cleartext: bool
    clients: Clients = field(init=False)

    def __post_init__(self) -> None:
        self.clients = Clients(self.limits.max_tcp_connections_per_client, self.proxies)
