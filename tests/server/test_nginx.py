"""Behind a real nginx, configured by the snippet of docs/security.md, which guards `/admin` with `deny all`."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
import trio

from tests.apps.behind_proxy import CONNECTIONS
from tests.support import http2_frames
from tests.support import nginx as support
from tests.support.nginx import nginx, require_nginx, snippet
from tests.support.process import hypercorn
from tests.support.wire import CLOSE, FIN, TEXT, Wire, close, request, text

SECONDS = 20.0


@dataclass
class Site:
    """nginx's port, and that of the server behind it."""

    port: int
    server: int
    known: int = 0
    """How many requests have reached `/admin` in earlier tests."""

    def seen(self) -> Any:
        return httpx.get(f"http://127.0.0.1:{self.server}/seen").json()


@pytest.fixture(scope="module", params=["app", "http2"])
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """`http2`: the server takes HTTP/2 in clear text, by prior knowledge."""
    require_nginx()
    folder = tmp_path_factory.mktemp("nginx")
    with (
        hypercorn(f"tests.apps.behind_proxy:{request.param}", "-w", "0") as server,
        nginx(folder, server.port) as proxy,
    ):
        yield Site(proxy.port, server.port)


@pytest.fixture(autouse=True)
def nobody_in_admin(request: pytest.FixtureRequest) -> Iterator[None]:
    """Whatever a test sends, nothing of it reaches what nginx guards."""
    yield
    if "site" in request.fixturenames:
        site: Site = request.getfixturevalue("site")
        reached = site.seen()["reached"]
        new, site.known = reached[site.known :], len(reached)  # the next test is not to be blamed for it
        assert new == []


@asynccontextmanager
async def client(port: int, address: str = "127.0.0.2") -> AsyncIterator[Wire]:
    """A connection from `address`: 127.0.0.1 is the proxy's, which is trusted."""
    with trio.fail_after(SECONDS):
        sock = trio.socket.socket()
        await sock.bind((address, 0))
        await sock.connect(("127.0.0.1", port))
        async with trio.SocketStream(sock) as stream:
            yield Wire(stream)


async def answer(site: Site, data: bytes, address: str = "127.0.0.2") -> bytes:
    """All that comes back for `data`, until nginx ends the connection; for more it waits a second. (It takes one that
    we had ended for one whose client has gone.)"""
    async with client(site.port, address) as wire:
        await wire.send(data)
        return await wire.to_end()


async def answers(site: Site, requests: Iterable[bytes]) -> list[bytes]:
    """The same for several connections at once."""
    received = list[bytes]()

    async def ask(data: bytes) -> None:
        received.append(await answer(site, data))

    async with trio.open_nursery() as nursery:
        for data in requests:
            nursery.start_soon(ask, data)
    return received


def statuses(received: bytes) -> list[int]:
    return [int(status) for status in re.findall(rb"HTTP/1\.[01] ([0-9]{3}) ", received)]


def get(path: str = "/", *headers: str, connection: str = "") -> bytes:
    lines = [f"GET {path} HTTP/1.1", "Host: x", *headers, *([f"Connection: {connection}"] if connection else [])]
    return "".join(f"{line}\r\n" for line in [*lines, ""]).encode()


LAST = get(connection="close")
"""A request that ends the connection behind it: where it is answered, HTTP/1.1 has been spoken all along."""


class TestTools:
    def test_the_guard_guards(self, site: Site) -> None:
        """Else "nothing reached it" would say nothing. (That it would be noticed: the next.)"""
        with httpx.Client(base_url=f"http://127.0.0.1:{site.port}") as http:
            assert [http.get(path).status_code for path in ("/admin", "/admin/", "/admin/x", "/")] == [
                403,
                403,
                403,
                200,
            ]

    def test_what_gets_through_is_seen(self) -> None:
        with hypercorn("tests.apps.behind_proxy:app", "-w", "0") as server:
            assert httpx.get(f"{server.url}/admin/x").text == "the admin's"
            assert Site(0, server.port).seen()["reached"] == ["GET /admin/x"]

    @pytest.mark.parametrize(("ci", "outcome"), [("true", pytest.fail.Exception), ("", pytest.skip.Exception)])
    def test_without_nginx(self, monkeypatch: pytest.MonkeyPatch, ci: str, outcome: type[BaseException]) -> None:
        monkeypatch.setenv("PATH", "")
        monkeypatch.setattr(support, "SBIN", "")
        monkeypatch.setenv("CI", ci)
        with pytest.raises(outcome, match="nginx not installed"):
            require_nginx()

    def test_the_snippet_forwards_no_upgrade_as_it_came(self) -> None:
        assert not re.search(r"proxy_set_header\s+(Upgrade|Connection)\s+(?!\$forwarded_)", snippet())


class TestWhatShouldWork:
    async def test_a_websocket(self, site: Site) -> None:
        async with client(site.port) as wire:
            await wire.send(request())
            assert (await wire.head()).startswith(b"HTTP/1.1 101 ")
            for message in ("hello", "x" * 70_000):
                await wire.send(text(message))
                assert await wire.frame() == (FIN | TEXT, message.encode())
            await wire.send(text("close"))
            assert await wire.frame() == (FIN | CLOSE, (4001).to_bytes(2) + b"bye from here")
            await wire.send(close(4001, b"bye from here"))
            assert await wire.to_end() == b""

    @pytest.mark.parametrize("token", ["WebSocket", "WEBSOCKET", "websocket"])
    async def test_one_closed_by_the_client(self, site: Site, token: str) -> None:
        async with client(site.port) as wire:
            await wire.send(request().replace(b"Upgrade: websocket", f"Upgrade: {token}".encode()))
            assert (await wire.head()).startswith(b"HTTP/1.1 101 ")
            await wire.send(close(4002, f"bye {token}".encode()))
            assert await wire.close_code() == 4002
            assert await wire.to_end() == b""
        with trio.fail_after(SECONDS):
            while [4002, f"bye {token}"] not in site.seen()["closes"]:
                await trio.sleep(0.02)

    async def test_plain_requests(self, site: Site) -> None:
        """Several on one connection, whose connections to the server nginx keeps: none of them has an upgrade."""
        received = await answer(site, get() + get() + LAST)
        assert statuses(received) == [200, 200, 200]
        for body in re.findall(rb"\{.*?\}", received):
            expected = {"client": "127.0.0.2", "version": "1.1", "upgrade": None, "connection": None}
            assert json.loads(body) == expected

    @pytest.mark.parametrize(
        "body",
        [b"Content-Length: 5\r\n\r\nhello", b"Transfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3;x=y\r\nllo\r\n0\r\n\r\n"],
    )
    async def test_bodies(self, site: Site, body: bytes) -> None:
        received = await answer(site, b"POST / HTTP/1.1\r\nHost: x\r\n" + body + LAST)
        assert statuses(received) == [200, 200]
        assert b"\r\n5" in received

    async def test_a_refused_upgrade(self, site: Site) -> None:
        async with client(site.port) as wire:
            await wire.send(request("/nowhere") + LAST)
            assert statuses(await wire.to_end()) == [404, 200]


SETTINGS = "HTTP2-Settings: AAMAAABkAAQAAP__"
TOKENS = [
    "h2c",
    "H2C",
    "h2",
    "h2c, websocket",
    "websocket, h2c",
    "websocket\r\nUpgrade: h2c",
    "h2c\r\nUpgrade: websocket",
]
TOKENS += ["tls/1.0", "HTTP/2.0", "websocket/13", " h2c\t", "websocket,", "xwebsocket", "websocketh2c"]
SETTINGS_FRAME = rb"\0\0.\x04[\0\x01]\0\0\0\0"
TUNNELLED = http2_frames.HELLO + http2_frames.headers(
    http2_frames.replaced(http2_frames.GET, b":path", b"/admin/x"), stream=3
)


class TestOtherUpgrades:
    @pytest.mark.parametrize("token", TOKENS)
    async def test_an_upgrade_to_anything(self, site: Site, token: str) -> None:
        """No 101 for a request that is no WebSocket's whole handshake, and what is sent behind it is HTTP/1.1 to
        nginx: requests, which it looks at."""
        heads = [
            get("/", f"Upgrade: {token}", settings, connection=connection)
            for settings in (SETTINGS, "HTTP2-Settings:", "X: y")
            for connection in ("Upgrade, HTTP2-Settings", "upgrade", "close, Upgrade")
        ]
        for behind in (TUNNELLED, get("/admin/x") + LAST):
            for received in await answers(site, [head + behind for head in heads]):
                assert statuses(received), "nothing is answered"
                assert 101 not in statuses(received)
                assert not re.search(SETTINGS_FRAME, received), "HTTP/2 is spoken"
                assert b"the admin's" not in received

    @pytest.mark.parametrize("token", ["h2c", "H2C", "h2c, websocket", "websocket, h2c"])
    @pytest.mark.parametrize("early", [True, False], ids=["at once", "later"])
    async def test_a_websocket_handshake_to_h2c(self, site: Site, token: str, early: bool) -> None:
        """The whole handshake, to the WebSocket's own path."""
        head = request().replace(b"Upgrade: websocket", f"Upgrade: {token}\r\n{SETTINGS}".encode())
        async with client(site.port) as wire:
            await wire.send(head + (TUNNELLED if early else b""))
            first = await wire.head()
            await wire.send(TUNNELLED)
            received = first + await wire.to_end()
        assert statuses(received)[0] in (400, 404, 426)
        assert 101 not in statuses(received)

    @pytest.mark.parametrize("method", ["POST", "PRI", "get", "CONNECT", "OPTIONS"])
    async def test_a_websockets_upgrade_by_another_method(self, site: Site, method: str) -> None:
        head = request("/").replace(b"GET", method.encode(), 1)
        assert 101 not in statuses(await answer(site, head + get("/admin/x") + LAST))

    async def test_http2_by_prior_knowledge(self, site: Site) -> None:
        """nginx takes it for what it is: nothing that it speaks here."""
        assert statuses(await answer(site, TUNNELLED)) in ([400], [405], [])

    @pytest.mark.parametrize("behind", [TUNNELLED, get("/admin/x")], ids=["HTTP/2", "HTTP/1.1"])
    async def test_what_comes_in_a_websocket_is_the_websockets(self, site: Site, behind: bytes) -> None:
        async with client(site.port) as wire:
            await wire.send(request() + behind)
            assert (await wire.head()).startswith(b"HTTP/1.1 101 ")
            assert await wire.close_code() == 1002

    @pytest.mark.parametrize("fault", ["Sec-WebSocket-Version: 13", "Sec-WebSocket-Key", "Host: x"])
    async def test_nothing_comes_behind_a_websocket_that_is_refused(self, site: Site, fault: str) -> None:
        """nginx, which has seen no 101, goes on to read requests; and so reads each of them."""
        head = request().replace(fault.encode(), b"X-" + fault.encode())
        received = await answer(site, head + get("/admin/x") + LAST)
        assert 101 not in statuses(received)
        assert statuses(received)[0] >= 400


FORWARDED = ["X-Forwarded-For: 9.9.9.9", "X-Forwarded-For: 127.0.0.1", "X-Forwarded-For: 9.9.9.9, 127.0.0.1"]
FORWARDED += [
    "X-Forwarded-For: 1.1.1.1\r\nX-Forwarded-For: 2.2.2.2",
    "x-forwarded-for: nonsense",
    "X_Forwarded_For: 9.9.9.9",
]
FORWARDED += ["Forwarded: for=9.9.9.9", "X-Real-IP: 9.9.9.9", "X-Forwarded-For:", "X-Forwarded-For: ,,"]


class TestWhoTheClientIs:
    @pytest.mark.parametrize("header", FORWARDED)
    async def test_nginx_says_so(self, site: Site, header: str) -> None:
        for address in ("127.0.0.2", "127.0.0.3"):
            received = await answer(site, get("/", *header.split("\r\n"), connection="close"), address)
            assert f'"client":"{address}"'.encode() in received
        async with client(site.port) as wire:
            await wire.send(request(headers=f"{header}\r\n") + text("client"))
            assert (await wire.head()).startswith(b"HTTP/1.1 101 ")
            assert await wire.frame() == (FIN | TEXT, b"127.0.0.2")
            await wire.send(close())
            await wire.to_end()

    async def test_the_connections_of_one_are_counted(self, site: Site) -> None:
        """Its own, and not the proxy's, which all have in common, whomever it claims to be."""
        async with AsyncExitStack() as stack:
            for number in range(CONNECTIONS):
                wire = await stack.enter_async_context(client(site.port, "127.0.0.5"))
                await wire.send(request(headers=f"X-Forwarded-For: 9.9.9.{number}\r\n"))
                assert (await wire.head()).startswith(b"HTTP/1.1 101 ")
            for header in ("", *(f"{header}\r\n" for header in FORWARDED)):
                one_more = await stack.enter_async_context(client(site.port, "127.0.0.5"))
                await one_more.send(request(headers=header))
                assert (await one_more.head()).startswith(b"HTTP/1.1 429 ")
            other = await stack.enter_async_context(client(site.port, "127.0.0.6"))
            await other.send(request())
            assert (await other.head()).startswith(b"HTTP/1.1 101 ")


PATHS = ["/admin%0a", "/admin%0d%0a", "/admin%00", "/admin%09", "/%0aadmin", "/admin%7f", "/admin%c2%85"]
PATHS += ["//admin", "///admin/x", "/./admin", "/%2e/admin", "/x/../admin", "/x/%2e%2e/admin", "/%61dmin", "/admin%2fx"]
PATHS += [
    "/admin/..",
    "/admin/../",
    "/admin/../x",
    "/admin/%2e%2e/x",
    "/admin/.%2e/",
    "/admin%2f..%2fx",
    "/admin%2f%2e%2e",
]
PATHS += [
    "/admin/x/../../y",
    "/admin/./..",
    "/admin//..",
    "/admin/..;/x",
    "/admin;/..",
    "/admin/..?x",
    "/admin/..#/",
    "/x#/../admin",
]
PATHS += [
    "/admin\\x",
    "/admin%5c..%5c",
    "/admin/%5c../..",
    "/Admin",
    "/admin%20",
    "/admin?x",
    "/admin#",
    "http://x/admin",
]
PATHS += [
    "http://x/admin/..",
    "http://y//admin",
    "/%2561dmin",
    "/admin%252f..",
    "*",
    "admin",
    "?/admin",
    "/admin/%2e./%2e/",
]


class TestPaths:
    async def test_nothing_leads_around_nginxs_location(self, site: Site) -> None:
        """nginx compares the path decoded and without dots, and sends it on as it came."""
        for received in await answers(site, [get(path, connection="close") for path in PATHS]):
            assert statuses(received)[0] in (200, 400, 403, 404, 405)
            assert b"the admin's" not in received
        for received in await answers(site, [request(path) + LAST for path in PATHS]):
            assert 101 not in statuses(received)


HEAD = "POST / HTTP/1.1\r\nHost: x\r\n"
HIDDEN = "GET /admin/x HTTP/1.1\r\nHost: x\r\n\r\n"
LENGTH = f"Content-Length: {len(HIDDEN)}\r\n"
CHUNKED = "Transfer-Encoding: chunked\r\n"
SMUGGLED = {
    "pipelined": f"GET / HTTP/1.1\r\nHost: x\r\n\r\n{HIDDEN}",
    "behind a body": f"{HEAD}Content-Length: 5\r\n\r\nhello{HIDDEN}",
    "CL.TE": f"{HEAD}Content-Length: {5 + len(HIDDEN)}\r\n{CHUNKED}\r\n0\r\n\r\n{HIDDEN}",
    "TE.CL": f"{HEAD}{CHUNKED}Content-Length: 4\r\n\r\n{len(HIDDEN):x}\r\n{HIDDEN}\r\n0\r\n\r\n",
    "two lengths": f"{HEAD}Content-Length: 0\r\n{LENGTH}\r\n{HIDDEN}",
    "a list of lengths": f"{HEAD}Content-Length: 0, {len(HIDDEN)}\r\n\r\n{HIDDEN}",
    "an odd length": f"{HEAD}Content-Length: +{len(HIDDEN)}\r\n\r\n{HIDDEN}",
    "a hexadecimal length": f"{HEAD}Content-Length: 0x{len(HIDDEN):x}\r\n\r\n{HIDDEN}",
    "a length with a blank": f"{HEAD}Content-Length : {len(HIDDEN)}\r\n\r\n{HIDDEN}",
    "a length with a GET": f"GET / HTTP/1.1\r\nHost: x\r\n{LENGTH}\r\n{HIDDEN}",
    "two encodings": f"{HEAD}{CHUNKED}Transfer-Encoding: identity\r\n\r\n0\r\n\r\n{HIDDEN}",
    "an odd encoding": f"{HEAD}Transfer-Encoding: xchunked\r\n{LENGTH}\r\n{HIDDEN}",
    "an encoding with a tab": f"{HEAD}Transfer-Encoding:\tchunked\r\n{LENGTH}\r\n0\r\n\r\n{HIDDEN}",
    "an encoding with a VT": f"{HEAD}Transfer-Encoding: \x0bchunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n{HIDDEN}",
    "a folded encoding": f"{HEAD}Transfer-Encoding:\r\n chunked\r\n{LENGTH}\r\n0\r\n\r\n{HIDDEN}",
    "an underscore": f"{HEAD}Transfer_Encoding: chunked\r\n{LENGTH}\r\n{HIDDEN}",
    "HTTP/1.0 with chunks": f"{HEAD.replace('1.1', '1.0')}{CHUNKED}\r\n0\r\n\r\n{HIDDEN}",
    "a chunk's size too large": f"{HEAD}{CHUNKED}\r\nfffffffffffffffff\r\n{HIDDEN}",
    "a chunk's size with a sign": f"{HEAD}{CHUNKED}\r\n-1\r\n{HIDDEN}",
    "a chunk's size with 0x": f"{HEAD}{CHUNKED}\r\n0x{len(HIDDEN):x}\r\n{HIDDEN}\r\n0\r\n\r\n",
    "a chunk that is longer than it says": f"{HEAD}{CHUNKED}\r\n1\r\nab\r\n0\r\n\r\n{HIDDEN}",
    "a chunk's line that ends in LF": f"{HEAD}{CHUNKED}\r\n2\nhe\n0\n\n{HIDDEN}",
    "a chunk's extension with LF": f"{HEAD}{CHUNKED}\r\n2;x\ny\r\nhe\r\n0\r\n\r\n{HIDDEN}",
    "trailers": f"{HEAD}{CHUNKED}\r\n0\r\nContent-Length: 0\r\nX: y\r\n\r\n{HIDDEN}",
    "a line break in a value": f"GET / HTTP/1.1\r\nHost: x\r\nX: y\r\r\n\r\n{HIDDEN}",
    "LF alone": f"GET / HTTP/1.1\nHost: x\n\n{HIDDEN}",
    "HTTP/0.9": f"GET /\r\n{HIDDEN}",
    "expect": f"{HEAD}Expect: 100-continue\r\n{LENGTH}\r\n{HIDDEN}",
    "a method in lower case": f"get / HTTP/1.1\r\nHost: x\r\n\r\n{HIDDEN}",
    "blanks in the path": f"GET / HTTP/1.1\r\nX: /admin HTTP/1.1\r\nHost: x\r\n\r\n{HIDDEN}",
    "connection that names a header": f"{HEAD}Connection: Content-Length\r\n{LENGTH}\r\n{HIDDEN}",
    "an upgrade with a body": request().decode()[:-2] + f"{LENGTH}\r\n{HIDDEN}",
    "an upgrade with chunks": request().decode()[:-2] + f"{CHUNKED}\r\n0\r\n\r\n{HIDDEN}",
}


class TestSmuggledRequests:
    @pytest.mark.parametrize("kind", SMUGGLED)
    async def test_nothing_gets_past(self, site: Site, kind: str) -> None:
        """nginx and the server find the same end of each request, or one of them refuses it."""
        received = await answer(site, SMUGGLED[kind].encode("latin-1") + LAST)
        assert b"the admin's" not in received
        assert statuses(await answer(site, LAST)) == [200], "the server goes on"
