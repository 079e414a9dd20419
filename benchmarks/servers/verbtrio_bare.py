"""verbtrio with its defaults, as coroutines (`/echo`) and as plain functions (`/hooks/echo`): `hypercorn -k trio`."""

from __future__ import annotations

from typing import Any

from benchmarks.servers.common import heartbeat, now
from verbtrio import App, Heartbeat, Limits, WebSocket

interval = heartbeat()
app = App(heartbeat=Heartbeat(interval=interval, timeout=2 * interval)) if interval else App()


@app.ws("/echo")
async def echo(ws: WebSocket) -> None:
    async for message in ws:
        await ws.send(message)


@app.ws("/limited", limits=Limits(max_messages_per_second=50, message_burst=100))
async def limited(ws: WebSocket) -> None:
    async for message in ws:
        await ws.send(message)


@app.ws("/room")
async def room(ws: WebSocket) -> None:
    async with ws.join("room") as members:
        async for message in ws:
            members.broadcast(message, exclude=ws)


@app.ws("/join")
async def join(ws: WebSocket) -> None:
    """An echo, for which a room comes and goes."""
    async for message in ws:
        async with ws.join("join"):
            await ws.send(message)


@app.ws("/rooms/:name")
async def named_room(ws: WebSocket, name: str) -> None:
    async with ws.join(name) as members:
        async for message in ws:
            members.broadcast(message, exclude=ws)


@app.ws("/json")
async def rooms_sample(ws: WebSocket[dict[str, Any]]) -> None:
    async with ws.join("json") as members:
        async for message in ws:
            members.broadcast(said(message), exclude=ws)


def said(message: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "message",
        "sender": message.get("username") or "Anonymous",
        "text": message.get("text"),
        "timestamp": now(),
    }


def hook_echo(ws: WebSocket, message: str | bytes) -> None:
    ws.send_nowait(message)


def hook_open(ws: WebSocket) -> None:
    ws.join("hooks-room")


def hook_room(ws: WebSocket, message: str | bytes) -> None:
    app.room("hooks-room").broadcast(message, exclude=ws)


def hook_json_open(ws: WebSocket) -> None:
    ws.join("hooks-json")


def hook_json(ws: WebSocket, message: dict[str, Any]) -> None:
    app.room("hooks-json").broadcast(said(message), exclude=ws)


app.ws("/hooks/echo", message=hook_echo)
app.ws("/hooks/room", open=hook_open, message=hook_room)
app.ws("/hooks/json", open=hook_json_open, message=hook_json)
