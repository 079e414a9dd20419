"""What a client has published in a room, and the room's handler has not taken."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import trio

from verbtrio.base.limits import Limits


class Load(Protocol):
    """What all subscriptions of a client have together.

    Attributes:
        published_bytes: of what it has published, and no handler has taken.
    """

    published_bytes: int


class Intake:
    """Decoded messages, in order. One task puts, one task gets.

    Args:
        limits: the endpoint's. This is full at `max_inbox_messages`, at `max_inbox_bytes`, and where all subscriptions
            of the client together have `max_message_bytes`. (What is decoded may take 40 times as much, and a client
            may have 1000 subscriptions.)
        load: of all subscriptions of the client.
    """

    __slots__ = ("_bytes", "_is_closed", "_limits", "_load", "_messages", "_waiter")

    def __init__(self, limits: Limits, load: Load) -> None:
        self._limits = limits
        self._load = load
        self._messages: deque[tuple[Any, int]] | None = None  # made when needed: an empty one is 600 B
        self._bytes = 0
        self._is_closed = False
        self._waiter: trio.lowlevel.Task | None = None

    @property
    def is_closed(self) -> bool:
        return self._is_closed

    @property
    def is_full(self) -> bool:
        limits, messages = self._limits, self._messages
        if self._load.published_bytes >= max(limits.max_message_bytes, limits.max_inbox_bytes):
            return True
        return messages is not None and (
            len(messages) >= limits.max_inbox_messages or self._bytes >= limits.max_inbox_bytes
        )

    def put(self, message: Any, size: int) -> None:
        """Add a message. Once this is closed, it is thrown away."""
        if self._is_closed:
            return
        if self._messages is None:
            self._messages = deque()
        self._messages.append((message, size))
        self._bytes += size
        self._load.published_bytes += size
        self._wake()

    async def get(
        self, first: Callable[[], Awaitable[None]] | None = None, *, ended: type[Exception] = trio.EndOfChannel
    ) -> Any:
        """Wait for a message. If cancelled, none is lost.

        Args:
            first: awaited before. (Whoever did that would wait here with a frame of its own.)
            ended: what is raised at the end.

        Raises:
            (`ended`): this is closed, and empty.
            trio.BusyResourceError: another task waits.
        """
        if first is not None:
            await first()
            del first  # what it is bound to
        if self._messages:
            await trio.lowlevel.checkpoint()
        else:
            await trio.lowlevel.checkpoint_if_cancelled()
        while not self._messages:
            if self._is_closed:
                raise ended
            if self._waiter is not None:
                raise trio.BusyResourceError("another task receives from this subscription: only one may at a time")
            self._waiter = trio.lowlevel.current_task()
            await trio.lowlevel.wait_task_rescheduled(self._stop_waiting)
        message, size = self._messages.popleft()
        self._bytes -= size
        self._load.published_bytes -= size
        return message

    def close(self, *, discard: bool) -> None:
        """No more messages. With `discard`, those that wait are thrown away."""
        self._is_closed = True
        if discard:
            self._messages = None
            self._load.published_bytes -= self._bytes
            self._bytes = 0
        self._wake()

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None:
            trio.lowlevel.reschedule(waiter)

    def _stop_waiting(self, _: Any) -> trio.lowlevel.Abort:
        self._waiter = None
        return trio.lowlevel.Abort.SUCCEEDED
