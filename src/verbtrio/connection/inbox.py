"""Messages received and not yet taken by the handler: a bounded queue between the reader and the handler."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextvars import Context
from typing import Any

import outcome
import trio

GET_TURNS = 4
"""A task that finds messages queued gives way to other tasks at every 4th message, and can be cancelled at every one.
To give way at each would cost a task switch a message. (At every 16th, a peer that pipelines got a twelfth more
through, and the p99 of peers beside ten floods was 1.8 times the quiet one instead of 1.3.)"""


class Inbox:
    """One reader puts, one task gets.

    The reader keeps the bound: it doesn't read from the peer while the inbox is full, so the peer's own sends slow down
    (TCP's flow control). After `close`, what is left can still be taken, unless it is thrown away.

    Two tasks that get would share the messages by chance, so the second one gets `trio.BusyResourceError`, whether
    anything is queued or not. The first task may hand over to another one (it reads a greeting, and starts a task that
    goes on); while that task lives, no other can get anything, the first included.

    Args:
        max_messages: full at this many messages.
        max_bytes: full at this many bytes (for text: characters).
        on_room: called when an inbox that was full is half empty.
    """

    __slots__ = (
        "_bytes",
        "_closed",
        "_context",
        "_discarded",
        "_handed_over",
        "_inside",
        "_late",
        "_max_bytes",
        "_max_messages",
        "_queue",
        "_receiver",
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
        self._discarded = False
        self._receiver: trio.lowlevel.Task | None = None  # the task that got last
        self._inside = False  # that task is in `get` or `serve`
        self._handed_over = False  # it has taken over from a task that still lives
        self._max_messages = max_messages
        self._max_bytes = max_bytes
        self._was_full = False
        self._taken = 0
        self._waiter: trio.lowlevel.Task | None = None
        self._late: outcome.Outcome[Any] | None = None  # the result of a message handled in place, for `serve`
        self._serve: Callable[[str | bytes], Any] | None = None
        self._context: Context | None = None  # the serving task's
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
        """Add a message, or handle it in place (see `serve`). Once the inbox is closed, it is thrown away."""
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
        """Throw away all queued messages but the first `count`."""
        while len(self) > count:
            assert self._queue is not None, "it is not empty"
            self._bytes -= len(self._queue.pop())
        self._look_for_room()

    async def get(self) -> str | bytes | None:
        """Wait for a message; `None` once the inbox is closed and empty. If cancelled, no message is lost.

        Raises:
            trio.BusyResourceError: another task receives.
        """
        task = trio.lowlevel.current_task()
        if task is not self._receiver:
            self._take_over(task)
        self._inside = True
        try:
            if self._queue or self._closed:
                self._taken += 1
                if self._taken % GET_TURNS:
                    await trio.lowlevel.checkpoint_if_cancelled()
                else:
                    await trio.lowlevel.checkpoint()
            while not self._queue:
                if self._closed:
                    return None
                self._waiter = task
                message: str | bytes | None = await trio.lowlevel.wait_task_rescheduled(self._stop_waiting)
                if message is not None:  # it was handed over directly; the inbox may have been discarded since
                    return None if self._discarded else message
            return self._pop(self._queue)
        finally:
            self._inside = False

    async def serve(self, handle: Callable[[str | bytes], Any]) -> None:
        """Handle messages until the inbox is closed: first what is queued, then each message in place, as it is put.

        `handle` is called in this task's context, but not in this task: it must not wait. If it returns an awaitable,
        that is awaited here, and messages that arrive meanwhile are queued. What it raises is raised here. If
        cancelled, messages are queued again; a result that `handle` has had in the meantime is still raised, or
        awaited.

        Raises:
            trio.BusyResourceError: another task receives.
        """
        task = trio.lowlevel.current_task()
        self._context = task.context
        while True:
            while (message := await self._next_queued()) is not None:
                result = handle(message)
                if hasattr(result, "__await__"):
                    await result
            if self._closed:
                return
            if task is not self._receiver:
                self._take_over(task)
            self._inside = True
            self._serve = handle
            self._waiter = task
            try:
                result = await trio.lowlevel.wait_task_rescheduled(self._stop_waiting)
            except trio.Cancelled:  # perhaps by the message that was handled in place, which then went on
                if self._late is not None:
                    await self._take_late()
                raise
            finally:
                self._serve = None
                self._inside = False
            if self._late is not None:
                result = self._take_late()
            if result is not None:
                await result
                result = None  # what was awaited is kept no longer

    def _take_late(self) -> Any:
        """The result of a message that was handled in place after this task had been woken: returned, or raised."""
        assert self._late is not None
        late, self._late = self._late, None
        return late.unwrap()

    async def _next_queued(self) -> str | bytes | None:
        return await self.get() if self._queue else None

    def close(self, *, discard: bool = False) -> None:
        """No more messages: what comes is thrown away, so there is always room. Wakes the task that waits; may be
        called twice.

        Args:
            discard: throw away what is queued, too: `get` returns `None` from now on.
        """
        self._closed = True
        if discard:
            self._discarded = True
            self._queue = None
            self._bytes = 0
        self._wake()
        self.on_room()

    def _serve_in_place(self, message: str | bytes) -> None:
        handle, context = self._serve, self._context
        assert handle is not None
        assert context is not None, "it is set by `serve`"
        try:
            result = context.run(handle, message)
        except BaseException as error:  # raised in the handler's own task, an interrupt or `sys.exit()`, too
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

    def _take_over(self, task: trio.lowlevel.Task) -> None:
        """`task` receives from now on."""
        former = self._receiver is not None and _lives(self._receiver)
        if former and (self._inside or self._handed_over):
            raise trio.BusyResourceError("another task receives from this connection: only one may at a time")
        self._receiver, self._handed_over = task, former

    def _stop_waiting(self, _: Any) -> trio.lowlevel.Abort:
        self._waiter = self._serve = None
        return trio.lowlevel.Abort.SUCCEEDED

    def _wake(self, result: outcome.Outcome[Any] | None = None) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None:
            trio.lowlevel.reschedule(waiter, outcome.Value(None) if result is None else result)
        elif result is not None:  # the task was woken by what the hook did, and has not run yet
            self._late = result


def _lives(task: trio.lowlevel.Task) -> bool:
    return getattr(task.coro, "cr_frame", task) is not None
