"""Sessions: log in to get a cookie, and connect with it. No other site's page can connect or change anything.

The cookie is signed, so it can't be forged; but a signed cookie can't be revoked. So it only names a session, and the
server knows which sessions are open: after a logout, the old cookie lets nobody in.

Needs itsdangerous: pip install "verbtrio[sessions]".
"""

import hmac
import secrets
import sys
from pathlib import Path
from typing import Any

import msgspec
import trio
from starlette.middleware import Middleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

sys.path.insert(0, str(Path(__file__).parents[1]))  # for examples.page

from examples.page import add_page
from verbtrio import App, WebSocket
from verbtrio.environment import is_production, secret
from verbtrio.middleware import CallNext
from verbtrio.security import CSRFProtection, SecurityHeaders

ACCOUNTS = {"ada": "password", "bob": "password"}  # a real application has a database, and hashes
KEY = secret("SECRET_KEY", demo="for the demo only: everybody can read this key")
SECONDS = 3600
"""How long a session lasts, from its login."""
MAX_SESSIONS = 5
"""For one account. A further login ends the oldest."""


class Sessions:
    """The open sessions, in this worker's memory. With several workers they belong in the database."""

    def __init__(self) -> None:
        self._ends: dict[str, dict[str, float]] = {}  # Trio's time, by account and session, the oldest first

    def begin(self, username: str) -> str:
        """Open a session; return its name, which nobody can guess."""
        sessions = self._ends.setdefault(username, {})
        if len(sessions) >= MAX_SESSIONS:
            del sessions[next(iter(sessions))]
        name = secrets.token_urlsafe()
        sessions[name] = trio.current_time() + SECONDS
        return name

    def end(self, username: str, name: str) -> float | None:
        """When the session ends, in Trio's time, or `None` if it is over."""
        end = self._ends.get(username, {}).get(name)
        return None if end is None or end <= trio.current_time() else end

    def close(self, username: str, name: str) -> None:
        """Close one session of the account. It may be closed already."""
        self._ends.get(username, {}).pop(name, None)

    def close_all(self, username: str) -> None:
        """Close every session of the account, on all devices."""
        self._ends.pop(username, None)


sessions = Sessions()


def end_of_session(request: HTTPConnection) -> float | None:
    return sessions.end(request.session.get("username", ""), request.session.get("name", ""))


async def remember(request: HTTPConnection, call_next: CallNext) -> Response:
    """Set the user that the session belongs to, for routes, `ws.user` and `app.users`."""
    if end_of_session(request) is not None:
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
        Middleware(SessionMiddleware, secret_key=KEY, max_age=SECONDS, https_only=is_production()),
        remember,
    ],
)


def is_right(name: str, password: str) -> bool:
    right = ACCOUNTS.get(name)
    return right is not None and hmac.compare_digest(right.encode(), password.encode())


@app.post("/login")
async def login(request: Request) -> Response:
    try:
        body = msgspec.json.decode(await request.body(), type=dict[str, Any])
    except (msgspec.DecodeError, RecursionError, UnicodeError):
        return JSONResponse({"error": "The body must be a JSON object"}, 400)
    name, password = body.get("username"), body.get("password")
    if not isinstance(name, str) or not isinstance(password, str) or not is_right(name, password):
        return JSONResponse({"error": "Invalid credentials"}, 401)
    sessions.close(request.session.get("username", ""), request.session.get("name", ""))
    request.session.clear()  # keep nothing of whoever was logged in before
    request.session.update(username=name, name=sessions.begin(name))
    return JSONResponse({"username": name})


@app.post("/logout", middleware=[only_users])
async def logout(request: Request) -> Response:
    """Log the user out everywhere: earlier cookies no longer count, and all connections are closed."""
    sessions.close_all(request.user["id"])
    request.session.clear()
    closed = await app.users.disconnect(request.user["id"], reason="Logged out")
    return JSONResponse({"closed": closed})


@app.ws("/ws", middleware=[only_users])  # with a session, a handshake needs our Origin
async def chat(ws: WebSocket[dict[str, Any]]) -> None:
    end = end_of_session(ws)  # again: a logout may have come during the handshake
    if end is not None:
        with trio.move_on_at(end):
            await ws.send({"type": "welcome", "message": f"Welcome, {ws.user['id']}!"})
            async for data in ws:
                ws.route.broadcast({"type": "message", "sender": ws.user["id"], "text": str(data.get("text", ""))})
    await ws.close(4401, "Session expired")  # does nothing if it is closed already


add_page(app, __file__, logout, chat)

if __name__ == "__main__":
    app.listen()
