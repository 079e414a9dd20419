"""The take-over's task group: how a request's events reach the application in the HTTP phase."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import trio
from hypercorn.trio.task_group import TaskGroup, _handle

from verbtrio.streaming import LINK, Link, Waitable
from verbtrio.timers import Timers


class RequestTasks(TaskGroup):
    """The HTTP phase's tasks. hypercorn 0.18 hands a request's events to the application through a queue of ten, and
    waits for ever to put the eleventh, or the disconnect, into one that nobody reads: an upload to a handler that does
    not look at the body would keep its connection until the worker ends.

    And it tells each request's scope what a response may want to know of its connection (a `Link`).

    Args:
        terminated, abort: for the links; `abort` is told hypercorn's stream.
        timers: call when a client has been waited for long enough.
        send_timeout: seconds that a response waits for a client that takes nothing, unless it says more.

    Attributes:
        in_progress: the link of each request whose answer is not complete, and whose handler has not returned; and
            each tunnel.
    """

    def __init__(
        self,
        terminated: Waitable,
        abort: Callable[[Any], Awaitable[None]],
        timers: Timers,
        send_timeout: float,
    ) -> None:
        super().__init__()
        self._terminated = terminated
        self._abort = abort
        self._send_timeout = send_timeout
        self.timers = timers
        self.in_progress = set[Any]()

    def patience(self) -> float:
        """Seconds that the connection waits for a client that takes nothing: the most that a response wants."""
        wanted = (request.send_timeout for request in self.in_progress if isinstance(request, Link))
        return max(wanted, default=self._send_timeout)

    async def spawn_app(self, app: Any, config: Any, scope: Any, send: Any) -> Any:
        stream = send.__self__
        link = scope["extensions"][LINK] = Link(self._terminated, partial(self._abort, stream), self._send_timeout)
        to_app, events = trio.open_memory_channel[Any](config.max_app_queue_size)

        told = False

        async def receive() -> Any:
            # What is there is given even in a cancelled scope: Starlette's `is_disconnected` asks in one, and Trio's
            # own `receive` would not look. But a loop that goes on asking behind the end can be cancelled.
            nonlocal told
            try:
                try:
                    event = events.receive_nowait()
                except trio.WouldBlock:
                    return await events.receive()
            except trio.EndOfChannel:
                if told:
                    await trio.lowlevel.checkpoint_if_cancelled()
                told, event = True, {"type": "http.disconnect"}
            await trio.lowlevel.cancel_shielded_checkpoint()
            return event

        async def answer(message: Any) -> None:
            try:
                await send(message)
            finally:
                if message is None or (message["type"] == "http.response.body" and not message.get("more_body")):
                    self.in_progress.discard(link)  # a background task may go on

        async def put(event: Any) -> None:
            if event["type"] == "http.disconnect":
                to_app.close()  # never waits, and wakes who does below; what came before it is still received
                return
            try:
                await to_app.send(event)
            except trio.ClosedResourceError:
                pass  # nobody wants the rest of the body

        threads = (trio.to_thread.run_sync, trio.from_thread.run)
        nursery: Any = self._nursery
        self.in_progress.add(link)
        nursery.start_soon(_handle, app, config, scope, receive, answer, *threads)
        return put
