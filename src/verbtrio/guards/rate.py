"""Token buckets: how fast a peer may send, or connect. Pure: the time is a parameter.

A connection has a bucket of its own. Connections of one client or one user also share a `SharedBucket`. A table
(`Buckets`) keeps it, even after the last of them has gone, until it is full again: so reconnecting does not bring
another burst.
"""

from __future__ import annotations

import enum
import heapq
from collections.abc import Hashable, Sequence

MAX_WAITING = 65_536
"""How many buckets one table keeps that no connection uses and that are not full yet (16 MiB). Beyond that, it forgets
the one nearest to full. To be forgotten sooner, a client needs as many other addresses, and has to send as much from
each as it has sent from the first."""
SWEPT_AT_ONCE = 4
"""How many buckets each coming or going connection checks: more than it can add, so the table shrinks, and never
many at once."""


class Verdict(enum.Enum):
    """What to do with a message."""

    PASS = enum.auto()
    REFUSE = enum.auto()
    """The message is over the limit."""
    END = enum.auto()
    """The peer does not stop: as many messages as the burst, or more, have been refused without a pause."""


PASS, REFUSE, END = Verdict


class Bucket:
    """A bucket of `burst` tokens, refilled at `per_second`. Each message takes one, even if it is refused.

    So a sender that pauses after a refusal may go on. One that does not goes into debt; a debt of a whole burst is the
    end. The state is one number, the time at which the bucket will be full again (the "generic cell rate algorithm" of
    ITU-T I.371): a message costs an addition and a comparison.

    Args:
        per_second: messages a second, more than 0.
        burst: how many may come at once, 1 or more.
    """

    __slots__ = ("_debt", "_full", "_interval", "_tolerance", "burst", "per_second")

    def __init__(self, per_second: float, burst: int) -> None:
        self.per_second = per_second
        self.burst = burst
        self._interval = 1 / per_second
        # A thousandth of a message more, for rounding errors: times are floats.
        self._tolerance = (burst + 0.001) * self._interval
        self._debt = (2 * burst + 0.001) * self._interval
        self._full = float("-inf")

    def take(self, now: float) -> Verdict:
        """Count a message at `now` (in seconds, never decreasing)."""
        full = self._full
        self._full = full = (full if full > now else now) + self._interval
        if full - now <= self._tolerance:
            return PASS
        return REFUSE if full - now <= self._debt else END


class SharedBucket(Bucket):
    """A bucket that several connections share. Made by `Buckets`.

    Its debt is limited to one burst, so it is paid `burst / per_second` after the last message. Only a connection's own
    bucket says `END`, so no connection is ended for what others send.
    """

    __slots__ = ("key", "of", "queued", "shared_by")

    def __init__(self, per_second: float, burst: int, key: Hashable, of: str) -> None:
        super().__init__(per_second, burst)
        self.key = key
        self.of = of
        """Whose bucket it is, for the error message: see `Buckets`."""
        self.shared_by = 0
        """How many connections use it."""
        self.queued = False
        """Whether it is in the table's queue."""

    @property
    def full_at(self) -> float:
        """When it is full again, if no more is taken."""
        return self._full

    def passes(self, now: float) -> bool:
        """Count a message at `now`. Returns whether it passes."""
        full = self._full
        full = (full if full > now else now) + self._interval
        if full - now <= self._tolerance:
            self._full = full
            return True
        self._full = min(full, now + self._debt)
        return False

    def wait(self, now: float) -> float:
        """Seconds from `now` until one more message would pass. Takes no token."""
        full = self._full
        return max(0.0, (full if full > now else now) + self._interval - self._tolerance - now)


class Buckets:
    """The buckets of many clients, or users. A full bucket that no connection uses is forgotten.

    Args:
        per_second, burst: as in `Bucket`.
        of: whose the buckets are, as in "at most 20 a second" + `of`.
        max_waiting: how many unused buckets are kept (see `MAX_WAITING`).
    """

    def __init__(self, per_second: float, burst: int, of: str, *, max_waiting: int = MAX_WAITING) -> None:
        self._per_second = per_second
        self._burst = burst
        self._of = of
        self._max_waiting = max_waiting
        self._buckets: dict[Hashable, SharedBucket] = {}
        # Buckets that were not full when their last connection left, by the time at which they will be full. Each is in
        # it once. When its time comes, a bucket used since is queued again, and one in use is just taken out.
        self._queue: list[tuple[float, int, SharedBucket]] = []
        self._count = 0

    def __len__(self) -> int:
        """How many buckets there are."""
        return len(self._buckets)

    def share(self, key: Hashable, now: float) -> SharedBucket:
        """The bucket of `key`, for one more connection, until `leave` is called."""
        self._sweep(now)
        bucket = self._buckets.get(key)
        if bucket is None:
            bucket = self._buckets[key] = SharedBucket(self._per_second, self._burst, key, self._of)
        bucket.shared_by += 1
        return bucket

    def leave(self, bucket: SharedBucket, now: float) -> None:
        """A connection that shared `bucket` has gone."""
        bucket.shared_by -= 1
        if bucket.shared_by == 0 and not bucket.queued:
            if bucket.full_at <= now:
                del self._buckets[bucket.key]
            else:
                self._enqueue(bucket)
        self._sweep(now)

    def _enqueue(self, bucket: SharedBucket) -> None:
        bucket.queued = True
        self._count += 1  # makes entries unique, so buckets are never compared
        heapq.heappush(self._queue, (bucket.full_at, self._count, bucket))

    def _sweep(self, now: float) -> None:
        """Forget some buckets that are full again, and, if there are too many, the one nearest to full."""
        for _ in range(SWEPT_AT_ONCE):
            if not self._queue or (self._queue[0][0] > now and len(self._queue) <= self._max_waiting):
                return
            full_at, _, bucket = heapq.heappop(self._queue)
            bucket.queued = False
            if bucket.shared_by == 0:
                if bucket.full_at > full_at:  # used since, so not full yet
                    self._enqueue(bucket)
                else:
                    del self._buckets[bucket.key]


class Meter:
    """Meters what one connection sends, by its own bucket and by those it shares. A message has to pass all of them.

    Args:
        own: the connection's own bucket; `None` if it has only shared ones.
        shared: one or more.
    """

    def __init__(self, own: Bucket | None, shared: Sequence[SharedBucket]) -> None:
        slowest = min(shared, key=lambda bucket: bucket.per_second)
        # A connection that is too fast for a shared bucket by itself is ended, too. That takes a bucket of its own:
        # otherwise others' messages would end it.
        pace = Bucket(slowest.per_second, slowest.burst)
        self._own = [pace] if own is None else [own] if own.per_second <= slowest.per_second else [own, pace]
        self._limit = own
        self._shared = tuple(shared)
        self.over: Bucket | None = None
        """The bucket that refused a message last."""

    def take(self, now: float) -> Verdict:
        """Count a message at `now`."""
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
