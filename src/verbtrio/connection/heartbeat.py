"""Heartbeats: is the peer still there? Pure: the time is a parameter, the connection keeps the clock."""

from __future__ import annotations

import enum
from dataclasses import dataclass

import msgspec

from verbtrio.base.close import HEARTBEAT_TIMEOUT, check_close
from verbtrio.messages.frame import Frame, encode
from verbtrio.wire.events import Progress


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """How a connection finds out that its peer is gone.

    By default the server sends protocol pings (RFC 6455 section 5.5.2), which every client and browser answers by
    itself, and anything the peer sends is a sign of life. With `json=True` the ping is the message
    `{"type":"ping"}` and only the message `{"type":"pong"}` counts; the framework consumes it.

    A peer in the middle of a large transfer is there, too: the ping waits behind what it takes slowly, its pong behind
    what it sends. So bytes that it has taken, or has sent of a message that is not whole yet, count as a sign of life.
    They are looked at with each ping: a peer that makes no progress is found at most an interval later.

    Args:
        interval: seconds between two pings.
        timeout: seconds without a sign of life after which the connection is closed.
        code: the close code, in `ws.closed` and on the wire. The default mirrors HTTP's 408 (Request Timeout), and
            tells a dead peer from one that has closed. A peer that was silent, but not gone, sees it.
        reason: the close reason.
        json: ping by message rather than by protocol.

    Raises:
        ValueError: `interval` or `timeout` is not positive, `timeout` leaves no time to answer a ping, or `code` or
            `reason` must not be sent.
        TypeError: `code` is not an `int`, or `reason` not a `str`.
    """

    interval: float = 20.0
    timeout: float = 40.0
    code: int = HEARTBEAT_TIMEOUT
    reason: str = "Connection timeout due to inactivity"
    json: bool = False

    def __post_init__(self) -> None:
        check_close(self.code, self.reason)
        if not self.interval > 0:
            raise ValueError(f"the heartbeat's interval must be more than 0 seconds, not {self.interval!r}")
        if not self.timeout > self.interval:
            raise ValueError(
                f"the heartbeat's timeout ({self.timeout!r} s) must be more than its interval "
                f"({self.interval!r} s): a peer needs time to answer"
            )


class Beat(enum.Enum):
    """What is due."""

    NOTHING = enum.auto()
    PING = enum.auto()
    DEAD = enum.auto()


class Pulse:
    """One client's heartbeat, on its own clock.

    Args:
        heartbeat: the settings.
        now: the time at which the connection began, in the caller's clock (as all times here).
    """

    __slots__ = ("_last", "_next_ping", "_seen", "settings")

    def __init__(self, heartbeat: Heartbeat, now: float) -> None:
        self.settings = heartbeat
        self._last = now
        self._seen: Progress | None = None
        self._next_ping = now + heartbeat.interval

    def heard(self, now: float) -> None:
        """The peer gave a sign of life."""
        self._last = now

    def look(self, progress: Progress, now: float) -> None:
        """Look at what the peer has done since the last look. Call it before `due`.

        Bytes taken by a peer with no backlog are not a sign of life: its system takes a ping even if its program hangs.
        """
        last, self._seen = self._seen, progress
        if last is None:
            return
        took = last.in_flight and progress.taken != last.taken
        if took or (progress.partial_bytes and progress.partial_bytes != last.partial_bytes):
            self._last = now

    @property
    def next(self) -> float:
        """When `due` has to be asked again."""
        return min(self._next_ping, self._last + self.settings.timeout)

    def due(self, now: float) -> Beat:
        """What is due at `now`. A `PING` is due once; the next one an interval later."""
        if now >= self._last + self.settings.timeout:
            return Beat.DEAD
        if now >= self._next_ping:
            missed = (now - self._next_ping) // self.settings.interval
            self._next_ping += (missed + 1) * self.settings.interval
            return Beat.PING
        return Beat.NOTHING


PING_MESSAGE: Frame = encode({"type": "ping"})


class _Typed(msgspec.Struct):
    type: str


_typed = msgspec.json.Decoder(_Typed)


def is_pong(message: str | bytes) -> bool:
    """Whether `message` is the answer to a JSON ping: an object whose `type` is "pong"."""
    if isinstance(message, bytes) or "pong" not in message:
        return False
    try:
        return _typed.decode(message).type == "pong"
    except (msgspec.DecodeError, RecursionError, UnicodeError):
        return False
