"""verbtrio with everything on: typed JSON, heartbeat, limits, metrics. Coroutines; under `/hooks` plain functions."""

from __future__ import annotations

import msgspec

from benchmarks.servers.common import heartbeat, now
from verbtrio import App, Heartbeat, Limits, WebSocket
from verbtrio.metrics import metrics

interval = heartbeat() or 20.0
# Limits that count every message and every connection, and that a benchmark does not reach.
limits = Limits(
    max_messages_per_second=1_000_000,
    message_burst=1_000_000,
    max_bad_messages=10,
    max_connections=100_000,
    max_connections_per_client=100_000,
)
app = App(heartbeat=Heartbeat(interval=interval, timeout=2 * interval), limits=limits)
app.get("/metrics")(metrics(app))


class Say(msgspec.Struct):
    text: str


class Talk(msgspec.Struct):
    text: str
    username: str = "Anonymous"


class Said(msgspec.Struct, tag_field="type", tag="message"):
    sender: str
    text: str
    timestamp: str


@app.ws("/echo")
async def echo(ws: WebSocket[Say]) -> None:
    async for message in ws:
        await ws.send(message)


@app.ws("/room")
async def room(ws: WebSocket[Say]) -> None:
    async with ws.join("room") as members:
        async for message in ws:
            members.broadcast(message, exclude=ws)


@app.ws("/json")
async def rooms_sample(ws: WebSocket[Talk]) -> None:
    async with ws.join("json") as members:
        async for message in ws:
            members.broadcast(Said(message.username, message.text, now()), exclude=ws)


def hook_echo(ws: WebSocket, message: Say) -> None:
    ws.send_nowait(message)


def hook_open(ws: WebSocket) -> None:
    ws.join("hooks-room")


def hook_room(ws: WebSocket, message: Say) -> None:
    app.room("hooks-room").broadcast(message, exclude=ws)


def hook_json_open(ws: WebSocket) -> None:
    ws.join("hooks-json")


def hook_json(ws: WebSocket, message: Talk) -> None:
    app.room("hooks-json").broadcast(Said(message.username, message.text, now()), exclude=ws)


app.ws("/hooks/echo", message=hook_echo)
app.ws("/hooks/room", open=hook_open, message=hook_room)
app.ws("/hooks/json", open=hook_json_open, message=hook_json)
