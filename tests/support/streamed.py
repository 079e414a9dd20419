"""A client of the Centrifuge protocol without a WebSocket, as the SDKs do it: one response, and a request for each of
its commands; in JSON or Protobuf."""

from __future__ import annotations

import base64
import gc
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote

import h11
import trio
import trio.testing
from google.protobuf.json_format import MessageToDict, ParseDict
from starlette.types import Message, Scope

from tests.support.http import Exchange
from tests.support.memory import Service, serving
from tests.support.sse import parse
from verbtrio import App
from verbtrio.multiplex.client import Client
from verbtrio.multiplex.clock import Clock
from verbtrio.multiplex.life import SubscriptionLife
from verbtrio.multiplex.peer import ClientPeer
from verbtrio.multiplex.session import ClientSession
from verbtrio.multiplex.streamed import StreamedCarrier
from verbtrio.multiplex.tokens import TokenTimer
from verbtrio.protocols import client_pb2

KINDS = ("http_stream", "sse", "protobuf")
"""Both transports, both encodings: SSE has JSON alone."""
BINARY = {"content-type": "application/octet-stream"}
_EMBEDDED = ("data", "conn_info", "chan_info")


def encode(kind: str, *commands: dict[str, Any]) -> bytes:
    """Commands as one message."""
    if kind != "protobuf":
        return "\n".join(map(json.dumps, commands)).encode()
    messages = [ParseDict(_packed(command), client_pb2.Command()).SerializeToString() for command in commands]
    return b"".join(varint(len(message)) + message for message in messages)


def emulated(kind: str, session: str, node: str, data: bytes) -> bytes:
    """The body of a request that brings `data`."""
    if kind == "protobuf":
        request = client_pb2.EmulationRequest(session=session, node=node, data=data)
        return bytes(request.SerializeToString())
    return json.dumps({"session": session, "node": node, "data": data.decode()}).encode()


def varint(size: int) -> bytes:
    encoded = b""
    while size > 0x7F:
        encoded += bytes((size & 0x7F | 0x80,))
        size >>= 7
    return encoded + bytes((size,))


def _packed(value: Any) -> Any:
    """JSON within JSON becomes bytes (which `ParseDict` takes as base64)."""
    if not isinstance(value, dict):
        return value
    return {
        key: base64.b64encode(json.dumps(inner).encode()).decode() if key in _EMBEDDED else _packed(inner)
        for key, inner in value.items()
    }


def _unpacked(value: Any) -> Any:
    if isinstance(value, list):
        return [_unpacked(inner) for inner in value]
    if not isinstance(value, dict):
        return value
    return {
        key: json.loads(base64.b64decode(inner)) if key in _EMBEDDED else _unpacked(inner)
        for key, inner in value.items()
    }


class Streamed:
    """A client's side of one response.

    Attributes:
        pieces: the chunks of the body, as they came.
        lines: the replies and pushes in them, in order, pings (`{}`) among them.
        is_over: whether the response has ended as it should.
        is_cut: whether it ended before that.
        answers_pings: whether the client does.
        posts_to: where its commands go: another process, behind a balancer.
    """

    def __init__(self, service: Service, nursery: trio.Nursery, kind: str, emulation: str = "/emulation") -> None:
        self.kind = kind
        self.pieces: list[bytes] = []
        self.lines: list[Any] = []
        self.is_over = self.is_cut = False
        self.answers_pings = True
        self.session = self.node = ""
        self.status = 0
        self.exchange: Any = None
        self.headers: dict[str, str] = {}
        self.posts_to = service
        self._service = service
        self._nursery = nursery
        self._emulation = emulation
        self._id = 1
        self._news = trio.Event()
        self._rest = b""

    # The response

    async def begin(self, first: bytes, *, path: str = "/connection", pair: Any = None, **headers: str) -> Streamed:
        """Send the request, and take the head of the response."""
        exchange = Exchange(self._service.open_stream(pair))
        if self.kind == "sse":
            await exchange.request(f"{path}/sse?cf_connect={quote(first.decode())}", headers=headers)
        else:
            said = {**(BINARY if self.kind == "protobuf" else {"content-type": "application/json"}), **headers}
            await exchange.request(f"{path}/http_stream", method="POST", headers=said, body=first)
        self.exchange, self.status, self.headers = exchange, exchange.status, exchange.headers
        return self

    def read_on(self) -> None:
        """Take what comes, from now on."""
        self._nursery.start_soon(self._read)

    async def _read(self) -> None:
        try:
            while (piece := await self.exchange.piece()) is not None:
                self.pieces.append(piece)
                self._take(piece)
                if self.answers_pings and {} in self.lines[-1:] and self.session:
                    self._nursery.start_soon(self.say_raw, encode(self.kind, {}))
                self._tell()
            self.is_over = True
        except (h11.RemoteProtocolError, trio.BrokenResourceError, trio.ClosedResourceError):
            self.is_cut = True
        self._tell()

    def _tell(self) -> None:
        self._news.set()
        self._news = trio.Event()

    def _take(self, piece: bytes) -> None:
        data = self._rest + piece
        if self.kind == "protobuf":
            while data and (end := _end_of(data)) is not None:
                start = end[0]
                reply = MessageToDict(
                    client_pb2.Reply.FromString(data[start : end[1]]), preserving_proto_field_name=True
                )
                self.lines.append(_unpacked(reply))
                data = data[end[1] :]
            self._rest = data
            return
        break_ = b"\n\n" if self.kind == "sse" else b"\n"
        whole, found, self._rest = data.rpartition(break_)
        text = whole + found
        lines = (
            text.decode().split("\n")
            if self.kind != "sse"
            else [line for e in parse(text) for line in e.data.split("\n")]
        )
        self.lines += [json.loads(line) for line in lines if line]

    async def connect(self, *, pair: Any = None, path: str = "/connection", **request: Any) -> Streamed:
        """Connect, and take the reply."""
        await self.begin(encode(self.kind, {"id": 1, "connect": request}), pair=pair, path=path)
        assert self.status == 200, self.status
        self.read_on()
        result = (await self.reply(1))["connect"]
        self.session, self.node = result["session"], result["node"]
        return self

    # Its commands

    def command(self, method: str, /, **request: Any) -> dict[str, Any]:
        """A command with the next id."""
        self._id += 1
        return {"id": self._id, method: request}

    async def say_raw(self, data: bytes, **headers: str) -> int:
        """Send a message as it is; the status of the answer."""
        body = emulated(self.kind, self.session, self.node, data)
        return await self.post(body, **headers)

    async def post(self, body: bytes, **headers: str) -> int:
        """Send a request to the emulation endpoint; the status of the answer."""
        exchange = Exchange(self.posts_to.open_stream())
        said = {**(BINARY if self.kind == "protobuf" else {}), **headers}
        try:
            await exchange.request(self._emulation, method="POST", headers=said, body=body)
            return exchange.status
        finally:
            await exchange.aclose()

    async def say(self, *commands: dict[str, Any]) -> int:
        """Send commands as one message; the status of the answer."""
        return await self.say_raw(encode(self.kind, *commands))

    async def ask(self, method: str, /, **request: Any) -> Any:
        """Send a command; its reply."""
        command = self.command(method, **request)
        assert await self.say(command) == 204
        return await self.reply(command["id"])

    # What it has heard

    def replies(self, number: int) -> list[Any]:
        return [line for line in self.lines if line.get("id") == number]

    @property
    def pushes(self) -> list[Any]:
        return [line["push"] for line in self.lines if "push" in line]

    def published(self, channel: str | None = None) -> list[Any]:
        """The data of the publications that were pushed."""
        return [push["pub"]["data"] for push in self.pushes if "pub" in push and channel in (None, push.get("channel"))]

    async def reply(self, number: int) -> Any:
        """Wait for the reply to a command."""
        with trio.fail_after(300):
            while not (replies := self.replies(number)):
                assert not self.is_over, f"over instead: {self.lines}"
                assert not self.is_cut, f"cut instead: {self.lines}"
                await self._news.wait()
        assert len(replies) == 1, "a command is answered once"
        return replies[0]

    async def end(self) -> tuple[int, str]:
        """Wait until the response has ended; the code and the reason of its last words."""
        await self.ended()
        assert self.is_over, "it was cut off"
        last = self.lines[-1]
        assert set(last) == {"push"}, last
        assert set(last["push"]) == {"disconnect"}, last
        said = last["push"]["disconnect"]
        return said["code"], said["reason"]

    async def ended(self) -> None:
        """Wait until the response has ended, one way or the other."""
        with trio.fail_after(300):
            while not (self.is_over or self.is_cut):
                await self._news.wait()

    async def leave(self) -> None:
        """Be gone."""
        if self.exchange is not None:
            await self.exchange.aclose()


def _end_of(data: bytes) -> tuple[int, int] | None:
    """Where the reply in front begins and ends; `None` where it is not whole."""
    size = 0
    for index, byte in enumerate(data):
        size |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            begin = index + 1
            return (begin, begin + size) if len(data) >= begin + size else None
    return None


class StreamedService:
    """A served app, and its clients without a WebSocket."""

    def __init__(self, service: Service, nursery: trio.Nursery) -> None:
        self.service = service
        self.app = service.app
        self.hub = service.app._running_hub()
        self.nursery = nursery
        self.clients: list[Streamed] = []

    def new(self, kind: str, emulation: str = "/emulation") -> Streamed:
        """A client that has not done anything yet."""
        client = Streamed(self.service, self.nursery, kind, emulation)
        self.clients.append(client)
        return client

    async def client(self, kind: str = "http_stream", /, **request: Any) -> Streamed:
        """A client that is connected."""
        return await self.new(kind).connect(**request)

    async def settle(self) -> None:
        """Let everybody do what there is to do now."""
        await trio.testing.wait_all_tasks_blocked()

    @property
    def timers(self) -> int:
        """How many timers clients have, and their subscriptions."""
        owners = [getattr(timer.call, "__self__", None) for _, _, timer in self.hub.timers._heap]
        return sum(type(owner) in (Clock, TokenTimer) for owner in owners)

    def assert_nobody(self) -> None:
        """No client is left in any list."""
        statistics = self.app.statistics()
        assert (statistics.streams, statistics.rooms, statistics.memberships, statistics.users) == (0, 0, 0, 0)
        assert len(self.hub.client_news) == 0
        assert self.timers == 0


@asynccontextmanager
async def serving_streams(app: App, asgi: Any = None) -> AsyncIterator[StreamedService]:
    """Serve `app`; at the end all clients leave, and nothing may be left of any."""
    before = {id(thing) for thing in _of_clients()}  # what a test has left that failed
    async with trio.open_nursery() as nursery, serving(app, asgi) as service:
        clients = StreamedService(service, nursery)
        yield clients
        for client in clients.clients:
            await client.leave()
        await service.wait_ended(30)
        clients.assert_nobody()
        assert len(clients.hub.streamed_clients) == 0
        assert len(clients.hub.quotas) == 0
    gc.collect()
    left = [thing for thing in _of_clients() if id(thing) not in before]
    assert not left, f"still referred to: {left}"


def _of_clients() -> list[object]:
    kinds = (Client, ClientPeer, ClientSession, SubscriptionLife, StreamedCarrier)
    return [thing for thing in gc.get_objects() if type(thing) in kinds]


class ASGIRequest:
    """A request to the app itself, without a server."""

    def __init__(self, app: App, path: str, body: bytes, content_type: bytes = b"application/json") -> None:
        self.status = 0
        self.body = b""
        self.is_whole = False
        self.over = trio.Event()
        self.scope = trio.CancelScope()
        self.gone = trio.Event()
        self.news = trio.Event()
        self._app = app
        self._path = path
        self._content_type = content_type
        self._messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def run(self) -> None:
        head = [(b"host", b"test"), (b"content-type", self._content_type)]
        scope: Scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "POST",
            "scheme": "http",
            "path": self._path,
            "raw_path": self._path.encode(),
            "root_path": "",
            "query_string": b"",
            "headers": head,
            "client": ("127.0.0.1", 1),
            "server": ("test", 80),
        }
        try:
            with self.scope:
                await self._app(scope, self._receive, self._send)
        finally:
            self.over.set()
            self.news.set()

    async def _receive(self) -> Message:
        await trio.lowlevel.checkpoint()
        if self._messages:
            return self._messages.pop()
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        await trio.lowlevel.checkpoint()
        if message["type"] == "http.response.start":
            self.status = message["status"]
        else:
            self.body += message["body"]
            self.is_whole = not message.get("more_body", False)
        self.news.set()
        self.news = trio.Event()

    @property
    def lines(self) -> list[Any]:
        return [json.loads(line) for line in self.body.splitlines()]

    async def until(self, number: int) -> Any:
        """Wait for a reply; `None` where the response has ended before."""
        while not (found := [line for line in self.lines if line.get("id") == number]):
            if self.over.is_set():
                return None
            await self.news.wait()
        return found[0]
