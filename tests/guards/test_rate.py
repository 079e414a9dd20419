"""The token bucket: how many pass, when the next one does, and when patience ends."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from verbtrio.guards.rate import END, MAX_WAITING, PASS, REFUSE, Bucket, Buckets, Meter, SharedBucket


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


def shared(per_second: float = 10, burst: int = 5) -> SharedBucket:
    return SharedBucket(per_second, burst, "somebody", "")


class TestSharedBucket:
    def test_the_burst_passes(self) -> None:
        bucket = shared()
        assert [bucket.passes(0) for _ in range(7)] == [True] * 5 + [False] * 2
        assert not bucket.passes(0.1)
        assert bucket.passes(1)

    @pytest.mark.parametrize("messages", [11, 100, 100_000])
    def test_the_debt_has_a_limit(self, messages: int) -> None:
        """However many there were, the first passes when the burst's time is over."""
        bucket = shared()
        for _ in range(messages):
            bucket.passes(0)
        assert bucket.full_at == pytest.approx(1, abs=0.001)
        assert not SharedBucket.passes(bucket, 0.5)
        assert bucket.passes(0.75)

    @given(st.lists(st.integers(0, 20).map(lambda n: n / 16), max_size=50))
    def test_after_the_wait_one_passes(self, waits: list[float]) -> None:
        bucket, now = shared(0.5, 3), 0.0
        for wait in waits:
            now += wait
            if bucket.wait(now) == 0:
                assert bucket.passes(now)
            else:
                now += bucket.wait(now) + 1e-6
                assert bucket.passes(now)


class TestBuckets:
    def test_one_for_all_of_a_key(self) -> None:
        table = Buckets(10, 5, "")
        one = table.share("a", 0)
        assert table.share("a", 0) is one
        assert table.share("b", 0) is not one
        assert len(table) == 2

    def test_a_full_one_is_forgotten_at_once(self) -> None:
        table = Buckets(10, 5, "")
        one, two = table.share("a", 0), table.share("a", 0)
        one.passes(0)
        table.leave(one, 5)
        assert len(table) == 1, "somebody has it"
        table.leave(two, 5)
        assert len(table) == 0

    def test_one_that_is_not_full_is_kept_until_it_is(self) -> None:
        table = Buckets(10, 5, "")
        one = table.share("a", 0)
        for _ in range(20):
            one.passes(0)
        table.leave(one, 0)
        again = table.share("a", 0.9)
        assert again is one
        assert not again.passes(0.01)
        table.leave(again, 0.9)
        table.leave(table.share("b", 3), 3)
        assert len(table) == 0

    @pytest.mark.long
    @pytest.mark.parametrize("messages", [1, 5])
    def test_a_hundred_thousand_addresses(self, messages: int) -> None:
        """Bounded in number and in bytes, and all of it given back as others come and go."""
        table = Buckets(0.01, 100, "")
        tracemalloc.start()
        try:
            for number in range(100_000):
                bucket = table.share(number, number / 1000)
                for _ in range(messages):
                    bucket.passes(number / 1000)
                table.leave(bucket, number / 1000)
                assert len(table) <= MAX_WAITING + 1
            assert tracemalloc.get_traced_memory()[0] < 32 * 1024 * 1024
            for _ in range(100_000):
                table.leave(table.share("one", 1e6), 1e6)
            assert len(table) == len(table._queue) == 0
            assert tracemalloc.get_traced_memory()[0] < 1024 * 1024
        finally:
            tracemalloc.stop()

    def test_a_flood_of_addresses_forgets_those_that_owe_least(self) -> None:
        """To be forgotten one has to send as much from each of the others."""
        table = Buckets(1, 10, "", max_waiting=100)
        debtor = table.share("debtor", 0)
        for _ in range(20):
            debtor.passes(0)
        table.leave(debtor, 0)
        for number in range(10_000):
            bucket = table.share(number, 1)
            for _ in range(15):
                bucket.passes(1)
            table.leave(bucket, 1)
        assert len(table) <= 101
        assert table.share("debtor", 1) is debtor

    def test_one_in_use_is_never_forgotten(self) -> None:
        table = Buckets(1, 10, "", max_waiting=10)
        held = [table.share(number, 0) for number in range(100)]
        for bucket in held:  # each has left once, and come again
            bucket.passes(0)
            table.leave(bucket, 0)
            assert table.share(bucket.key, 0) is bucket
        for number in range(1000):
            other = table.share(("other", number), 0)
            other.passes(0)
            table.leave(other, 0)
        assert [table.share(bucket.key, 0) for bucket in held] == held
        assert len(table) <= 100 + 11

    def test_the_queue_is_no_longer_than_the_table(self) -> None:
        """A client that connects again and again is in it once."""
        table = Buckets(1, 10, "")
        for n in range(1000):
            bucket = table.share("one", n / 100)
            bucket.passes(n / 100)
            table.leave(bucket, n / 100)
        assert len(table._queue) == len(table) == 1


class TestMeter:
    def test_others_do_not_end_it(self) -> None:
        """A connection that shares a bucket with a flood is refused, and never ended."""
        bucket = shared()
        meter = Meter(None, [bucket])
        for second in range(1000):
            for _ in range(100):
                bucket.passes(second)
            assert meter.take(second) is REFUSE

    def test_all_it_shares_counts(self) -> None:
        few, many = shared(10, 3), shared(10, 30)
        meter = Meter(Bucket(10, 10), [many, few])
        assert [meter.take(0) for _ in range(5)] == [PASS] * 3 + [REFUSE] * 2
        assert meter.over is few
        assert many.full_at == pytest.approx(0.5), "what is refused takes tokens everywhere"

    @pytest.mark.parametrize("own", [None, Bucket(10, 5), Bucket(1000, 1000), Bucket(1, 5)])
    def test_going_on_ends(self, own: Bucket | None) -> None:
        meter = Meter(own, [shared(), shared(100, 100)])
        assert [meter.take(0) for _ in range(11)] == [PASS] * 5 + [REFUSE] * 5 + [END]
