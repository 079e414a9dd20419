"""verbtrio with a Trio instrument that watches how long the loop is held; `/held` tells what it saw."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import trio

from verbtrio import App, WebSocket


class Watch(trio.abc.Instrument):
    """The longest step of a task, and the longest time between two looks at the sockets. Seconds, since `reset`."""

    def __init__(self) -> None:
        self._step = self._turn = time.perf_counter()
        self.reset()

    def reset(self) -> None:
        self.longest_step = self.longest_turn = 0.0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self._step = time.perf_counter()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        self.longest_step = max(self.longest_step, time.perf_counter() - self._step)

    def after_io_wait(self, timeout: float) -> None:
        self._turn = time.perf_counter()

    def before_io_wait(self, timeout: float) -> None:
        self.longest_turn = max(self.longest_turn, time.perf_counter() - self._turn)


watch = Watch()


@asynccontextmanager
async def watched(app: Any) -> AsyncIterator[None]:
    trio.lowlevel.add_instrument(watch)
    try:
        yield
    finally:
        trio.lowlevel.remove_instrument(watch)


app = App(lifespan=watched)


@app.ws("/room")
async def room(ws: WebSocket) -> None:
    async with ws.join("room") as members:
        async for message in ws:
            members.broadcast(message, exclude=ws)


@app.ws("/held")
async def held(ws: WebSocket) -> None:
    async for _ in ws:
        await ws.send({"step": watch.longest_step, "turn": watch.longest_turn})
        watch.reset()
