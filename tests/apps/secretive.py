"""Tokens in every way they may come, with everything logged that can be."""

import logging

from starlette.requests import Request
from starlette.responses import JSONResponse

from verbtrio import App, WebSocket
from verbtrio.auth import JWTAuth

logging.basicConfig(level=logging.DEBUG)
auth = JWTAuth("a secret of thirty-two bytes, or more", first_message_timeout=5)
app = App(http2_websockets=True, http2_cleartext=True)


@app.get("/me", middleware=[auth])
async def me(request: Request) -> JSONResponse:
    if "fail" in request.query_params:
        raise ValueError("a route that fails")
    return JSONResponse({"id": request.user["id"]})


@app.ws("/ws", middleware=[auth])
async def enter(ws: WebSocket) -> None:
    await ws.send(str(ws.user["id"]))
    if "fail" in ws.query_params:
        raise ValueError("a handler that fails")
    async for message in ws:
        await ws.send(message)
