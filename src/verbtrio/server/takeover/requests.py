"""The HTTP phase's tasks, and each request's way to its application and back."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import trio
from hypercorn.protocol.events import Request, StreamClosed
from hypercorn.protocol.h2 import H2Protocol
from hypercorn.protocol.h11 import H11Protocol
from hypercorn.protocol.http_stream import ASGIHTTPState, HTTPStream
from hypercorn.trio.task_group import TaskGroup, _handle

from verbtrio.base.timers import Timers
from verbtrio.base.types import Waitable
from verbtrio.http.link import LINK, Link
from verbtrio.server.takeover.http2_buffers import Held
from verbtrio.server.takeover.incoming import Incoming
from verbtrio.server.takeover.targets import answer_for_all
from verbtrio.wire.handshake import RawHeaders

logger = logging.getLogger("verbtrio.hypercorn")


class RequestTasks(TaskGroup):
    """The HTTP phase's tasks. Each request's scope gets what a response needs to know of its connection (`Link`).

    Args:
        terminated, abort: for the links; `abort` is called with hypercorn's stream.
        timers: call when a client has been waited for long enough.
        send_timeout: seconds that a response waits for a client that takes nothing, unless the response wants more.
        receive_timeout: seconds that an application waits for a body that does not come.

    Attributes:
        in_progress: the link of each request whose answer is not complete and whose handler has not returned, and
            each tunnel.
        held: the bytes of responses that wait for an HTTP/2 client's window.
    """

    def __init__(
        self,
        terminated: Waitable,
        abort: Callable[[Any], Awaitable[None]],
        timers: Timers,
        send_timeout: float,
        receive_timeout: float,
    ) -> None:
        super().__init__()
        self._terminated = terminated
        self._send_timeout = send_timeout
        self._incoming: dict[Incoming, None] = {}
        self._has_hung_up = False
        self.abort = abort
        self.receive_timeout = receive_timeout
        self.timers = timers
        self.in_progress = set[Any]()
        self.held = Held()

    def longest_send_timeout(self) -> float:
        """Seconds that the connection waits for a client that takes nothing: the most that any response wants."""
        wanted = (request.send_timeout for request in self.in_progress if isinstance(request, Link))
        return max(wanted, default=self._send_timeout)

    def hang_up(self) -> None:
        """The client sends nothing more; what it sent before may not have been read. Its requests are answered all the
        same: it may have closed its half alone."""
        self._has_hung_up = True
        for incoming in self._incoming:
            incoming.hang_up()

    def spawn(self, func: Callable[..., Any], *args: Any) -> None:
        nursery: Any = self._nursery
        nursery.start_soon(_protected, func, *args, name=func)

    async def spawn_app(self, app: Any, config: Any, scope: Any, send: Any) -> Any:
        stream = send.__self__
        link = Link(self._terminated, partial(self.abort, stream), self._send_timeout)
        scope["extensions"][LINK] = link
        exchange = _Exchange(self, stream, link, send, multiplexed=scope["http_version"] == "2")
        incoming = exchange.incoming
        if self._has_hung_up:
            incoming.hang_up()

        async def run() -> None:
            try:
                if self.held.is_full:
                    await self.held.wait_for_room(lambda: incoming.is_over)
                    if incoming.is_over:
                        return
                await _handle(app, config, scope, incoming.receive, exchange.answer, *_THREADS)
            finally:
                incoming.end()
                self._incoming.pop(incoming, None)
                self.in_progress.discard(link)

        self.in_progress.add(link)
        self._incoming[incoming] = None
        self.spawn(run)
        return exchange.put


_THREADS = (trio.to_thread.run_sync, trio.from_thread.run)


class _Exchange:
    """One request and its answer, between hypercorn's stream and the application.

    Args:
        stream: hypercorn's.
        link: what the response knows of the connection.
        send: hypercorn's, which takes ASGI's messages.
        multiplexed: other requests share the connection (HTTP/2).
    """

    def __init__(self, tasks: RequestTasks, stream: Any, link: Link, send: Any, *, multiplexed: bool) -> None:
        self._tasks = tasks
        self._stream = stream
        self._protocol = stream.send.__self__
        self._link = link
        self._send = send
        self._multiplexed = multiplexed
        self._is_given_up = False
        self.incoming = Incoming(tasks.receive_timeout, self._taken, self._give_up)

    async def put(self, event: Any) -> None:
        """Called by hypercorn with what the application is to receive."""
        if event["type"] == "http.disconnect":
            self.incoming.end()
            return
        self.incoming.put(event["body"], more=event["more_body"])
        if not self._multiplexed:
            await self.incoming.wait_for_room()

    async def answer(self, message: Any) -> None:
        """ASGI's send; `None`, from hypercorn, when the application has returned."""
        if self._is_given_up and message is not None:
            return  # ASGI lets an application send to a client that has left
        try:
            await self._send(message)
        finally:
            if message is None or (message["type"] == "http.response.body" and not message.get("more_body")):
                self._tasks.in_progress.discard(self._link)  # a background task may go on

    def _taken(self, count: int) -> None:
        if self._multiplexed and count:
            self._protocol.give_credit(self._stream.stream_id, count)

    async def _give_up(self) -> None:
        """The body has not come in time: answer 408, or cut the answer off where it has begun."""
        self._is_given_up = True
        message = "a request was ended: its body has not come within %g s (Limits.http_receive_timeout)"
        logger.info(message, self._tasks.receive_timeout)
        stream = self._stream
        if stream.closed:
            return
        if stream.state is ASGIHTTPState.REQUEST:
            await stream._send_error_response(408)
            await stream.send(StreamClosed(stream_id=stream.stream_id))
        else:
            await self._tasks.abort(stream)


@trio.lowlevel.enable_ki_protection
async def _protected(func: Callable[..., Awaitable[None]], *args: Any) -> None:
    """A task of the HTTP phase. Ctrl+C (`hypercorn -w 0`) is for hypercorn's main task. Raised here it would end a
    response, be logged as the application's error, and be lost."""
    await func(*args)


def stream_for(protocol: H11Protocol | H2Protocol, stream_id: int, target: bytes) -> HTTPStream:
    """hypercorn's stream for a request: to the application, or for `OPTIONS *` to the answer for the whole server."""
    return HTTPStream(
        answer_for_all if target == b"*" else protocol.app,
        protocol.config,
        protocol.context,
        protocol.task_group,
        protocol.ssl,
        protocol.client,
        protocol.server,
        protocol.stream_send,
        stream_id,
    )


async def begin_request(
    protocol: H11Protocol | H2Protocol,
    stream: HTTPStream,
    method: bytes,
    target: bytes,
    headers: RawHeaders,
    http_version: str,
) -> None:
    """Begin a request in its `stream`."""
    await stream.handle(
        Request(
            stream_id=stream.stream_id,
            headers=headers,
            http_version=http_version,
            method=method.decode("ascii"),
            raw_path=target,
            state=protocol.connection_state,
        )
    )
