"""An app that remembers what happened to its connections, and tells over HTTP."""

import os
import tempfile
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import trio
import trio.testing
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Mount, WebSocketRoute
from starlette.websockets import WebSocket as StarletteWebSocket
from starlette.websockets import WebSocketDisconnect

from verbtrio import App, ConnectionClosed, EventStream, Heartbeat, Limits, Stream, WebSocket

app = App(
    limits=Limits(max_message_bytes=65536, http_send_timeout=2, http_receive_timeout=2),
    heartbeat=Heartbeat(interval=20, timeout=40),
    http2_cleartext=True,
)
hurried = app.group("/hurried", limits=replace(app.limits, send_timeout=1.5, hook_timeout=1))
"""Routes whose limits a test can wait for."""
events: list[Any] = []


@app.ws("/ws")
class Recorder:
    def open(self, ws: WebSocket) -> None:
        events.append(["open"])

    async def message(self, ws: WebSocket, message: str | bytes) -> None:
        if message == "raise":
            raise ValueError("on purpose")
        await ws.send(message)

    def error(self, ws: WebSocket, error: Exception) -> None:
        events.append(["error", type(error).__name__])

    def close(self, ws: WebSocket, code: int, reason: str) -> None:
        assert ws.closed is not None
        events.append(["close", ws.closed.cause, code, reason])


@app.ws("/busy")
async def busy(ws: WebSocket) -> None:
    """Works on something and never receives."""
    await ws.send("busy")
    try:
        await trio.sleep_forever()
    finally:
        events.append(["cancelled"])


@app.ws("/once")
async def once(ws: WebSocket) -> None:
    """Answers one message and returns."""
    await ws.send(await ws.receive())


@hurried.ws("/hanging")
@app.ws("/hanging")
class Hanging:
    """Its close hook never returns."""

    async def close(self, ws: WebSocket, code: int, reason: str) -> None:
        try:
            await trio.sleep_forever()
        finally:
            events.append(["hook ended"])


@hurried.ws("/silent", heartbeat=Heartbeat(interval=0.5, timeout=1))
@app.ws("/silent", heartbeat=Heartbeat(interval=2, timeout=4))
async def silent(ws: WebSocket) -> None:
    async for message in ws:
        await ws.send(message)


@app.ws("/impatient")
async def impatient(ws: WebSocket) -> None:
    """Sends without end, for a second."""
    begin = trio.current_time()
    with trio.move_on_after(1):
        await flood(ws)
    events.append(["impatient", trio.current_time() - begin])


@app.ws("/push")
async def push(ws: WebSocket) -> None:
    """Sends a message every 20 ms: often enough for `send` to raise before the end of the connection cancels it."""
    try:
        while True:
            await ws.send("tick")
            await trio.sleep(0.02)
    except ConnectionClosed as error:
        events.append(["raised", error.info.cause])
        raise


@app.ws("/busy-deflate", compression=True)
async def busy_deflate(ws: WebSocket) -> None:
    await trio.sleep_forever()


@app.ws("/deflate", compression=True)
async def deflate(ws: WebSocket) -> None:
    """Echoes over permessage-deflate."""
    async for message in ws:
        await ws.send(message)


@app.ws("/room")
async def room(ws: WebSocket[str]) -> None:
    """What one says, all hear."""
    async with ws.join("room") as members:
        await ws.send("in")
        async for message in ws:
            members.broadcast(message)


@hurried.ws("/flood")
@app.ws("/flood")
async def flood(ws: WebSocket) -> None:
    """Sends without end."""
    try:
        while True:
            await ws.send(b"x" * 65536)
    except ConnectionClosed as error:
        events.append(["dropped", error.info.cause, error.info.code])
        raise


async def starlette_echo(ws: StarletteWebSocket) -> None:
    """Starlette's own WebSocket, beside ours."""
    await ws.accept(subprotocol="chat" if "chat" in ws.scope["subprotocols"] else None)
    try:
        while True:
            await ws.send_text(await ws.receive_text())
    except WebSocketDisconnect as error:
        events.append(["starlette", error.code, error.reason])


async def starlette_raise(ws: StarletteWebSocket) -> None:
    await ws.accept()
    raise ValueError("on purpose")


async def starlette_undecided(ws: StarletteWebSocket) -> None:
    """Neither accepts nor denies."""


async def bare_asgi(scope: Any, receive: Any, send: Any) -> None:
    """A bare ASGI application, as other frameworks are: greets, echoes bytes, closes at "bye"."""
    assert (await receive())["type"] == "websocket.connect"
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] != "websocket.disconnect":
        if message["text"] == "bye":
            await send({"type": "websocket.close", "code": 4002, "reason": "so long"})
        else:
            await send({"type": "websocket.send", "text": message["text"], "bytes": message["bytes"]})
    events.append(["asgi", message["code"], message["reason"]])


async def presumptuous(scope: Any, receive: Any, send: Any) -> None:
    """Accepts a subprotocol nobody has offered."""
    await receive()
    await send({"type": "websocket.accept", "subprotocol": "chat"})


app.router.routes += [
    WebSocketRoute("/starlette", starlette_echo),
    WebSocketRoute("/starlette-raise", starlette_raise),
    WebSocketRoute("/starlette-undecided", starlette_undecided),
    Mount("/asgi", bare_asgi),
    Mount("/presumptuous", presumptuous),
]


@app.get("/events")
async def tell(request: Request) -> Response:
    return JSONResponse({"events": events, "now": trio.current_time()})


def resident_bytes() -> int:
    """The worker's resident set (Linux)."""
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@app.get("/left")
async def left(request: Request) -> Response:
    return await left_of(app)


async def left_of(app: App) -> Response:
    """What an idle worker is left with."""
    await trio.testing.wait_all_tasks_blocked()
    statistics = app.statistics()
    return JSONResponse(
        {
            "connections": statistics.connections,
            "rooms": len(app._running_hub().rooms),
            "sessions": len(app._running_hub()._drain.sessions),
            "tasks": trio.lowlevel.current_statistics().tasks_living,
            "memory": resident_bytes(),
            "pid": os.getpid(),
            "descriptors": len(os.listdir("/proc/self/fd")),
        }
    )


DOWNLOAD_BYTES = 50 * 2**20
"""Far more than sockets' buffers hold."""


@app.get("/download")
async def download(request: Request) -> Response:
    """As many bytes as asked for."""
    return Response(bytes(int(request.query_params.get("size", DOWNLOAD_BYTES))))


@app.get("/file")
async def file(request: Request) -> Response:
    with tempfile.NamedTemporaryFile(delete=False) as file:
        file.truncate(DOWNLOAD_BYTES)
    return FileResponse(file.name, background=BackgroundTask(os.unlink, file.name))


@app.get("/streaming")
async def streaming(request: Request) -> Response:
    return StreamingResponse(bytes(65536) for _ in range(DOWNLOAD_BYTES // 65536))


@app.post("/body")
async def body(request: Request) -> Response:
    return PlainTextResponse(str(len(await request.body())))


@app.post("/ignored")
async def ignored(request: Request) -> Response:
    """Has no use for the body."""
    await trio.sleep(0.1)
    return PlainTextResponse("ignored")


@app.post("/unread")
async def unread(request: Request) -> Response:
    """Takes its time, and no body."""
    await trio.sleep(UNREAD_SECONDS)
    return PlainTextResponse("unread")


UNREAD_SECONDS = 3.0
BIG_BYTES = 20 * 10**6


@app.get("/big")
async def big(request: Request) -> Response:
    """20 MB, made at once; unlike `/download`'s zeros they cost memory."""
    return Response(b"x" * BIG_BYTES)


@app.get("/longpoll")
async def longpoll(request: Request) -> Response:
    """Waits until its client has left."""
    events.append(["waiting"])
    while (await request.receive())["type"] != "http.disconnect":
        pass
    events.append(["told"])
    return PlainTextResponse("too late")


async def ticks() -> AsyncIterator[str]:
    """A piece, and no other until the client has left."""
    try:
        yield "tick"
        await trio.sleep_forever()
    finally:
        events.append(["told"])


@app.get("/ticks")
async def ticking(request: Request) -> Response:
    return Stream(ticks())


@app.get("/clock")
async def clock(request: Request) -> Response:
    return EventStream(ticks())


async def without_end() -> AsyncIterator[bytes]:
    while True:
        yield b"x" * 1000
        await trio.lowlevel.checkpoint()


@app.get("/busy/stream")
async def busy_stream(request: Request) -> Response:
    return Stream(without_end())


@app.get("/busy/starlette")
async def busy_starlette(request: Request) -> Response:
    return StreamingResponse(without_end())


BUSY_SECONDS = 1.0


@app.get("/busy/computing")
async def busy_computing(request: Request) -> Response:
    """Computes, and lets others have their turns."""
    end = trio.current_time() + BUSY_SECONDS
    while trio.current_time() < end:
        sum(range(1000))
        await trio.lowlevel.checkpoint()
    return PlainTextResponse("done")


@app.get("/busy/thread")
def busy_thread(request: Request) -> Response:
    """Computes in a thread."""
    end = time.monotonic() + BUSY_SECONDS
    while time.monotonic() < end:
        sum(range(1000))
    return PlainTextResponse("done")


mounted = Starlette(routes=[Mount("/inner", app=app)], lifespan=app.lifespan)
forgotten_app = App()
forgotten_app.ws("/ws", open=lambda ws: None)
forgotten = Starlette(routes=[Mount("/inner", app=forgotten_app)])
