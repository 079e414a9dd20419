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
    """

    def __init__(self, link: Link) -> None:
        super().__init__()
        self._link = link

    async def spawn_app(self, app: Any, config: Any, scope: Any, send: Any) -> Any:
        scope["extensions"][LINK] = self._link
        to_app, events = trio.open_memory_channel[Any](config.max_app_queue_size)

        async def receive() -> Any:
            try:
                return await events.receive()
            except trio.EndOfChannel:
                return {"type": "http.disconnect"}

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
        nursery.start_soon(_handle, run, config, scope, receive, send, *threads)
        return put
