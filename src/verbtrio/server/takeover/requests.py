"""The take-over's HTTP phase: a connection's tasks, and what each request's application receives (`Incoming`)."""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import trio
from hypercorn.protocol.events import StreamClosed
from hypercorn.protocol.http_stream import ASGIHTTPState
from hypercorn.trio.task_group import TaskGroup, _handle

from verbtrio.base.timers import Timers
from verbtrio.base.types import Waitable
from verbtrio.http.link import LINK, Link
from verbtrio.server.takeover.http2_buffers import Held

BODY_BYTES = 64 * 1024
"""What of a request's body may wait for its application: over HTTP/1.1 the client is read no further. (Over HTTP/2 the
stream's window is as much.)"""
PROGRESS_BYTES = 4 * 1024
"""The progress of a body that counts. A client that sends a byte now and then would otherwise keep its request for
ever; at this much in `http_receive_timeout` it needs a line of 70 bytes a second."""

logger = logging.getLogger("verbtrio.hypercorn")


class Incoming:
    """One request's body, and its client's leaving, on the way to the application.

    hypercorn 0.18 puts the parts into a queue of ten, and waits for room in it where it reads the connection. So a
    handler that does not read would hold up all that shares the connection with it, and its client's leaving.

    Args:
        timeout: seconds that the application waits for `PROGRESS_BYTES` of a body, or its end.
        taken: called with the number of bytes that the application has taken.
        give_up: called, by the application's task, when the body has not come in time.
    """

    def __init__(self, timeout: float, taken: Callable[[int], None], give_up: Callable[[], Awaitable[None]]) -> None:
        self._timeout = timeout
        self._taken = taken
        self._give_up = give_up
        self._body = bytearray()
        self._received = 0
        self._waited = 0.0  # seconds, since the last progress
        self._is_complete = False
        self._is_given = False
        self._has_gone = False
        self._has_hung_up = False
        self._was_told = False
        self._changed = trio.lowlevel.ParkingLot()
        self._room = trio.lowlevel.ParkingLot()

    def put(self, data: bytes, *, more: bool) -> None:
        """A part of the body has come."""
        if self._has_gone:
            return  # nobody wants the rest of it
        self._body += data
        self._received += len(data)
        self._is_complete = not more
        self._changed.unpark_all()

    def hang_up(self) -> None:
        """The client has nothing more to say. What it has said before is received first."""
        self._has_hung_up = True
        self._changed.unpark_all()

    def end(self) -> None:
        """The client has left, or has its answer."""
        self._has_gone = True
        self._changed.unpark_all()
        self._room.unpark_all()

    @property
    def is_over(self) -> bool:
        """Nobody waits for an answer any more."""
        return self._has_gone

    async def wait_for_room(self) -> None:
        """Wait until the application has taken some of the body, or nobody wants the rest of it."""
        while len(self._body) >= BODY_BYTES and not self._has_gone:
            await self._room.park()

    async def receive(self) -> Any:
        """ASGI's receive. If cancelled, nothing is lost.

        What is there is given even in a cancelled scope: Starlette's `is_disconnected` asks in one, and a checkpoint
        would not let it look. But a loop that goes on asking behind the end can be cancelled.
        """
        while not (self._has_part or self._has_left):
            await self._wait()
        if self._has_part:
            data = bytes(self._body)
            self._body.clear()
            self._is_given = self._is_complete
            self._taken(len(data))
            self._room.unpark_all()
            message: Any = {"type": "http.request", "body": data, "more_body": not self._is_complete}
        else:
            if self._was_told:
                await trio.lowlevel.checkpoint_if_cancelled()
            self._was_told, message = True, {"type": "http.disconnect"}
        await trio.lowlevel.cancel_shielded_checkpoint()
        return message

    @property
    def _has_part(self) -> bool:
        return bool(self._body) or (self._is_complete and not self._is_given)

    @property
    def _has_left(self) -> bool:
        return self._has_gone or (self._has_hung_up and self._is_given)

    async def _wait(self) -> None:
        """Wait for something to change, within what is left of the time for a body."""
        limit = math.inf if self._is_complete else self._timeout - self._waited
        begin, steps = trio.current_time(), self._received // PROGRESS_BYTES
        try:
            with trio.move_on_after(limit) as scope:
                await self._changed.park()
        finally:
            progressed = self._received // PROGRESS_BYTES > steps
            self._waited = 0.0 if progressed else self._waited + trio.current_time() - begin
        if scope.cancelled_caught and not self._has_part and not self._has_left:
            self.end()
            await self._give_up()


class RequestTasks(TaskGroup):
    """The HTTP phase's tasks. Each request's scope is told what a response may want to know of its connection (`Link`).

    Args:
        terminated, abort: for the links; `abort` is told hypercorn's stream.
        timers: call when a client has been waited for long enough.
        send_timeout: seconds that a response waits for a client that takes nothing, unless it says more.
        receive_timeout: seconds that an application waits for a body that does not come.

    Attributes:
        in_progress: the link of each request whose answer is not complete, and whose handler has not returned; and
            each tunnel.
        held: what of responses waits for an HTTP/2 client's window.
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
        self._abort = abort
        self._send_timeout = send_timeout
        self._receive_timeout = receive_timeout
        self._incoming: dict[Incoming, None] = {}
        self._has_hung_up = False
        self.timers = timers
        self.in_progress = set[Any]()
        self.held = Held()

    def patience(self) -> float:
        """Seconds that the connection waits for a client that takes nothing: the most that a response wants."""
        wanted = (request.send_timeout for request in self.in_progress if isinstance(request, Link))
        return max(wanted, default=self._send_timeout)

    def hang_up(self) -> None:
        """The client has nothing more to say, and what it has said before may not have been read. Its requests are
        answered all the same: it may have closed its half alone."""
        self._has_hung_up = True
        for incoming in self._incoming:
            incoming.hang_up()

    def spawn(self, func: Callable[..., Any], *args: Any) -> None:
        nursery: Any = self._nursery
        nursery.start_soon(_protected, func, *args, name=func)

    async def spawn_app(self, app: Any, config: Any, scope: Any, send: Any) -> Any:
        stream = send.__self__
        protocol = stream.send.__self__
        link = scope["extensions"][LINK] = Link(self._terminated, partial(self._abort, stream), self._send_timeout)
        multiplexed = scope["http_version"] == "2"
        given_up = False

        async def give_up() -> None:
            nonlocal given_up
            given_up = True
            message = "a request was ended: its body has not come within %g s (Limits.http_receive_timeout)"
            logger.info(message, self._receive_timeout)
            if stream.closed:
                return
            if stream.state is ASGIHTTPState.REQUEST:
                await stream._send_error_response(408)
                await stream.send(StreamClosed(stream_id=stream.stream_id))
            else:
                await self._abort(stream)

        async def answer(message: Any) -> None:
            if given_up and message is not None:
                return  # there is nobody to tell; ASGI lets an application send to a client that has left
            try:
                await send(message)
            finally:
                if message is None or (message["type"] == "http.response.body" and not message.get("more_body")):
                    self.in_progress.discard(link)  # a background task may go on

        def taken(count: int) -> None:
            if multiplexed and count:
                protocol.credit(stream.stream_id, count)

        async def put(event: Any) -> None:
            if event["type"] == "http.disconnect":
                incoming.end()
                return
            incoming.put(event["body"], more=event["more_body"])
            if not multiplexed:
                await incoming.wait_for_room()

        incoming = Incoming(self._receive_timeout, taken, give_up)
        if self._has_hung_up:
            incoming.hang_up()

        async def run() -> None:
            try:
                if self.held.is_full:
                    await self.held.wait_for_room(lambda: incoming.is_over)
                    if incoming.is_over:
                        return
                await _handle(app, config, scope, incoming.receive, answer, *_THREADS)
            finally:
                incoming.end()
                self._incoming.pop(incoming, None)
                self.in_progress.discard(link)

        self.in_progress.add(link)
        self._incoming[incoming] = None
        self.spawn(run)
        return put


_THREADS = (trio.to_thread.run_sync, trio.from_thread.run)


@trio.lowlevel.enable_ki_protection
async def _protected(func: Callable[..., Awaitable[None]], *args: Any) -> None:
    """A task of the HTTP phase. Ctrl+C (`hypercorn -w 0`) is for hypercorn's main task: raised here it would end a
    response, be logged as the application's error, and be lost."""
    await func(*args)
