"""A bare ASGI application, for stock hypercorn."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from benchmarks.servers.common import say

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
rooms: dict[str, set[Send]] = {"/room": set(), "/json": set()}


async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    if scope["type"] == "lifespan":
        while True:
            kind = (await receive())["type"]
            await send({"type": f"{kind}.complete"})
            if kind == "lifespan.shutdown":
                return
    if scope["type"] != "websocket":
        await send({"type": "http.response.start", "status": 404, "headers": []})
        await send({"type": "http.response.body"})
        return
    path = scope["path"]
    await receive()
    await send({"type": "websocket.accept"})
    members = rooms.get(path, set())
    if path in rooms:
        members.add(send)
    try:
        while (event := await receive())["type"] == "websocket.receive":
            text = event["text"]
            if path == "/echo":
                await send({"type": "websocket.send", "text": text})
                continue
            answer = {"type": "websocket.send", "text": say(text) if path == "/json" else text}
            for member in tuple(members):
                if member is not send:
                    await member(answer)
    finally:
        members.discard(send)
