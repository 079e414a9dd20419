"""Handlers that hold the event loop, under `debug=True`: each form computes without an end once it is asked to."""

import time

import trio
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket as StarletteWebSocket

from verbtrio import App, WebSocket


def compute() -> None:
    print("computing", flush=True)  # noqa: T201
    while True:
        pass


async def foreign(websocket: StarletteWebSocket) -> None:
    await websocket.accept()
    await websocket.receive_text()
    compute()


app = App(debug=True, routes=[WebSocketRoute("/foreign", foreign)])


@app.ws("/coroutine")
async def coroutine(ws: WebSocket[str]) -> None:
    async for _ in ws:
        compute()


@app.ws("/child")
async def child(ws: WebSocket[str]) -> None:
    async def task() -> None:
        compute()

    await ws.receive()
    ws.nursery.start_soon(task)
    await trio.sleep_forever()


def plain(ws: WebSocket, message: str) -> None:
    compute()


app.ws("/plain", message=plain)


@app.ws("/idle")
async def idle(ws: WebSocket[str]) -> None:
    async for message in ws:
        await ws.send(message)


@app.get("/http")
async def http(request: Request) -> Response:
    compute()
    return Response()


@app.get("/sleep")
async def sleep(request: Request) -> Response:
    time.sleep(0.5)  # noqa: ASYNC251 -- that is what is warned of
    return Response()


async def main() -> None:
    """A Trio program of one's own."""
    async with trio.open_nursery() as nursery:
        await nursery.start(app.serve)


if __name__ == "__main__":
    app.listen()
