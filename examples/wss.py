"""WSS: an echo under TLS. The environment names the files of the certificate and of its key."""

import os
import sys

from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse

from verbtrio import JSON, App, WebSocket
from verbtrio.security import SecurityHeaders

app = App(middleware=[Middleware(SecurityHeaders)])  # under TLS, it tells browsers to use nothing else


@app.ws("/ws")
async def echo(ws: WebSocket[JSON]) -> None:
    await ws.send({"type": "welcome", "scheme": ws.url.scheme})
    async for data in ws:
        await ws.send({"type": "echo", "data": data})


@app.get("/")
async def page(request: Request) -> PlainTextResponse:
    return PlainTextResponse("There is a WebSocket at /ws.")


if __name__ == "__main__":
    if not {"CERTFILE", "KEYFILE"} <= os.environ.keys():
        sys.exit(
            "Set CERTFILE and KEYFILE. To make them: mkcert -cert-file cert.pem -key-file key.pem localhost 127.0.0.1"
        )
    app.listen(certfile=os.environ["CERTFILE"], keyfile=os.environ["KEYFILE"])
