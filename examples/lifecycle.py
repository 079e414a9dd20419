"""Lifecycle: a handler that fails ends only its own connection, what it held is given back, and figures show it all."""

import logging
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import trio
from starlette.requests import Request
from starlette.responses import JSONResponse

sys.path.insert(0, str(Path(__file__).parents[1]))  # for examples.page

from examples.page import add_page
from verbtrio import App, WebSocket

log = logging.getLogger("lifecycle")


class Full(Exception):  # noqa: N818 -- a state
    """No seat is free."""


class Seats:
    """A scarce resource: the seats at a table."""

    def __init__(self, free: int) -> None:
        self.free = free

    @asynccontextmanager
    async def taken(self) -> AsyncIterator[int]:
        """Hold one seat until the block is left: at its end, by an error, or by the connection's cancellation."""
        if not self.free:
            raise Full("No seat is free")
        self.free -= 1
        try:
            yield self.free
        finally:
            self.free += 1


seats = Seats(4)
app = App()


@app.ws("/ws")
async def table(ws: WebSocket[dict[str, Any]]) -> None:
    try:
        async with seats.taken() as left, ws.join("table") as members:
            await ws.send({"type": "welcome", "seatsLeft": left})
            ws.nursery.start_soon(remind, ws)  # it ends with the connection
            async for message in ws:
                try:
                    members.broadcast({"type": "result", "value": 100 / message["divisor"]})
                except (KeyError, TypeError, ArithmeticError) as error:  # expected: the client is told
                    await ws.send({"type": "error", "message": f"that can't be computed: {error!r}"})
    except Full as error:
        await ws.close(1013, str(error))
    # Any other exception ends this connection with 1011, and is logged with its traceback.


async def remind(ws: WebSocket[Any]) -> None:
    """A task of the connection."""
    while True:
        await trio.sleep(60)
        await ws.send({"type": "reminder"})


@app.ws("/hooks")
class Hooks:
    """The same in hooks. `close` is called once, whatever ended the connection; before it `error`, if a hook raised."""

    def message(self, ws: WebSocket, message: dict[str, Any]) -> None:
        ws.send_nowait({"type": "result", "value": 100 / message["divisor"]})

    def error(self, ws: WebSocket, error: Exception) -> None:
        log.error("%r failed with %r", ws, error)
        app.room("watchers").broadcast({"type": "failed", "error": repr(error)})

    def close(self, ws: WebSocket, code: int, reason: str) -> None:
        assert ws.closed is not None
        app.room("watchers").broadcast({"type": "closed", "cause": ws.closed.cause, "code": code})


@app.ws("/watch")
async def watch(ws: WebSocket) -> None:
    """Figures every second, and what the hooks report."""
    async with ws.join("watchers"):
        async for _ in ws:
            pass


@app.every(1)
def tell_figures() -> None:
    """Once for all watchers, from the application's start until it shuts down."""
    app.room("watchers").broadcast({"type": "statistics", **asdict(app.statistics())})


@app.get("/statistics")  # in a real application: middleware=[auth.requiring(roles=["metrics"])]
async def statistics(request: Request) -> JSONResponse:
    return JSONResponse({**asdict(app.statistics()), "seatsLeft": seats.free})


add_page(app, __file__, table, Hooks)

if __name__ == "__main__":
    app.listen()
