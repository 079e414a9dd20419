"""An app, its clients, and each of the ways between them: memory streams, sockets that the poller reads, plain ASGI;
and a handler in each of its forms. The clock is virtual, and a client answers only what its test answers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, Protocol

import trio
import trio.testing

from tests.support.memory import Service, serving, shake_hands, socket_stream_pair
from verbtrio import App, WebSocket

WAYS = ["memory streams", "sockets", "plain ASGI"]
FORMS = ["a coroutine", "a class", "plain functions", "async hooks"]


class Client(Protocol):
    """A client of the route `/ws`."""

    said: list[str]
    """What the server has sent, as far as `heard` or `closed` has come."""

    async def send(self, *texts: str) -> None:
        """Send messages, in one segment where there are segments."""

    async def heard(self) -> str:
        """The next message."""

    async def closed(self) -> tuple[int, str]:
        """Wait for the server's Close frame; its code and reason."""

    async def close(self, code: int = 1000) -> None:
        """Send a Close frame, or answer the server's."""

    async def hang_up(self) -> None:
        """Go without one."""


class _StreamClient:
    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._data = b""
        self.said: list[str] = []

    async def send(self, *texts: str) -> None:
        with suppress(trio.BrokenResourceError):  # the server has gone
            await self._stream.send_all(b"".join(_frame(0x81, text.encode()) for text in texts))

    async def heard(self) -> str:
        kind, payload = await self._next()
        assert kind == 0x81, f"{payload!r} is no message"
        self.said.append(payload.decode())
        return self.said[-1]

    async def closed(self) -> tuple[int, str]:
        while True:
            kind, payload = await self._next()
            if kind == 0x88:
                return int.from_bytes(payload[:2], "big"), payload[2:].decode()
            self.said.append(payload.decode())

    async def close(self, code: int = 1000) -> None:
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):  # one of both has gone
            await self._stream.send_all(_frame(0x88, code.to_bytes(2, "big")))

    async def hang_up(self) -> None:
        await trio.aclose_forcefully(self._stream)

    async def _next(self) -> tuple[int, bytes]:
        with trio.fail_after(100):
            while len(self._data) < 2 or len(self._data) < 2 + self._data[1]:
                more = await self._stream.receive_some()
                assert more, "the server hung up"
                self._data += more
        kind, size = self._data[0], self._data[1]
        payload, self._data = self._data[2 : 2 + size], self._data[2 + size :]
        return kind, payload


class _ASGIClient:
    def __init__(self) -> None:
        self._to_app, self.receive = trio.open_memory_channel[Any](100)
        self.send_out, self._from_app = trio.open_memory_channel[Any](100)
        self._to_app.send_nowait({"type": "websocket.connect"})
        self.said: list[str] = []

    async def run(self, app: App) -> None:
        scope: dict[str, Any] = {"type": "websocket", "path": "/ws", "query_string": b"", "headers": []}
        scope["extensions"] = {"websocket.http.response": {}}
        await app(scope, self.receive.receive, self.send_out.send)
        await self.send_out.aclose()

    async def send(self, *texts: str) -> None:
        for text in texts:
            self._to_app.send_nowait({"type": "websocket.receive", "text": text})

    async def heard(self) -> str:
        message = await self._next()
        assert message["type"] == "websocket.send"
        self.said.append(message["text"])
        return self.said[-1]

    async def closed(self) -> tuple[int, str]:
        while (message := await self._next())["type"] != "websocket.close":
            self.said.append(message["text"])
        return message["code"], message["reason"]

    async def close(self, code: int = 1000) -> None:
        self._to_app.send_nowait({"type": "websocket.disconnect", "code": code, "reason": ""})

    async def hang_up(self) -> None:
        await self.close(1006)

    async def _next(self) -> Any:
        with trio.fail_after(100):
            return await self._from_app.receive()


def _frame(kind: int, payload: bytes) -> bytes:
    return bytes([kind, 0x80 + len(payload)]) + bytes(4) + payload


class Clients:
    """Called, it connects a client."""

    def __init__(self, service: Service, way: str) -> None:
        self.service = service
        self._way = way

    async def __call__(self, pair: Any = None) -> Client:
        if self._way == "plain ASGI":
            one = _ASGIClient()
            self.service.connections.start_soon(one.run, self.service.app)
            answer = await one._next()
            assert answer["type"] == "websocket.accept", f"denied with {answer.get('status', 403)}"
            return one
        usual = socket_stream_pair if self._way == "sockets" else trio.testing.memory_stream_pair
        stream = self.service.open_stream(pair or usual)
        answer = await shake_hands(stream)
        assert b" 101 " in answer, f"denied with {answer.split()[1].decode()}"
        return _StreamClient(stream)


@asynccontextmanager
async def clients_of(app: App, way: str) -> AsyncIterator[Clients]:
    """Serve `app` to clients that come that way. At the end nothing may be left of any (see `serving`)."""
    async with serving(app) as service:
        yield Clients(service, way)


def add_handler(
    app: App,
    form: str,
    *,
    opened: Callable[..., Any] = lambda ws: None,
    message: Callable[..., Any] = lambda ws, message: None,
    closed: Callable[..., Any] = lambda ws, code, reason: None,
    failed: Callable[..., Any] = lambda ws, error: None,
    **settings: Any,
) -> None:
    """Add the route `/ws` with a handler of that form, made of plain functions. (A coroutine has neither `closed` nor
    `failed`.)"""
    if form == "a coroutine":

        @app.ws("/ws", **settings)
        async def handler(ws: WebSocket[str]) -> None:
            opened(ws)
            async for text in ws:
                message(ws, text)

    elif form == "a class":

        class Handler:
            def open(self, ws: WebSocket[str]) -> None:
                opened(ws)

            def message(self, ws: WebSocket[str], text: str) -> None:
                message(ws, text)

            def close(self, ws: WebSocket[str], code: int, reason: str) -> None:
                closed(ws, code, reason)

            def error(self, ws: WebSocket[str], error: Exception) -> None:
                failed(ws, error)

        app.ws("/ws", **settings)(Handler)
    elif form == "plain functions":
        app.ws("/ws", open=opened, message=lambda ws, m: message(ws, m), close=closed, error=failed, **settings)
    else:

        async def on_open(ws: WebSocket[str]) -> None:
            opened(ws)

        async def on_message(ws: WebSocket[str], text: str) -> None:
            message(ws, text)

        async def on_close(ws: WebSocket[str], code: int, reason: str) -> None:
            closed(ws, code, reason)

        async def on_error(ws: WebSocket[str], error: Exception) -> None:
            failed(ws, error)

        app.ws("/ws", open=on_open, message=on_message, close=on_close, error=on_error, **settings)
