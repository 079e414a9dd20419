"""The upgrade over HTTP/1.1: what is taken apart here means what it means to h11, and the 101 gets out whole."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from hypercorn.config import Config
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.support.memory import socket_stream_pair
from verbtrio.server.takeover.http1_upgrade import (
    H11Response,
    UpgradeRequested,
    _plain_upgrade,
    _upgrade_by_h11,
    upgrade_in,
)

PROPERTY = settings(deadline=None, max_examples=500, derandomize=True)

ASKS = b"Upgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n"
PLAIN = b"GET /ws?x=1 HTTP/1.1\r\nHost: example.com\r\n" + ASKS + b"Sec-WebSocket-Key: k\r\nX: \xe9 \r\n\r\n"

BYTES = st.binary(max_size=3) | st.sampled_from([b"", b" ", b"\t", b"a b", b"\xe9", b"\x00", b"\x0b", b"\x7f", b"\x85"])
NAMES = st.sampled_from([b"X-a", b"Host", b"HOST", b"upgrade", b"Connection", b"content-Length", b"Transfer-Encoding"])
VALUES = st.sampled_from([b"websocket", b"WebSocket ", b"\xa0websocket", b"Upgrade", b"close", b"0", b"5", b"chunked"])
COLONS = st.sampled_from([b":", b": ", b":\t ", b" :", b"", b"::"])
ENDS = st.sampled_from([b"\r\n"] * 12 + [b"\n", b"\r\n ", b"\r\r\n", b"\r\n\r\n"])
LINES = st.lists(st.tuples(NAMES | BYTES, COLONS, VALUES | BYTES, ENDS).map(b"".join), max_size=4).map(b"".join)
GET = b"GET /ws HTTP/1.1\r\n"
ODD = [
    GET.replace(b"ws", b"\xe9"),
    GET.replace(b"GET", b"get"),
    GET.replace(b"1.1", b"1.0"),
    GET.replace(b" /", b"  /"),
]
STARTS = st.sampled_from([GET] * 8 + ODD)
MIDDLES = st.sampled_from([b"Host: x\r\n" + ASKS, ASKS])
HEADS = st.tuples(STARTS, LINES, MIDDLES, LINES, st.just(b"\r\n"), BYTES).map(b"".join)


def facts(upgrade: UpgradeRequested) -> list[Any]:
    return [upgrade.method, upgrade.target, upgrade.version, upgrade.headers, upgrade.early]


class TestPlainUpgrade:
    @PROPERTY
    @given(HEADS)
    @example(PLAIN)
    def test_it_is_what_h11_makes_of_it(self, data: bytes) -> None:
        """Or it is left to h11, which is always right."""
        plain = _plain_upgrade(data)
        if plain is not None:
            exact = _upgrade_by_h11(data, Config())
            assert exact is not None
            assert facts(plain) == facts(exact)
            assert plain.connection().states == exact.connection().states

    def test_most_requests_are(self) -> None:
        upgrade = _plain_upgrade(PLAIN + b"early")
        assert upgrade is not None
        assert (upgrade.target, upgrade.early, upgrade.headers[-1]) == (b"/ws?x=1", b"early", (b"x", b"\xe9"))

    @pytest.mark.parametrize(
        "data",
        [
            PLAIN.replace(b"X: ", b"Content-Length: 0\r\nX: "),
            PLAIN.replace(b"X: ", b"Transfer-Encoding: chunked\r\nX: "),
            PLAIN.replace(b"X: ", b"X: a\r\n b"),
            PLAIN.replace(b"\r\nX: ", b"\nX: "),
            PLAIN.replace(b"GET", b"get"),
            PLAIN.replace(b"HTTP/1.1", b"HTTP/1.0"),
        ],
        ids=["length", "chunked", "folded", "bare LF", "lower case", "HTTP/1.0"],
    )
    def test_the_rest_is_left_to_h11(self, data: bytes) -> None:
        assert _plain_upgrade(data) is None
        assert upgrade_in(data, Config()) is not None

    @pytest.mark.parametrize(
        "data",
        [
            PLAIN.replace(b"Host: example.com\r\n", b""),
            PLAIN.replace(b"X: ", b"Host: b\r\nX: "),
            PLAIN.replace(b"X: ", b"Transfer-Encoding: gzip\r\nX: "),
            PLAIN.replace(b"X: ", b"X : "),
            PLAIN.replace(b"X: ", b"X: \x01"),
            PLAIN.replace(b"X: ", b"X: " + b"x" * 16_384),
            PLAIN.replace(b"/ws", b"/w s"),
            PLAIN.replace(b"websocket", b"h2c, websocket"),
            PLAIN[:-2],
        ],
        ids=[
            "no host",
            "two hosts",
            "encoding",
            "space before the colon",
            "control character",
            "a long head",
            "space in the target",
            "no websocket",
            "half",
        ],
    )
    def test_what_is_none_is_hypercorns(self, data: bytes) -> None:
        assert upgrade_in(data, Config()) is None


async def test_an_answer_that_does_not_fit_is_sent_whole() -> None:
    """The first write in place takes as much as there is room for; the rest waits for the peer."""
    ours, peers = socket_stream_pair()

    class Server:
        stream = ours

    server: Any = Server()
    long = b"x" * 4_000_000
    received = bytearray()
    async with ours, peers, trio.open_nursery() as nursery:
        nursery.cancel_scope.deadline = trio.current_time() + 10
        nursery.start_soon(H11Response(server, lambda: pytest.fail("no h11")).accept, [(b"long", long)])
        while not received.endswith(b"\r\n\r\n"):
            received += await peers.receive_some()
    assert received == b"HTTP/1.1 101 Switching Protocols\r\nlong: " + long + b"\r\n\r\n"


async def test_a_peer_that_is_gone() -> None:
    ours, peers = socket_stream_pair()

    class Server:
        stream = ours

    server: Any = Server()
    async with ours:
        await peers.aclose()
        with pytest.raises(trio.BrokenResourceError):
            await H11Response(server, lambda: pytest.fail("no h11")).accept([])
