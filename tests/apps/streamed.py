"""Clients of the Centrifuge protocol without WebSockets, with everything logged that can be; and the same app without
the take-over."""

import logging
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from verbtrio import App, Client
from verbtrio.auth import JWTAuth

logging.basicConfig(level=logging.DEBUG)
auth = JWTAuth("a secret of thirty-two bytes, or more")


def make(**options: Any) -> App:
    app = App(**options)
    app.centrifuge("/connection", auth=auth, anonymous=True)
    app.rooms("open:{room}", subscribe=True, publish=True)

    @app.post("/say")
    async def say(request: Request) -> Response:
        """Say much in one tick."""
        for number in range(60):
            app.room("open:x").broadcast({"n": number, "text": "ä" * 1000})
        return Response(status_code=204)

    @app.get("/statistics")
    async def statistics(request: Request) -> Response:
        figures = app.statistics()
        return JSONResponse({"streams": figures.streams, "memberships": figures.memberships, "ended": figures.ended})

    @app.call("fail")
    async def fail(client: Client) -> None:
        raise ValueError("a call that fails")

    return app


app = make(http2_cleartext=True)
plain = make(take_over=False)
