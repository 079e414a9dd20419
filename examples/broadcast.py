"""Broadcast: what one client says, all the others hear."""

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # for examples.page

from examples.page import add_page
from verbtrio import App, WebSocket

app = App()


@app.ws("/ws")
class Chat:
    async def open(self, ws: WebSocket) -> None:
        count = len(ws.route)
        await ws.send({"type": "welcome", "message": "Welcome to the chat!", "userCount": count})
        self.announce(ws, "A user has joined the chat", count)

    def message(self, ws: WebSocket, data: dict[str, Any]) -> None:
        message = {"type": "message", "sender": data.get("username") or "Anonymous"}
        if "text" in data:  # JSON.stringify, too, leaves out what is not there
            message["text"] = data["text"]
        now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")  # as JavaScript writes it
        ws.route.broadcast({**message, "timestamp": now}, exclude=ws)

    def close(self, ws: WebSocket, code: int, reason: str) -> None:
        self.announce(ws, "A user has left the chat", len(ws.route))

    def announce(self, ws: WebSocket, message: str, count: int) -> None:
        ws.route.broadcast({"type": "system", "message": message, "userCount": count}, exclude=ws)


add_page(app, __file__, Chat)

if __name__ == "__main__":
    app.listen()
