"""The take-over, under a real `hypercorn -k trio` process, with raw sockets where the wire matters."""

from __future__ import annotations

import socket
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import httpx
import pytest
import trio
import trio.testing
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from trio.abc import Clock

import verbtrio
from tests.conftest import Servers
from tests.support.memory import serving, socket_stream_pair
from tests.support.peers import Refused, connect
from tests.support.process import Server, hypercorn
from verbtrio import App, Limits

KEY = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
UPGRADE = f"Host: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n{KEY}"
ODD_UPGRADE = UPGRADE.replace(": websocket", ": \xa0websocket")
WITHOUT_KEY = UPGRADE.removesuffix(KEY)


@pytest.fixture
def server() -> Iterator[Server]:
    """Without a worker process: it starts and ends in a third of the time."""
    with hypercorn("tests.apps.recorder:app", "-w", "0") as server:
        yield server


@pytest.fixture
def drained() -> Iterator[Server]:
    """One whose worker drains at SIGTERM."""
    # A worker that waits for hypercorn's grace period at the shutdown is not done when `Server.stop` gives up.
    with hypercorn("tests.apps.recorder:app", "--graceful-timeout", "60") as server:
        yield server


async def in_thread(function: Callable[[], Any]) -> None:
    await trio.to_thread.run_sync(function)


def ws_url(server: Server, path: str = "/ws") -> str:
    return server.url.replace("http", "ws", 1) + path


async def told(server: Server, path: str = "/events") -> Any:
    async with httpx.AsyncClient() as client:
        return (await client.get(server.url + path)).json()


async def events(server: Server, count: int) -> list[Any]:
    """What the app has recorded, once there are `count` events."""
    with trio.fail_after(10):
        while len(found := (await told(server))["events"]) < count:
            await trio.sleep(0.01)
    assert isinstance(found, list)
    return found


async def settled(server: Server, client: httpx.AsyncClient) -> Any:
    """What the worker is left with, once that has not changed for a while."""
    last, same = None, 0
    with trio.fail_after(15):
        while same < 10:
            await trio.sleep(0.05)
            now = (await client.get(f"{server.url}/left")).json()
            del now["memory"]
            same = same + 1 if now == last else 0
            last = now
    return last


def raw(server: Server, request: bytes, *, wait: float = 5.0) -> bytes:
    """Send bytes, half-close, and return all that comes back."""
    with socket.create_connection(("127.0.0.1", server.port), wait) as sock:
        sock.settimeout(wait)
        answer = b""
        try:
            sock.sendall(request)
            sock.shutdown(socket.SHUT_WR)
            while data := sock.recv(65536):
                answer += data
        except TimeoutError:
            raise
        except OSError:
            pass  # the server was the first to go
        return answer


class TestCloses:
    async def test_the_close_hook_has_the_peers_code_and_reason(self, server: Server) -> None:
        async with connect(ws_url(server)) as peer:
            await peer.close(4001, "bye")
        assert await events(server, 2) == [["open"], ["close", "peer", 4001, "bye"]]

    async def test_a_message_and_a_close_in_one_segment(self, server: Server) -> None:
        """Ends a stock hypercorn worker."""
        message, close = b"\x81\x82\0\0\0\0hi", b"\x88\x82\0\0\0\0\x03\xe8"
        request = f"GET /ws HTTP/1.1\r\n{UPGRADE}\r\n".encode()
        for _ in range(20):
            answer = await trio.to_thread.run_sync(raw, server, request + message + close)
            assert answer.startswith(b"HTTP/1.1 101 ")
            assert answer.endswith(b"\x88\x02\x03\xe8")
        assert (await events(server, 40)).count(["close", "peer", 1000, ""]) == 20

    async def test_a_busy_handler_is_cancelled_when_its_peer_goes(self, server: Server) -> None:
        for how in (socket.SHUT_RDWR, None):
            with socket.create_connection(("127.0.0.1", server.port), 5) as sock:
                sock.sendall(f"GET /busy HTTP/1.1\r\n{UPGRADE}\r\n".encode())
                while b"busy" not in sock.recv(65536):
                    pass
                if how is not None:
                    sock.shutdown(how)
            recorded = await events(server, 1 if how is not None else 2)
            assert recorded[-1] == ["cancelled"]

    async def test_oversize_and_errors(self, server: Server) -> None:
        async with connect(ws_url(server)) as peer:
            await peer.send("x" * 65537)
            code, _ = await peer.closed()
            assert code == 1009
        async with connect(ws_url(server)) as peer:
            await peer.send("raise")
            assert await peer.closed() == (1011, "Internal server error")
        recorded = await events(server, 4)
        assert [event[1:3] for event in recorded if event[0] == "close"] == [["size", 1009], ["error", 1011]]
        assert server.log_text().count("ValueError: on purpose") == 1


class TestShutdown:
    async def test_sigterm_says_1012_and_exits_0(self, drained: Server) -> None:
        async with connect(ws_url(drained)) as one, connect(ws_url(drained, "/busy")) as two:
            await one.send({"hello": "there"})
            await one.receive()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(in_thread, drained.stop)
                assert await one.closed() == (1012, "The server is restarting")
                assert await two.closed() == (1012, "The server is restarting")
        assert drained.process.returncode == 0
        assert "Traceback" not in drained.log_text()

    async def test_a_client_that_reads_nothing_does_not_hold_the_exit_up(self, drained: Server) -> None:
        with socket.create_connection(("127.0.0.1", drained.port), 5) as sock:
            sock.sendall(f"GET /flood HTTP/1.1\r\n{UPGRADE}\r\n".encode())
            sock.recv(1)
            await trio.sleep(0.5)  # until its buffers are full
            exit_code = await trio.to_thread.run_sync(drained.stop)
        assert exit_code == 0
        assert "Traceback" not in drained.log_text()


BAD_REQUESTS = {
    "non-ascii subprotocol": f"GET /ws HTTP/1.1\r\n{UPGRADE}Sec-WebSocket-Protocol: caf\xe9\r\n\r\n",
    "non-ascii extensions": f"GET /ws HTTP/1.1\r\n{UPGRADE}Sec-WebSocket-Extensions: caf\xe9\r\n\r\n",
    "non-ascii connection": f"GET /ws HTTP/1.1\r\n{UPGRADE}Connection: caf\xe9\r\n\r\n",
    "non-ascii key": f"GET /ws HTTP/1.1\r\n{WITHOUT_KEY}Sec-WebSocket-Key: caf\xe9\r\n\r\n",
    "bad deflate parameter": f"GET /ws HTTP/1.1\r\n{UPGRADE}"
    "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits=abc\r\n\r\n",
    "a body": f"GET /ws HTTP/1.1\r\n{UPGRADE}Content-Length: 5\r\n\r\nhello",
    "a chunked body": f"GET /ws HTTP/1.1\r\n{UPGRADE}Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "bytes behind a rejected upgrade": f"GET /nowhere HTTP/1.1\r\n{UPGRADE}\r\nmore than this",
    "bytes behind an accepted upgrade": f"GET /ws HTTP/1.1\r\n{UPGRADE}\r\nmore than this",
    "a lower-case method": f"get /ws HTTP/1.1\r\n{UPGRADE}\r\n",
    "odd white space": f"GET /ws HTTP/1.1\r\n{ODD_UPGRADE}\r\n",
    "no key": f"GET /ws HTTP/1.1\r\n{WITHOUT_KEY}\r\n",
    "two keys": f"GET /ws HTTP/1.1\r\n{UPGRADE}{KEY}\r\n",
    "version 8": f"GET /ws HTTP/1.1\r\n{UPGRADE.replace('13', '8')}\r\n",
    "bad HTTP2-Settings": "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
    "HTTP2-Settings: ?\r\n\r\n",
    "http2 nonsense": "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nnonsense",
    "garbage": "\x00\x01\x02\xff" * 100 + "\r\n\r\n",
    "a long header": f"GET /ws HTTP/1.1\r\n{UPGRADE}X: {'x' * 200_000}\r\n\r\n",
}


class TestGuard:
    def test_no_request_ends_the_worker(self, server: Server) -> None:
        """Several of these end a stock hypercorn worker. Here each has an answer, or its connection ends, alone."""
        process = server.process
        statuses = {}
        for name, request in BAD_REQUESTS.items():
            answer = raw(server, request.encode("latin-1"))
            statuses[name] = answer.split(b" ", 2)[1].decode() if answer.startswith(b"HTTP/1.1 ") else answer[:3]
            assert process.poll() is None, f"{name} has ended the worker:\n{server.log_text()}"
            assert httpx.get(f"{server.url}/events").status_code == 200, name
        log = server.log_text()
        assert "Traceback" not in log
        assert statuses["non-ascii subprotocol"] == statuses["two keys"] == statuses["no key"] == "400"
        assert statuses["a body"] == statuses["a chunked body"] == "400"
        assert statuses["bad deflate parameter"] == statuses["non-ascii extensions"] == "101"  # declined
        assert statuses["version 8"] == "426"
        assert statuses["a lower-case method"] == "405"  # and not hypercorn's own WebSocket
        assert statuses["odd white space"] in ("400", "426")
        assert statuses["bytes behind a rejected upgrade"] == "404"
        assert statuses["bytes behind an accepted upgrade"] == "101"

    async def test_nothing_is_left(self, server: Server) -> None:
        async with connect(ws_url(server)) as peer:  # whatever is made once is made now
            await peer.close()
        async with httpx.AsyncClient() as client:  # one connection, counted both times
            before = await settled(server, client)
            await self._bother(server)
            assert await settled(server, client) == before

    async def _bother(self, server: Server) -> None:
        for request in BAD_REQUESTS.values():
            await trio.to_thread.run_sync(raw, server, request.encode("latin-1"))
        for path in ("/ws", "/busy", "/starlette", "/asgi/"):
            for _ in range(5):
                with socket.create_connection(("127.0.0.1", server.port), 5) as sock:
                    sock.sendall(f"GET {path} HTTP/1.1\r\n{UPGRADE}\r\n".encode())
                    sock.recv(10)

    async def test_http_goes_on_as_ever(self, server: Server) -> None:
        async with httpx.AsyncClient() as client:
            for size in (0, 1, 1_000_000):
                answer = await client.post(f"{server.url}/body", content=b"x" * size)
                assert answer.text == str(size)
            assert (await client.get(f"{server.url}/nowhere")).status_code == 404

    async def test_an_upgrade_after_a_request_on_the_same_connection(self, server: Server) -> None:
        request = f"GET /events HTTP/1.1\r\nHost: x\r\n\r\nGET /ws HTTP/1.1\r\n{UPGRADE}\r\n"
        answer = await trio.to_thread.run_sync(raw, server, request.encode() + b"\x88\x80\0\0\0\0")
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert b"HTTP/1.1 101 Switching Protocols" in answer
        assert answer.endswith(b"\x88\x00")

    async def test_a_connection_kept_alive_is_not_kept_for_ever(self, autojump_clock: Clock) -> None:
        """Starlette cancels a streaming response once it is sent; hypercorn's timer must run all the same."""
        app = App()

        async def chunks() -> AsyncIterator[bytes]:
            yield b"one"
            await trio.sleep(1)
            yield b"two"

        @app.get("/")
        async def stream(request: Request) -> Response:
            return StreamingResponse(chunks(), headers={"content-length": "6"})

        async with serving(app) as service:
            peer = service.open_stream()
            for _ in range(2):
                await peer.send_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
                answer = b""
                while not answer.endswith(b"onetwo"):
                    answer += await peer.receive_some()
                answered = trio.current_time()
            with trio.fail_after(60):
                assert await peer.receive_some() == b""
            assert trio.current_time() - answered == pytest.approx(service.config.keep_alive_timeout)

    async def test_the_last_response_closes_the_connection(self, autojump_clock: Clock) -> None:
        """Starlette cancels a streaming response once it has been sent, and with it what hypercorn has still to do."""
        app = App()

        async def chunks() -> AsyncIterator[bytes]:
            yield b"one"

        @app.get("/")
        async def stream(request: Request) -> Response:
            return StreamingResponse(chunks())

        async with serving(app) as service:
            peer = service.open_stream()
            await peer.send_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            answer = b""
            with trio.fail_after(1):
                while data := await peer.receive_some():
                    answer += data
            assert answer.endswith(b"one\r\n0\r\n\r\n")

    @pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
    async def test_a_handshake_has_its_time(self, servers: Servers, autojump_clock: Clock, tls: bool) -> None:
        """Request and TLS handshake together, whatever hypercorn would allow them."""

        def pair() -> tuple[Any, Any]:
            client, stream = trio.testing.memory_stream_pair()
            if not tls:
                return client, stream
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            context.load_cert_chain(servers.certfile, servers.keyfile)
            return client, trio.SSLStream(stream, context, server_side=True, https_compatible=True)

        async with serving(App(limits=Limits(handshake_timeout=7))) as service:
            service.config.keep_alive_timeout = service.config.ssl_handshake_timeout = 75
            peer = service.open_stream(pair)
            if not tls:
                await peer.send_all(b"GET / HTTP/1.1\r\n")
            with trio.fail_after(100):
                assert await peer.receive_some() == b""
            assert trio.current_time() == pytest.approx(7)

    def test_a_path_forges_no_line_of_the_access_log(self) -> None:
        with hypercorn("tests.apps.recorder:app", "--access-logfile", "-") as server:
            raw(server, f"GET /nowhere%0aFORGED HTTP/1.1\r\n{UPGRADE}\r\n".encode())
            server.stop()
            lines = server.log_text().splitlines()
        assert sum("/nowhere%0aFORGED" in line for line in lines) == 1
        assert not any(line.startswith("FORGED") for line in lines)


class TestOtherApplications:
    """Starlette's own WebSocket routes and bare ASGI applications, in the same process."""

    async def test_starlette(self, server: Server) -> None:
        async with connect(ws_url(server, "/starlette"), subprotocols=["chat"]) as peer:
            await peer.send({"a": 1})
            assert await peer.receive() == {"a": 1}
            await peer.close(4001, "bye")
        assert await events(server, 1) == [["starlette", 4001, "bye"]]

    async def test_starlette_raises(self, server: Server) -> None:
        async with connect(ws_url(server, "/starlette-raise")) as peer:
            assert (await peer.closed())[0] == 1011
        assert server.log_text().count("ValueError: on purpose") == 1

    async def test_undecided(self, server: Server) -> None:
        with pytest.raises(Refused) as caught:
            async with connect(ws_url(server, "/starlette-undecided")):
                pass
        assert caught.value.status == 500

    async def test_bare_asgi(self, server: Server) -> None:
        async with connect(ws_url(server, "/asgi/")) as peer:
            await peer.send({"a": 1})
            assert await peer.receive() == {"a": 1}
            await peer.send("bye")
            assert await peer.closed() == (4002, "so long")
        async with connect(ws_url(server, "/asgi/")) as peer:
            await peer.close(1001, "leaving")
        assert ["asgi", 1001, "leaving"] in await events(server, 2)

    async def test_they_are_drained_too(self, drained: Server) -> None:
        async with connect(ws_url(drained, "/starlette")) as one, connect(ws_url(drained, "/asgi/")) as two:
            for peer in (one, two):
                await peer.send({"a": 1})
                await peer.receive()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(in_thread, drained.stop)
                assert await one.closed() == (1012, "The server is restarting")
                assert await two.closed() == (1012, "The server is restarting")
        assert drained.process.returncode == 0

    async def test_mounted_in_starlette(self) -> None:
        with hypercorn("tests.apps.recorder:mounted", "-w", "0") as server:
            async with connect(ws_url(server, "/inner/ws")) as peer:
                await peer.send({"a": 1})
                assert await peer.receive() == {"a": 1}
                await peer.close(4001, "bye")
            with trio.fail_after(10):
                while len(found := (await told(server, "/inner/events"))["events"]) < 2:
                    await trio.sleep(0.01)
            assert found == [["open"], ["close", "peer", 4001, "bye"]]

    async def test_mounted_without_its_lifespan_says_what_to_add(self) -> None:
        with hypercorn("tests.apps.recorder:forgotten", "-w", "0") as server:
            with pytest.raises(Refused) as caught:
                async with connect(ws_url(server, "/inner/ws")):
                    pass
            assert caught.value.status == 500
            assert "Starlette(..., lifespan=chat.lifespan)" in server.log_text()


class TestBodies:
    """hypercorn's queue to the application holds ten parts of a body; nobody may wait for one that nobody reads."""

    async def test_an_upload_nobody_reads(self, server: Server) -> None:
        async with httpx.AsyncClient() as client:
            before = await settled(server, client)
            head = b"POST /ignored HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
            for _ in range(5):
                async with await trio.open_tcp_stream("127.0.0.1", server.port) as peer:
                    await peer.send_all(head)
                    for _ in range(20):  # all of them long before the answer, after which the server closes
                        await peer.send_all(b"1\r\nx\r\n")
                        await trio.sleep(0.001)  # so that each is a part of its own
                    assert (await peer.receive_some()).startswith(b"HTTP/1.1 200 ")
            for _ in range(5):
                async with (
                    await trio.open_tcp_stream("127.0.0.1", server.port) as peer,
                    trio.open_nursery() as nursery,
                ):
                    nursery.start_soon(self._upload, peer)
                    assert (await peer.receive_some()).startswith(b"HTTP/1.1 200 ")
                    nursery.cancel_scope.cancel()
            assert await settled(server, client) == before

    async def _upload(self, peer: trio.SocketStream) -> None:
        head = b"POST /ignored HTTP/1.1\r\nHost: x\r\nContent-Length: 3000000\r\n\r\n"
        try:
            await peer.send_all(head + b"x" * 3_000_000)
        except trio.BrokenResourceError:
            pass  # the answer came first, and the server has closed

    async def test_a_client_that_leaves_in_the_middle_of_its_body(self, server: Server) -> None:
        peer = await trio.open_tcp_stream("127.0.0.1", server.port)
        await peer.send_all(b"POST /body HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nhalf")
        await trio.sleep(0.1)
        await peer.aclose()
        assert (await told(server, "/left"))["connections"] == 0
        assert "Traceback" not in server.log_text()


async def test_a_socket_that_is_closed_is_not_closed_again() -> None:
    """Trio's listener does so behind every connection, in a cancelled scope: that was a tenth of what one costs."""
    app = App()

    @app.ws("/ws")
    async def handler(ws: verbtrio.WebSocket) -> None:
        await ws.send("hello")

    pair = socket_stream_pair()
    async with serving(app) as service:
        client = await service.connect(pair=lambda: pair)
        assert await client.get_message() == "hello"
        await client.aclose()
        await service.wait_ended(5)
        with trio.CancelScope() as scope:
            scope.cancel()
            await pair[1].aclose()
        assert not scope.cancelled_caught
