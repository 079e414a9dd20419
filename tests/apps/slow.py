"""An app whose time limits a test can wait for, for slow clients of every kind."""

from dataclasses import replace

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from tests.apps.recorder import DOWNLOAD_BYTES, left_of
from verbtrio import App, Limits, WebSocket

SECONDS = 2.0
"""What each of them has."""
RATE = 100
"""Messages a second that one client may send to `/rated`, and how many at once."""

app = App(
    limits=Limits(
        handshake_timeout=SECONDS,
        http_send_timeout=SECONDS,
        http_receive_timeout=SECONDS,
        send_timeout=SECONDS,
        message_timeout=SECONDS,
        max_message_bytes=65536,
    ),
    http2_cleartext=True,
)
app.sse("/room/:room")


@app.ws("/ws")
@app.ws("/deflate", compression=True)
@app.ws("/rated", limits=replace(app.limits, max_messages_per_second_per_client=RATE, message_burst=RATE))
async def echo(ws: WebSocket) -> None:
    async for message in ws:
        await ws.send(message)


@app.ws("/tell")
async def tell(ws: WebSocket[str]) -> None:
    """What is said here, all who listen to the room are sent."""
    async for message in ws:
        app.room("a").broadcast(message)


@app.get("/left")
async def left(request: Request) -> Response:
    return await left_of(app)


@app.get("/download")
async def download(request: Request) -> Response:
    return Response(bytes(DOWNLOAD_BYTES))


@app.post("/body")
async def body(request: Request) -> Response:
    return PlainTextResponse(str(len(await request.body())))
