"""quart-trio, on hypercorn."""

from __future__ import annotations

from typing import Any

from quart import websocket
from quart_trio import QuartTrio

from benchmarks.servers.common import say

app = QuartTrio(__name__)
rooms: dict[str, set[Any]] = {"room": set(), "json": set()}


@app.websocket("/echo")
async def echo() -> None:
    while True:
        await websocket.send(await websocket.receive())


async def talk(name: str) -> None:
    members, me = rooms[name], websocket._get_current_object()
    members.add(me)
    try:
        while True:
            text = await websocket.receive()
            if name == "json":
                text = say(text)
            for member in tuple(members):
                if member is not me:
                    await member.send(text)
    finally:
        members.discard(me)


@app.websocket("/room")
async def room() -> None:
    await talk("room")


@app.websocket("/json")
async def json() -> None:
    await talk("json")
