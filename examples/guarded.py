"""Guarded: an API with tokens, limits, security headers and CORS, each of them one argument."""

import os

from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse

from verbtrio import JSON, App, Limits, WebSocket
from verbtrio.auth import JWTAuth
from verbtrio.environment import secret
from verbtrio.security import SecurityHeaders

SITE = os.environ.get("SITE", "http://localhost:5173")  # the site whose pages use the API
HOSTS = os.environ.get("HOSTS", "localhost,127.0.0.1").split(",")  # the names of this server
PROXIES = [name for name in os.environ.get("TRUSTED_PROXIES", "").split(",") if name]

auth = JWTAuth(
    secret("SECRET_KEY", demo="for the demo only: everybody can read this key"),
    issuer="guarded",
    require=["exp"],
    first_message_timeout=10,
)
app = App(
    allowed_origins=[SITE],
    trusted_proxies=PROXIES,
    limits=Limits(
        max_connections=10_000,
        max_connections_per_client=50,
        max_connections_per_user=5,
        max_messages_per_second=20,
        message_burst=40,
        max_message_bytes=16 * 1024,
    ),
    middleware=[
        Middleware(TrustedHostMiddleware, allowed_hosts=HOSTS),
        Middleware(SecurityHeaders),
        Middleware(GZipMiddleware),
    ],
)
cors = Middleware(CORSMiddleware, allow_origins=[SITE], allow_methods=["GET", "POST"], allow_headers=["Authorization"])
api = app.group("/api", middleware=[cors])


@api.post("/token")
async def token(request: Request) -> JSONResponse:
    """A real application asks for a password here, as the example auth does."""
    return JSONResponse({"token": auth.issue({"id": "guest", "roles": ["guest"]}, expires_in=900)})


@api.get("/connections", middleware=[auth.requiring(roles=["admin"])])
async def connections(request: Request) -> JSONResponse:
    return JSONResponse({"connections": app.statistics().connections})


@api.ws("/ws", middleware=[auth])
async def echo(ws: WebSocket[JSON]) -> None:
    await ws.send({"type": "welcome", "user": ws.user["id"]})
    async for data in ws:
        await ws.send({"type": "echo", "data": data})


if __name__ == "__main__":
    app.listen()
