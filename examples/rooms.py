"""Rooms: a chat for each name in the path."""

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # for examples.page

from examples.page import add_page
from verbtrio import App, Room, WebSocket

app = App()


@app.ws("/ws/:room")
async def chat(ws: WebSocket[dict[str, Any]], room: str) -> None:
    async with ws.join(room, on_leave=announce_leave) as members:
        count = len(members)
        await ws.send({"type": "welcome", "room": room, "userCount": count})
        joined = {"type": "system", "message": "A user has joined the room", "userCount": count}
        members.broadcast(joined, exclude=ws)

        async for data in ws:
            message = {"type": "message", "sender": data.get("username") or "Anonymous"}
            if "text" in data:  # leave `text` out if the client did
                message["text"] = data["text"]
            now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")  # as JavaScript writes it
            members.broadcast({**message, "timestamp": now}, exclude=ws)


def announce_leave(members: Room, ws: WebSocket[Any]) -> None:
    left = {"type": "system", "message": "A user has left the room", "userCount": len(members)}
    members.broadcast(left)


add_page(app, __file__, chat, announce_leave)

if __name__ == "__main__":
    app.listen()
