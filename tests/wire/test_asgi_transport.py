"""Plain ASGI, by hand."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing
from starlette.types import Message

from verbtrio import App, Cause, CloseInfo, Limits, WebSocket

SCOPE: dict[str, Any] = {
    "type": "websocket",
    "path": "/ws",
    "raw_path": b"/ws",
    "query_string": b"",
    "headers": [],
    "subprotocols": ["chat"],
    "extensions": {"websocket.http.response": {}},
}


class Server:
    """An ASGI server's half of one WebSocket, by hand."""

    def __init__(self) -> None:
        self.to_app, self._inbound = trio.open_memory_channel[Message](100)
        self._outbound, self.from_app = trio.open_memory_channel[Message](100)
        self.to_app.send_nowait({"type": "websocket.connect"})

    async def run(self, app: App) -> None:
        await app(dict(SCOPE), self._inbound.receive, self._outbound.send)
        await self._outbound.aclose()

    async def sent(self) -> list[Message]:
        with trio.fail_after(10):
            return [message async for message in self.from_app]


ENDS = [
    ({"type": "websocket.disconnect", "code": 4001, "reason": "bye"}, CloseInfo(Cause.PEER, 4001, "bye")),
    ({"type": "websocket.disconnect", "code": 1006}, CloseInfo(Cause.GONE, 1006, "")),
    ({"type": "websocket.disconnect"}, CloseInfo(Cause.PEER, 1005, "")),
    ({"type": "websocket.receive", "text": "€€€€", "bytes": None}, CloseInfo(Cause.SIZE, 1009, "over 11 bytes")),
    ({"type": "websocket.receive", "bytes": b"x" * 12}, CloseInfo(Cause.SIZE, 1009, "over 11 bytes")),
    ({"type": "websocket.receive", "text": "raise"}, CloseInfo(Cause.ERROR, 1011, "Internal server error")),
]


@pytest.mark.parametrize(("last", "expected"), ENDS)
async def test_plain_asgi(last: Message, expected: CloseInfo, autojump_clock: trio.abc.Clock) -> None:
    app, ends = App(take_over=False, limits=Limits(max_message_bytes=11)), []

    @app.ws("/ws", subprotocols=["chat"])
    class Echo:
        async def message(self, ws: WebSocket, message: str | bytes) -> None:
            if message == "raise":
                raise ValueError("on purpose")
            await ws.send(message)

        def close(self, ws: WebSocket, code: int, reason: str) -> None:
            ends.append(ws.closed)

    async with app.lifespan(), trio.open_nursery() as nursery:
        server = Server()
        nursery.start_soon(server.run, app)
        server.to_app.send_nowait({"type": "websocket.receive", "text": "€€€", "bytes": None})
        server.to_app.send_nowait({"type": "websocket.receive", "text": None, "bytes": b"bin"})
        await trio.testing.wait_all_tasks_blocked()
        server.to_app.send_nowait(last)
        if expected.cause in (Cause.SIZE, Cause.ERROR):
            await trio.sleep(1)
            server.to_app.send_nowait({"type": "websocket.disconnect", "code": expected.code})
        sent = await server.sent()
    assert sent[:3] == [
        {"type": "websocket.accept", "subprotocol": "chat", "headers": []},
        {"type": "websocket.send", "text": "€€€"},
        {"type": "websocket.send", "bytes": b"bin"},
    ]
    close = {"type": "websocket.close", "code": expected.code, "reason": expected.reason}
    assert sent[3:] == ([close] if expected.cause in (Cause.SIZE, Cause.ERROR) else [])
    assert ends == [expected]


async def test_a_silent_client_is_kept_where_it_cannot_be_pinged(autojump_clock: trio.abc.Clock) -> None:
    app = App(take_over=False)
    app.ws("/ws", open=lambda ws: None)
    async with app.lifespan(), trio.open_nursery() as nursery:
        server = Server()
        nursery.start_soon(server.run, app)
        await trio.sleep(1000)
        assert len(app.connections) == 1
        server.to_app.send_nowait({"type": "websocket.disconnect", "code": 1000})


async def test_the_applications_shutdown_ends_plain_asgi_connections(autojump_clock: trio.abc.Clock) -> None:
    app = App(take_over=False)
    app.ws("/ws", open=lambda ws: None)
    async with trio.open_nursery() as nursery:
        async with app.lifespan():
            server = Server()
            nursery.start_soon(server.run, app)
            await trio.testing.wait_all_tasks_blocked()
        assert (await server.sent())[1:] == [
            {"type": "websocket.close", "code": 1012, "reason": "The server is restarting"}
        ]
