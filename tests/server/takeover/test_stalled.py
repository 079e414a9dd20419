"""Responses whose client takes nothing of them, slowly something, or all; over virtual time."""

from __future__ import annotations

import contextlib
import itertools
import math
import ssl
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any

import h2.config
import h2.connection
import h2.events
import h2.settings
import pytest
import trio
import trio.testing
import trustme
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from trio.abc import Clock

from tests.support.http import Exchange
from tests.support.memory import Service, serving
from verbtrio import App, Limits, Stream
from verbtrio.base.timers import Timers
from verbtrio.server.takeover.stalled import LOOKS, PIECE_BYTES, stall_timeout
from verbtrio.wire.tcp_info import acknowledged

SIZE = 20 * PIECE_BYTES
LINE = "a connection was ended: its client has taken nothing of a response for 60 s"
LINE_HTTP2 = "a response over HTTP/2 was ended: its client took nothing for 60 s"
REQUEST = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"

Make = Callable[[], Response]


def app_with(make: Make, **options: Any) -> App:
    app = App(http2_cleartext=True, **options)

    @app.get("/")
    async def index(request: Request) -> Response:
        return make()

    @app.get("/small")
    async def small(request: Request) -> Response:
        return PlainTextResponse("small")

    return app


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name.startswith("verbtrio")]


async def pieces(log: list[str], size: int = SIZE) -> AsyncIterator[bytes]:
    try:
        for _ in range(size // 1024):
            yield bytes(1024)
    finally:
        log.append("cleaned up")


class TestPatience:
    @pytest.fixture
    async def timers(self, autojump_clock: Clock) -> AsyncIterator[Timers]:
        timers = Timers()
        running = trio.CancelScope()

        async def run() -> None:
            with running:
                await timers.run()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(run)
            yield timers
            running.cancel()
        assert len(timers) == 0

    async def test_nothing_is_taken(self, autojump_clock: Clock, timers: Timers) -> None:
        begin = trio.current_time()
        with stall_timeout(timers, lambda: 8, lambda: 0) as limit:
            await trio.sleep(math.inf)
        assert limit.cancelled_caught
        assert 8 <= trio.current_time() - begin < 8.1

    async def test_from_the_last_that_was_taken(self, autojump_clock: Clock, timers: Timers) -> None:
        begin = trio.current_time()
        with stall_timeout(timers, lambda: 8, lambda: trio.current_time() > begin + 100) as limit:
            with trio.move_on_after(7.9):
                await trio.sleep_forever()
        assert not limit.cancelled_caught
        begin = trio.current_time()
        with stall_timeout(timers, lambda: 8, lambda: trio.current_time() > begin + 7) as limit:
            await trio.sleep(math.inf)
        assert limit.cancelled_caught
        assert 15 <= trio.current_time() - begin <= 15 + 8 / LOOKS + 0.1

    @pytest.mark.parametrize("seconds", [8.0, math.inf])
    async def test_something_is_taken_each_time(self, autojump_clock: Clock, timers: Timers, seconds: float) -> None:
        taken = (lambda: trio.current_time() // 7) if seconds == 8 else (lambda: 0)
        with stall_timeout(timers, lambda: seconds, taken) as limit:
            await trio.sleep(1000)
        assert not limit.cancelled_caught

    async def test_the_time_may_change(self, autojump_clock: Clock, timers: Timers) -> None:
        begin = trio.current_time()
        with stall_timeout(timers, lambda: math.inf if trio.current_time() < begin + 100 else 8, lambda: 0) as limit:
            await trio.sleep(math.inf)
        assert limit.cancelled_caught


class TestHTTP1:
    @pytest.mark.filterwarnings(
        "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
    )  # Starlette's
    @pytest.mark.parametrize("kind", ["plain", "streaming", "tls"])
    async def test_a_client_that_takes_nothing(
        self, kind: str, autojump_clock: Clock, caplog: pytest.LogCaptureFixture
    ) -> None:
        log: list[str] = []
        makes: dict[str, Make] = {"streaming": lambda: StreamingResponse(pieces(log))}
        async with serving(app_with(makes.get(kind, lambda: Response(bytes(SIZE))))) as service:
            stream = service.open_stream(tls_pair if kind == "tls" else trio.testing.lockstep_stream_pair)
            await stream.send_all(REQUEST)
            assert await stream.receive_some(100)
            await trio.sleep(59)
            assert service.connections.child_tasks
            await service.wait_ended(1.5)
            assert lines(caplog) == [LINE]
        if kind == "streaming":
            assert log == ["cleaned up"]

    async def test_one_that_reads_slowly_gets_everything(
        self, autojump_clock: Clock, caplog: pytest.LogCaptureFixture
    ) -> None:
        async with serving(app_with(lambda: Response(bytes(SIZE)))) as service:
            client = await Exchange(service.open_stream(trio.testing.lockstep_stream_pair)).request("/")
            body = 0
            while (piece := await client.piece()) is not None:
                body += len(piece)
                if body % PIECE_BYTES == 0:
                    await trio.sleep(50)
            assert body == SIZE
            await client.aclose()
        assert not lines(caplog)

    async def test_the_next_requests_of_one_that_has_gone_are_not_begun(self, autojump_clock: Clock) -> None:
        begun = itertools.count()

        def make() -> Response:
            next(begun)
            return Response(bytes(SIZE))

        async with serving(app_with(make)) as service:
            stream = service.open_stream(trio.testing.lockstep_stream_pair)
            await stream.send_all(REQUEST * 10)
            await service.wait_ended(61)
        assert next(begun) == 1

    async def test_the_apps_setting(self, autojump_clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
        app = app_with(lambda: Response(bytes(SIZE)), limits=Limits(http_send_timeout=5))
        async with serving(app) as service:
            stream = service.open_stream(trio.testing.lockstep_stream_pair)
            await stream.send_all(REQUEST)
            await service.wait_ended(5.1)
            assert lines(caplog) == [LINE.replace("60", "5")]

    @pytest.mark.parametrize("seconds", [300.0, None])
    async def test_a_streams_own_time_counts(
        self, seconds: float | None, autojump_clock: Clock, caplog: pytest.LogCaptureFixture
    ) -> None:
        """And it is the stream that ends: nothing is logged."""
        log: list[str] = []
        async with serving(app_with(lambda: Stream(pieces(log), send_timeout=seconds))) as service:
            stream = service.open_stream(trio.testing.lockstep_stream_pair)
            await stream.send_all(REQUEST)
            assert await stream.receive_some(10_000)
            await trio.sleep(299)
            assert service.connections.child_tasks
            assert not log
            if seconds is None:
                await trio.sleep(10_000)
                assert not log
                await stream.aclose()
            await service.wait_ended(2)
            assert log == ["cleaned up"]
            assert not lines(caplog)

    @pytest.mark.parametrize("http2", [False, True])
    async def test_the_application_is_told_what_it_is_of_one_that_has_left(
        self, http2: bool, autojump_clock: Clock
    ) -> None:
        app = App(http2_cleartext=True)
        seen: list[str] = []

        @app.get("/")
        async def index(request: Request) -> Response:
            await request._send({"type": "http.response.start", "status": 200, "headers": []})
            for _ in range(3):
                await request._send({"type": "http.response.body", "body": bytes(SIZE), "more_body": True})
            await request.body()
            seen.append((await request.receive())["type"])
            return Bare()

        async with serving(app) as service:
            if http2:
                client = Client(service.open_stream())
                await client.get()
            else:
                stream = service.open_stream(trio.testing.lockstep_stream_pair)
                await stream.send_all(REQUEST)
            with trio.fail_after(76):
                while not seen:
                    await trio.sleep(0.1)
        assert seen == ["http.disconnect"]


class Bare(Response):
    """Sends nothing."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None: ...


def tls_pair() -> tuple[trio.SSLStream[Any], trio.SSLStream[Any]]:
    authority = trustme.CA()
    server, client = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH), ssl.create_default_context()
    authority.issue_cert("test").configure_cert(server)
    authority.configure_trust(client)
    one, other = trio.testing.lockstep_stream_pair()
    return (
        trio.SSLStream(one, client, server_hostname="test", https_compatible=True),
        trio.SSLStream(other, server, server_side=True, https_compatible=True),
    )


class Client:
    """An HTTP/2 client that gives the server no more to send than a test says."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream
        self.state = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
        self.state.initiate_connection()
        self.events: list[Any] = []
        self.closed = False

    async def get(self, path: str = "/", **priority: Any) -> int:
        stream_id = self.state.get_next_available_stream_id()
        fields = [(":method", "GET"), (":scheme", "http"), (":path", path), (":authority", "x")]
        self.state.send_headers(stream_id, fields, end_stream=True, **priority)
        await self.flush()
        return stream_id

    async def flush(self) -> None:
        await self.stream.send_all(self.state.data_to_send())

    async def read(self) -> None:
        """Take what comes, until the end."""
        with contextlib.suppress(trio.ClosedResourceError):  # by the test
            while data := await self.stream.receive_some():
                self.events += self.state.receive_data(bytes(data))
            self.closed = True

    def has(self, kind: type[h2.events.Event]) -> list[int]:
        """The streams of the events of a kind."""
        return [event.stream_id for event in self.events if isinstance(event, kind)]  # type: ignore[attr-defined]


class TestHTTP2:
    async def open(self, service: Service, nursery: trio.Nursery, pair: Any = None) -> Client:
        client = Client(service.open_stream(pair))
        nursery.start_soon(client.read)
        return client

    @pytest.mark.filterwarnings(
        "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
    )  # Starlette's
    @pytest.mark.parametrize("kind", ["plain", "streaming"])
    async def test_the_stream_of_one_that_takes_nothing_is_reset(
        self, kind: str, autojump_clock: Clock, caplog: pytest.LogCaptureFixture
    ) -> None:
        log: list[str] = []
        makes: dict[str, Make] = {"streaming": lambda: StreamingResponse(pieces(log))}
        async with (
            serving(app_with(makes.get(kind, lambda: Response(bytes(SIZE))))) as service,
            trio.open_nursery() as nursery,
        ):
            client = await self.open(service, nursery)
            await client.get()
            await trio.sleep(59)
            assert not client.has(h2.events.StreamReset)
            assert not log
            await trio.sleep(17)  # what it has taken at once was seen after a quarter of the time
            assert client.has(h2.events.StreamReset) == [1]
            assert lines(caplog) == [LINE_HTTP2]
            assert log == (["cleaned up"] if kind == "streaming" else [])
            await service.wait_ended(6)  # the keep-alive's time
            assert client.closed

    async def test_its_connection_is_none_the_worse(self, autojump_clock: Clock) -> None:
        async with serving(app_with(lambda: Response(bytes(SIZE)))) as service, trio.open_nursery() as nursery:
            client = await self.open(service, nursery)
            await client.get()
            await trio.sleep(1)
            client.state.increment_flow_control_window(2**20)  # for the others: `small` needs some
            for _ in range(25):
                asked = await client.get("/small")
                await trio.sleep(4)  # hypercorn closes what is idle for 5 s
                assert asked in client.has(h2.events.StreamEnded)
            assert client.has(h2.events.StreamReset) == [1]
            await client.stream.aclose()

    async def test_one_that_reads_slowly_gets_everything(
        self, autojump_clock: Clock, caplog: pytest.LogCaptureFixture
    ) -> None:
        async with serving(app_with(lambda: Response(bytes(SIZE)))) as service, trio.open_nursery() as nursery:
            client = await self.open(service, nursery)
            await client.get()
            while not client.has(h2.events.StreamEnded):
                assert not client.has(h2.events.StreamReset)
                await trio.sleep(50)
                client.state.increment_flow_control_window(PIECE_BYTES)
                client.state.increment_flow_control_window(PIECE_BYTES, 1)
                await client.flush()
                await trio.sleep(0.1)
            data = [event.data for event in client.events if isinstance(event, h2.events.DataReceived)]
            assert sum(map(len, data)) == SIZE
            await client.stream.aclose()
        assert not lines(caplog)

    async def test_the_connection_of_one_that_reads_nothing_at_all_is_closed(
        self, autojump_clock: Clock, caplog: pytest.LogCaptureFixture
    ) -> None:
        async with serving(app_with(lambda: Response(bytes(SIZE)))) as service:
            client = Client(service.open_stream(partial(bounded_pair, 20_000)))
            await client.get()
            await client.get()
            await trio.sleep(59)
            assert service.connections.child_tasks
            await service.wait_ended(2)
            assert lines(caplog) == [LINE]

    async def test_others_turn_is_not_held_against_it(self, autojump_clock: Clock) -> None:
        """Two responses, of which the client wants the second first: it takes that one for longer than the time."""
        async with serving(app_with(lambda: Response(bytes(SIZE)))) as service, trio.open_nursery() as nursery:
            client = await self.open(service, nursery)
            client.state.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 2**24})
            first = await client.get(priority_depends_on=3)
            second = await client.get()
            while second not in client.has(h2.events.StreamEnded):
                await trio.sleep(20)
                client.state.increment_flow_control_window(PIECE_BYTES)
                await client.flush()
                await trio.sleep(0.1)
            assert not client.has(h2.events.StreamReset)
            client.state.increment_flow_control_window(2**24)
            await client.flush()
            await trio.sleep(1)
            assert first in client.has(h2.events.StreamEnded)
            await client.stream.aclose()

    @pytest.mark.parametrize("seconds", [300.0, None])
    async def test_a_streams_own_time_counts(self, seconds: float | None, autojump_clock: Clock) -> None:
        log: list[str] = []
        app = app_with(lambda: Stream(pieces(log), send_timeout=seconds))
        async with serving(app) as service, trio.open_nursery() as nursery:
            client = await self.open(service, nursery)
            await client.get()
            await trio.sleep(299)
            assert not client.has(h2.events.StreamReset)
            if seconds is None:
                await trio.sleep(10_000)
                assert not client.has(h2.events.StreamReset)
                await client.stream.aclose()
            else:
                await trio.sleep(2)
                assert client.has(h2.events.StreamReset) == [1]
                await service.wait_ended(6)
            nursery.cancel_scope.cancel()

    async def test_a_stream_behind_middleware_is_cut_off(self, autojump_clock: Clock) -> None:
        """The middleware waits for the client; before, it did so for ever."""
        log: list[str] = []

        async def pass_through(request: Any, call_next: Any) -> Any:
            return await call_next(request)

        app = app_with(lambda: Stream(pieces(log), send_timeout=5), middleware=[pass_through])
        async with serving(app) as service, trio.open_nursery() as nursery:
            client = await self.open(service, nursery)
            await client.get()
            await trio.sleep(5.2)
            assert client.has(h2.events.StreamReset) == [1]
            assert log == ["cleaned up"]
            await service.wait_ended(6)


def bounded_pair(size: int) -> tuple[Any, Any]:
    """Two ends, of which the second can write `size` bytes that are not read, and no more."""
    client, server = trio.testing.memory_stream_pair()
    written = 0
    send_all = server.send_all

    async def bounded(data: Any) -> None:
        nonlocal written
        written += len(data)
        await send_all(data)
        if written > size:
            await trio.sleep_forever()

    server.send_all = bounded  # type: ignore[method-assign]
    return client, server


async def test_what_is_acknowledged() -> None:
    """TCP's own count: a client that reads nothing takes what its buffer holds, and no more until it reads."""
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    listener.socket.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_RCVBUF, 4096)
    async with listener, await trio.open_tcp_stream(*listener.socket.getsockname()) as sender:
        async with await listener.accept() as receiver, trio.open_nursery() as nursery:
            assert acknowledged(sender) <= 1
            nursery.start_soon(sender.send_all, bytes(20 * 2**20))
            held = await steady(sender)
            assert 0 < held < 2**20
            with trio.fail_after(5):
                while acknowledged(sender) <= held:
                    await receiver.receive_some(4096)
            nursery.cancel_scope.cancel()
    assert acknowledged(sender) == 0, "closed"
    assert acknowledged(trio.testing.memory_stream_pair()[0]) == 0


async def steady(stream: trio.SocketStream) -> int:
    """What is acknowledged once it no longer grows."""
    last, same = -1, 0
    with trio.fail_after(10):
        while same < 10:
            now = acknowledged(stream)
            last, same = now, same + 1 if now == last else 0
            await trio.sleep(0.02)
    return last
