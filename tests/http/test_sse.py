"""Server-sent events: how they are written, and the response that sends them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request
from starlette.responses import Response
from trio.abc import Clock

from tests.support.http import Exchange
from tests.support.memory import serving
from tests.support.sse import parse
from verbtrio import App, EventStream, ServerSentEvent, last_event_id

LINES = st.text(st.sampled_from("ab:\r\n\0 \x0b\x85\u2028é") | st.characters(exclude_categories=["Cs"]))
FIELD = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n\0"), min_size=1)


class TestServerSentEvent:
    @pytest.mark.parametrize(
        ("event", "text"),
        [
            (ServerSentEvent("hello"), "data: hello\n\n"),
            (ServerSentEvent(""), "data: \n\n"),
            (ServerSentEvent({"a": [1, "ä"]}), 'data: {"a":[1,"ä"]}\n\n'),
            (ServerSentEvent(0), "data: 0\n\n"),
            (ServerSentEvent("a\nb\r\nc\rd"), "data: a\ndata: b\ndata: c\ndata: d\n\n"),
            (ServerSentEvent("x", event="tick", id="7"), "id: 7\nevent: tick\ndata: x\n\n"),
            (ServerSentEvent("x", id=""), "id: \ndata: x\n\n"),
            (ServerSentEvent(retry=2.5), "retry: 2500\n\n"),
            (ServerSentEvent(comment="a\nb"), ": a\n: b\n\n"),
        ],
    )
    def test_as_it_is_sent(self, event: ServerSentEvent, text: str) -> None:
        assert event.encode() == text.encode()

    @given(data=LINES, event=FIELD, event_id=FIELD, comment=LINES)
    def test_one_is_one_whatever_it_holds(self, data: str, event: str, event_id: str, comment: str) -> None:
        """A reader by the standard gets this event, all of it and nothing else."""
        encoded = ServerSentEvent(data, event=event, id=event_id, comment=comment).encode()
        (received,) = parse(encoded)
        assert received.data == data.replace("\r\n", "\n").replace("\r", "\n")
        assert (received.event, received.id) == (event, event_id)

    @pytest.mark.parametrize("forged", ["a\ndata: forged", "a\rid: 1", "a\r\n\r\ndata: forged", "a\0"])
    @pytest.mark.parametrize("field", ["event", "id"])
    def test_what_would_forge_a_field(self, field: str, forged: str) -> None:
        values: dict[str, Any] = {field: forged}
        with pytest.raises(ValueError, match=f"{field} must not have line breaks"):
            ServerSentEvent("x", **values)

    @pytest.mark.parametrize("data", [b"x", bytearray(b"x"), memoryview(b"x")])
    def test_bytes(self, data: Any) -> None:
        with pytest.raises(TypeError, match="send bytes as base64"):
            ServerSentEvent(data)

    def test_what_json_has_no_form_for(self) -> None:
        with pytest.raises(TypeError, match="object"):
            ServerSentEvent(object()).encode()


async def ticks(first: int = 0, pause: float = 1.0) -> AsyncIterator[Any]:
    for number in range(first, 1_000_000):
        yield ServerSentEvent(number, id=str(number))
        await trio.sleep(pause)


def app_with(**options: Any) -> App:
    app = App()

    @app.get("/")
    async def endpoint(request: Request) -> Response:
        after = last_event_id(request)
        first = 0 if after is None else int(after) + 1
        return EventStream(ticks(first, options.pop("pause", 1.0)), **options)

    return app


class TestEventStream:
    async def test_events_as_they_come(self, autojump_clock: Clock) -> None:
        async with serving(app_with()) as service:
            client = await Exchange(service.open_stream()).request("/")
            assert client.headers["content-type"] == "text/event-stream; charset=utf-8"
            assert client.headers["cache-control"] == "no-store"
            assert client.headers["x-accel-buffering"] == "no"
            assert [await client.piece() for _ in range(2)] == [b"id: 0\ndata: 0\n\n", b"id: 1\ndata: 1\n\n"]
            await client.aclose()

    async def test_plain_data(self) -> None:
        app = App()

        @app.get("/")
        async def endpoint(request: Request) -> Response:
            return EventStream(["text", {"a": 1}])

        async with serving(app) as service:
            client = await Exchange(service.open_stream()).request("/")
            assert await client.rest() == b'data: text\n\ndata: {"a":1}\n\n'
            await client.aclose()

    async def test_where_it_goes_on(self, autojump_clock: Clock) -> None:
        async with serving(app_with()) as service:
            client = await Exchange(service.open_stream()).request("/", headers={"last-event-id": "41"})
            assert await client.piece() == b"id: 42\ndata: 42\n\n"
            await client.aclose()

    async def test_retry_comes_first(self, autojump_clock: Clock) -> None:
        async with serving(app_with(retry=10)) as service:
            client = await Exchange(service.open_stream()).request("/")
            assert await client.piece() == b"retry: 10000\n\n"
            await client.aclose()

    async def test_silence_is_broken(self, autojump_clock: Clock) -> None:
        async with serving(app_with(pause=40, keep_alive=15)) as service:
            client = await Exchange(service.open_stream()).request("/")
            begin = trio.current_time()
            heard = []
            for _ in range(5):
                piece = await client.piece()
                heard.append((round(trio.current_time() - begin), piece))
            comment = b": keep-alive\n\n"
            assert heard == [
                (0, b"id: 0\ndata: 0\n\n"),
                (15, comment),
                (30, comment),
                (40, b"id: 1\ndata: 1\n\n"),
                (55, comment),
            ]
            await client.aclose()

    async def test_silence_that_is_kept(self, autojump_clock: Clock) -> None:
        async with serving(app_with(pause=1000, keep_alive=None)) as service:
            client = await Exchange(service.open_stream()).request("/")
            assert await client.piece() == b"id: 0\ndata: 0\n\n"
            assert await client.piece() == b"id: 1\ndata: 1\n\n"
            await client.aclose()

    async def test_a_client_that_reads_nothing_is_found_by_the_comments(self, autojump_clock: Clock) -> None:
        async with serving(app_with(pause=1000, keep_alive=15, send_timeout=10)) as service:
            client = await Exchange(service.open_stream(trio.testing.lockstep_stream_pair)).request("/")
            assert await client.piece() == b"id: 0\ndata: 0\n\n"
            await service.wait_ended(26)

    async def test_it_ends_with_the_server(self, autojump_clock: Clock) -> None:
        """At once, and as a response that is complete: the browser connects again without a word on its console."""
        async with serving(app_with(pause=1000)) as service:
            client = await Exchange(service.open_stream()).request("/")
            assert await client.piece() == b"id: 0\ndata: 0\n\n"
            begin = trio.current_time()
            await service.shut_down()
            assert await client.rest() == b""
            assert trio.current_time() - begin < 0.1
            await service.wait_ended(1.5)

    async def test_a_comment_that_nobody_reads_delays_no_shutdown(self, autojump_clock: Clock) -> None:
        async with serving(app_with(pause=1000, keep_alive=15)) as service:
            client = await Exchange(service.open_stream(trio.testing.lockstep_stream_pair)).request("/")
            assert await client.piece() == b"id: 0\ndata: 0\n\n"
            await trio.sleep(16)
            await service.shut_down()
            await service.wait_ended(1.5)


class TestLastEventId:
    @pytest.mark.parametrize(("sent", "read"), [(b"7", "7"), ("ä€".encode(), "ä€"), (b"\xff", "\ufffd"), (b"", "")])
    def test_what_the_client_sent(self, sent: bytes, read: str) -> None:
        request = Request({"type": "http", "headers": [(b"last-event-id", sent)]})
        assert last_event_id(request) == read

    def test_nothing(self) -> None:
        assert last_event_id(Request({"type": "http", "headers": []})) is None
