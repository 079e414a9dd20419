"""verbtrio's rooms with settings. Below `/history` messages are published and remembered; below `/presence` they are
broadcast in a room that knows who is there; below `/both` a room has both. The other paths are for `scale`."""

from __future__ import annotations

import itertools

import trio

from benchmarks.servers.common import heartbeat
from verbtrio import App, Heartbeat, History, Limits, WebSocket

interval = heartbeat()
app = App(
    heartbeat=Heartbeat(interval=interval, timeout=2 * interval) if interval else Heartbeat(),
    limits=Limits(max_history_bytes=1024**3),  # what a message costs is to be seen, not that it is bounded
)
app.rooms("history", history=History())
app.rooms("presence", presence=True)
app.rooms("both", history=History(), presence=True)


async def publish(ws: WebSocket, name: str) -> None:
    async with ws.join(name) as room:
        async for message in ws:
            await room.publish(message)


@app.ws("/history/room")
async def history(ws: WebSocket) -> None:
    await publish(ws, "history")


@app.ws("/both/room")
async def both(ws: WebSocket) -> None:
    await publish(ws, "both")


@app.ws("/presence/room")
async def presence(ws: WebSocket) -> None:
    async with ws.join("presence") as room:
        async for message in ws:
            room.broadcast(message, exclude=ws)


# For `scale`

MANY = 1_000_000
app.rooms("remembered", history=History(size=MANY))


@app.ws("/remembered")
async def remembered(ws: WebSocket) -> None:
    """Everything is remembered."""
    await publish(ws, "remembered")


async def attend(room: object, *, task_status: trio.TaskStatus[None]) -> None:
    task_status.started()
    await trio.sleep_forever()


app.rooms("full:{number}", history=History(ttl=1.0), presence=True, max_members=2)
app.room_task("full:{number}", linger=0)(attend)
numbers = itertools.count()


@app.ws("/come-and-go/:kind")
async def come_and_go(ws: WebSocket, kind: str) -> None:
    """For each message there is a room, with all settings ("full") or none: the client comes, says it, hears it, and
    goes."""
    async for message in ws:
        async with ws.join(f"{kind}:{next(numbers)}") as room:
            await room.publish(message)
