"""Sessions: log in for a cookie, connect with it. Nothing is written across sites, and no other site's page connects.

Needs itsdangerous: pip install "verbtrio[sessions]".
"""

import hmac
from pathlib import Path
from typing import Any

import msgspec
from starlette.middleware import Middleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response
from starlette.staticfiles import StaticFiles

from verbtrio import App, WebSocket
from verbtrio.environment import is_production, secret
from verbtrio.middleware import CallNext
from verbtrio.security import CSRFProtection, SecurityHeaders

PAGES = Path(__file__).parent / "pages"
ACCOUNTS = {"ada": "password", "bob": "password"}  # a real application has a database, and hashes
KEY = secret("SECRET_KEY", demo="for the demo only: everybody can read this key")


async def remember(request: HTTPConnection, call_next: CallNext) -> Response:
    """Who the session's cookie says it is, for routes, `ws.user` and `app.users`."""
    if "username" in request.session:
        request.scope["user"] = {"id": request.session["username"]}
    return await call_next(request)


async def only_users(request: HTTPConnection, call_next: CallNext) -> Response:
    return await call_next(request) if request.scope.get("user") else PlainTextResponse("Unauthorized", 401)


app = App(
    max_body_size=64 * 1024,
    middleware=[
        Middleware(SecurityHeaders),
        Middleware(CSRFProtection),
        # HttpOnly, SameSite=Lax, signed; with Secure where there is TLS
        Middleware(SessionMiddleware, secret_key=KEY, max_age=3600, https_only=is_production()),
        remember,
    ],
)


@app.post("/login")
async def login(request: Request) -> Response:
    try:
        body = msgspec.json.decode(await request.body(), type=dict[str, Any])
    except (msgspec.DecodeError, RecursionError, UnicodeError):
        return JSONResponse({"error": "The body must be a JSON object"}, 400)
    name, password = body.get("username"), body.get("password")
    right = ACCOUNTS.get(name) if isinstance(name, str) else None
    if right is None or not isinstance(password, str) or not hmac.compare_digest(right.encode(), password.encode()):
        return JSONResponse({"error": "Invalid credentials"}, 401)
    request.session.clear()  # nothing of who was here before
    request.session["username"] = name
    return JSONResponse({"username": name})


@app.post("/logout", middleware=[only_users])
async def logout(request: Request) -> Response:
    request.session.clear()
    closed = app.users.disconnect(request.user["id"], reason="Logged out")
    return JSONResponse({"closed": closed})


@app.ws("/ws", middleware=[only_users])  # a session in the scope: so the handshake must have an Origin, ours
async def chat(ws: WebSocket[dict[str, Any]]) -> None:
    await ws.send({"type": "welcome", "message": f"Welcome, {ws.user['id']}!"})
    async for data in ws:
        ws.route.broadcast({"type": "message", "sender": ws.user["id"], "text": str(data.get("text", ""))})


@app.get("/")
async def page(request: Request) -> FileResponse:
    return FileResponse(PAGES / "sessions.html")


app.mount("/pages", StaticFiles(directory=PAGES))

if __name__ == "__main__":
    app.listen()
