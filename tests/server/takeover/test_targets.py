"""What a request is about: each form of its target, and the one host that an application sees."""

from __future__ import annotations

import hpack
import pytest
import trio
import trio.testing
from hyperframe.frame import HeadersFrame
from starlette.types import Receive, Scope, Send
from trio.abc import Clock

from tests.support.http2_frames import (
    CONNECT,
    GET,
    HELLO,
    METHOD,
    OPEN,
    PATH,
    SCHEME,
    Headers,
    data,
    headers,
    replaced,
    without,
)
from tests.support.memory import Service, serving, socket_stream_pair
from verbtrio import App

UPGRADE = (
    b"Upgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)


class Seen:
    """An application that says what it was told, in its answer and in `scopes`."""

    def __init__(self, app: App) -> None:
        self.app = app
        self.scopes: list[Scope] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        self.scopes.append(scope)
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.accept"})
            await send({"type": "websocket.close", "code": 1000})
            await receive()
            return
        while (await receive())["more_body"]:
            pass
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})

    @property
    def told(self) -> tuple[str, bytes, bytes, list[bytes]]:
        """Of the one request: the path, the raw path, the query, the hosts."""
        (scope,) = self.scopes
        hosts = [value for name, value in scope["headers"] if name.lower() == b"host"]
        return scope["path"], scope["raw_path"], scope["query_string"], hosts


async def status(service: Service, request: bytes, *, pieces: int = 1) -> int:
    """The status that answers a request. In two pieces, it is not whole when the connection is accepted."""
    stream = service.open_stream(socket_stream_pair)
    async with stream:
        step = -(-len(request) // pieces)
        for begin in range(0, len(request), step):
            await stream.send_all(request[begin : begin + step])
            await trio.testing.wait_all_tasks_blocked()
        received = b""
        with trio.fail_after(5):
            while b"\r\n\r\n" not in received:
                part = await stream.receive_some()
                assert part, received
                received += part
    return int(received[9:12])


TARGETS: list[tuple[str, tuple[bytes, bytes, bytes]]] = [
    ("/ws", (b"/ws", b"", b"x")),
    ("/ws?a=b", (b"/ws", b"a=b", b"x")),
    ("//evil/ws", (b"//evil/ws", b"", b"x")),
    ("http://example.com/ws", (b"/ws", b"", b"example.com")),
    ("HTTP://Example.com/ws", (b"/ws", b"", b"Example.com")),
    ("https://example.com:8443/ws?a=/b?c", (b"/ws", b"a=/b?c", b"example.com:8443")),
    ("http://[::1]:80/ws", (b"/ws", b"", b"[::1]:80")),
    ("http://example.com", (b"/", b"", b"example.com")),
    ("http://example.com?a=b", (b"/", b"a=b", b"example.com")),
    ("http://example.com//ws", (b"//ws", b"", b"example.com")),
]
ODD = [
    "ws",
    "?a=b",
    "*",
    "**",
    "example.com:80",
    "example.com",
    "http:",
    "http:/ws",
    "http://",
    "http:///ws",
    "http://:80/ws",
    "http://user@example.com/ws",
    "http://user:secret@example.com/ws",
    "http://exa<mple/ws",
    "http://[::1/ws",
    "http://example.com:port/ws",
    "http://example.com/ws#x",
    "http://example.com#x",
    "ftp://example.com/ws",
    "file:///ws",
    "ws://example.com/ws",
    "\\ws",
    "#x",
]
HTTP1 = ["GET", "HEAD", "POST", "PUT", "OPTIONS", "PURGE"]


@pytest.mark.parametrize("pieces", [1, 2])
@pytest.mark.parametrize("host", [b"Host: x\r\n", b"a: b\r\nhOsT: x\r\n"])
class TestTargets:
    @pytest.mark.parametrize(("target", "means"), TARGETS)
    @pytest.mark.parametrize("raw", [False, True])
    async def test_a_request(
        self, target: str, means: tuple[bytes, bytes, bytes], raw: bool, host: bytes, pieces: int
    ) -> None:
        for method in HTTP1:
            if method == "OPTIONS" and target == "http://example.com":
                continue
            app = App()
            seen = Seen(app)
            async with serving(app, seen) as service:
                service.config.h11_pass_raw_headers = raw
                head = f"{method} {target} HTTP/1.1\r\n".encode() + host + b"\r\n"
                assert await status(service, head, pieces=pieces) == 200
            path, raw_path, query, hosts = seen.told
            assert (path.encode(), raw_path, query, hosts) == (means[0], *means[:2], [means[2]])

    @pytest.mark.parametrize(("target", "means"), TARGETS)
    async def test_an_upgrade(self, target: str, means: tuple[bytes, bytes, bytes], host: bytes, pieces: int) -> None:
        app = App()
        seen = Seen(app)
        async with serving(app, seen) as service:
            head = f"GET {target} HTTP/1.1\r\n".encode() + host + UPGRADE + b"\r\n"
            assert await status(service, head, pieces=pieces) == 101
        path, raw_path, query, hosts = seen.told
        assert (path.encode(), raw_path, query, hosts) == (means[0], *means[:2], [means[2]])

    @pytest.mark.parametrize("target", ODD)
    @pytest.mark.parametrize("upgrade", [b"", UPGRADE], ids=["request", "upgrade"])
    async def test_odd_ones(self, target: str, upgrade: bytes, host: bytes, pieces: int) -> None:
        app = App()
        seen = Seen(app)
        async with serving(app, seen) as service:
            for method in ["GET"] if upgrade else HTTP1:
                if (method, target) == ("OPTIONS", "*"):
                    continue
                head = f"{method} {target} HTTP/1.1\r\n".encode() + host + upgrade + b"\r\n"
                assert await status(service, head, pieces=pieces) == 400, method
        assert not seen.scopes

    @pytest.mark.parametrize("target", ["*", "http://example.com"])
    async def test_options_of_the_whole_server(self, target: str, host: bytes, pieces: int) -> None:
        app = App()
        seen = Seen(app)
        async with serving(app, seen) as service:
            head = f"OPTIONS {target} HTTP/1.1\r\n".encode() + host + b"\r\n"
            assert await status(service, head, pieces=pieces) == 200
        assert not seen.scopes, "it is about no route"

    @pytest.mark.parametrize(
        ("target", "answer"),
        [("example.com:443", 501), ("[::1]:443", 501), ("/", 400), ("*", 400), ("http://example.com/", 400)],
    )
    async def test_connect(self, target: str, answer: int, host: bytes, pieces: int) -> None:
        app = App()
        seen = Seen(app)
        async with serving(app, seen) as service:
            head = f"CONNECT {target} HTTP/1.1\r\n".encode() + host + b"\r\n"
            assert await status(service, head, pieces=pieces) == answer
        assert not seen.scopes


async def test_without_a_host_in_http_1_0() -> None:
    app = App()
    seen = Seen(app)
    async with serving(app, seen) as service:
        assert await status(service, b"GET http://example.com/ws HTTP/1.0\r\n\r\n") == 200
    assert seen.told == ("/ws", b"/ws", b"", [b"example.com"])


async def test_names_that_the_server_has_are_those_of_the_target() -> None:
    app = App()
    async with serving(app, Seen(app)) as service:
        service.config.server_names = ["mine"]
        for upgrade, welcome in ((b"", 200), (UPGRADE, 101)):
            for target, host, answer in (("mine", "other", welcome), ("other", "mine", 404)):
                head = f"GET http://{target}/ws HTTP/1.1\r\nHost: {host}\r\n".encode() + upgrade + b"\r\n"
                assert await status(service, head) == answer


async def statuses_in(stream: trio.abc.Stream, until: set[int]) -> dict[int, bytes]:
    decoder, received, statuses = hpack.Decoder(), b"", dict[int, bytes]()
    with trio.fail_after(5):
        while not until <= statuses.keys():
            part = await stream.receive_some()
            assert part, f"the server hung up: {statuses}"
            received += part
            while len(received) >= 9 and len(received) >= 9 + int.from_bytes(received[:3]):
                size, kind, number = int.from_bytes(received[:3]), received[3], int.from_bytes(received[5:9])
                payload, received = received[9 : 9 + size], received[9 + size :]
                if kind == HeadersFrame.type:
                    statuses[number] = dict(decoder.decode(payload, raw=True))[b":status"]
    return statuses


async def http2(fields: Headers) -> tuple[Seen, dict[int, bytes]]:
    """What a request is answered with over HTTP/2, and a good one behind it on the same connection."""
    app = App(http2_websockets=True, http2_cleartext=True)
    seen = Seen(app)
    async with serving(app, seen) as service:
        stream = service.open_stream()
        ends = () if (b":protocol", b"websocket") in fields else ("END_STREAM",)
        await stream.send_all(HELLO + headers(fields, flags=OPEN + ends))
        await stream.send_all(headers(replaced(GET, b":path", b"/good"), stream=3))
        statuses = await statuses_in(stream, until={1, 3})
        await stream.aclose()
    seen.scopes = [scope for scope in seen.scopes if scope["path"] != "/good"]
    return seen, statuses


KINDS = pytest.mark.parametrize("fields", [GET, CONNECT], ids=["request", "tunnel"])


class TestHTTP2:
    @KINDS
    @pytest.mark.parametrize(
        ("authority", "hosts", "told"),
        [
            (b"x", [], b"x"),
            (b"x", [b"x"], b"x"),
            (b"x", [b"X"], b"x"),
            (b"x:80", [b"x"], b"x:80"),
            (b"X", [b"x:80"], b"X"),
            (None, [b"x"], b"x"),
        ],
    )
    async def test_one_host(
        self, fields: Headers, authority: bytes | None, hosts: list[bytes], told: bytes, autojump_clock: Clock
    ) -> None:
        named: Headers = [] if authority is None else [(b":authority", authority)]
        pseudo, rest = without(fields, b":authority"), [(b"host", host) for host in hosts]
        split = sum(name.startswith(b":") for name, _ in pseudo)
        seen, statuses = await http2([*pseudo[:split], *named, *pseudo[split:], *rest])
        assert statuses == {1: b"200", 3: b"200"}
        assert seen.told[3] == [told]
        (scope,) = seen.scopes
        assert not [name for name, _ in scope["headers"] if name.startswith(b":")]

    @KINDS
    @pytest.mark.parametrize(
        ("authority", "hosts"),
        [
            (b"x", [b"y"]),
            (b"x", [b"x:443"]),
            (b"x", [b""]),
            (b"x", [b"x", b"x"]),
            (b"x", [b"x", b"y"]),
            (None, [b"x", b"x"]),
            (None, []),
            (b"", []),
            (b"", [b"x"]),
            (b"user@x", []),
            (b"x/y", []),
            (b"\xff", []),
            (b"x:port", []),
        ],
    )
    async def test_two_or_none(
        self, fields: Headers, authority: bytes | None, hosts: list[bytes], autojump_clock: Clock
    ) -> None:
        named: Headers = [] if authority is None else [(b":authority", authority)]
        pseudo, rest = without(fields, b":authority"), [(b"host", host) for host in hosts]
        split = sum(name.startswith(b":") for name, _ in pseudo)
        seen, statuses = await http2([*pseudo[:split], *named, *pseudo[split:], *rest])
        assert statuses == {1: b"400", 3: b"200"}
        assert not seen.scopes

    @KINDS
    @pytest.mark.parametrize("path", [b"", b"ws", b"?a", b"*", b"http://x/ws", b"x:80", b"\\ws", b"/\xff"])
    async def test_odd_paths(self, fields: Headers, path: bytes, autojump_clock: Clock) -> None:
        seen, statuses = await http2(replaced(fields, b":path", path))
        assert statuses == {1: b"400", 3: b"200"}
        assert not seen.scopes

    @pytest.mark.parametrize(
        "fields",
        [
            [METHOD, METHOD, *GET[1:]],
            [*GET, (b"X-Upper", b"x")],
            [*GET, (b"connection", b"close")],
            [*GET, (b":what", b"x")],
            [*GET, (b"a", b"b"), (b":path", b"/late")],
            [*GET, (b"te", b"gzip")],
            [*GET, (b"a", b"b\r\nc: d")],
            [*GET, (b"", b"x")],
            [METHOD, PATH, SCHEME],
            without(GET, b":scheme"),
            without(GET, b":method"),
            without(GET, b":path"),
            without(CONNECT, b":path"),
        ],
    )
    async def test_a_malformed_request_ends_its_stream_alone(self, fields: Headers, autojump_clock: Clock) -> None:
        seen, statuses = await http2(fields)
        assert statuses == {1: b"400", 3: b"200"}
        assert not seen.scopes

    async def test_options_of_the_whole_server(self, autojump_clock: Clock) -> None:
        seen, statuses = await http2(replaced(replaced(GET, b":path", b"*"), b":method", b"OPTIONS"))
        assert statuses == {1: b"200", 3: b"200"}
        assert not seen.scopes

    @pytest.mark.parametrize("trailer", [(b":path", b"/"), (b"X-Upper", b"x"), (b"connection", b"close")])
    async def test_malformed_trailers_are_no_end_of_a_body(
        self, trailer: tuple[bytes, bytes], autojump_clock: Clock
    ) -> None:
        app = App(http2_cleartext=True)
        seen = Seen(app)
        post = replaced(GET, b":method", b"POST")
        async with serving(app, seen) as service:
            stream = service.open_stream()
            await stream.send_all(HELLO + headers(post, flags=OPEN) + data(b"x") + headers([trailer]))
            received = b""
            with trio.fail_after(5):
                while part := await stream.receive_some():
                    received += part
            await stream.aclose()
        assert b"\x07\0\0\0\0\0" in received, "GOAWAY"
