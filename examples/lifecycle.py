"""Errors, resources, figures: a handler that fails ends its own connection alone, what it held is given back whatever
ended it, and what goes on can be watched."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict
from typing import Any

import trio
from starlette.requests import Request
from starlette.responses import JSONResponse

from verbtrio import App, WebSocket

log = logging.getLogger("lifecycle")


class Full(Exception):  # noqa: N818 -- a state
    """No seat is free."""


class Seats:
    """Something there is little of: a table with four seats."""

    def __init__(self, free: int) -> None:
        self.free = free

    @asynccontextmanager
    async def taken(self) -> AsyncIterator[int]:
        """One seat, until the block is left: by its end, an error, or the connection's cancellation."""
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
            ws.nursery.start_soon(remind, ws)  # ends with the connection, too
            async for message in ws:
                try:
                    members.broadcast({"type": "result", "value": 100 / message["divisor"]})
                except (KeyError, TypeError, ArithmeticError) as error:  # expected: the client is told, and stays
                    await ws.send({"type": "error", "message": f"that can't be computed: {error!r}"})
    except Full as error:
        await ws.close(1013, str(error))
    # Whatever else is raised ends this connection with 1011, and is logged with its traceback.


async def remind(ws: WebSocket[Any]) -> None:
    """A task of the connection's."""
    while True:
        await trio.sleep(60)
        await ws.send({"type": "reminder"})


@app.ws("/hooks")
class Hooks:
    """The same in hooks: `close` is called once, whatever ended the connection; `error` before it, if a hook raised."""

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
    """Figures every second, and what the hooks tell."""
    async with ws.join("watchers"):
        async for _ in ws:
            pass


@app.every(1)
def tell_figures() -> None:
    """Once for all who watch, from the application's start until it shuts down."""
    app.room("watchers").broadcast({"type": "statistics", **asdict(app.statistics())})


@app.get("/statistics")
async def statistics(request: Request) -> JSONResponse:
    return JSONResponse({**asdict(app.statistics()), "seatsLeft": seats.free})


if __name__ == "__main__":
    app.listen()
