"""What one process passes on to another, and the answers. Each process listens on a channel of its own: its inbox."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from functools import partial

import trio

from verbtrio.base.errors import BrokerUnavailable
from verbtrio.brokers.base import Process
from verbtrio.brokers.redis.fields import pack
from verbtrio.brokers.redis.link import Link
from verbtrio.brokers.redis.names import Names

NODE = re.compile("[0-9a-f]{16}")
"""What a process's name looks like. A name that a client has said is no part of a channel's before that is checked."""


class _Waiting:
    """One message that was passed on, until it is answered."""

    __slots__ = ("answer", "done", "is_lost")

    def __init__(self) -> None:
        self.answer: bytes | None = None
        self.is_lost = False
        self.done = trio.Event()


class Forwards:
    """Passes messages on, and answers those of others.

    Args:
        process: this one.
        names: of the channels.
        origin: this process's name.
        link: gives the present link; `None` while there is none.
        max_pending_bytes: what may be on its way to Redis at a time.

    Attributes:
        is_closed: the session has not begun, or is over: this process takes nothing.
    """

    def __init__(
        self,
        process: Process,
        names: Names,
        origin: str,
        link: Callable[[], Link | None],
        max_pending_bytes: int,
    ) -> None:
        self.is_closed = True
        self._process = process
        self._names = names
        self._origin = origin
        self._link = link
        self._max_pending_bytes = max_pending_bytes
        self._numbers = itertools.count(1)
        self._open: dict[bytes, _Waiting] = {}

    async def ask(self, link: Link, node: str, message: bytes, seconds: float) -> bytes | None:
        """See `Session.forward`. If cancelled, the message may have been passed on or not.

        Raises:
            BrokerUnavailable: Redis can't be reached, or was lost meanwhile, or too much is on its way to it.
        """
        await trio.lowlevel.checkpoint()
        if NODE.fullmatch(node) is None:
            return None
        if link.pending_bytes + len(message) > self._max_pending_bytes:
            raise BrokerUnavailable("too much is on its way to Redis: RedisBroker(max_pending_bytes=) bounds it")
        number = b"%d" % next(self._numbers)
        waiting = self._open[number] = _Waiting()
        try:
            with trio.move_on_after(seconds):
                packed = pack((b"F", self._origin.encode(), number, message))
                if await link.publish(self._names.inbox(node), packed):
                    await waiting.done.wait()
        finally:
            del self._open[number]
        if waiting.is_lost:
            raise BrokerUnavailable("the connection to Redis was lost")
        return waiting.answer

    def take(self, fields: list[bytes | None]) -> None:
        """Another process has passed a message on.

        Raises:
            ValueError: it is none of ours.
        """
        origin, number, message = (field or b"" for field in fields)
        node = origin.decode("ascii", "replace")
        if self.is_closed or NODE.fullmatch(node) is None:
            return
        self._process.forwarded(message, partial(self._answer, node, number))

    def _answer(self, node: str, number: bytes, answer: bytes) -> None:
        if not self.is_closed and (link := self._link()) is not None:
            link.publish(self._names.inbox(node), pack((b"R", number, answer)))

    def answered(self, fields: list[bytes | None]) -> None:
        """Another process has answered."""
        number, answer = fields
        if (waiting := self._open.get(number or b"")) is not None:
            waiting.answer = answer
            waiting.done.set()

    def lost(self) -> None:
        """The link is lost: no answers will come."""
        for waiting in self._open.values():
            waiting.is_lost = waiting.answer is None
            waiting.done.set()
