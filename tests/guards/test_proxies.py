"""The client behind a proxy: found where a trusted proxy tells it, and nowhere else."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.requests import HTTPConnection, Request
from starlette.responses import PlainTextResponse, Response
from trio.abc import Clock

from tests.support.memory import serving, shake_hands
from tests.test_app import http
from verbtrio import App, Limits, TrustedProxies

Headers = list[tuple[bytes, bytes]]
PROXY, CLIENT = "10.0.0.1", "198.51.100.7"
XFF, FORWARDED = TrustedProxies(["10.0.0.0/8", "::1", "unix"]), TrustedProxies(["10.0.0.0/8"], header="forwarded")


def forwarded_for(*values: str, proto: str | None = None) -> Headers:
    headers = [(b"x-forwarded-for", value.encode("latin-1")) for value in values]
    return headers + ([] if proto is None else [(b"X-Forwarded-Proto", proto.encode())])


def forwarded(*values: str) -> Headers:
    return [(b"Forwarded", value.encode("latin-1")) for value in values]


@pytest.mark.parametrize(
    ("peer", "headers", "found"),
    [
        (PROXY, [], (None, None)),
        (PROXY, forwarded_for(CLIENT), (CLIENT, None)),
        (PROXY, forwarded_for(CLIENT, proto="https"), (CLIENT, "https")),
        (PROXY, forwarded_for(proto="HTTPS"), (None, "https")),
        (PROXY, forwarded_for(CLIENT, proto="gopher"), (CLIENT, None)),
        (PROXY, forwarded_for(CLIENT, proto="http, https"), (CLIENT, "https")),
        (PROXY, forwarded_for(f"203.0.113.9, {CLIENT}"), (CLIENT, None)),
        (PROXY, forwarded_for("203.0.113.9", CLIENT), (CLIENT, None)),  # two lines are one list
        (PROXY, forwarded_for(f"203.0.113.9,{CLIENT},10.0.0.3, 10.0.0.2"), (CLIENT, None)),  # through three proxies
        (PROXY, forwarded_for("10.0.0.3, 10.0.0.2"), ("10.0.0.3", None)),
        (PROXY, forwarded_for(f"{CLIENT}:4711"), (CLIENT, None)),
        (PROXY, forwarded_for("2001:db8::7"), ("2001:db8::7", None)),
        (PROXY, forwarded_for("[2001:db8::7]:4711"), ("2001:db8::7", None)),
        (PROXY, forwarded_for(f"::ffff:{CLIENT}"), (CLIENT, None)),
        (f"::ffff:{PROXY}", forwarded_for(CLIENT), (CLIENT, None)),  # a socket for both families
        ("::1", forwarded_for(CLIENT), (CLIENT, None)),
        (None, forwarded_for(CLIENT), (CLIENT, None)),  # a UNIX socket
        (PROXY, forwarded_for("203.0.113.9, unknown"), (None, None)),
        (PROXY, forwarded_for("203.0.113.9, unknown, 10.0.0.2"), ("10.0.0.2", None)),
        (PROXY, forwarded_for(""), (None, None)),
        (PROXY, forwarded(f"for={CLIENT}"), (None, None)),  # the other notation
        (CLIENT, forwarded_for("203.0.113.9", proto="https"), (None, None)),
        ("not an address", forwarded_for("203.0.113.9"), (None, None)),
    ],
)
def test_x_forwarded_for(peer: str | None, headers: Headers, found: Any) -> None:
    assert XFF.client(peer, headers) == found


@pytest.mark.parametrize(
    ("headers", "found"),
    [
        (forwarded(f"for={CLIENT};proto=https;by={PROXY}"), (CLIENT, "https")),
        (forwarded(f"For={CLIENT};Proto=HTTPS"), (CLIENT, "https")),
        (forwarded(f'for="{CLIENT}:4711"'), (CLIENT, None)),
        (forwarded('for="[2001:db8::7]:4711"'), ("2001:db8::7", None)),
        (forwarded(f"for=203.0.113.9, for={CLIENT}"), (CLIENT, None)),
        (forwarded("for=203.0.113.9", f"for={CLIENT};proto=http"), (CLIENT, "http")),
        (forwarded(f"for={CLIENT};proto=https, for=10.0.0.2;proto=http"), (CLIENT, "https")),
        (forwarded("for=203.0.113.9, for=_hidden"), (None, None)),
        (forwarded("for=203.0.113.9, proto=https"), (None, "https")),
        (forwarded(f'for=203.0.113.9;x=",for={CLIENT}'), (None, None)),  # a quote left open
        (forwarded('for=203.0.113.9;x=",for="[2001:db8::7]"'), (None, None)),  # and closed by what a proxy appended
        (forwarded('for=203.0.113.9;x="\\,for="[2001:db8::7]"'), (None, None)),
        (forwarded('for="', f"for={CLIENT}"), (CLIENT, None)),
        (forwarded(f"for={CLIENT}; proto=https"), (CLIENT, "https")),
        (forwarded("nonsense"), (None, None)),
        (forwarded(""), (None, None)),
        (forwarded_for(CLIENT), (None, None)),
    ],
)
def test_forwarded(headers: Headers, found: Any) -> None:
    assert FORWARDED.client(PROXY, headers) == found
    assert FORWARDED.client(CLIENT, headers) == (None, None)
    assert FORWARDED.client(None, headers) == (None, None), "a UNIX socket, which it was not told to trust"


SPOOFED = [
    "127.0.0.1",
    "10.0.0.1",
    "10.0.0.1, 10.0.0.2",
    "203.0.113.9",
    "203.0.113.9, 10.0.0.1",
    "203.0.113.9:80",
    "203.0.113.9, unknown",
    "::1",
    "[::1]:80",
    "::ffff:10.0.0.1",
    '"203.0.113.9"',
    "localhost",
    "unix",
    "",
    ",",
    ", ,",
    "203.0.113.9\t",
    "\xff",
    "10.0.0.1," * 500,
    "for=203.0.113.9",
    'for="203.0.113.9',
    'for=203.0.113.9;x="',
    'for="[::1]";proto=https',
    "for=unknown",
    "for=_hidden;by=10.0.0.1",
]
SPOOFS: list[Headers] = [
    [(name.encode(), value.encode("latin-1"))]
    for name, value in product(("X-Forwarded-For", "Forwarded", "X-Real-IP", "Client-IP"), SPOOFED)
]


def test_there_are_a_hundred() -> None:
    assert len(SPOOFS) == 100


@pytest.mark.parametrize("spoof", SPOOFS)
def test_spoofed_headers_find_nobody(spoof: Headers) -> None:
    """From a client that is not a proxy, and from one whose proxy appends the truth: as a value, as a line, in both."""
    for proxies in (XFF, FORWARDED):
        assert proxies.client(CLIENT, spoof) == (None, None)
    ((name, value),) = spoof
    for truth in (CLIENT, "2001:db8::7"):
        assert XFF.client(PROXY, [*spoof, *forwarded_for(truth)]) == (truth, None)
        element = f"for={truth}" if truth == CLIENT else f'for="[{truth}]"'
        assert FORWARDED.client(PROXY, [*spoof, *forwarded(element)]) == (truth, None)
        if name == b"X-Forwarded-For":
            assert XFF.client(PROXY, [(name, value + b", " + truth.encode())]) == (truth, None)
        if name == b"Forwarded":  # a beginning that is malformed spoils the line; it never speaks for the client
            found, _ = FORWARDED.client(PROXY, [(name, value + b"," + element.encode())])
            assert found in (truth, None)


async def test_spoofed_headers_bypass_no_limit(autojump_clock: Clock) -> None:
    """One connection for each client, and a hundred ways to look like another one, through a proxy that appends."""
    app = App(trusted_proxies=["unix"], limits=Limits(max_connections_per_client=1))
    app.ws("/ws", open=lambda ws: None)
    async with serving(app) as service:
        streams = [service.open_stream()]
        truth = f"X-Forwarded-For: {CLIENT}\r\n".encode()
        assert b" 101 " in await shake_hands(streams[0], headers=truth)
        for ((name, value),) in SPOOFS:
            streams.append(service.open_stream())
            answer = await shake_hands(streams[-1], headers=name + b": " + value + b"\r\n" + truth)
            assert b" 429 " in answer.split(b"\r\n")[0]
            assert b"retry-after: 5" in answer.lower()
        streams.append(service.open_stream())
        assert b" 101 " in await shake_hands(streams[-1], headers=b"X-Forwarded-For: 203.0.113.9\r\n")
        for stream in streams:
            await stream.aclose()


@settings(deadline=None, max_examples=300, derandomize=True)
@given(st.lists(st.text(alphabet='for=;,"\\[]: 10.unkw\t', max_size=40), max_size=3))
def test_whatever_a_client_writes_before_it(values: list[str]) -> None:
    """A proxy that appends a line of its own has the last word."""
    assert XFF.client(PROXY, forwarded_for(*values, CLIENT)) == (CLIENT, None)
    assert FORWARDED.client(PROXY, forwarded(*values, f"for={CLIENT}")) == (CLIENT, None)
    for appended in (f"for={CLIENT}", 'for="[2001:db8::7]";proto=https', f'for="{CLIENT}:80"'):
        found, _ = FORWARDED.client(PROXY, forwarded(",".join([*values, appended])))
        assert found in (CLIENT, "2001:db8::7", None)


@pytest.mark.parametrize("proxies", [["localhost"], ["10.0.0.1/8"], ["10.0.0.256"], "10.0.0.1"])
def test_what_is_no_address_shows_at_once(proxies: Any) -> None:
    with pytest.raises(ValueError, match="trusted"):
        App(trusted_proxies=proxies)


def test_an_unknown_header_shows_at_once() -> None:
    header: Any = "x-real-ip"
    with pytest.raises(ValueError, match="x-real-ip"):
        TrustedProxies([], header=header)


class TestScope:
    async def test_http_requests(self) -> None:
        async def middleware(request: HTTPConnection, call_next: Any) -> Response:
            seen.append((request.client, request.url.scheme))
            response: Response = await call_next(request)
            return response

        async def page(request: Request) -> Response:
            return PlainTextResponse("hello")

        seen: list[Any] = []
        for proxies, expected in ((["127.0.0.1"], ((CLIENT, 0), "https")), ([], (("127.0.0.1", 123), "http"))):
            app = App(trusted_proxies=proxies, middleware=[middleware])
            app.get("/")(page)
            async with http(app) as client:
                await client.get("/", headers={"X-Forwarded-For": CLIENT, "X-Forwarded-Proto": "https"})
            assert seen.pop() == expected, "it is there before any other middleware"

    async def test_the_origin_is_compared_with_the_clients_scheme(self, autojump_clock: Clock) -> None:
        """Behind a proxy that ends TLS, pages are https and the connection is not."""
        headers = b"X-Forwarded-Proto: https\r\nOrigin: https://x\r\n"
        for proxies, status in ((["unix"], b" 101 "), ((), b" 403 ")):
            app = App(trusted_proxies=proxies)
            app.ws("/ws", open=lambda ws: ws.send_nowait(ws.url.scheme))
            async with serving(app) as service:
                stream = service.open_stream()
                assert status in await shake_hands(stream, headers=headers)
                if proxies:
                    assert await stream.receive_some() == b"\x81\x03wss"
                await stream.aclose()
