"""What is said here, on its way to Redis."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from verbtrio.base.errors import BrokerUnavailable
from verbtrio.brokers.redis.fields import pack
from verbtrio.brokers.redis.link import Link
from verbtrio.brokers.redis.names import Names
from verbtrio.brokers.redis.outgoing import Outgoing
from verbtrio.brokers.redis.settings import Settings

LOST = BrokerUnavailable("the connection to Redis was lost")
GAP = pack((b"G", b"me"))


class Sent:
    """Stands for a link: what was published, and whoever waits for the answer."""

    pending_bytes = 0

    def __init__(self) -> None:
        self.messages: list[bytes] = []
        self._waiting: list[Callable[[Any, BrokerUnavailable | None], None]] = []

    def publish(self, channel: bytes, message: bytes, *, then: Any = None) -> None:
        self.messages.append(message)
        if then is not None:
            self._waiting.append(then)

    def lose(self) -> None:
        for then in self._waiting:
            then(None, LOST)


def test_a_report_of_lost_broadcasts_that_is_lost_itself_is_sent_again() -> None:
    outgoing = Outgoing(Names("x"), "me", lambda room: None, Settings("x", 1, 1000, 0), lambda: None)
    outgoing.broadcast("a", b"data", None)
    assert outgoing.dropped == 1
    for _ in range(3):
        link = Sent()
        outgoing.flush(cast("Link", link), list)
        assert link.messages == [GAP]
        link.lose()
    last = Sent()
    outgoing.flush(cast("Link", last), list)
    outgoing.flush(cast("Link", last), list)
    assert last.messages == [GAP]
