"""What a client sends costs time in proportion to its length: one that sends eight times as much takes eight times as
long, not sixty-four (CWE-1333, CWE-407).

Every regular expression of the package is found by looking for it, so that a new one is tested without a word here. The
functions that take a header, a target, a token or a message apart are listed, by what they are called with.

No time is asserted on, but how it grows: the processor's, the best of several runs.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
import time
from collections.abc import Callable, Iterator
from decimal import Decimal
from itertools import product
from typing import Any

import msgspec
import pytest
from hypercorn.config import Config
from starlette.datastructures import Headers
from starlette.requests import HTTPConnection

import verbtrio
from verbtrio import TrustedProxies
from verbtrio.auth.jwt import JWTAuth, _find_token, _roles, _scopes
from verbtrio.base.errors import HandshakeError, MessageError
from verbtrio.base.logs import escape
from verbtrio.connection.heartbeat import is_pong
from verbtrio.connection.tokens import token_in
from verbtrio.guards.origin import Origins, parse_origin, server_origin
from verbtrio.guards.quotas import client_key, user_key
from verbtrio.http.sse import last_event_id
from verbtrio.messages.decoder import Decoder
from verbtrio.protocols.commands import BadCommands
from verbtrio.protocols.encoding import Encoding
from verbtrio.protocols.json_encoding import JSON
from verbtrio.protocols.protobuf_encoding import protobuf
from verbtrio.rooms.patterns import RoomPattern
from verbtrio.security import CSRFProtection
from verbtrio.server.takeover.http1_upgrade import upgrade_in
from verbtrio.wire.codec import Codec
from verbtrio.wire.handshake import check_http1, check_http2

SMALL, TIMES = 500, 8
TOO_MUCH = 24
"""How much longer `TIMES` as much may take: linear is 8, with what memory and noise add; quadratic is 64."""
INSTANT = 0.001
"""Seconds of processor time. What takes no longer for the large input than this needs no comparison: the clock's own
grain would be compared. (What is quadratic takes 8 ms and more, at a nanosecond a step.)"""


def growth(function: Callable[[Any], object], make: Callable[[int], Any]) -> float:
    """How much longer `function` takes for `TIMES` as much; 0 for what takes no time."""

    argument = make(SMALL * TIMES)
    started = time.perf_counter()  # which costs nothing, unlike the processor's clock
    function(argument)
    if time.perf_counter() - started < INSTANT:
        return 0.0

    def best(argument: Any, times: int) -> float:
        least = float("inf")
        for _ in range(times):
            started = time.process_time()
            function(argument)
            least = min(least, time.process_time() - started)
        return least

    for times in (1, 3, 3, 3):  # again where it seems too much: the machine may have been busy, what is quadratic stays
        large = best(argument, times)
        found = 0.0 if large < INSTANT else large / max(best(make(SMALL), 3), 1e-6)
        if found < TOO_MUCH:
            break
    return found


# Regular expressions


def patterns() -> Iterator[tuple[str, Callable[[Any], object]]]:
    """Every compiled pattern of the package, at the top of a module or in a class: how it is used, as far as the name
    it has there tells, by that name."""
    for found in pkgutil.walk_packages(verbtrio.__path__, "verbtrio."):
        module, last = importlib.import_module(found.name), found.name.rpartition(".")[2]
        classes = [item for item in vars(module).values() if isinstance(item, type)]
        for name, value in [item for space in (module, *classes) for item in vars(space).items()]:
            if isinstance(value, re.Pattern):
                # `match` takes no step that `fullmatch` does not take, and `split` begins with what `search` does.
                for method in (value.fullmatch, value.split):
                    yield f"{last}.{name}.{method.__name__}", method
            elif isinstance(getattr(value, "__self__", None), re.Pattern):
                yield f"{last}.{name} ({value.__name__})", value


PATTERNS = dict(patterns())

PIECES = (" ", "\t", ",", ";", "=", '"', "\\", "a", "0", ".", ":", "[", "]", "-", "/", "\r\n", "\x00", "\xe9", "a=1;")
STARTS = ("", "a", "for=1.2.3.4,", 'a="', "http://a", "[", "GET / HTTP/1.1\r\n", "GET /", "GET / HTTP/1.1\r\na:")
ENDS = ("", "\x00", "!@")


def inputs(pieces: tuple[str, ...]) -> Iterator[Callable[[int], str]]:
    """Each of `pieces` repeated, and each two, behind several beginnings and before several ends."""
    repeated = [*PIECES, *(a + b for a, b in product(pieces, pieces) if a != b)]
    for start, piece, end in product(STARTS, repeated, ENDS):

        def make(size: int, start: str = start, piece: str = piece, end: str = end) -> str:
            return start + piece * (size // len(piece)) + end

        yield make


def test_the_patterns_are_found() -> None:
    names = " ".join(PATTERNS)
    for name in ("proxies._match_pair", "origin._match_origin", "sse.LINE_BREAK", "paths._BAD", "handshake._TOKEN"):
        assert name in names
    assert "http1_upgrade._plain_head" in names
    assert "logs._CONTROL" in names


def test_what_is_quadratic_is_noticed() -> None:
    pattern = re.compile(r"[ \t]*(?:a)?[ \t]*;")
    assert growth(pattern.match, lambda size: " " * size) > TOO_MUCH
    assert (
        growth(lambda items: [item for item in items if items.count(item) > 1], lambda size: [*range(size)]) > TOO_MUCH
    )


@pytest.mark.parametrize("name", PATTERNS)
def test_a_pattern(name: str) -> None:
    method: Any = PATTERNS[name]
    in_bytes = isinstance(method.__self__.pattern, bytes)
    for make in inputs(PIECES):
        used = growth(method, lambda size: make(size).encode("latin-1") if in_bytes else make(size))  # noqa: B023
        assert used < TOO_MUCH, make(50)


# What takes apart what a client sends

XFF, FORWARDED = TrustedProxies(["10.0.0.0/8"]), TrustedProxies(["10.0.0.0/8"], header="forwarded")
ORIGINS = Origins(["https://example.com", "https://*.example.com"])
AUTH = JWTAuth("k" * 32)
CSRF: Any = CSRFProtection(None)  # type: ignore[arg-type]  # which is not called
UPGRADE = [(b"host", b"x"), (b"sec-websocket-version", b"13"), (b"sec-websocket-key", b"dGhlIHNhbXBsZSBub25jZQ==")]
UPGRADE += [(b"upgrade", b"websocket"), (b"connection", b"upgrade")]


def lines(name: bytes, values: list[str]) -> list[tuple[bytes, bytes]]:
    return [(name, value.encode("latin-1")) for value in values]


def connection(
    name: bytes, values: list[str], query: str = "", subprotocols: list[str] | None = None
) -> HTTPConnection:
    scope = {"type": "http", "headers": lines(name, values), "query_string": query.encode("latin-1")}
    return HTTPConnection({**scope, "subprotocols": subprotocols or []})


def handshake(name: bytes, values: list[str]) -> None:
    for check in (check_http2, lambda headers: check_http1("GET", "/", "1.1", headers)):
        try:
            handshake = check([*UPGRADE, *lines(name, values)])
            handshake.accept(None, [], max_message_bytes=1000, compression=True)
        except HandshakeError:
            pass


def head(values: list[str]) -> object:
    data = b"".join(b"%b: %b\r\n" % line for line in [*UPGRADE, *lines(b"a", values)])
    config = Config()
    config.h11_max_incomplete_size = 2**24  # else none that is long would be looked at
    return upgrade_in(b"GET / HTTP/1.1\r\n" + data + b"\r\n", config)


READERS: dict[str, Callable[[list[str]], object]] = {
    "X-Forwarded-For": lambda values: XFF.client("10.0.0.1", lines(b"x-forwarded-for", values)),
    "X-Forwarded-Proto": lambda values: XFF.client("10.0.0.1", lines(b"x-forwarded-proto", values)),
    "Forwarded": lambda values: FORWARDED.client("10.0.0.1", lines(b"forwarded", values)),
    "Origin": lambda values: ORIGINS.refusal(values, None, session=True),
    "an origin": lambda values: parse_origin(values[0]),
    "Host": lambda values: server_origin("wss", values[0]),
    "Sec-Fetch-Site": lambda values: CSRF._refusal(Headers(raw=lines(b"sec-fetch-site", values)), "http"),
    "Origin of a POST": lambda values: CSRF._refusal(Headers(raw=lines(b"origin", values)), "http"),
    "Authorization": lambda values: _find_token(connection(b"authorization", values)),
    "the query": lambda values: _find_token(connection(b"a", [], "&".join(values))),
    "subprotocols": lambda values: _find_token(connection(b"a", [], subprotocols=["bearer", *values])),
    "a token": lambda values: AUTH.verify(values[0]),
    "a token's scopes and roles": lambda values: (
        _scopes({"scope": values[0], "scp": values}),
        _roles({"roles": values}),
    ),
    # Not "Cookie": Starlette's, by http.cookies, is quadratic before Python 3.11.10 and 3.12.6 (CVE-2024-7592).
    "Last-Event-ID": lambda values: last_event_id(connection(b"last-event-id", values)),
    "the peer's address": lambda values: client_key((values[0], 1)),
    "a user": lambda values: user_key({"id": values[0]}),
    "a log line": lambda values: escape(values[0]),
    "an upgrade request": head,
    **{
        name: lambda values, name=name: handshake(name.lower().encode(), values)  # type: ignore[misc]  # B023's idiom
        for name in ("Sec-WebSocket-Protocol", "Sec-WebSocket-Extensions", "Sec-WebSocket-Key", "Connection", "Upgrade")
    },
}


@pytest.mark.parametrize("name", READERS)
def test_a_header(name: str) -> None:
    """As one long value, and as many lines of the same name."""
    read = READERS[name]
    for make in inputs((" ", ",", ";", '"', "\\")):
        assert growth(read, lambda size: [make(size)]) < TOO_MUCH, make(50)  # noqa: B023
    for line in (
        "",
        "a",
        "a, b",
        "for=10.0.0.1",
        "10.0.0.1",
        "for=10.0.0.1;proto=https, for=a",
        "permessage-deflate",
        "::1",
    ):
        assert growth(read, lambda size: [line] * size) < TOO_MUCH, line  # noqa: B023
        assert growth(read, lambda size: [",".join([line] * size)]) < TOO_MUCH, line  # noqa: B023
        assert growth(read, lambda size: [f"{line}{number}" for number in range(size)]) < TOO_MUCH, line  # noqa: B023


ROOMS = ("{a}", "{a}-a:{b}a", "{a:path}", "{a:path}-a", "{a}:{b}:{c:path}", "a{a}:a{b}:{n:int}", "{n:int}0:{m:int},{a}")


@pytest.mark.parametrize("pattern", ROOMS)
def test_a_rooms_name(pattern: str) -> None:
    """A handler may join a room by the name that a client gives."""
    match = RoomPattern(pattern).match
    for make in inputs((":", "-", ":a", "a:", "-a", "-a:", "0", "0:", "a-a")):
        assert growth(match, lambda size: make(8 * size)) < TOO_MUCH, make(50)  # noqa: B023


class Tagged(msgspec.Struct, tag_field="type"):
    items: list[Any]


class Other(msgspec.Struct, tag_field="type"):
    number: Decimal
    share: float
    blob: bytes


MESSAGES: dict[str, Callable[[int], str]] = {
    "an array": lambda size: f"[{'0,' * size}0]",
    "an object": lambda size: "{" + ",".join(f'"{number}":0' for number in range(size)) + "}",
    "one name": lambda size: "{" + ",".join(['"a":0'] * size) + "}",
    "nesting": lambda size: "[" * size,
    "nested objects": lambda size: '{"a":' * size,
    "digits": lambda size: "9" * size,
    "a fraction": lambda size: "0." + "9" * size,
    "an exponent": lambda size: "1e" + "9" * size,
    "a text": lambda size: '"' + "a" * size + '"',
    "escapes": lambda size: '"' + "\\u00e9\\n" * size + '"',
    "blanks": lambda size: " " * size + "1",
    "no end": lambda size: '"' + "\\" * size,
    "a tag": lambda size: '{"type":"' + "a" * size + '"}',
    "a tag at the end": lambda size: '{"items":[' + "[]," * size + '[]],"type":"Tagged"}',
    "a token": lambda size: '{"type":"auth","token":"' + "a" * size + '"}',
    "a pong": lambda size: '{"a":"' + "pong" * size + '","type":"pong"}',
    "a decimal": lambda size: '{"type":"Other","share":1,"blob":"","number":"' + "9" * size + '"}',
    "a number for a decimal": lambda size: '{"type":"Other","share":1,"blob":"","number":' + "9" * size + "}",
    "a float": lambda size: '{"type":"Other","blob":"","number":1,"share":' + "9" * size + "}",
    "base64": lambda size: '{"type":"Other","share":1,"number":1,"blob":"' + "AAAA" * size + '"}',
}
KINDS = [
    dict,
    Any,
    int,
    float,
    Decimal,
    bytes,
    list[int],
    dict[str, Any],
    Tagged,
    Tagged | Other,
    set[str],
    dict[str, int],
]


def take(decoder: Decoder[Any]) -> Callable[[str], object]:
    def function(message: str) -> object:
        try:
            return decoder(message)
        except MessageError:
            return None

    return function


@pytest.mark.parametrize("name", MESSAGES)
def test_a_message(name: str) -> None:
    for kind in KINDS:
        assert growth(take(Decoder(kind)), lambda size: MESSAGES[name](20 * size)) < TOO_MUCH, kind
    for function in (token_in, is_pong):
        assert growth(function, lambda size: MESSAGES[name](20 * size)) < TOO_MUCH, function


LINES: dict[str, Callable[[int], str]] = {
    "data": lambda size: '{"publish":{"data":' + "[" * size + "]" * size + "}}",
    "ignored": lambda size: '{"a":[' + "{}," * size + "{}]}",
    "positions": lambda size: '{"connect":{"subs":{' + ",".join(f'"{number}":{{}}' for number in range(size)) + "}}}",
    "commands": lambda size: '{"id":1}\n' * size,
    "empty commands": lambda size: "{}\n" * size,
    "line breaks": lambda size: "\n" * size,
    "blank lines": lambda size: " \r\n" * size,
}


def read_commands(encoding: Encoding) -> Callable[[str | bytes], object]:
    def function(message: str | bytes) -> object:
        try:
            return [encoding.frame_of(found.publish.data) for found in encoding.commands(message) if found.publish]
        except BadCommands:
            return None

    return function


@pytest.mark.parametrize("name", [*MESSAGES, *LINES])
def test_commands_in_json(name: str) -> None:
    if name in LINES:
        assert growth(read_commands(JSON), lambda size: LINES[name](10 * size)) < TOO_MUCH
    else:
        data = MESSAGES[name]
        assert growth(read_commands(JSON), lambda size: f'{{"publish":{{"data":{data(20 * size)}}}}}') < TOO_MUCH
        assert growth(protobuf().frame_of, lambda size: msgspec.Raw(data(20 * size).encode())) < TOO_MUCH


COMMANDS: dict[str, Callable[[int], bytes]] = {
    "empty commands": lambda size: b"\x00" * size,
    "publications": lambda size: b"\x05\x3a\x03\x0a\x01a" * size,
    # 1000 bytes each, in a field that is ignored: what copies the rest of the message for each shows.
    "large commands": lambda size: (b"\xec\x07\xa2\x06\xe8\x07" + b"a" * 1000) * size,
    "a long length": lambda size: b"\x80" * size,
    "lengths in a long form": lambda size: b"\x80\x80\x80\x80\x00" * size,
    "no end": lambda size: b"\x00" * size + b"\x05",
}


@pytest.mark.parametrize("name", COMMANDS)
def test_commands_in_protobuf(name: str) -> None:
    assert growth(read_commands(protobuf()), COMMANDS[name]) < TOO_MUCH


FRAMES = {
    "short messages": lambda size: b"\x81\x81\x00\x00\x00\x00a" * size,
    "fragments": lambda size: b"\x01\x81\x00\x00\x00\x00a" + b"\x00\x81\x00\x00\x00\x00a" * size,
    "empty fragments": lambda size: b"\x01\x80\x00\x00\x00\x00" + b"\x00\x80\x00\x00\x00\x00" * size,
    "pings": lambda size: b"\x89\x80\x00\x00\x00\x00" * size,
    "pings in a message": lambda size: b"\x01\x80\x00\x00\x00\x00" + b"\x89\x80\x00\x00\x00\x00" * size,
    "one message": lambda size: b"\x82\xff" + (6 * size).to_bytes(8, "big") + b"\x00\x00\x00\x00" + b"aaaaaa" * size,
}


@pytest.mark.parametrize("name", FRAMES)
@pytest.mark.parametrize("slice_bytes", [1, 7, 1 << 20])
def test_frames(name: str, slice_bytes: int) -> None:
    def receive(data: bytes) -> None:
        codec = Codec(max_message_bytes=1 << 20)
        for at in range(0, len(data), slice_bytes):
            codec.receive(data[at : at + slice_bytes])
            codec.replies()

    assert growth(receive, FRAMES[name]) < TOO_MUCH
