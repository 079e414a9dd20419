"""What one process asks of all others, and their answers: messages and closes for the connections of a user."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable

import trio

from verbtrio.base.errors import BrokerUnavailable
from verbtrio.brokers.base import Process
from verbtrio.brokers.redis.fields import pack
from verbtrio.brokers.redis.items import decode_item
from verbtrio.brokers.redis.link import Link
from verbtrio.brokers.redis.names import Names, to_bytes, to_text

logger = logging.getLogger("verbtrio.brokers.redis")


class _Request:
    """One request, and what has been answered so far."""

    __slots__ = ("_answers", "_expected", "done", "total")

    def __init__(self) -> None:
        self.total = 0
        self.done = trio.Event()
        self._answers = 0
        self._expected: int | None = None

    def expect(self, count: int) -> None:
        self._expected = count
        self._check()

    def answer(self, count: int) -> None:
        self.total += count
        self._answers += 1
        self._check()

    def _check(self) -> None:
        if self._expected is not None and self._answers >= self._expected:
            self.done.set()


class Requests:
    """Asks the other processes, and answers what they ask.

    Args:
        process: this one.
        names: of the channels.
        origin: this process's name, for the answers.
        link: gives the present link; `None` while there is none.
        timeout: seconds to wait for answers.
        max_pending_bytes: what may be on its way to Redis, all in all.
    """

    def __init__(
        self,
        process: Process,
        names: Names,
        origin: str,
        link: Callable[[], Link | None],
        timeout: float,
        max_pending_bytes: int,
    ) -> None:
        self._process = process
        self._names = names
        self._origin = origin
        self._link = link
        self._timeout = timeout
        self._max_pending_bytes = max_pending_bytes
        self._numbers = itertools.count(1)
        self._open: dict[bytes, _Request] = {}
        self.is_closed = True
        """The session has not begun, or is over: whoever asks is told that nobody is here."""

    # Asking

    def tell(self, link: Link, kind: bytes, user: str, *rest: bytes) -> None:
        """Have the others do it, without an answer; or not, if too much is on its way."""
        if link.pending_bytes + sum(map(len, rest)) <= self._max_pending_bytes:
            link.publish(self._names.everybody, pack((kind, self._origin.encode(), b"", to_bytes(user), *rest)))

    async def ask(self, link: Link, kind: bytes, user: str, *rest: bytes) -> int:
        """Have the others do it; return how many connections that reached. One that does not answer in time, since it
        has died, counts for none.

        If cancelled, it may have been done or not.

        Raises:
            BrokerUnavailable: the others can't be reached, or too much is on its way to Redis.
        """
        if link.pending_bytes + sum(map(len, rest)) > self._max_pending_bytes:
            raise BrokerUnavailable("too much is on its way to Redis: RedisBroker(max_pending_bytes=) bounds it")
        number = b"%d" % next(self._numbers)
        request = self._open[number] = _Request()
        try:
            message = pack((kind, self._origin.encode(), number, to_bytes(user), *rest))
            receivers = await link.publish(self._names.everybody, message)
            request.expect(link.others(receivers))
            with trio.move_on_after(self._timeout):
                await request.done.wait()
        finally:
            del self._open[number]
        return request.total

    # Answering

    def take(self, kind: bytes | None, fields: list[bytes | None], now: float) -> None:
        """Something that another process wants done has come."""
        origin, number, user, *rest = (field or b"" for field in fields)
        if origin == self._origin.encode():
            return
        if self.is_closed:
            count = 0
        elif kind == b"U":
            item = decode_item(rest[0], "", now)
            count = 0 if item is None else self._process.send_user(to_text(user), item.frame)
        else:
            count = self._process.disconnect_user(to_text(user), int(rest[0]), to_text(rest[1]))
        if number and (link := self._link()) is not None:
            link.publish(self._names.inbox(origin.decode()), pack((b"A", number, b"%d" % count)))

    def answered(self, fields: list[bytes | None]) -> None:
        """Another process has answered."""
        number, count = fields
        if (request := self._open.get(number or b"")) is not None:
            request.answer(int(count or 0))

    def lost(self) -> None:
        """The link is lost: no answers will come."""
        for request in self._open.values():
            request.expect(0)
