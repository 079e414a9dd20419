"""Which connections get in: limits at their boundary, and the answer to the next one over them."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio
from starlette.requests import HTTPConnection
from starlette.responses import Response, StreamingResponse
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket as StarletteWebSocket
from trio.abc import Clock

from tests.support.memory import Service, serving, shake_hands
from verbtrio import App, LimitExceeded, Limits, WebSocket


async def who(request: HTTPConnection, call_next: Any) -> Response:
    """Believes any client's user name."""
    if "x-user" in request.headers:
        request.scope["user"] = {"id": request.headers["x-user"]}
    response: Response = await call_next(request)
    return response


def client(address: str) -> bytes:
    return f"X-Forwarded-For: {address}\r\n".encode()


def user(name: str) -> bytes:
    return f"X-User: {name}\r\n".encode()


class Door:
    """Opens connections, and keeps those that are let in."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self.streams: list[Any] = []

    async def knock(self, headers: bytes = b"", path: str = "/ws") -> tuple[int, bytes]:
        """The status of the answer, and the whole answer."""
        stream = self._service.open_stream()
        answer = await shake_hands(stream, path, headers)
        status = int(answer.split(b" ")[1])
        if status == 101:
            self.streams.append(stream)
        else:
            answer += await stream.receive_some()
            await stream.aclose()
        return status, answer

    async def leave(self) -> None:
        for stream in self.streams:
            await stream.aclose()
        self.streams.clear()
        await self._service.wait_ended(20)


@pytest.mark.parametrize(
    ("limits", "mine", "another", "status", "message"),
    [
        (Limits(max_connections=3), client("192.0.2.1"), None, 503, b"Too many connections"),
        (
            Limits(max_connections_per_client=3),
            client("192.0.2.1"),
            client("192.0.2.2"),
            429,
            b"Too many connections from your address",
        ),
        (Limits(max_connections_per_user=3), user("ada"), user("bob"), 429, b"Too many connections of one user"),
    ],
)
async def test_n_pass_and_the_next_is_denied(
    limits: Limits, mine: bytes, another: bytes | None, status: int, message: bytes, autojump_clock: Clock
) -> None:
    app = App(limits=limits, trusted_proxies=["unix"], middleware=[who])
    app.ws("/ws", open=lambda ws: None)
    async with serving(app) as service:
        door = Door(service)
        for _ in range(2):  # twice: the places are free again once all have left
            assert [(await door.knock(mine))[0] for _ in range(3)] == [101] * 3
            denied, answer = await door.knock(mine)
            assert denied == status
            assert b"\r\nretry-after: 5\r\n" in answer.lower()
            assert answer.endswith(b"\r\n\r\n" + message)
            if another is not None:
                assert (await door.knock(another))[0] == 101
            await door.leave()
            assert len(app._running_hub().quotas) == 0


async def test_a_route_with_limits_of_its_own_counts_in_both(autojump_clock: Clock) -> None:
    app = App(limits=Limits(max_connections=3))
    app.ws("/ws", open=lambda ws: None)
    app.ws("/own", open=lambda ws: None, limits=Limits(max_connections=2))
    app.group("/group", limits=Limits(max_connections=1)).ws("/ws", open=lambda ws: None)
    async with serving(app) as service:
        door = Door(service)
        assert [(await door.knock(path="/own"))[0] for _ in range(3)] == [101, 101, 503]
        assert [(await door.knock())[0] for _ in range(2)] == [101, 503]
        await door.leave()
        assert [(await door.knock(path="/group/ws"))[0] for _ in range(2)] == [101, 503]
        await door.leave()


async def test_handshakes_in_progress_are_counted(autojump_clock: Clock) -> None:
    """A place is taken before the answer is sent: of any number that ask at once, n pass."""
    app = App(limits=Limits(max_connections=3))
    app.ws("/ws", open=lambda ws: None)
    async with serving(app) as service:
        door = Door(service)
        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(door.knock)
        assert len(door.streams) == 3
        await door.leave()


@pytest.mark.parametrize("end", ["middleware", "handler", "peer"])
async def test_places_come_back_however_it_ends(end: str, autojump_clock: Clock) -> None:
    app = App(limits=Limits(max_connections=1))

    @app.ws("/ws")
    class Chat:
        def __init__(self) -> None:
            if end == "middleware":
                raise ValueError("no handler")

        async def open(self, ws: WebSocket) -> None:
            if end == "handler":
                raise ValueError("no more")

    async with serving(app) as service:
        door = Door(service)
        for _ in range(3):
            assert (await door.knock())[0] == (500 if end == "middleware" else 101)
            await door.leave()


async def test_rooms(autojump_clock: Clock) -> None:
    """n can be joined. The next raises; uncaught, that ends the connection with 1008, and without a traceback."""
    app = App(limits=Limits(max_rooms=3))
    caught: list[str] = []

    async def join(ws: WebSocket, name: str) -> None:
        try:
            ws.join(name)
        except LimitExceeded as error:
            caught.append(str(error))
            if name == "last":
                raise

    app.ws("/ws", message=join)
    async with serving(app) as service:
        connection = await service.connect()
        for name in ("a", "b", "c", "d"):
            await connection.send_message(name)
        await trio.sleep(0.1)
        assert app.statistics().memberships == 3
        assert caught == ["Too many rooms: at most 3"]
        await connection.send_message("last")
        await trio.sleep(1)
        assert connection.closed is not None
        assert (connection.closed.code, connection.closed.reason) == (1008, "Too many rooms: at most 3")
        assert app.statistics().ended == {"rate": 1}


async def test_leaving_a_room_makes_room(autojump_clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    app = App(limits=Limits(max_rooms=1))

    @app.ws("/ws")
    async def handler(ws: WebSocket) -> None:
        async with ws.join("a"):
            pass
        async with ws.join("b"):
            await ws.send("both")
            ws.join("c")

    async with serving(app) as service:
        connection = await service.connect()
        assert await connection.get_message() == "both"
        await trio.sleep(1)
        assert connection.closed is not None
        assert connection.closed.code == 1008
    assert caplog.records == [], "clients must not be able to fill the log"


class TestHandshakeTimeout:
    @pytest.mark.parametrize(("takes", "status"), [(4.9, 101), (5.1, 503)])
    async def test_of_middleware(self, takes: float, status: int, autojump_clock: Clock) -> None:
        async def slow(request: Any, call_next: Any) -> Response:
            await trio.sleep(takes)
            response: Response = await call_next(request)
            return response

        app = App(limits=Limits(handshake_timeout=5), middleware=[slow], heartbeat=None)
        app.ws("/ws", open=lambda ws: None)
        async with serving(app) as service:
            begin, stream = trio.current_time(), service.open_stream()
            answer = await shake_hands(stream)
            assert int(answer.split(b" ")[1]) == status
            assert trio.current_time() - begin == pytest.approx(min(takes, 5), abs=0.01)
            if status == 503:
                assert b"retry-after: 5" in answer.lower()
            else:
                await trio.sleep(100)
                assert app.statistics().connections == 1, "after the answer there is no deadline any more"
            await stream.aclose()

    async def test_is_logged(self, autojump_clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
        async def never(request: Any, call_next: Any) -> Response:
            await trio.sleep(math.inf)
            raise AssertionError

        app = App(middleware=[never])
        app.ws("/ws", open=lambda ws: None)
        async with serving(app) as service:
            stream = service.open_stream()
            await shake_hands(stream)
            await stream.aclose()
        assert "did not answer the upgrade of '/ws' within 10 s" in caplog.text
        assert len(caplog.records) == 1

    async def test_is_over_once_answered(self, autojump_clock: Clock) -> None:
        """Also for Starlette's WebSocket routes, and for a denial whose body takes long."""

        async def theirs(websocket: StarletteWebSocket) -> None:
            await websocket.accept()
            await trio.sleep(1000)
            await websocket.send_text("still here")

        async def parts() -> AsyncIterator[bytes]:
            yield b"wait"
            await trio.sleep(1000)
            yield b" for it"

        async def deny(request: Any, call_next: Any) -> Response:
            return StreamingResponse(parts(), 403, headers={"Content-Length": "11"})

        app = App(routes=[WebSocketRoute("/theirs", theirs)], heartbeat=None)
        app.ws("/denied", open=lambda ws: None, middleware=[deny])
        async with serving(app) as service:
            stream = service.open_stream()
            assert b" 101 " in await shake_hands(stream, "/theirs")
            assert await stream.receive_some() == b"\x81\x0astill here"
            await stream.aclose()
            stream = service.open_stream()
            assert b" 403 " in await shake_hands(stream, "/denied")
            body = b""
            while len(body) < 11 and (data := await stream.receive_some()):
                body += data
            assert body == b"wait for it"
            await stream.aclose()
