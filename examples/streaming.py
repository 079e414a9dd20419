"""Streaming: text, events and JSON sent as they are made, uploads, downloads, and a chat heard without a WebSocket."""

import re
import sys
import tempfile
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import trio
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response

sys.path.insert(0, str(Path(__file__).parents[1]))  # for examples.page

from examples.page import add_page
from verbtrio import App, EventStream, JSONArray, ServerSentEvent, Stream, WebSocket, last_event_id

MAX_UPLOAD_BYTES = 50 * 1024 * 1024
TICKS = 10


@asynccontextmanager
async def storage(app: App) -> AsyncIterator[None]:
    """Keep a folder for the uploads while the application runs."""
    with tempfile.TemporaryDirectory() as folder:
        app.state.folder = Path(folder)
        yield


app = App(lifespan=storage)


@app.get("/countdown/{first:int}")
async def countdown(request: Request, first: int) -> Stream:
    """Text in pieces. When the client leaves, the generator is cancelled where it waits."""
    return Stream(count_down(first), media_type="text/plain")


async def count_down(first: int) -> AsyncIterator[str]:
    for number in range(first, 0, -1):
        yield f"{number}\n"
        await trio.sleep(1)
    yield "Lift-off!\n"


@app.get("/ticks")
async def ticks(request: Request) -> EventStream:
    """Ten server-sent events. The browser then connects again, and gets those after the last that it has."""
    last = last_event_id(request) or ""
    return EventStream(tick(int(last) + 1 if re.fullmatch(r"\d{1,9}", last, re.ASCII) else 1), retry=1)


async def tick(first: int) -> AsyncIterator[ServerSentEvent]:
    for number in range(first, first + TICKS):
        yield ServerSentEvent({"number": number}, event="tick", id=str(number))
        await trio.sleep(0.1)


@app.get("/squares/{count:int}")
async def squares(request: Request, count: int) -> JSONArray:
    """One JSON document of any length, made and sent a thousand items at a time."""
    return JSONArray(square(count), batch=1000)


async def square(count: int) -> AsyncIterator[dict[str, int]]:
    for number in range(count):
        if number % 1000 == 0:
            await trio.lowlevel.checkpoint()  # a loop that never waits would hold everybody up
        yield {"number": number, "square": number**2}


@app.put("/files/:name")
async def upload(request: Request, name: str) -> Response:
    """Write the body to the disk as it comes. An incomplete one is deleted."""
    target, size = file_of(request, name), 0
    part = target.with_name(f".{uuid.uuid4()}")
    try:
        async with await trio.open_file(part, "wb") as file:
            async for chunk in request.stream():
                size += len(chunk)
                if size > MAX_UPLOAD_BYTES:
                    return JSONResponse({"error": f"at most {MAX_UPLOAD_BYTES} bytes"}, 413)
                await file.write(chunk)
        await part.rename(target)
    finally:
        with trio.move_on_after(1, shield=True):  # a client that leaves cancels this, too
            await part.unlink(missing_ok=True)
    return JSONResponse({"name": target.name, "size": size}, 201)


@app.get("/files/:name")
async def download(request: Request, name: str) -> FileResponse:
    """Starlette's response: it has ranges, so that a download can go on where it broke off."""
    path = file_of(request, name)
    if not await path.is_file():
        raise HTTPException(404)
    return FileResponse(path, filename=path.name)


def file_of(request: Request, name: str) -> trio.Path:
    """The file of this name. It is in the folder of the uploads, and does not begin with a dot."""
    if not re.fullmatch(r"\w[\w.-]{0,99}", name, re.ASCII):
        raise HTTPException(400, "a file's name has letters, digits, and inside . _ -")
    return trio.Path(request.app.state.folder, name)


@app.ws("/ws/:room")
async def chat(ws: WebSocket[str], room: str) -> None:
    async with ws.join(room) as members:
        async for text in ws:
            members.broadcast({"type": "message", "text": text})


app.sse("/events/:room")  # the same messages, for clients that can't have a WebSocket


add_page(app, __file__, countdown, count_down, chat)

if __name__ == "__main__":
    app.listen()
