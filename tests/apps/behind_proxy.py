"""An app behind a reverse proxy, which guards `/admin`. What gets there all the same is remembered."""

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from verbtrio import App, Limits, WebSocket

CONNECTIONS = 3


def build(*, http2_cleartext: bool = False) -> App:
    app = App(
        trusted_proxies=["127.0.0.1"],
        limits=Limits(max_connections_per_client=CONNECTIONS, max_tcp_connections_per_client=1),
        http2_cleartext=http2_cleartext,
    )
    reached = list[str]()
    closes = list[Any]()

    @app.get("/")
    async def index(request: Request) -> Response:
        """Who asks, as far as the app knows; and what nginx has made of the request."""
        assert request.client is not None
        return JSONResponse(
            {
                "client": request.client.host,
                "version": request.scope["http_version"],
                "upgrade": request.headers.get("upgrade"),
                "connection": request.headers.get("connection"),
            }
        )

    @app.post("/")
    async def measure(request: Request) -> Response:
        return PlainTextResponse(str(len(await request.body())))

    @app.ws("/ws")
    class Echo:
        async def message(self, ws: WebSocket, message: str) -> None:
            if message == "client":
                assert ws.scope["client"] is not None
                await ws.send(ws.scope["client"][0])
            elif message == "close":
                await ws.close(4001, "bye from here")
            else:
                await ws.send(message)

        def close(self, ws: WebSocket, code: int, reason: str) -> None:
            closes.append([code, reason])

    @app.get("/seen")
    async def seen(request: Request) -> Response:
        """Not asked through the proxy."""
        return JSONResponse({"reached": reached, "closes": closes})

    async def admin(scope: Any, receive: Any, send: Any) -> None:
        """Everything from `/admin` on, whatever comes behind it."""
        reached.append(f"{scope.get('method')} {scope['path']}")
        if scope["type"] == "http":
            await PlainTextResponse("the admin's")(scope, receive, send)

    app.mount("/admin", admin)
    return app


app = build()
http2 = build(http2_cleartext=True)
