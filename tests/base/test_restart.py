"""When a task that fails is started again: how often at most, and after how long."""

from __future__ import annotations

from itertools import accumulate

from hypothesis import given
from hypothesis import strategies as st

from verbtrio import Restart
from verbtrio.base.restart import MAX_DELAY, Restarts

PAUSES = st.lists(st.integers(0, 50), min_size=1, max_size=60)


def test_none_without_bounds() -> None:
    assert Restarts(None).next(0.0) is None


def test_each_waits_twice_as_long_as_the_one_before() -> None:
    restarts = Restarts(Restart(max=4, delay=0.5))
    assert [restarts.next(0.0) for _ in range(5)] == [0.5, 1.0, 2.0, 4.0, None]
    assert restarts.next(60.0) == 0.5, "the others are over `within` ago"


@given(st.integers(0, 6), st.integers(1, 100), PAUSES)
def test_never_more_than_max_within_the_time(most: int, within: int, pauses: list[int]) -> None:
    restarts = Restarts(Restart(max=most, within=within))
    times = [now for now in accumulate(pauses) if restarts.next(now) is not None]
    for begin in times:
        assert sum(begin <= now < begin + within for now in times) <= most


@given(st.floats(0.001, 100), PAUSES)
def test_a_wait_has_its_limit(delay: float, pauses: list[int]) -> None:
    """30 s, or the first one's, if that is longer."""
    restarts = Restarts(Restart(max=10_000, within=1e6, delay=delay))
    for now in accumulate(pauses):
        wait = restarts.next(now)
        assert wait is not None
        assert min(delay, MAX_DELAY) <= wait <= max(delay, MAX_DELAY)
