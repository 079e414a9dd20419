"""Starlette's WebSocket routes, for uvicorn and granian."""

from __future__ import annotations

from collections.abc import Callable

from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from benchmarks.servers.common import say


async def echo(ws: WebSocket) -> None:
    await ws.accept()
    try:
        while True:
            await ws.send_text(await ws.receive_text())
    except WebSocketDisconnect:
        pass


class Room:
    def __init__(self, transform: Callable[[str], str]) -> None:
        self.members: set[WebSocket] = set()
        self.transform = transform

    async def __call__(self, ws: WebSocket) -> None:
        await ws.accept()
        self.members.add(ws)
        try:
            while True:
                text = self.transform(await ws.receive_text())
                for member in tuple(self.members):
                    if member is not ws:
                        await member.send_text(text)
        except WebSocketDisconnect:
            pass
        finally:
            self.members.discard(ws)


plain, sample = Room(str), Room(say)


async def room(ws: WebSocket) -> None:
    await plain(ws)


async def json(ws: WebSocket) -> None:
    await sample(ws)


app = Starlette(
    routes=[WebSocketRoute("/echo", echo), WebSocketRoute("/room", room), WebSocketRoute("/json", json)],
)
