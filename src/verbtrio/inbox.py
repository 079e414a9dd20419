"""Messages received and not yet taken by the handler: a bounded queue between the reader and the handler."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import outcome
import trio

PATIENCE = 4
"""A task that finds messages queued gives way to the others at every so manieth: each time would be a task switch for
each. Each time, it can be cancelled. (At every 16th, a peer that pipelines had a twelfth more, and others beside ten
floods a second a p99 of 1.8 times the quiet one instead of 1.3.)"""


class Inbox:
    """One reader puts, one handler gets.

    The bound is kept by the reader: it doesn't read from the peer while the inbox is full, so the peer's own
    sends slow down (TCP's flow control). After `close` what is left can still be taken.

    Args:
        max_messages: full at this many messages.
        max_bytes: full at this many bytes (for text: characters).
        on_room: called when an inbox that was full is half empty.
    """

    __slots__ = (
        "_bytes",
        "_closed",
        "_late",
        "_max_bytes",
        "_max_messages",
        "_queue",
        "_serve",
        "_taken",
        "_waiter",
        "_was_full",
        "on_room",
    )

    def __init__(self, *, max_messages: int, max_bytes: int, on_room: Callable[[], None] = lambda: None) -> None:
        self._queue: deque[str | bytes] | None = None  # bounded by `is_full`; made when needed: an empty one is 600 B
        self._bytes = 0
        self._closed = False
        self._max_messages = max_messages
        self._max_bytes = max_bytes
        self._was_full = False
        self._taken = 0
        self._waiter: trio.lowlevel.Task | None = None
        self._late: outcome.Outcome[Any] | None = None  # what a message handled in place has come to, for `serve`
        self._serve: Callable[[str | bytes], Any] | None = None
        self.on_room = on_room

    def __len__(self) -> int:
        return 0 if self._queue is None else len(self._queue)

    @property
    def is_full(self) -> bool:
        queue = self._queue
        return (
            queue is not None
            and not self._closed
            and (len(queue) >= self._max_messages or self._bytes >= self._max_bytes)
        )

    @property
    def is_served(self) -> bool:
        """Whether messages are handled in place, as they are put (see `serve`)."""
        return self._serve is not None

    def put_nowait(self, message: str | bytes) -> None:
        """Add a message, or hand it to whoever serves; thrown away once the inbox is closed."""
        if self._closed:
            return
        if self._serve is not None:
            self._serve_in_place(message)
            return
        if self._waiter is not None and not self._queue:
            self._wake(outcome.Value(message))
            return
        if self._queue is None:
            self._queue = deque()
        self._queue.append(message)
        self._bytes += len(message)
        if len(self._queue) >= self._max_messages or self._bytes >= self._max_bytes:
            self._was_full = True

    def keep(self, count: int) -> None:
        """Throw away all but the first `count` of what waits."""
        while len(self) > count:
            assert self._queue is not None, "it is not empty"
            self._bytes -= len(self._queue.pop())
        self._look_for_room()

    async def get(self) -> str | bytes | None:
        """Wait for a message; `None` once the inbox is closed and empty. If cancelled, no message is lost.

        Raises:
            trio.BusyResourceError: another task is waiting for one.
        """
        if self._queue or self._closed:
            self._taken += 1
            if self._taken % PATIENCE:
                await trio.lowlevel.checkpoint_if_cancelled()
            else:
                await trio.lowlevel.checkpoint()
        while not self._queue:
            if self._closed:
                return None
            self._begin_to_wait()
            message: str | bytes | None = await trio.lowlevel.wait_task_rescheduled(self._stop_waiting)
            if message is not None:
                return message
        return self._pop(self._queue)

    async def serve(self, handle: Callable[[str | bytes], Any]) -> None:
        """Handle messages until the inbox is closed: what is queued here, and from then on each in place, as it is put.

        `handle` is called in this task's context, but not in this task: it must not wait. Where it returns something
        that can be awaited, that is awaited here, and what arrives meanwhile is queued. What it raises is raised here.
        If cancelled, messages are queued again.

        Raises:
            trio.BusyResourceError: another task is waiting for a message.
        """
        context = trio.lowlevel.current_task().context
        while True:
            while (message := await self._next_queued()) is not None:
                result = handle(message)
                if hasattr(result, "__await__"):
                    await result
            if self._closed:
                return
            self._serve = lambda message: context.run(handle, message)
            try:
                self._begin_to_wait()
                result = await trio.lowlevel.wait_task_rescheduled(self._stop_waiting)
            finally:
                self._serve = None
            if self._late is not None:
                late, self._late = self._late, None
                result = late.unwrap()
            if result is not None:
                await result

    async def _next_queued(self) -> str | bytes | None:
        return await self.get() if self._queue else None

    def close(self) -> None:
        """No more messages; what comes is thrown away, so there is room. Wakes whoever waits; may be called twice."""
        self._closed = True
        self._wake()
        self.on_room()

    def _serve_in_place(self, message: str | bytes) -> None:
        assert self._serve is not None
        try:
            result = self._serve(message)
        except Exception as error:
            self._serve = None
            self._wake(outcome.Error(error))
        else:
            if result is not None and hasattr(result, "__await__"):
                self._serve = None
                self._wake(outcome.Value(result))

    def _pop(self, queue: deque[str | bytes]) -> str | bytes:
        message = queue.popleft()
        self._bytes -= len(message)
        if self._was_full:
            self._look_for_room()
        return message

    def _look_for_room(self) -> None:
        if self._was_full and 2 * len(self) <= self._max_messages and 2 * self._bytes <= self._max_bytes:
            self._was_full = False
            self.on_room()

    def _begin_to_wait(self) -> None:
        if self._waiter is not None:
            raise trio.BusyResourceError("another task is receiving from this connection: one at a time can")
        self._waiter = trio.lowlevel.current_task()

    def _stop_waiting(self, _: Any) -> trio.lowlevel.Abort:
        self._waiter = self._serve = None
        return trio.lowlevel.Abort.SUCCEEDED

    def _wake(self, result: outcome.Outcome[Any] | None = None) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None:
            trio.lowlevel.reschedule(waiter, outcome.Value(None) if result is None else result)
        elif result is not None:  # it was woken by what the hook did, and runs only now
            self._late = result
