"""Rates across connections: of one client, of one user; messages and connections; and no client gets another burst by
connecting again."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
import trio
import trio.testing
from starlette.requests import HTTPConnection
from starlette.responses import Response
from trio.abc import Clock

from tests.support.http import Exchange
from tests.support.memory import Service, serving, shake_hands, socket_stream_pair
from tests.support.wire import BINARY, CLOSE, FIN, TEXT, frame
from verbtrio import App, Heartbeat, Limits, WebSocket
from verbtrio.auth import JWTAuth

BURST = 5
CLIENT = Limits(max_messages_per_second_per_client=2, message_burst=BURST)
USER = Limits(max_messages_per_second_per_user=2, message_burst=BURST)
OVER_CLIENT = "Too many messages: at most 2 a second from your address"
OVER_USER = "Too many messages: at most 2 a second from one user"


async def who(request: HTTPConnection, call_next: Any) -> Response:
    """Believe the user that the request names."""
    if "x-user" in request.headers:
        request.scope["user"] = {"id": request.headers["x-user"]}
    response: Response = await call_next(request)
    return response


def app_with(limits: Limits, handler: str = "hook", **options: Any) -> tuple[App, list[Any]]:
    """An app whose handler, of that form, records what it receives."""
    app = App(limits=limits, trusted_proxies=["unix"], middleware=[who], **options)
    received: list[Any] = []

    async def coroutine(ws: WebSocket) -> None:
        async for message in ws:
            received.append(message)

    async def hook(ws: WebSocket, message: str | bytes) -> None:
        received.append(message)

    if handler == "coroutine":
        app.ws("/ws")(coroutine)
    else:
        app.ws("/ws", message=hook if handler == "async hook" else lambda ws, message: received.append(message))
    return app, received


class Peer:
    """A client of an address, and of a user."""

    def __init__(self, service: Service, stream: Any) -> None:
        self._service = service
        self.stream = stream

    @classmethod
    async def connect(
        cls, service: Service, address: str = "192.0.2.1", user: str | None = None, path: str = "/ws", pair: Any = None
    ) -> Peer:
        stream = service.open_stream(pair)
        headers = f"X-Forwarded-For: {address}\r\n" + (f"X-User: {user}\r\n" if user else "")
        answer = await shake_hands(stream, path, headers.encode())
        assert answer.startswith(b"HTTP/1.1 101 "), answer
        return cls(service, stream)

    async def send(self, count: int, wire: bytes = frame(FIN | TEXT, b"m")) -> list[str]:
        """Send that many; what the server says to it: error messages, and `1008` for that."""
        try:
            await self.stream.send_all(wire * count)
        except trio.BrokenResourceError:
            pass
        return await self.hear()

    async def hear(self) -> list[str]:
        said, data = [], b""
        with trio.move_on_after(0.01):
            while part := await self.stream.receive_some():
                data += part
        while data:
            first, size, payload = data[0], data[1], data[2 : 2 + data[1]]
            assert size < 126
            if first == FIN | TEXT:
                said.append(json.loads(payload)["message"])
            elif first == FIN | CLOSE:
                said.append(str(int.from_bytes(payload[:2])))
            data = data[2 + size :]
        return said

    async def leave(self) -> None:
        await self.stream.aclose()
        await trio.sleep(0.01)


@pytest.fixture(params=["a reader task", "the poller"], autouse=True)
def reads(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Everything here is true whoever reads."""
    pair = trio.testing.memory_stream_pair if request.param == "a reader task" else socket_stream_pair
    monkeypatch.setattr(Service, "pair", staticmethod(pair))
    return str(request.param)


def tables(app: App) -> list[int]:
    """How many buckets are kept: of clients that connect, clients that send, users that send."""
    quotas = app._running_hub().quotas
    kept = (quotas._connecting, quotas._from_client, quotas._of_user)
    return [0 if table is None else len(table) for table in kept]


class TestMessages:
    @pytest.mark.parametrize("handler", ["coroutine", "async hook", "hook"])
    @pytest.mark.parametrize(("limits", "over"), [(CLIENT, OVER_CLIENT), (USER, OVER_USER)], ids=["client", "user"])
    async def test_connecting_again_brings_no_burst(
        self, limits: Limits, over: str, handler: str, autojump_clock: Clock
    ) -> None:
        app, received = app_with(limits, handler)
        async with serving(app) as service:
            begin = trio.current_time()
            for _ in range(50):
                peer = await Peer.connect(service, user="ada")
                await peer.send(BURST)
                await peer.leave()
            assert len(received) <= BURST + 2 * (trio.current_time() - begin)
            assert len(received) >= BURST
            peer = await Peer.connect(service, user="ada")
            assert await peer.send(1) == [over]
            await trio.sleep(BURST)  # the debt has a limit
            before = len(received)
            assert await peer.send(1) == []
            assert len(received) == before + 1
            await peer.leave()

    @pytest.mark.parametrize(
        "wire", [frame(FIN | BINARY, b"m"), frame(FIN | TEXT, b"m" * 5000)], ids=["binary", "long"]
    )
    async def test_whatever_the_message(self, wire: bytes, autojump_clock: Clock) -> None:
        app, received = app_with(CLIENT)
        async with serving(app) as service:
            one, two = await Peer.connect(service), await Peer.connect(service)
            assert await one.send(3, wire) + await two.send(3, wire) == [OVER_CLIENT]
            assert len(received) == BURST
            for peer in (one, two):
                await peer.leave()

    async def test_json_pongs_count(self, autojump_clock: Clock) -> None:
        app, _ = app_with(CLIENT, heartbeat=Heartbeat(interval=30, timeout=90, json=True))
        async with serving(app) as service:
            one, two = await Peer.connect(service), await Peer.connect(service)
            pong = frame(FIN | TEXT, b'{"type":"pong"}')
            assert await one.send(3, pong) + await two.send(3, pong) == [OVER_CLIENT]
            for peer in (one, two):
                await peer.leave()

    @pytest.mark.parametrize(
        ("limits", "one", "two", "shared"),
        [
            (CLIENT, ("192.0.2.1", "ada"), ("192.0.2.1", "bob"), True),
            (CLIENT, ("192.0.2.1", "ada"), ("192.0.2.2", "ada"), False),
            (CLIENT, ("2001:db8::1", None), ("2001:db8::ffff:1", None), True),
            (CLIENT, ("2001:db8::1", None), ("2001:db8:0:1::1", None), False),
            (CLIENT, ("::ffff:192.0.2.1", None), ("192.0.2.1", None), True),
            (USER, ("192.0.2.1", "ada"), ("192.0.2.1", "bob"), False),
            (USER, ("192.0.2.1", "ada"), ("192.0.2.2", "ada"), True),
            (USER, ("192.0.2.1", None), ("192.0.2.1", None), False),
        ],
    )
    async def test_who_is_one(
        self,
        limits: Limits,
        one: tuple[str, str | None],
        two: tuple[str, str | None],
        shared: bool,
        autojump_clock: Clock,
    ) -> None:
        app, received = app_with(limits)
        async with serving(app) as service:
            peers = [await Peer.connect(service, *who) for who in (one, two)]
            said = [await peer.send(BURST) for peer in peers]
            assert len(received) == (BURST if shared else 2 * BURST)
            assert bool(said[1]) is shared
            for peer in peers:
                await peer.leave()

    async def test_the_other_connection_is_refused_and_not_ended(self, autojump_clock: Clock) -> None:
        """Only a connection that is too fast by itself is ended; a quiet one of the same user never is."""
        app, received = app_with(USER)
        async with serving(app) as service:
            quiet = await Peer.connect(service, user="ada")
            for _ in range(20):
                loud = await Peer.connect(service, user="ada")
                assert (await loud.send(3 * BURST))[-1] == "1008"
                assert await quiet.send(1) in ([OVER_USER], []), "told once"
                await loud.leave()
                await trio.sleep(0.5)
            assert app.statistics().ended == {"rate": 20}
            assert len(received) <= BURST + 2 * 20
            await trio.sleep(BURST)
            before = len(received)
            assert await quiet.send(1) == []
            assert len(received) == before + 1
            await quiet.leave()

    @pytest.mark.parametrize(
        "limits",
        [
            CLIENT,
            USER,
            Limits(max_messages_per_second=1000, max_messages_per_second_per_user=2, message_burst=BURST),
            Limits(
                max_messages_per_second=1,
                max_messages_per_second_per_user=50,
                max_messages_per_second_per_client=50,
                message_burst=BURST,
            ),
        ],
    )
    async def test_going_on_ends(self, limits: Limits, autojump_clock: Clock) -> None:
        app, received = app_with(limits)
        async with serving(app) as service:
            peer = await Peer.connect(service, user="ada")
            said = []
            for _ in range(4 * BURST):
                said += await peer.send(1)
            assert said[-1] == "1008"
            assert len(said) == 2, "an error message once"
            assert BURST <= len(received) <= BURST + 1
            await peer.leave()
            assert app.statistics().ended == {"rate": 1}

    async def test_at_the_rate_all_is_well(self, autojump_clock: Clock) -> None:
        app, received = app_with(Limits(max_messages_per_second_per_client=2, max_messages_per_second_per_user=2))
        async with serving(app) as service:
            peers = [await Peer.connect(service, user="ada") for _ in range(2)]
            for _ in range(200):
                for peer in peers:
                    assert await peer.send(1) == []
                await trio.sleep(1)
            assert len(received) == 400
            for peer in peers:
                await peer.leave()

    async def test_a_burst_is_a_second_at_least(self, autojump_clock: Clock) -> None:
        app, received = app_with(Limits(max_messages_per_second_per_client=50, message_burst=BURST))
        async with serving(app) as service:
            peers = [await Peer.connect(service) for _ in range(20)]
            for peer in peers:
                await peer.send(BURST)
            assert 50 <= len(received) < 100 + 20
            for peer in peers:
                await peer.leave()

    async def test_of_the_app_a_group_and_a_route(self, autojump_clock: Clock) -> None:
        """The app's count holds for all routes; a group's and a route's count by themselves as well."""
        app = App(limits=Limits(max_messages_per_second_per_user=1, message_burst=8), middleware=[who])
        received: list[Any] = []
        routes: list[tuple[Any, str, Limits | None]] = [
            (app, "/ws", None),
            (app, "/own", Limits(max_messages_per_second_per_user=1, message_burst=2)),
            (app, "/free", Limits()),
            (app.group("/group", limits=Limits(max_messages_per_second_per_user=1, message_burst=3)), "/ws", None),
        ]
        for target, path, limits in routes:
            target.ws(path, message=lambda ws, message: received.append(message), limits=limits)
        for path, passes in (("/own", 2), ("/group/ws", 3), ("/free", 8), ("/ws", 8)):
            received.clear()
            async with serving(app) as service:
                peer = await Peer.connect(service, user="ada", path=path)
                for _ in range(3):
                    await peer.send(3)
                    await peer.leave()
                    peer = await Peer.connect(service, user="ada", path=path)
                assert len(received) == passes
                await peer.leave()
        async with serving(app) as service:
            await trio.sleep(100)  # a route's own count is the route's, and goes on
            received.clear()
            for path in ("/free", "/own", "/ws"):
                peer = await Peer.connect(service, user="ada", path=path)
                await peer.send(6)
                await peer.leave()
            assert len(received) == 8, "together"

    async def test_over_plain_asgi(self, autojump_clock: Clock) -> None:
        """Without the take-over: the same table, by the scope's client."""
        app, received = app_with(CLIENT)
        async with app.lifespan():
            for _ in range(3):
                incoming: list[dict[str, Any]] = [{"type": "websocket.connect"}]
                incoming += [{"type": "websocket.receive", "text": "m"}] * 4
                incoming += [{"type": "websocket.disconnect", "code": 1000}]
                sent: list[Any] = []

                async def receive(incoming: list[dict[str, Any]] = incoming) -> dict[str, Any]:
                    await trio.sleep(0.001)
                    return incoming.pop(0)

                async def send(message: Any, sent: list[Any] = sent) -> None:
                    sent.append(message)

                scope = {"type": "websocket", "path": "/ws", "headers": [], "client": ("192.0.2.9", 5)}
                await app({**scope, "query_string": b"", "subprotocols": [], "root_path": ""}, receive, send)
        assert len(received) == BURST


KEY = "a secret of thirty-two bytes, or more"


class TestFirstMessage:
    auth = JWTAuth(KEY, first_message_timeout=10)

    def token(self) -> bytes:
        text = json.dumps({"type": "auth", "token": self.auth.issue({"id": 7})})
        payload = text.encode()
        return frame(FIN | TEXT, payload)

    @pytest.mark.parametrize("at_once", [True, False])
    async def test_the_user_counts_from_there(self, at_once: bool, autojump_clock: Clock) -> None:
        """What comes in the same breath as the token is no way around."""
        app = App(limits=USER)
        received: list[Any] = []
        app.ws("/ws", message=lambda ws, message: received.append(message), middleware=[self.auth])
        async with serving(app) as service:
            begin = trio.current_time()
            for _ in range(20):
                stream = service.open_stream()
                await shake_hands(stream)
                await stream.send_all(self.token())
                if not at_once:
                    await trio.sleep(0.01)
                await stream.send_all(frame(FIN | TEXT, b"m") * BURST)
                await trio.sleep(0.01)
                await stream.aclose()
                await trio.sleep(0.01)
            assert BURST <= len(received) <= BURST + 2 * (trio.current_time() - begin)
            await trio.sleep(2 * BURST)
            stream = service.open_stream()
            await shake_hands(stream)
            await stream.aclose()
            await service.wait_ended(5)
            assert tables(app) == [0, 0, 0] or tables(app)[2] <= 1

    async def test_a_full_inbox_is_read_on(self, autojump_clock: Clock) -> None:
        """What is thrown away of it makes room."""
        app = App(limits=Limits(max_messages_per_second_per_user=2, message_burst=BURST, max_inbox_messages=8))
        received: list[Any] = []

        @app.ws("/ws", middleware=[self.auth])
        async def slow(ws: WebSocket) -> None:
            async for message in ws:
                received.append(message)

        async with serving(app) as service:
            for _ in range(2):
                received.clear()
                stream = service.open_stream()
                await shake_hands(stream)
                await stream.send_all(self.token() + frame(FIN | TEXT, b"m") * 9)
                await trio.sleep(0.01)
                assert len(received) <= BURST
                await trio.sleep(10)
                await stream.send_all(frame(FIN | TEXT, b"again"))
                await trio.sleep(0.01)
                assert received[-1] == "again"
                await stream.send_all(frame(FIN | TEXT, b"m") * 6)  # in debt for the next
                await trio.sleep(0.01)
                await stream.aclose()


CONNECTING = Limits(max_connections_per_second_per_client=0.5, connection_burst=3)


class TestConnections:
    async def knock(self, service: Service, kind: str, address: str = "192.0.2.1") -> tuple[int, str | None]:
        """Ask once, and leave: the status, and `Retry-After`."""
        stream = service.open_stream()
        if kind == "ws":
            answer = await shake_hands(stream, "/ws", f"X-Forwarded-For: {address}\r\n".encode())
            head, _, _ = answer.partition(b"\r\n\r\n")
            fields = [line.partition(b": ") for line in head.split(b"\r\n")[1:]]
            found = httpx.Headers([(name, value) for name, _, value in fields])
            status = int(answer.split(b" ")[1])
        else:
            client = await Exchange(stream).request("/events/lobby", headers={"x-forwarded-for": address})
            status, found = client.status, httpx.Headers(client.headers)
        await stream.aclose()
        await service.wait_ended(5)
        return status, found.get("retry-after")

    def app(self, limits: Limits = CONNECTING) -> App:
        app, _ = app_with(limits)
        app.sse("/events/:room")
        return app

    @pytest.mark.parametrize("kinds", [["ws"], ["sse"], ["ws", "sse"]], ids=str)
    async def test_over_it_is_429(self, kinds: list[str], autojump_clock: Clock) -> None:
        app = self.app()
        async with serving(app) as service:
            statuses = [await self.knock(service, kinds[n % len(kinds)]) for n in range(6)]
            assert [status < 400 for status, _ in statuses] == [True] * 3 + [False] * 3
            assert statuses[3:] == [(429, "2")] * 3
            assert (await self.knock(service, kinds[0], "192.0.2.2"))[0] < 400, "another client"

    @pytest.mark.parametrize("kind", ["ws", "sse"])
    async def test_retry_after_is_true(self, kind: str, autojump_clock: Clock) -> None:
        """Refused connections do not count. After `Retry-After` one is let in."""
        async with serving(self.app()) as service:
            for _ in range(3):
                await self.knock(service, kind)
            for _ in range(5):
                for _ in range(20):
                    status, seconds = await self.knock(service, kind)
                    assert status == 429
                    assert seconds is not None
                await trio.sleep(int(seconds or 0))
                assert (await self.knock(service, kind))[0] < 400

    async def test_what_is_refused_for_another_reason_does_not_count(self, autojump_clock: Clock) -> None:
        app = self.app(Limits(max_connections=1, max_connections_per_second_per_client=0.01, connection_burst=2))
        async with serving(app) as service:
            peer = await Peer.connect(service, "192.0.2.9")
            for _ in range(5):
                stream = service.open_stream()
                assert b" 503 " in await shake_hands(stream, "/ws", b"X-Forwarded-For: 192.0.2.1\r\n")
                await stream.aclose()
            await peer.leave()
            await service.wait_ended(5)
            assert [(await self.knock(service, "ws"))[0] for _ in range(3)] == [101, 101, 429]
            assert len(app._running_hub().quotas) == 0, "who is refused has no place"

    async def test_of_the_app_and_of_a_route(self, autojump_clock: Clock) -> None:
        app = App(
            limits=Limits(max_connections_per_second_per_client=0.01, connection_burst=4), trusted_proxies=["unix"]
        )
        app.ws("/free", open=lambda ws: None)
        own = Limits(max_connections_per_second_per_client=0.01, connection_burst=2)
        app.ws("/ws", open=lambda ws: None, limits=own)
        async with serving(app) as service:
            assert [(await self.knock(service, "ws"))[0] for _ in range(3)] == [101, 101, 429]
            for status in (b" 101 ", b" 101 ", b" 429 "):  # the app has counted two
                stream = service.open_stream()
                assert status in await shake_hands(stream, "/free", b"X-Forwarded-For: 192.0.2.1\r\n")
                await stream.aclose()

    async def test_head_is_no_stream(self, autojump_clock: Clock) -> None:
        async with serving(self.app()) as service:
            for _ in range(10):
                client = Exchange(service.open_stream())
                await client.stream.send_all(b"HEAD /events/lobby HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                assert b" 200 " in bytes(await client.stream.receive_some())
                await client.aclose()


async def test_nothing_is_kept_of_those_who_have_gone(autojump_clock: Clock) -> None:
    limits = Limits(
        max_connections_per_second_per_client=10,
        max_messages_per_second_per_client=2,
        max_messages_per_second_per_user=2,
        message_burst=BURST,
    )
    app, _ = app_with(limits)
    async with serving(app) as service:
        for number in range(20):
            peer = await Peer.connect(service, f"192.0.2.{number}", f"user {number}")
            await peer.send(BURST)
            await peer.leave()
        await trio.sleep(100)
        for _ in range(20):  # each looks at some of those before
            peer = await Peer.connect(service, "198.51.100.1", "another")
            await peer.leave()
            await trio.sleep(100)
        assert tables(app) == [1, 0, 0], "who has just connected"
