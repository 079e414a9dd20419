"""Puts the take-over's server in the place of hypercorn's.

hypercorn's `worker_serve` looks up `TCPServer` after the application's startup. `take_over` puts a subclass there for
as long as the application lives.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from hypercorn.trio import run as hypercorn_run
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.udp_server import UDPServer

from verbtrio.server.takeover.connection import TakeOverServer
from verbtrio.server.takeover.logs import limiting_accept_errors
from verbtrio.server.takeover.settings import STATE_KEY, TakeOverSettings


@contextmanager
def take_over(settings: TakeOverSettings) -> Iterator[dict[str, Any]]:
    """Take WebSocket connections over while the block is entered. Yields what belongs in the lifespan's state.

    An application that wraps our lifespan in its own may lose the state. Then the settings that were installed last
    hold. The caller has checked that hypercorn has what `contract.check.TAKE_OVER` lists.
    """
    _quiet_hpack()
    subclass: Any = type("TakeOverServer", (TakeOverServer,), {"last_settings": settings})
    run: Any = hypercorn_run  # hypercorn exports nothing on purpose
    run.TCPServer, run.UDPServer = subclass, _refuse_quic
    try:
        with limiting_accept_errors():
            yield {STATE_KEY: settings}
    finally:
        if run.TCPServer is subclass:
            run.TCPServer, run.UDPServer = TCPServer, UDPServer


def _refuse_quic(*_: Any) -> Any:
    """In the place of hypercorn's server for HTTP/3, whose WebSockets would be hypercorn's own and without limits."""
    raise RuntimeError(
        "verbtrio does not take HTTP/3 over: leave out `quic_bind`, or let a reverse proxy speak HTTP/3 to clients"
    )


def _quiet_hpack() -> None:
    """Keep hpack from logging every header with its value at DEBUG, tokens and cookies included. A level that is
    already set stays."""
    log = logging.getLogger("hpack")
    if log.level == logging.NOTSET:
        log.setLevel(logging.INFO)
