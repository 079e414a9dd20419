"""The proxy that harms connections does to them what it says, and nothing else."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from tests.support.fault_proxy import Direction, FaultProxy, fault_proxy

PATIENCE = 10
"""Seconds until what does not come is a failure."""
A_MOMENT = 0.05
"""Seconds in which nothing is to come."""


class Echo:
    """A server that sends back what it gets; it knows its connections."""

    def __init__(self) -> None:
        self.open = 0
        self.resets = 0
        self.port = 0

    async def serve(self, task_status: trio.TaskStatus[None]) -> None:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        self.port = listeners[0].socket.getsockname()[1]
        await trio.serve_listeners(self._handle, listeners, task_status=task_status)  # type: ignore[arg-type]  # a status of its own type

    async def _handle(self, stream: trio.SocketStream) -> None:
        self.open += 1
        try:
            async for data in stream:
                await stream.send_all(data)
        except trio.BrokenResourceError:
            self.resets += 1
        finally:
            self.open -= 1


@asynccontextmanager
async def proxied() -> AsyncIterator[tuple[Echo, FaultProxy]]:
    echo = Echo()
    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            await nursery.start(echo.serve)
            async with fault_proxy(echo.port) as proxy:
                yield echo, proxy
            nursery.cancel_scope.cancel()


async def connect(proxy: FaultProxy) -> trio.SocketStream:
    return await trio.open_tcp_stream("127.0.0.1", proxy.port)


async def said(stream: trio.SocketStream, data: bytes = b"hello") -> bytes:
    """What comes back for `data`."""
    await stream.send_all(data)
    return await received(stream, len(data))


async def received(stream: trio.SocketStream, size: int) -> bytes:
    answer = bytearray()
    while len(answer) < size:
        piece = await stream.receive_some()
        assert piece, "the connection ended"
        answer += piece
    return bytes(answer)


async def is_silent(stream: trio.SocketStream) -> bool:
    """Whether nothing comes for a moment."""
    with trio.move_on_after(A_MOMENT) as moment:
        await stream.receive_some()
    return moment.cancelled_caught


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await trio.sleep(0.002)


def pumps() -> list[str]:
    """The tasks that pass bytes on, in all of this process's proxies."""
    found, nurseries = [], list(trio.lowlevel.current_root_task().child_nurseries)  # type: ignore[union-attr]  # within a run there is one
    while nurseries:
        for task in nurseries.pop().child_tasks:
            nurseries += task.child_nurseries
            found += [task.name] if task.name.endswith("Link._pump") else []
    return found


async def test_bytes_pass_both_ways_and_are_counted() -> None:
    async with proxied() as (_, proxy):
        async with await connect(proxy) as one, await connect(proxy) as other:
            big = bytes(range(256)) * 4096
            async with trio.open_nursery() as nursery:
                nursery.start_soon(one.send_all, big)
                assert await received(one, len(big)) == big
            assert await said(other) == b"hello"
            assert (proxy.connections, proxy.accepted) == (2, 2)
            await until(lambda: proxy.passed == {"up": len(big) + 5, "down": len(big) + 5})
        await until(lambda: proxy.connections == 0)


async def test_an_end_passes() -> None:
    async with proxied() as (echo, proxy):
        async with await connect(proxy) as stream:
            await stream.send_all(b"last")
            await stream.send_eof()
            assert await received(stream, 4) == b"last"
            assert await stream.receive_some() == b""
        await until(lambda: echo.open == 0)
        assert echo.resets == 0


async def test_cut_resets_both_ends_and_takes_new_connections() -> None:
    async with proxied() as (echo, proxy):
        async with await connect(proxy) as stream:
            assert await said(stream) == b"hello"
            proxy.cut()
            assert proxy.connections == 0
            with pytest.raises(trio.BrokenResourceError):
                await stream.receive_some()
            await until(lambda: (echo.open, echo.resets) == (0, 1))
        async with await connect(proxy) as stream:
            assert await said(stream) == b"hello"


async def test_cut_ends_what_is_stalled() -> None:
    async with proxied() as (echo, proxy):
        async with await connect(proxy) as stream:
            assert await said(stream) == b"hello"
            proxy.stall()
            await stream.send_all(b"lost")
            await trio.testing.wait_all_tasks_blocked(A_MOMENT)  # the proxy has taken it
            proxy.cut()
            await until(lambda: echo.open == 0)
            await until(lambda: not pumps())
            proxy.flow()
        async with await connect(proxy) as stream:
            assert await said(stream) == b"hello"


async def test_an_abandoned_connection_stays_at_the_server() -> None:
    async with proxied() as (echo, proxy):
        async with await connect(proxy) as stream:
            assert await said(stream) == b"hello"
            proxy.abandon()
            with pytest.raises(trio.BrokenResourceError):
                await stream.receive_some()
        async with await connect(proxy) as stream:
            assert await said(stream) == b"hello"
            assert (echo.open, echo.resets, proxy.connections) == (2, 0, 1)
            proxy.cut()
            await until(lambda: echo.open == 0)


async def test_what_is_said_to_an_abandoned_connection_is_taken() -> None:
    """Nobody reads it; the server is not held up."""
    size = 16 * 1024 * 1024
    with trio.fail_after(PATIENCE):
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        async with listener, fault_proxy(listener.socket.getsockname()[1]) as proxy:
            async with await connect(proxy) as stream, await listener.accept() as server:
                await server.send_all(b"hello")
                assert await received(stream, 5) == b"hello"
                proxy.abandon()
                await server.send_all(bytes(size))
                assert proxy.connections == 0


async def test_refuse_and_accept() -> None:
    async with proxied() as (_, proxy):
        async with await connect(proxy) as stream:
            for _ in range(3):
                proxy.refuse()
                proxy.refuse()
                with pytest.raises(ConnectionRefusedError), socket.create_connection(("127.0.0.1", proxy.port), 1):
                    pass
                assert await said(stream) == b"hello", "those there are stay"
                proxy.accept()
                proxy.accept()
                async with await connect(proxy) as other:
                    assert await said(other) == b"hello"


async def test_accept_at_once_after_refuse() -> None:
    """The task that waits for connections has not run between the two."""
    async with proxied() as (_, proxy):
        await trio.testing.wait_all_tasks_blocked()
        proxy.refuse()
        proxy.accept()
        async with await connect(proxy) as stream:
            assert await said(stream) == b"hello"


@pytest.mark.parametrize("directions", [("up",), ("down",), ()])
async def test_what_is_stalled_waits(directions: tuple[Direction, ...]) -> None:
    async with proxied() as (_, proxy):
        async with await connect(proxy) as stream:
            assert await said(stream) == b"hello"
            proxy.stall(*directions)
            await stream.send_all(b"late")
            assert await is_silent(stream)
            assert proxy.passed == {"up": 9 if directions == ("down",) else 5, "down": 5}
            assert proxy.connections == 1
            proxy.flow()
            assert await received(stream, 4) == b"late"


async def test_a_stall_takes_a_bounded_number_of_bytes() -> None:
    async with proxied() as (_, proxy):
        async with await connect(proxy) as stream:
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
            proxy.stall("up")
            with trio.move_on_after(A_MOMENT * 4) as moment:
                await stream.send_all(bytes(64 * 1024 * 1024))
            assert moment.cancelled_caught
            assert proxy.passed["up"] == 0


async def test_a_new_connection_is_taken_while_stalled() -> None:
    async with proxied() as (_, proxy):
        proxy.stall()
        async with await connect(proxy) as stream:
            await stream.send_all(b"late")
            assert await is_silent(stream)
            proxy.flow()
            assert await received(stream, 4) == b"late"


@pytest.mark.parametrize("direction", ["up", "down"])
async def test_chunks_are_delayed(direction: Direction) -> None:
    async with proxied() as (_, proxy):
        async with await connect(proxy) as stream:
            proxy.delay(A_MOMENT, direction)
            begin = trio.current_time()
            assert await said(stream) == b"hello"
            assert trio.current_time() - begin >= A_MOMENT
            proxy.delay(3600, direction)
            await stream.send_all(b"late")
            assert await is_silent(stream)
            assert proxy.passed == {"up": 9 if direction == "down" else 5, "down": 5}
            proxy.delay(0)
            proxy.cut()
        async with await connect(proxy) as stream:
            assert await said(stream) == b"hello"


async def test_a_server_that_is_away_resets_connections() -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        async with fault_proxy(nobody.getsockname()[1]) as proxy:
            async with await connect(proxy) as stream:
                with trio.fail_after(PATIENCE), pytest.raises(trio.BrokenResourceError):
                    await stream.receive_some()
            assert proxy.connections == 0


async def test_the_end_resets_all() -> None:
    async with proxied() as (echo, _):
        async with fault_proxy(echo.port) as own:
            stream = await connect(own)
            assert await said(stream) == b"hello"
        async with stream:
            with pytest.raises(trio.BrokenResourceError):
                await stream.receive_some()
        with pytest.raises(OSError, match="connect"):
            await connect(own)
