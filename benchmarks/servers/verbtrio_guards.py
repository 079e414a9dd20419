"""verbtrio's bare echo with every guard on: tokens, origins, proxies, limits, security headers."""

from __future__ import annotations

from typing import Any

from starlette.middleware import Middleware
from starlette.requests import HTTPConnection
from starlette.responses import Response

from benchmarks.servers.common import heartbeat
from verbtrio import App, Heartbeat, Limits, WebSocket
from verbtrio.auth import JWTAuth
from verbtrio.middleware import CallNext
from verbtrio.security import CSRFProtection, SecurityHeaders

auth = JWTAuth("a secret of thirty-two bytes, or more", issuer="benchmark", require=["exp"])
HEADERS = [
    (b"authorization", b"Bearer " + auth.issue({"id": 1}, expires_in=86_400).encode()),
    (b"x-forwarded-for", b"192.0.2.1"),
]


async def headed(request: HTTPConnection, call_next: CallNext) -> Response:
    """Adds what the load generator does not send."""
    origin = b"http://" + request.headers["host"].encode()
    request.scope["headers"] = [*request.scope["headers"], *HEADERS, (b"origin", origin)]
    return await call_next(request)


interval = heartbeat() or 20.0
app = App(
    heartbeat=Heartbeat(interval=interval, timeout=2 * interval),
    trusted_proxies=["127.0.0.1"],
    limits=Limits(
        max_connections=100_000,
        max_connections_per_client=100_000,
        max_connections_per_user=100_000,
        max_messages_per_second=1_000_000,
        message_burst=1_000_000,
        max_bad_messages=10,
    ),
    middleware=[headed, Middleware(SecurityHeaders), Middleware(CSRFProtection), auth],
)


@app.ws("/echo")
async def echo(ws: WebSocket) -> None:
    async for message in ws:
        await ws.send(message)


def hook_echo(ws: WebSocket, message: Any) -> None:
    ws.send_nowait(message)


app.ws("/hooks/echo", message=hook_echo)
