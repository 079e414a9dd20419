"""An app that is served under a prefix (`--root-path`): routes of its own, of a group, and of what is mounted."""

import os
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from verbtrio import App, Group, WebSocket


def add(routes: App | Group, name: str) -> None:
    @routes.get("/page", name=f"{name} page")
    async def page(request: Request) -> Response:
        return JSONResponse(
            {"links": [str(request.url_for(f"{name} {kind}")) for kind in ("page", "ws")], "pid": os.getpid()}
        )

    @routes.ws("/ws", name=f"{name} ws")
    async def tell(ws: WebSocket) -> None:
        await ws.send({"path": ws.url.path, "pid": os.getpid()})

    @routes.ws("/ws/:room")
    async def tell_where(ws: WebSocket, room: str) -> None:
        await ws.send(os.getpid())


def build(**settings: Any) -> App:
    app, mounted = App(trusted_proxies=["127.0.0.1"], **settings), App()
    app.mount("/mounted", mounted)
    for routes, name in ((app, "own"), (app.group("/group"), "group"), (mounted, "mounted")):
        add(routes, name)
    return app


app = build()
