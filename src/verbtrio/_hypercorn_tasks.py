"""The take-over's task group: how a request's events reach the application in the HTTP phase."""

from __future__ import annotations

from typing import Any

import trio
from hypercorn.trio.task_group import TaskGroup, _handle

from verbtrio.streaming import LINK, Link


class RequestTasks(TaskGroup):
    """The HTTP phase's tasks. hypercorn 0.18 hands a request's events to the application through a queue of ten, and
    waits for ever to put the eleventh, or the disconnect, into one that nobody reads: an upload to a handler that does
    not look at the body would keep its connection until the worker ends.

    And it tells each request's scope what a response may want to know of its connection (`link`).

    Attributes:
        in_progress: a token for each request whose answer is not complete, and whose handler has not returned.
    """

    def __init__(self, link: Link) -> None:
        super().__init__()
        self._link = link
        self.in_progress = set[Any]()

    async def spawn_app(self, app: Any, config: Any, scope: Any, send: Any) -> Any:
        scope["extensions"][LINK] = self._link
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
                    self.in_progress.discard(to_app)  # a background task may go on

        async def run(*arguments: Any) -> None:
            with events:
                await app(*arguments)

        async def put(event: Any) -> None:
            if event["type"] == "http.disconnect":
                to_app.close()  # never waits; what came before it is still received
                return
            try:
                await to_app.send(event)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                pass  # nobody wants the rest of the body

        threads = (trio.to_thread.run_sync, trio.from_thread.run)
        nursery: Any = self._nursery
        self.in_progress.add(to_app)
        nursery.start_soon(_handle, run, config, scope, receive, answer, *threads)
        return put
