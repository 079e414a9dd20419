"""How fast one client may send commands."""

from __future__ import annotations

import trio

from verbtrio.base.limits import Limits
from verbtrio.guards.quotas import Slot
from verbtrio.guards.rate import PASS, Bucket, Meter, Verdict


class Pace:
    """One client's rates: its own, and those that it shares with others.

    Args:
        limits: the connection's.
        slot: its place in the connection counts, which knows the shared ones.
    """

    __slots__ = ("_meter", "_own", "_slot")

    def __init__(self, limits: Limits, slot: Slot) -> None:
        self._slot = slot
        self._own: Bucket | None = None
        if limits.max_messages_per_second is not None:
            self._own = Bucket(limits.max_messages_per_second, limits.message_burst)
        self._meter: Bucket | Meter | None = self._own
        self.meet_shared()

    def meet_shared(self) -> None:
        """Its commands count towards the rates that it shares with others, as far as those are known now."""
        if self._slot.buckets:
            self._meter = Meter(self._own, self._slot.buckets)

    def take(self) -> Verdict:
        """Count a command."""
        return PASS if self._meter is None else self._meter.take(trio.current_time())
