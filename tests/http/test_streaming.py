"""Streamed responses over the take-over's HTTP: what a client that leaves, stops reading or comes late does to them."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from typing import Any

import h11
import pytest
import trio
import trio.testing
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from trio.abc import Clock

from tests.support.http import Exchange
from tests.support.memory import serving
from verbtrio import App, JSONArray, Stream
from verbtrio.http.writer import CHUNK_BYTES


async def count(log: list[str], pause: float = 1.0) -> AsyncIterator[str]:
    """Numbers for ever, and what happened at the end; what its `finally` awaits is shielded, as it has to be."""
    try:
        for number in range(1_000_000):
            yield f"{number}\n"
            await trio.sleep(pause)
    except BaseException as error:
        log.append(type(error).__name__)
        raise
    finally:
        with trio.move_on_after(1, shield=True):
            await trio.sleep(0.01)
            log.append("cleaned up")


def app_with(make: Callable[[], Response], **options: Any) -> App:
    """An app that answers every GET of / with `make()`."""
    app = App(**options)

    @app.get("/")
    async def endpoint(request: Request) -> Response:
        return make()

    return app


async def pass_through(request: Request, call_next: Callable[[Any], Awaitable[Response]]) -> Response:
    return await call_next(request)


class TestStream:
    async def test_text_and_bytes_as_they_come(self, autojump_clock: Clock) -> None:
        async def pieces() -> AsyncIterator[str | bytes | memoryview]:
            yield "ä"
            await trio.sleep(1)
            yield b"bytes"
            await trio.sleep(1)
            yield memoryview(b"view")

        async with serving(app_with(lambda: Stream(pieces(), media_type="text/plain"))) as service:
            client = await Exchange(service.open_stream()).request("/")
            assert client.status == 200
            assert client.headers["content-type"] == "text/plain; charset=utf-8"
            assert [await client.piece() for _ in range(4)] == ["ä".encode(), b"bytes", b"view", None]
            await client.aclose()

    @pytest.mark.parametrize("middleware", [[], [pass_through]])
    async def test_a_client_that_leaves_cancels_the_generator(
        self, middleware: list[Any], autojump_clock: Clock
    ) -> None:
        log: list[str] = []
        app = app_with(lambda: Stream(count(log, pause=1000)), middleware=middleware)
        async with serving(app) as service:
            client = await Exchange(service.open_stream()).request("/")
            assert await client.piece() == b"0\n"
            await trio.testing.wait_all_tasks_blocked()
            assert not log
            await client.aclose()
            with trio.fail_after(1):
                while not log:
                    await trio.sleep(0.05)
                await trio.sleep(0.05)
            assert log == ["Cancelled", "cleaned up"]

    @pytest.mark.parametrize("middleware", [[], [pass_through]])
    async def test_a_client_that_leaves_while_the_generator_stands_at_its_yield(
        self, middleware: list[Any], autojump_clock: Clock
    ) -> None:
        """It is closed then, by the task that ran it: not by the garbage collector, which Trio would warn of."""
        log: list[str] = []
        app = app_with(lambda: Stream(count(log, pause=0), send_timeout=None), middleware=middleware)
        async with serving(app) as service:
            stream = service.open_stream(trio.testing.lockstep_stream_pair)
            client = await Exchange(stream).request("/")
            assert await client.piece() == b"0\n"
            await trio.sleep(100)
            assert not log, "it waits for the client to read"
            await client.aclose()
            with trio.fail_after(1):
                while "cleaned up" not in log:
                    await trio.sleep(0.05)
            assert log[-1] == "cleaned up"
            assert log[0] in ("GeneratorExit", "Cancelled")

    async def test_it_is_not_read_ahead_of_the_client(self, autojump_clock: Clock) -> None:
        made = 0

        async def endless() -> AsyncIterator[bytes]:
            nonlocal made
            while True:
                made += 1
                yield bytes(1000)

        async with serving(app_with(lambda: Stream(endless(), send_timeout=None))) as service:
            client = await Exchange(service.open_stream(trio.testing.lockstep_stream_pair)).request("/")
            for _ in range(10):
                assert await client.piece() == bytes(1000)
            await trio.sleep(1000)
            assert made <= 13
            await client.aclose()

    @pytest.mark.parametrize("middleware", [[], [pass_through]])
    async def test_a_client_that_stops_reading_ends_it(self, middleware: list[Any], autojump_clock: Clock) -> None:
        log: list[str] = []
        app = app_with(lambda: Stream(count(log, pause=0), send_timeout=5), middleware=middleware)
        async with serving(app) as service:
            client = await Exchange(service.open_stream(trio.testing.lockstep_stream_pair)).request("/")
            assert await client.piece() == b"0\n"
            await trio.sleep(4.9)
            assert not log
            await trio.sleep(0.3)
            assert log[-1] == "cleaned up"
            await service.wait_ended(1)  # and its connection with it, although the client has not left

    async def test_a_large_piece_has_its_time_for_each_64_kib(self, autojump_clock: Clock) -> None:
        """What a slow but steady client reads in 40 s is not cut off after 5."""
        size = 8 * CHUNK_BYTES

        async def large() -> AsyncIterator[bytes]:
            yield bytes(size)

        async with serving(app_with(lambda: Stream(large(), send_timeout=5))) as service:
            client = await Exchange(service.open_stream(trio.testing.lockstep_stream_pair)).request("/")
            body = b""
            while (piece := await client.piece()) is not None:
                body += piece
                if len(body) % CHUNK_BYTES == 0:
                    await trio.sleep(4.5)
            assert body == bytes(size)
            await client.aclose()

    async def test_what_raises_cuts_the_response_off(
        self, autojump_clock: Clock, caplog: pytest.LogCaptureFixture
    ) -> None:
        async def broken() -> AsyncIterator[str]:
            yield "so far "
            raise LookupError("no more")

        async with serving(app_with(lambda: Stream(broken()))) as service:
            client = await Exchange(service.open_stream()).request("/")
            assert await client.piece() == b"so far "
            with pytest.raises(h11.RemoteProtocolError, match="without sending complete message body"):
                await client.piece()

    async def test_the_error_is_the_applications_own(self) -> None:
        """Not in a group: exception handlers know none."""

        async def broken() -> AsyncIterator[str]:
            yield "x"
            raise LookupError("no more")

        async def receive() -> Any:
            await trio.sleep_forever()

        async def send(message: Any) -> None:
            await trio.lowlevel.checkpoint()

        with pytest.raises(LookupError, match="no more"):
            await Stream(broken())({"type": "http", "method": "GET"}, receive, send)

    async def test_head_does_not_start_it(self, autojump_clock: Clock) -> None:
        log: list[str] = []
        async with serving(app_with(lambda: Stream(count(log), media_type="text/plain"))) as service:
            client = Exchange(service.open_stream())
            await client.begin("/", method="HEAD", headers={})
            await client.send(h11.EndOfMessage())
            with trio.fail_after(1):
                assert (await client.head()).headers["content-type"] == "text/plain; charset=utf-8"
                assert await client.rest() == b""
            assert log == []
            await client.aclose()

    async def test_a_generator_with_a_nursery(self, autojump_clock: Clock) -> None:
        """`trio.as_safe_channel` is what makes those safe; its context manager is content, too."""
        log: list[str] = []

        @trio.as_safe_channel
        async def merged() -> AsyncGenerator[str, None]:
            send, receive = trio.open_memory_channel[str](0)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(beat, send, "a", 3)
                nursery.start_soon(beat, send, "b", 5)
                try:
                    async for text in receive:
                        yield text
                finally:
                    log.append("cleaned up")

        async def beat(send: trio.MemorySendChannel[str], text: str, pause: float) -> None:
            while True:
                await trio.sleep(pause)
                await send.send(text)

        async with serving(app_with(lambda: Stream(merged()))) as service:
            client = await Exchange(service.open_stream()).request("/")
            assert [await client.piece() for _ in range(4)] == [b"a", b"b", b"a", b"a"]
            await client.aclose()
            await trio.sleep(1)
            assert log == ["cleaned up"]

    async def test_a_nursery_that_fails_while_the_client_is_slow(self, autojump_clock: Clock) -> None:
        @trio.as_safe_channel
        async def failing() -> AsyncGenerator[bytes, None]:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(fail)
                while True:
                    yield bytes(CHUNK_BYTES)

        async def fail() -> None:
            await trio.sleep(1)
            raise LookupError("in the background")

        async with serving(app_with(lambda: Stream(failing()))) as service:
            client = await Exchange(service.open_stream(trio.testing.lockstep_stream_pair)).request("/")
            await client.piece()
            await trio.sleep(2)
            with pytest.raises(h11.RemoteProtocolError):
                await client.rest()

    async def test_a_plain_iterable(self) -> None:
        async with serving(app_with(lambda: Stream(str(number) for number in range(3)))) as service:
            client = await Exchange(service.open_stream()).request("/")
            assert await client.rest() == b"012"
            await client.aclose()

    async def test_background_work_comes_after_it(self, autojump_clock: Clock) -> None:
        log: list[str] = []

        async def pieces() -> AsyncIterator[str]:
            yield "x"
            log.append("body")

        def make() -> Response:
            return Stream(pieces(), background=BackgroundTask(log.append, "background"))

        async with serving(app_with(make)) as service:
            client = await Exchange(service.open_stream()).request("/")
            assert await client.rest() == b"x"
            await trio.testing.wait_all_tasks_blocked()
            await client.aclose()
        assert log == ["body", "background"]

    async def test_it_may_deny_an_upgrade(self, autojump_clock: Clock) -> None:
        async def pieces() -> AsyncIterator[str]:
            yield "not "
            yield "today"

        async def refuse(request: Any, call_next: Any) -> Response:
            return Stream(pieces(), 403)

        app = App()
        app.ws("/ws", open=lambda ws: None, middleware=[refuse])
        upgrade = {
            "upgrade": "websocket",
            "connection": "upgrade",
            "sec-websocket-version": "13",
            "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
        }
        async with serving(app) as service:
            client = Exchange(service.open_stream())
            await client.begin("/ws", method="GET", headers=upgrade)
            assert (await client.head()).status == 403
            assert await client.rest() == b"not today"
            await client.aclose()

    @pytest.mark.parametrize("content", ["text", b"bytes", count, 5, None])
    def test_what_is_no_content(self, content: Any) -> None:
        with pytest.raises(TypeError, match="the content of a Stream is an async iterable, not"):
            Stream(content)

    async def test_a_server_that_raises_when_the_client_has_left(self, autojump_clock: Clock) -> None:
        """ASGI 2.4: `send` raises `OSError`."""
        log: list[str] = []

        async def receive() -> Any:
            await trio.sleep_forever()

        async def send(message: Any) -> None:
            await trio.lowlevel.checkpoint()
            if message["type"] == "http.response.body":
                raise BrokenPipeError

        await Stream(count(log))({"type": "http", "method": "GET"}, receive, send)
        assert log[-1] == "cleaned up"


class TestJSONArray:
    @pytest.mark.parametrize("number", [0, 1, 2, 3, 4, 7])
    async def test_it_is_one_document(self, number: int) -> None:
        async def items() -> AsyncIterator[dict[str, int]]:
            for n in range(number):
                yield {"n": n}

        async with serving(app_with(lambda: JSONArray(items(), batch=3))) as service:
            client = await Exchange(service.open_stream()).request("/")
            assert client.headers["content-type"] == "application/json"
            assert json.loads(await client.rest()) == [{"n": n} for n in range(number)]
            await client.aclose()

    async def test_batches(self, autojump_clock: Clock) -> None:
        async def items() -> AsyncIterator[int]:
            for n in range(5):
                await trio.sleep(1)
                yield n

        async with serving(app_with(lambda: JSONArray(items(), batch=2))) as service:
            client = await Exchange(service.open_stream()).request("/")
            assert [await client.piece() for _ in range(4)] == [b"[0,\n1", b",\n2,\n3", b",\n4]", None]
            await client.aclose()

    async def test_a_batch_is_64_kib_at_most(self) -> None:
        async def items() -> AsyncIterator[str]:
            for _ in range(5):
                yield "x" * 50_000

        async with serving(app_with(lambda: JSONArray(items()))) as service:
            client = await Exchange(service.open_stream()).request("/")
            sizes = []
            while (piece := await client.piece()) is not None:
                sizes.append(len(piece))
            assert max(sizes) <= CHUNK_BYTES
            assert sum(sizes) == 5 * 50_002 + 2 + 4 * 2
            await client.aclose()

    async def test_an_item_that_is_none_cuts_it_off(self) -> None:
        async def items() -> AsyncIterator[object]:
            yield 1
            yield object()

        async with serving(app_with(lambda: JSONArray(items(), batch=1))) as service:
            client = await Exchange(service.open_stream()).request("/")
            with pytest.raises(h11.RemoteProtocolError):
                await client.rest()

    async def test_the_source_is_closed(self, autojump_clock: Clock) -> None:
        log: list[str] = []
        async with serving(app_with(lambda: JSONArray(count(log), batch=1))) as service:
            client = await Exchange(service.open_stream()).request("/")
            assert await client.piece() == b'["0\\n"'
            await client.aclose()
            await trio.sleep(1)
        assert log == ["Cancelled", "cleaned up"]

    def test_a_batch_of_nothing(self) -> None:
        with pytest.raises(ValueError, match="1 item or more, not 0"):
            JSONArray([], batch=0)


async def test_uploads_are_taken_as_they_come(autojump_clock: Clock) -> None:
    """Starlette's `request.stream()`; what the handler does not take yet is not read either."""
    app = App()
    taken: list[int] = []
    go_on = trio.Event()

    @app.post("/")
    async def upload(request: Request) -> Response:
        async for chunk in request.stream():
            taken.append(len(chunk))
            await go_on.wait()
        return PlainTextResponse(str(sum(taken)))

    sent = 0

    async def push(client: Exchange) -> None:
        nonlocal sent
        for _ in range(50):
            await client.send(h11.Data(data=bytes(10_000)))
            sent += 1
        await client.send(h11.EndOfMessage())

    async with serving(app) as service, trio.open_nursery() as nursery:
        client = Exchange(service.open_stream(trio.testing.lockstep_stream_pair))
        await client.begin("/", method="POST", headers={"transfer-encoding": "chunked"})
        nursery.start_soon(push, client)
        await trio.sleep(10)
        assert sent < 20, "64 KiB, and no more"
        go_on.set()
        await client.head()
        assert await client.rest() == b"500000"
        await client.aclose()


async def test_a_client_that_leaves_in_the_middle_of_its_upload(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    app = App()
    log: list[str] = []

    @app.post("/")
    async def upload(request: Request) -> Response:
        try:
            async for chunk in request.stream():
                log.append(f"{len(chunk)} bytes")
        except BaseException as error:
            log.append(type(error).__name__)
            raise
        return PlainTextResponse("all")

    async with serving(app) as service:
        client = Exchange(service.open_stream())
        await client.begin("/", method="POST", headers={"content-length": "1000"})
        await client.send(h11.Data(data=bytes(10)))
        await trio.sleep(1)
        await client.aclose()
        await trio.sleep(1)
    assert log == ["10 bytes", "ClientDisconnect"]
    assert not caplog.records
