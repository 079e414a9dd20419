"""The token bucket: how many pass, when the next one does, and when patience ends."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from verbtrio.rate import END, PASS, REFUSE, Bucket


@pytest.mark.parametrize("burst", [1, 2, 100, 10_000])
@pytest.mark.parametrize("per_second", [0.1, 1, 3, 7.7, 1000])
@pytest.mark.parametrize("now", [0.0, 123_456.789])
def test_at_the_boundary(per_second: float, burst: int, now: float) -> None:
    """At once: the burst passes, as many again are refused, the next is the end."""
    bucket = Bucket(per_second, burst)
    verdicts = [bucket.take(now) for _ in range(2 * burst + 1)]
    assert verdicts == [PASS] * burst + [REFUSE] * burst + [END]


def test_refills_at_its_rate() -> None:
    bucket = Bucket(10, 5)
    assert [bucket.take(0) for _ in range(5)] == [PASS] * 5
    assert bucket.take(0.1) is PASS
    assert bucket.take(0.15) is REFUSE, "which costs a token, too"
    assert bucket.take(0.25) is REFUSE
    assert bucket.take(0.5) is PASS


def test_is_never_more_than_full() -> None:
    bucket = Bucket(10, 5)
    assert [bucket.take(1e6) for _ in range(6)] == [PASS] * 5 + [REFUSE]


def test_at_exactly_its_rate_for_ever() -> None:
    bucket = Bucket(3, 1)
    assert {bucket.take(1e5 + n / 3) for n in range(10_000)} == {PASS}


def test_keeping_up_a_pace_that_is_too_fast_ends() -> None:
    bucket = Bucket(10, 5)
    verdicts = [bucket.take(n / 20) for n in range(100)]
    assert verdicts.index(REFUSE) == 9
    assert verdicts.index(END) == 19


@settings(deadline=None, max_examples=200, derandomize=True)
@given(
    per_second=st.sampled_from([0.5, 1.0, 4.0, 16.0]),
    burst=st.integers(1, 20),
    waits=st.lists(st.integers(0, 64).map(lambda n: n / 16), max_size=200),
)
def test_is_a_token_bucket(per_second: float, burst: int, waits: list[float]) -> None:
    """Against the textbook's, which counts tokens. (All the numbers are exact in binary.)"""
    bucket, tokens, now = Bucket(per_second, burst), float(burst), 0.0
    for wait in waits:
        now += wait
        tokens = min(burst, tokens + wait * per_second) - 1
        assert bucket.take(now) is (PASS if tokens >= 0 else REFUSE if tokens >= -burst else END)
