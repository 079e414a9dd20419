"""The take-over put in the place of hypercorn's server, for as long as the application lives."""

from __future__ import annotations

import socket
import time
from typing import Any

import pytest
import trio
from hypercorn.trio import run as hypercorn_run

from tests.conftest import Servers
from verbtrio import App
from verbtrio.server.takeover.connection import TakeOverServer


async def test_it_is_undone() -> None:
    before = hypercorn_run.TCPServer  # type: ignore[attr-defined]
    async with App().lifespan():
        assert issubclass(hypercorn_run.TCPServer, TakeOverServer)  # type: ignore[attr-defined]
    assert hypercorn_run.TCPServer is before  # type: ignore[attr-defined]


async def test_http3_is_not_served_past_it() -> None:
    run: Any = hypercorn_run
    before = run.UDPServer
    async with App().lifespan(), App().lifespan():
        with pytest.raises(RuntimeError, match="does not take HTTP/3 over: leave out `quic_bind`"):
            run.UDPServer(None, None, None, {}, None)
    assert run.UDPServer is before


async def test_switched_off() -> None:
    before = hypercorn_run.TCPServer  # type: ignore[attr-defined]
    async with App(take_over=False).lifespan():
        assert hypercorn_run.TCPServer is before  # type: ignore[attr-defined]


async def test_http2_offers_websockets_only_when_asked_to(servers: Servers) -> None:
    offered = {}
    for app in ("tests.apps.http2:app", "tests.apps.recorder:app"):
        server = servers.get(app)
        preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\x04\0\0\0\0\0"  # and empty SETTINGS
        with socket.create_connection(("127.0.0.1", server.port), 5) as sock:
            sock.sendall(preface)
            await trio.to_thread.run_sync(time.sleep, 0.2)
            settings = sock.recv(65536)
        offered[app] = b"\0\x08\0\0\0\x01" in settings  # SETTINGS_ENABLE_CONNECT_PROTOCOL = 1 (RFC 8441 section 3)
    assert offered == {"tests.apps.http2:app": True, "tests.apps.recorder:app": False}
