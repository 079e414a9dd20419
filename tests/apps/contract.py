"""HTTP and a WebSocket, by whatever version of hypercorn."""

from typing import Any

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from verbtrio import App, WebSocket


def echo_app() -> App:
    app = App()

    @app.get("/")
    async def index(request: Request) -> Response:
        return PlainTextResponse("here")

    @app.ws("/ws")
    async def echo(ws: WebSocket[Any]) -> None:
        async for message in ws:
            await ws.send(message)

    return app


app = echo_app()
