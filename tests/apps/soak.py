"""What the soak is run against: rooms, echoes, failures, and nothing that is remembered."""

import os
import sys
from typing import Any

import trio
import trio.testing
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from tests.apps.recorder import resident_bytes
from verbtrio import App, Heartbeat, Limits, WebSocket

app = App(limits=Limits(max_message_bytes=65536, send_timeout=3, close_timeout=2), heartbeat=Heartbeat(2, 4))


@app.ws("/room/:name", compression=True)
async def room(ws: WebSocket[str], name: str) -> None:
    """What one says, all hear; "raise" fails, "leave" leaves."""
    async with ws.join(name) as members:
        async for message in ws:
            if message == "raise":
                raise ValueError("on purpose")
            if message == "leave":
                break
            members.broadcast(message)
    async for message in ws:
        await ws.send(message)


@app.ws("/task")
async def task(ws: WebSocket) -> None:
    """Starts tasks in its nursery."""
    for _ in range(3):
        ws.nursery.start_soon(trio.sleep_forever)
    async for message in ws:
        await ws.send(message)


@app.get("/left")
async def left(request: Request) -> Response:
    """What the worker holds: once all tasks have come to rest, if they do."""
    with trio.move_on_after(0.2):
        await trio.testing.wait_all_tasks_blocked()
    statistics = app.statistics()
    held: dict[str, Any] = {
        "connections": statistics.connections,
        "rooms": statistics.rooms,
        "sessions": len(app._running_hub()._drain.sessions),
        "tasks": trio.lowlevel.current_statistics().tasks_living,
        "memory": resident_bytes(),
        "blocks": sys.getallocatedblocks(),  # live objects, more or less: what the memory is in use for, if at all
        "pid": os.getpid(),
        "descriptors": len(os.listdir("/proc/self/fd")),
    }
    return JSONResponse(held)
