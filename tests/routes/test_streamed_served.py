"""Clients without a WebSocket under a real server: chunks on the wire, HTTP/2, shutdown, and what is logged."""

from __future__ import annotations

import json
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import h2.config
import h2.connection
import h2.events
import httpx
import trio

from tests.apps.streamed import auth
from tests.support.process import Server, hypercorn
from tests.support.streamed import KINDS, Streamed, emulated, encode

LOGGED = ["--log-level", "debug", "--access-logfile", "-", "--error-logfile", "-", "--debug"]


class Door:
    """What `Streamed` asks of a service."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.opened: list[trio.SocketStream] = []

    def open_stream(self, pair: Any = None) -> trio.SocketStream:
        connected = socket.create_connection(("127.0.0.1", self._port))
        self.opened.append(trio.SocketStream(trio.socket.from_stdlib_socket(connected)))
        return self.opened[-1]


@asynccontextmanager
async def clients_of(server: Server) -> AsyncIterator[Callable[[str], Streamed]]:
    door = Door(server.port)
    service: Any = door
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            yield lambda kind: Streamed(service, nursery, kind)
            nursery.cancel_scope.cancel()
    for stream in door.opened:
        await trio.aclose_forcefully(stream)


async def statistics_of(server: Server) -> Any:
    async with httpx.AsyncClient() as client:
        return (await client.get(f"{server.url}/statistics")).json()


async def test_a_shutdown_and_a_log() -> None:
    """The last words are 3001, and the response ends as it should. Nothing that was logged has a secret."""
    secrets: list[str] = []
    with hypercorn("tests.apps.streamed:app", *LOGGED) as server:
        async with clients_of(server) as new:
            clients = []
            for kind in KINDS:
                token = auth.issue({"sub": f"user-{kind}"})
                client = await new(kind).connect(token=token)
                clients.append(client)
                secrets += [client.session, client.node, token]
                await client.ask("subscribe", channel="open:x")
                await client.ask("publish", channel="open:x", data={"from": kind})
                assert (await client.ask("rpc", method="fail"))["error"]["code"] == 100
                expired = auth.issue({"sub": "late"}, expires_in=-100)
                forged = token[:-10] + "Zm9yZ2VkLi"
                secrets += [expired, forged]
                for bad in (expired, forged):
                    late = await new(kind).begin(encode(kind, {"id": 1, "connect": {"token": bad}}))
                    late.read_on()
                    if bad == forged:
                        assert (await late.end())[0] == 3500
                    else:
                        assert (await late.reply(1))["error"]["code"] == 109
                guess = emulated(kind, client.session + "x", client.node, b"")
                assert await client.post(guess) == 404
                assert await client.say_raw(b"", origin="http://evil.example") == 403
            gone = await new("sse").connect()
            await gone.leave()
            while (await statistics_of(server))["ended"].get("gone") != 1:
                await trio.sleep(0.02)
            server.process.terminate()
            for client in clients:
                assert await client.end() == (3001, "shutdown")
        assert server.stop() == 0
        log = server.log_text()
    assert "a call that fails" in log
    assert "/connection/sse" in log
    assert "/emulation" in log
    for secret in secrets:
        assert secret not in log
        assert secret.rpartition(".")[2] not in log


async def each_batch_is_one_chunk(server: Server) -> None:
    """The JavaScript SDK decodes each by itself."""
    with trio.fail_after(30):
        body = b'{"id":1,"connect":{}}\n{"id":2,"subscribe":{"channel":"open:x"}}'
        async with await trio.open_tcp_stream("127.0.0.1", server.port) as stream:
            head = f"POST /connection/http_stream HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
            await stream.send_all(head.encode() + body)
            received = b""
            while b'"id":2' not in received:
                received += await stream.receive_some()
            async with httpx.AsyncClient() as client:
                assert (await client.post(f"{server.url}/say")).status_code == 204
            while b'"n":59' not in received or not received.endswith(b"\n\r\n"):
                received += await stream.receive_some()
    chunks = _chunks(received.partition(b"\r\n\r\n")[2])
    said = [json.loads(line) for chunk in chunks for line in chunk.splitlines()]
    assert [line["push"]["pub"]["data"]["n"] for line in said if "push" in line] == list(range(60))
    assert all(chunk.endswith(b"\n") for chunk in chunks)
    assert all(chunk.isascii() for chunk in chunks)
    assert 32 * 1024 < max(map(len, chunks)) <= 64 * 1024


def _chunks(body: bytes) -> list[bytes]:
    found = []
    while body:
        size, _, body = body.partition(b"\r\n")
        found.append(body[: int(size, 16)])
        assert body[int(size, 16) :].startswith(b"\r\n")
        body = body[int(size, 16) + 2 :]
    return found


class HTTP2Peer:
    """One HTTP/2 connection with prior knowledge: the response, and requests for commands beside it."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding=None))
        self.bodies: dict[int, bytes] = {}
        self.statuses: dict[int, int] = {}
        self.over: set[int] = set()

    async def begin(self) -> None:
        self._h2.initiate_connection()
        await self._stream.send_all(self._h2.data_to_send())

    async def request(self, path: str, body: bytes) -> int:
        number: int = self._h2.get_next_available_stream_id()
        headers = [(":method", "POST"), (":scheme", "http"), (":authority", "x"), (":path", path)]
        self._h2.send_headers(number, headers)
        self._h2.send_data(number, body, end_stream=True)
        await self._stream.send_all(self._h2.data_to_send())
        return number

    async def until(self, done: Callable[[], bool]) -> None:
        with trio.fail_after(20):
            while not done():
                data = await self._stream.receive_some()
                assert data, "the connection has ended"
                for event in self._h2.receive_data(data):
                    if isinstance(event, h2.events.ResponseReceived):
                        assert event.headers is not None
                        self.statuses[event.stream_id] = int(dict(event.headers)[b":status"])
                    elif isinstance(event, h2.events.DataReceived):
                        self.bodies[event.stream_id] = self.bodies.get(event.stream_id, b"") + event.data
                        self._h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                    elif isinstance(event, h2.events.StreamEnded):
                        self.over.add(event.stream_id)
                await self._stream.send_all(self._h2.data_to_send())

    def lines(self, number: int) -> list[Any]:
        return [json.loads(line) for line in self.bodies.get(number, b"").splitlines()]


async def test_over_http1_and_http2() -> None:
    with hypercorn("tests.apps.streamed:app") as server:
        await each_batch_is_one_chunk(server)
        async with await trio.open_tcp_stream("127.0.0.1", server.port) as stream:
            peer = HTTP2Peer(stream)
            await peer.begin()
            main = await peer.request("/connection/http_stream", b'{"id":1,"connect":{}}')
            await peer.until(lambda: len(peer.lines(main)) == 1)
            result = peer.lines(main)[0]["connect"]

            async def say(command: dict[str, Any]) -> int:
                body = emulated("http_stream", result["session"], result["node"], json.dumps(command).encode())
                return await peer.request("/emulation", body)

            number = await say({"id": 2, "subscribe": {"channel": "open:x"}})
            await peer.until(lambda: number in peer.over and len(peer.lines(main)) == 2)
            assert peer.statuses[number] == 204
            await say({"id": 3, "publish": {"channel": "open:x", "data": "hi"}})
            await peer.until(lambda: len(peer.lines(main)) == 4)
            assert {"push": {"channel": "open:x", "pub": {"data": "hi"}}} in [
                _without_info(line) for line in peer.lines(main)
            ]
            server.process.terminate()
            await peer.until(lambda: main in peer.over)
            assert peer.lines(main)[-1] == {"push": {"disconnect": {"code": 3001, "reason": "shutdown"}}}
        assert server.stop() == 0


def _without_info(line: Any) -> Any:
    line.get("push", {}).get("pub", {}).pop("info", None)
    return line


async def test_without_the_take_over() -> None:
    """The same, but for the last words: hypercorn tells an app of its shutdown when the requests have ended."""
    with hypercorn("tests.apps.streamed:plain", "--graceful-timeout", "1") as server:
        async with clients_of(server) as new:
            clients = []
            for kind in KINDS:
                client, gone = await new(kind).connect(), await new(kind).connect()
                clients.append(client)
                for one in (client, gone):
                    await one.ask("subscribe", channel="open:x")
                await client.ask("publish", channel="open:x", data={"from": kind})
                while not client.published() or client.published()[-1] != {"from": kind}:
                    await trio.sleep(0.01)
                await gone.leave()
            while (figures := await statistics_of(server))["streams"] != 3:
                await trio.sleep(0.02)
            assert figures["ended"] == {"gone": 3}
            server.process.terminate()
            for client in clients:
                await client.ended()
        assert server.stop() == 0
        assert "Traceback" not in server.log_text()
