"""Streams that tell how far they have come, and how they ended."""

from __future__ import annotations

from collections.abc import AsyncIterator

import trio
import trio.lowlevel
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from verbtrio import App, EventStream, Stream

app = App(http2_cleartext=True)
ended: list[str] = []
made = {"pieces": 0}


async def endless(name: str, pause: float, size: int) -> AsyncIterator[bytes]:
    try:
        while True:
            made["pieces"] += 1
            yield b"x" * size + b"\n"
            await trio.sleep(pause)
    finally:
        with trio.move_on_after(1, shield=True):
            await trio.lowlevel.checkpoint()
            ended.append(name)


@app.get("/waiting")
async def waiting(request: Request) -> Response:
    """A piece, then a long wait."""
    return Stream(endless("waiting", 1000, 10))


@app.get("/busy")
async def busy(request: Request) -> Response:
    """A piece every 10 ms."""
    return Stream(endless("busy", 0.01, 1000))


@app.get("/flood")
async def flood(request: Request) -> Response:
    """As much as the client takes."""
    return Stream(endless("flood", 0, 65535))


@app.get("/impatient")
async def impatient(request: Request) -> Response:
    """As much as the client takes, if it takes some every half second."""
    return Stream(endless("impatient", 0, 65535), send_timeout=0.5)


@app.get("/broken")
async def broken(request: Request) -> Response:
    """A piece, then an error."""
    return Stream(failing())


async def failing() -> AsyncIterator[str]:
    yield "so far"
    await trio.sleep(0.1)
    raise LookupError("no more")


@app.get("/starlette")
async def starlette(request: Request) -> Response:
    """Starlette's own."""
    return StreamingResponse(endless("starlette", 1000, 10))


@app.get("/clock")
async def clock(request: Request) -> Response:
    return EventStream(endless_text())


async def endless_text() -> AsyncIterator[str]:
    async for _ in endless("clock", 1000, 1):
        yield "tick"


app.sse("/events/:room")


@app.post("/say/:room")
async def say(request: Request) -> Response:
    """Tell the room something, as long as asked for."""
    size = int(request.query_params.get("size", 5))
    return JSONResponse({"reached": app.room(request.path_params["room"]).broadcast("x" * size)})


@app.get("/state")
async def state(request: Request) -> Response:
    return JSONResponse({"ended": ended, **made, "streams": app.statistics().streams})
