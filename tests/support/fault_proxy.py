"""A TCP proxy with faults on demand: what a network does between a client and a server.

    async with fault_proxy(server.port) as proxy:
        ... connect to proxy.port ...
        proxy.cut()

What a test does to it is plain functions, which take effect at once: on connections there are, and on those to come.
Each connection is one task, with a task for each direction, in the proxy's own nursery. It holds 64 KiB of each
direction at most; the rest waits in the kernel's buffers, and then with who sends.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Literal

import trio

from tests.support.redis_server import server_port

CHUNK = 65536
RESET = struct.pack("ii", 1, 0)
"""SO_LINGER for no time: a close is a reset."""

Direction = Literal["up", "down"]
"""From the client to the server; from the server to the client."""
BOTH: tuple[Direction, ...] = ("up", "down")


class FaultProxy:
    """The faults, and what passes.

    Attributes:
        port: where it listens, on 127.0.0.1; it stays the same.
        accepted: the connections there have been.
        passed: bytes passed on, by direction.
    """

    def __init__(self, target: int) -> None:
        self.target = target
        self.port = server_port()
        self.accepted = 0
        self.passed: dict[Direction, int] = {"up": 0, "down": 0}
        self._delays: dict[Direction, float] = {"up": 0, "down": 0}
        self._gates: dict[Direction, trio.Event] = {"up": open_gate(), "down": open_gate()}
        self._links: set[Link] = set()
        self._listener: trio.socket.SocketType | None = None
        self._listening = trio.Event()
        self.accept()

    @property
    def connections(self) -> int:
        """The clients that are connected now."""
        return sum(not link.is_abandoned for link in self._links)

    def cut(self) -> None:
        """Reset all connections, at both ends. What was on its way is lost. New ones are taken."""
        for link in self._links:
            link.reset()
        self._links.clear()

    def abandon(self) -> None:
        """Reset all connections at the client's end alone: the server holds its own ends open, and may send to them, as
        behind a router that has lost its table. A client that comes back is there twice."""
        for link in self._links:
            link.abandon()

    def refuse(self) -> None:
        """Have new connections refused. Those there are stay."""
        if self._listener is not None:
            self._listening = trio.Event()
            self._listener.close()
            self._listener = None

    def accept(self) -> None:
        """End `refuse`."""
        if self._listener is None:
            # `create_server` blocks on nothing here; a Trio socket's own `bind` is async, for names.
            self._listener = trio.socket.from_stdlib_socket(socket.create_server(("127.0.0.1", self.port)))
            self._listening.set()

    def stall(self, *directions: Direction) -> None:
        """Take bytes and pass nothing on, in these directions or in both: the connections look alive. What was taken
        waits, and nothing is lost."""
        for direction in directions or BOTH:
            if self._gates[direction].is_set():
                self._gates[direction] = trio.Event()

    def flow(self) -> None:
        """End `stall`: pass on what waits."""
        for gate in self._gates.values():
            gate.set()

    def delay(self, seconds: float, *directions: Direction) -> None:
        """Hold each chunk back for `seconds`, in these directions or in both; 0 ends it. Chunks wait one by one."""
        for direction in directions or BOTH:
            self._delays[direction] = seconds

    async def run(self) -> None:
        """Take connections until cancelled; then all of them are reset."""
        async with trio.open_nursery() as nursery:
            try:
                while True:
                    await self._listening.wait()
                    listener = self._listener
                    assert listener is not None
                    try:
                        client, _ = await listener.accept()
                    except (OSError, trio.ClosedResourceError):
                        if listener is self._listener:
                            raise
                        continue  # refused meanwhile
                    self.accepted += 1
                    link = Link(self, client)
                    self._links.add(link)
                    nursery.start_soon(self._carry, link)
            finally:
                self.refuse()
                self.cut()

    async def hold(self, direction: Direction) -> None:
        """Wait until a chunk may go on."""
        await trio.sleep(self._delays[direction])
        while not self._gates[direction].is_set():
            await self._gates[direction].wait()

    async def _carry(self, link: Link) -> None:
        try:
            await link.run()
        finally:
            self._links.discard(link)
            link.reset()


class Link:
    """One client's connection, and the one to the server that stands for it."""

    def __init__(self, proxy: FaultProxy, client: trio.socket.SocketType) -> None:
        self.is_abandoned = False
        self._proxy = proxy
        self._client = client
        self._server = trio.socket.socket()
        self._scope = trio.CancelScope()

    async def run(self) -> None:
        """Pass bytes both ways until both ends have finished, or one is reset."""
        with self._scope, suppress(OSError, trio.ClosedResourceError):
            await self._server.connect(("127.0.0.1", self._proxy.target))
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._pump, "up", self._client, self._server)
                nursery.start_soon(self._pump, "down", self._server, self._client)

    def reset(self) -> None:
        """Reset both ends, and end the tasks. Again does nothing."""
        self._scope.cancel()
        close_with_reset(self._client)
        close_with_reset(self._server)

    def abandon(self) -> None:
        """Reset the client's end; go on taking what the server sends."""
        self.is_abandoned = True
        close_with_reset(self._client)

    async def _pump(self, direction: Direction, source: trio.socket.SocketType, sink: trio.socket.SocketType) -> None:
        """Pass on what comes from `source`, and its end."""
        try:
            while data := await source.recv(CHUNK):
                await self._proxy.hold(direction)
                await send_all(sink, data)
                self._proxy.passed[direction] += len(data)
            await self._proxy.hold(direction)
            sink.shutdown(socket.SHUT_WR)
        except (OSError, trio.ClosedResourceError):
            if not self.is_abandoned:
                self.reset()
            elif direction == "down":
                await drain(source)


def open_gate() -> trio.Event:
    gate = trio.Event()
    gate.set()
    return gate


def close_with_reset(sock: trio.socket.SocketType) -> None:
    with suppress(OSError):  # it is closed already
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    sock.close()


async def send_all(sock: trio.socket.SocketType, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[await sock.send(rest) :]


async def drain(sock: trio.socket.SocketType) -> None:
    """Read what comes, for nobody, until the other side closes."""
    with suppress(OSError, trio.ClosedResourceError):
        while await sock.recv(CHUNK):
            pass


@asynccontextmanager
async def fault_proxy(target: int) -> AsyncIterator[FaultProxy]:
    """A proxy in front of 127.0.0.1's port `target`. At the end all its connections are reset."""
    proxy = FaultProxy(target)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(proxy.run)
        yield proxy
        nursery.cancel_scope.cancel()
