"""trio-websocket's own server."""

from __future__ import annotations

import trio
from trio_websocket import ConnectionClosed, WebSocketConnection, WebSocketRequest, serve_websocket

from benchmarks.servers.common import HOST, port, say

rooms: dict[str, set[WebSocketConnection]] = {"/room": set(), "/json": set()}


async def handle(request: WebSocketRequest) -> None:
    path = request.path
    ws = await request.accept()
    members = rooms.get(path, set())
    members.add(ws)
    try:
        while True:
            message = await ws.get_message()
            if path == "/echo":
                await ws.send_message(message)
                continue
            text = say(message) if path == "/json" else message
            for member in tuple(members):
                if member is not ws:
                    try:
                        await member.send_message(text)
                    except ConnectionClosed:
                        members.discard(member)
    except ConnectionClosed:
        pass
    finally:
        members.discard(ws)


if __name__ == "__main__":
    trio.run(serve_websocket, handle, HOST, port(), None)
