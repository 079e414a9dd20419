"""An application with tasks of its own: one fails when it is asked to, which ends the worker, and one is always at
work."""

import trio
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from verbtrio import App, WebSocket

app = App()
asked = trio.Event()


@app.task(critical=True)
async def fall_over() -> None:
    await asked.wait()
    raise RuntimeError("on purpose")


@app.every(0.001)
def compute() -> None:
    sum(range(200_000))


@app.get("/die")
async def die(request: Request) -> Response:
    asked.set()
    return PlainTextResponse("dying")


@app.ws("/ws")
async def echo(ws: WebSocket) -> None:
    async for message in ws:
        await ws.send(message)


if __name__ == "__main__":
    app.listen()
