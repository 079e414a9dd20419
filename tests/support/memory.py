"""An app served over memory streams: the take-over's own path, without sockets, so that the clock can be virtual."""

from __future__ import annotations

import gc
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import trio
import trio.testing
import trio_websocket
from hypercorn.config import Config
from hypercorn.trio import run as hypercorn_run
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.utils import wrap_app

from verbtrio import App, EventSubscriber, WebSocket


def socket_stream_pair() -> tuple[trio.SocketStream, trio.SocketStream]:
    """Two ends of real sockets: what the poller reads. Within one process what was sent is there at once, so a virtual
    clock never jumps over it."""
    one, other = trio.socket.socketpair()
    return trio.SocketStream(one), trio.SocketStream(other)


class Service:
    """A served app, and a way to be its client.

    Attributes:
        pair: makes a connection's two ends, where a test asks for none in particular.
    """

    pair: Callable[[], Any] = staticmethod(trio.testing.memory_stream_pair)

    def __init__(
        self, app: App, asgi: Any, state: dict[str, Any], nursery: trio.Nursery, clients: trio.Nursery
    ) -> None:
        self.app = app
        self.state = state  # what the lifespan has yielded
        self.asgi = asgi
        self.context = WorkerContext(None)
        self.config = Config()
        self.config.errorlog = None
        self.connections = nursery
        self._clients = clients
        self._opened: list[trio.abc.AsyncResource] = []
        self._server = hypercorn_run.TCPServer  # type: ignore[attr-defined]  # the take-over's, in the lifespan

    def open_stream(self, pair: Any = None) -> Any:
        """A client's end of a new connection."""
        client, server = (pair or self.pair)()
        self._opened.append(client)
        wrapped = wrap_app(self.asgi, self.config.wsgi_max_body_size, "asgi")
        run = self._server(wrapped, self.config, self.context, self.state, server).run
        self.connections.start_soon(run)
        return client

    async def connect(
        self,
        path: str = "/ws",
        *,
        pair: Any = None,
        headers: list[tuple[bytes, bytes]] | None = None,
        subprotocols: list[str] | None = None,
    ) -> trio_websocket.WebSocketConnection:
        """A trio-websocket client, its handshake done."""
        return await trio_websocket.wrap_client_stream(
            self._clients, self.open_stream(pair), "test", path, extra_headers=headers, subprotocols=subprotocols
        )

    async def wait_ended(self, seconds: float) -> None:
        """Wait until no connection is left, `seconds` at most."""
        with trio.fail_after(seconds):
            while self.connections.child_tasks:
                await trio.sleep(0.01)

    async def hang_up(self) -> None:
        """Close what clients have left open."""
        for client in self._opened:
            await trio.aclose_forcefully(client)

    async def shut_down(self) -> None:
        """What the worker says first when it is asked to stop."""
        await self.context.terminated.set()


@asynccontextmanager
async def serving(app: App, asgi: Any = None) -> AsyncIterator[Service]:
    """Serve `app` (or `asgi`, which has it mounted); check at the end that nothing is left of any connection."""
    async with served(app, asgi) as service:
        yield service
        await assert_nothing_left(service)


@asynccontextmanager
async def served(app: App, asgi: Any = None) -> AsyncIterator[Service]:
    """The same without the check: for one of several apps, which ends while the others go on."""
    async with trio.open_nursery() as clients:
        async with app.lifespan() as state:
            async with trio.open_nursery() as server:
                connections: trio.Nursery = await server.start(_hold_connections)
                service = Service(app, asgi or app, state, connections, clients)
                yield service
                await service.hang_up()
                server.cancel_scope.cancel()
        clients.cancel_scope.cancel()


async def _hold_connections(task_status: trio.TaskStatus[trio.Nursery]) -> None:
    """The connections' nursery, in a task of its own: a test that cancels it does not cancel itself."""
    async with trio.open_nursery() as connections:
        task_status.started(connections)
        await trio.sleep_forever()


async def assert_nothing_left(service: Service) -> None:
    """Every connection has ended and left nothing: no task, no membership, no registry entry, no reference."""
    await service.wait_ended(20)
    hub = service.app._running_hub()
    statistics = service.app.statistics()
    present = (statistics.connections, statistics.streams, statistics.rooms, statistics.memberships, statistics.users)
    assert present == (0, 0, 0, 0, 0)
    assert statistics.opened == sum(statistics.ended.values()), "each that has begun has ended, once"
    assert len(hub.rooms) == 0
    assert not hub._drain.sessions
    _let_go_of_log_records()
    gc.collect()
    left = [thing for thing in gc.get_objects() if type(thing) in (WebSocket, EventSubscriber)]
    assert not left, f"still referred to: {left}"


def _let_go_of_log_records() -> None:
    """pytest keeps the records of a test, and they their arguments and tracebacks: no leak of ours."""
    for handler in logging.getLogger().handlers:
        for record in getattr(handler, "records", ()):
            record.args = None
            if record.exc_info:
                handler.format(record)  # keeps the traceback as text, in `exc_text`
                record.exc_info = None


async def shake_hands(stream: trio.abc.Stream, path: str = "/ws", headers: bytes = b"") -> bytes:
    """A client's handshake by hand; the head of the answer."""
    request = f"GET {path} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n".encode()
    request += b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n" + headers + b"\r\n"
    await stream.send_all(request)
    answer = b""
    while not answer.endswith(b"\r\n\r\n"):
        data = await stream.receive_some(1)
        assert data, "the server hung up"
        answer += data
    return answer
