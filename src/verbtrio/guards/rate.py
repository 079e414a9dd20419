"""How fast a peer may send, or connect: token buckets. Pure: the time is a parameter.

A connection has a bucket of its own. What several connections share, because they come from one client or are one
user's, is a `SharedBucket`, kept in a table (`Buckets`) from the first of them until it is full again: so nobody gets
another burst by connecting again.
"""

from __future__ import annotations

import enum
import heapq
from collections.abc import Hashable, Sequence

MAX_WAITING = 65_536
"""Buckets that are kept, in one table, although no connection has them, because they are not full yet (16 MiB). Over
it, the one goes that is the nearest to full: whoever wants to be forgotten sooner has to come from as many other
addresses, and send as much from each as was sent from the first."""
SWEPT_AT_ONCE = 4
"""Buckets looked at whenever a connection comes or goes: more than it can add, so the table shrinks, and never a long
list."""


class Verdict(enum.Enum):
    """What to do with a message."""

    PASS = enum.auto()
    REFUSE = enum.auto()
    """It is one too many."""
    END = enum.auto()
    """It goes on and on: as many as the burst, or more, have been refused without a pause."""


PASS, REFUSE, END = Verdict


class Bucket:
    """A bucket of `burst` tokens, refilled at `per_second`; each message takes one, those refused included.

    So a sender that is refused and pauses may go on; one that keeps up its pace runs into a debt, and at twice the
    burst comes the end. The state is one number, the time at which the bucket will be full again (the "generic cell
    rate algorithm" of ITU-T I.371): a message costs an addition and a comparison.

    Args:
        per_second: messages a second, more than 0.
        burst: how many may come at once, 1 at least.
    """

    __slots__ = ("_debt", "_full", "_interval", "_tolerance", "burst", "per_second")

    def __init__(self, per_second: float, burst: int) -> None:
        self.per_second = per_second
        self.burst = burst
        self._interval = 1 / per_second
        # A thousandth of a message more, for the rounding: clocks are floats, too.
        self._tolerance = (burst + 0.001) * self._interval
        self._debt = (2 * burst + 0.001) * self._interval
        self._full = float("-inf")

    def take(self, now: float) -> Verdict:
        """A message has come at `now` (seconds, never going back)."""
        full = self._full
        self._full = full = (full if full > now else now) + self._interval
        if full - now <= self._tolerance:
            return PASS
        return REFUSE if full - now <= self._debt else END


class SharedBucket(Bucket):
    """The bucket of several connections. Made by `Buckets`.

    Its debt has a limit, twice the burst, so that it is paid `burst / per_second` after the last message. Whether a
    connection goes on and on is for its own bucket to say: who does not send does not answer for who does.
    """

    __slots__ = ("key", "of", "queued", "shared_by")

    def __init__(self, per_second: float, burst: int, key: Hashable, of: str) -> None:
        super().__init__(per_second, burst)
        self.key = key
        self.of = of
        """Whose it is, for the message to who is over it."""
        self.shared_by = 0
        """How many connections have it."""
        self.queued = False
        """It is in the table's queue of those that will be full."""

    @property
    def full_at(self) -> float:
        """When it is full again, if nothing is taken."""
        return self._full

    def passes(self, now: float) -> bool:
        """A message has come at `now`, and takes a token; whether it passes."""
        full = self._full
        full = (full if full > now else now) + self._interval
        if full - now <= self._tolerance:
            self._full = full
            return True
        self._full = min(full, now + self._debt)
        return False

    def wait(self, now: float) -> float:
        """Seconds from `now` until one more would pass. Takes nothing."""
        full = self._full
        return max(0.0, (full if full > now else now) + self._interval - self._tolerance - now)


class Buckets:
    """The buckets of many clients, or users. One that is full, and that no connection has, is forgotten.

    Args:
        per_second, burst: as in `Bucket`.
        of: whose they are, as in "at most 20 a second" + `of`.
        max_waiting: how many are kept that no connection has (see `MAX_WAITING`).
    """

    def __init__(self, per_second: float, burst: int, of: str, *, max_waiting: int = MAX_WAITING) -> None:
        self._per_second = per_second
        self._burst = burst
        self._of = of
        self._max_waiting = max_waiting
        self._buckets: dict[Hashable, SharedBucket] = {}
        # Those that some connection has left before they were full, by the time at which they will be. Each is in it
        # once; the time may have become later since (then it goes in again), or a connection has it (then it goes out).
        self._queue: list[tuple[float, int, SharedBucket]] = []
        self._count = 0

    def __len__(self) -> int:
        """How many are kept."""
        return len(self._buckets)

    def share(self, key: Hashable, now: float) -> SharedBucket:
        """The bucket of `key`, for one connection more, until it calls `leave`."""
        self._sweep(now)
        bucket = self._buckets.get(key)
        if bucket is None:
            bucket = self._buckets[key] = SharedBucket(self._per_second, self._burst, key, self._of)
        bucket.shared_by += 1
        return bucket

    def leave(self, bucket: SharedBucket, now: float) -> None:
        """A connection that has shared `bucket` is gone."""
        bucket.shared_by -= 1
        if bucket.shared_by == 0 and not bucket.queued:
            if bucket.full_at <= now:
                del self._buckets[bucket.key]
            else:
                self._enqueue(bucket)
        self._sweep(now)

    def _enqueue(self, bucket: SharedBucket) -> None:
        bucket.queued = True
        self._count += 1  # no two entries are alike, so buckets are never compared
        heapq.heappush(self._queue, (bucket.full_at, self._count, bucket))

    def _sweep(self, now: float) -> None:
        """Forget some of those that are full again; and, where there are too many, the one nearest to it."""
        for _ in range(SWEPT_AT_ONCE):
            if not self._queue or (self._queue[0][0] > now and len(self._queue) <= self._max_waiting):
                return
            full_at, _, bucket = heapq.heappop(self._queue)
            bucket.queued = False
            if bucket.shared_by == 0:
                if bucket.full_at > full_at:  # it has been used since: not its turn yet
                    self._enqueue(bucket)
                else:
                    del self._buckets[bucket.key]


class Meter:
    """What one connection sends, by its own bucket and by those it shares. It passes where all of them let it.

    Args:
        own: for the connection alone; `None`: only what it shares counts.
        shared: one at least.
    """

    def __init__(self, own: Bucket | None, shared: Sequence[SharedBucket]) -> None:
        slowest = min(shared, key=lambda bucket: bucket.per_second)
        # A connection that keeps up a pace that is too fast for what it shares ends as well: by a bucket of its own, or
        # others' messages would end it.
        pace = Bucket(slowest.per_second, slowest.burst)
        self._own = [pace] if own is None else [own] if own.per_second <= slowest.per_second else [own, pace]
        self._limit = own
        self._shared = tuple(shared)
        self.over: Bucket | None = None
        """What has refused the last message that was refused."""

    def take(self, now: float) -> Verdict:
        """A message has come at `now`."""
        verdict = PASS
        over: Bucket | None = None
        for bucket in self._own:
            own = bucket.take(now)
            if own is END or (own is REFUSE and bucket is self._limit):
                verdict, over = own, bucket
        for shared in self._shared:
            if not shared.passes(now) and verdict is PASS:
                verdict, over = REFUSE, shared
        if over is not None:
            self.over = over
        return verdict
