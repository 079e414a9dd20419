"""Authentication: log in over HTTP, connect with the token, send direct messages."""

import hmac
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

sys.path.insert(0, str(Path(__file__).parents[1]))  # for examples.page

from examples.page import add_page
from verbtrio import App, WebSocket
from verbtrio.auth import JWTAuth
from verbtrio.environment import secret

ACCOUNTS = {"admin": (1, "password"), "guest": (2, "password")}  # a real application has a database, and hashes
app = App(max_body_size=64 * 1024)
auth = JWTAuth(secret("SECRET_KEY", demo="for the demo only: everybody can read this key"), require=["exp"])


def is_right(name: str, password: str) -> bool:
    return name in ACCOUNTS and hmac.compare_digest(ACCOUNTS[name][1].encode(), password.encode())


@app.post("/login")
async def login(request: Request) -> Response:
    try:
        body = msgspec.json.decode(await request.body(), type=dict[str, Any])
    except (msgspec.DecodeError, RecursionError, UnicodeError):
        return JSONResponse({"error": "The body must be a JSON object"}, 400)
    match body:
        case {"username": str(name), "password": str(password)} if is_right(name, password):
            return JSONResponse({"token": auth.issue({"id": ACCOUNTS[name][0], "username": name}, expires_in=3600)})
    return JSONResponse({"error": "Invalid credentials"}, 401)


@app.ws("/ws", middleware=[auth])
class Chat:
    async def open(self, ws: WebSocket) -> None:
        await ws.send({"type": "welcome", "message": f"Welcome, {ws.user['username']}!", "user": ws.user})

    async def message(self, ws: WebSocket, data: dict[str, Any]) -> None:
        now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")  # as JavaScript writes it
        said = {"text": data["text"], "timestamp": now} if "text" in data else {"timestamp": now}
        message = {"from": ws.user["id"], "fromUsername": ws.user["username"], **said}
        to = data.get("to")
        if data.get("type") != "direct" or not to:
            ws.route.broadcast({"type": "message", **message}, exclude=ws)
        elif await app.users.send(to, {"type": "direct", **message}):
            await ws.send({"type": "sent", "to": to, **said})
        else:
            await ws.send({"type": "error", "message": "Recipient not found or not connected"})


add_page(app, __file__, Chat, login)

if __name__ == "__main__":
    app.listen()
