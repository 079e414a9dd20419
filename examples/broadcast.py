"""Broadcast: what one says, all the others hear."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import FileResponse
from starlette.staticfiles import StaticFiles

from verbtrio import App, WebSocket

PAGES = Path(__file__).parent / "pages"
app = App()


async def enter(ws: WebSocket) -> None:
    count = len(ws.route)
    await ws.send({"type": "welcome", "message": "Welcome to the chat!", "userCount": count})
    announce(ws, "A user has joined the chat", count)


def say(ws: WebSocket, data: dict[str, Any]) -> None:
    message = {"type": "message", "sender": data.get("username") or "Anonymous"}
    if "text" in data:  # JSON.stringify, too, leaves out what is not there
        message["text"] = data["text"]
    now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")  # as JavaScript has it
    ws.route.broadcast({**message, "timestamp": now}, exclude=ws)


def leave(ws: WebSocket, code: int, reason: str) -> None:
    announce(ws, "A user has left the chat", len(ws.route))


def announce(ws: WebSocket, message: str, count: int) -> None:
    ws.route.broadcast({"type": "system", "message": message, "userCount": count}, exclude=ws)


app.ws("/ws", open=enter, message=say, close=leave)


@app.get("/")
async def page(request: Request) -> FileResponse:
    return FileResponse(PAGES / "broadcast.html")


app.mount("/pages", StaticFiles(directory=PAGES))

if __name__ == "__main__":
    app.listen()
