"""Heartbeats by simulation: when a ping is due, and when a peer is dead."""

from __future__ import annotations

from itertools import accumulate, pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from verbtrio.base.close import check_close
from verbtrio.connection.heartbeat import PING_MESSAGE, Beat, Heartbeat, Pulse, is_pong

PROPERTY = settings(deadline=None, max_examples=200, derandomize=True)

INTERVALS = st.integers(1, 20)
TIMEOUTS = st.integers(1, 60)
GAPS = st.lists(st.integers(0, 80), max_size=12)
"""Seconds between signs of life. They come at half seconds, so that none comes in the very moment of a deadline."""


def simulate(heartbeat: Heartbeat, start: float, signs: list[float], until: float) -> tuple[list[float], float | None]:
    """Live through it as a connection does, asleep until `next`: when pings were sent, and when it was dead."""
    pulse = Pulse(heartbeat, start)
    pings: list[float] = []
    signs = sorted(signs)
    while pulse.next <= until:
        now = pulse.next
        while signs and signs[0] < now:
            pulse.heard(signs.pop(0))
        beat = pulse.due(now)
        if beat is Beat.DEAD:
            return pings, now
        if beat is Beat.PING:
            pings.append(now)
    return pings, None


def times(start: int, gaps: list[int]) -> list[float]:
    return [start + time + 0.5 for time in accumulate(gaps)]


class TestPulse:
    @PROPERTY
    @given(interval=INTERVALS, slack=TIMEOUTS, start=st.integers(0, 1000), gaps=GAPS)
    def test_dead_exactly_when_the_timeout_is_over(
        self, interval: int, slack: int, start: int, gaps: list[int]
    ) -> None:
        heartbeat = Heartbeat(interval, interval + slack)
        signs = times(start, gaps)
        until = start + 1000.0
        expected = next(
            last + heartbeat.timeout
            for last, following in pairwise([start, *signs, until + 10_000])
            if following - last > heartbeat.timeout
        )
        pings, death = simulate(heartbeat, start, signs, until=10_000)
        assert death == expected
        assert pings == [start + n * interval for n in range(1, 10_000) if start + n * interval < expected]

    @PROPERTY
    @given(starts=st.lists(st.integers(0, 100), min_size=2, max_size=4), gaps=st.lists(GAPS, min_size=4, max_size=4))
    def test_each_client_has_its_own_clock(self, starts: list[int], gaps: list[list[int]]) -> None:
        """All of them in one simulation end as each would alone."""
        heartbeat = Heartbeat(7, 20)
        alone = [simulate(heartbeat, start, times(start, own), 400) for start, own in zip(starts, gaps, strict=False)]
        pulses = [Pulse(heartbeat, start) for start in starts]
        signs = [times(start, own) for start, own in zip(starts, gaps, strict=False)]
        pings: list[list[float]] = [[] for _ in starts]
        deaths: list[float | None] = [None for _ in starts]
        while alive := [n for n, death in enumerate(deaths) if death is None and pulses[n].next <= 400]:
            now = min(pulses[n].next for n in alive)
            for n in alive:
                while signs[n] and signs[n][0] < now:
                    pulses[n].heard(signs[n].pop(0))
                beat = pulses[n].due(now)
                if beat is Beat.PING:
                    pings[n].append(now)
                elif beat is Beat.DEAD:
                    deaths[n] = now
        assert list(zip(pings, deaths, strict=True)) == alone

    def test_a_peer_that_answers_lives(self) -> None:
        pings, death = simulate(Heartbeat(10, 15), 0, [10.5 + 10 * n for n in range(20)], until=200)
        assert (len(pings), death) == (20, None)

    def test_an_answer_does_not_put_off_the_next_ping(self) -> None:
        pulse = Pulse(Heartbeat(10, 100), 0)
        pulse.heard(9)
        assert pulse.next == 10
        assert pulse.due(10) is Beat.PING

    def test_too_early(self) -> None:
        pulse = Pulse(Heartbeat(10, 30), 0)
        assert [pulse.due(9.999), pulse.due(10), pulse.due(10), pulse.due(19.999)] == [
            Beat.NOTHING,
            Beat.PING,
            Beat.NOTHING,
            Beat.NOTHING,
        ]

    def test_a_little_late_keeps_the_beat(self) -> None:
        pulse = Pulse(Heartbeat(10, 1000), 0)
        assert pulse.due(13) is Beat.PING
        assert pulse.next == 20

    @pytest.mark.parametrize("late", [21, 30, 35, 99])
    def test_very_late_is_one_ping_all_the_same(self, late: int) -> None:
        """The process was stopped, or its loop blocked. "A `PING` is due once; the one after it an interval later"."""
        pulse = Pulse(Heartbeat(10, 1000), 0)
        assert pulse.due(late) is Beat.PING
        assert pulse.due(late) is Beat.NOTHING
        assert pulse.next > late

    def test_death_comes_before_a_ping(self) -> None:
        assert Pulse(Heartbeat(10, 20), 0).due(20) is Beat.DEAD

    def test_next_is_never_past_the_death(self) -> None:
        pulse = Pulse(Heartbeat(10, 12), 0)
        assert pulse.due(10) is Beat.PING
        assert pulse.next == 12


class TestHeartbeat:
    def test_the_defaults(self) -> None:
        assert Heartbeat() == Heartbeat(20.0, 40.0, 4408, "Connection timeout due to inactivity", json=False)

    @pytest.mark.parametrize("interval", [0, -1, float("nan")])
    def test_an_interval_is_positive(self, interval: float) -> None:
        with pytest.raises(ValueError, match="interval must be more than 0"):
            Heartbeat(interval, 100)

    @pytest.mark.parametrize("timeout", [0, 10, 9.99, -1, float("nan")])
    def test_a_timeout_leaves_time_to_answer(self, timeout: float) -> None:
        with pytest.raises(ValueError, match=r"timeout .* must be more than its interval"):
            Heartbeat(10, timeout)

    def test_a_peer_may_be_waited_for_for_ever(self) -> None:
        pings, death = simulate(Heartbeat(10, float("inf")), 0, [], until=1000)
        assert (len(pings), death) == (100, None)

    @pytest.mark.parametrize(("code", "reason"), [(1006, ""), (1005, ""), (999, ""), (1000, "x" * 124)])
    def test_a_close_that_cannot_be_sent_shows_at_once(self, code: int, reason: str) -> None:
        """Not 40 s later, in the middle of the connection's end."""
        with pytest.raises(ValueError, match="close"):
            check_close(code, reason)
        with pytest.raises(ValueError, match="close"):
            Heartbeat(code=code, reason=reason)


class TestJson:
    def test_the_ping(self) -> None:
        assert (PING_MESSAGE.payload, PING_MESSAGE.text) == (b'{"type":"ping"}', True)

    @pytest.mark.parametrize(
        "message", ['{"type":"pong"}', ' { "type" : "pong" } ', '{"id": 5, "type": "pong", "more": ["pong"]}']
    )
    def test_a_pong(self, message: str) -> None:
        assert is_pong(message)

    @pytest.mark.parametrize(
        "message",
        [
            "",
            "pong",
            '"pong"',
            '["pong"]',
            '{"type":"ping","of":"pong"}',
            '{"Type":"pong"}',
            '{"type":"pong ping"}',
            '{"type":["pong"]}',
            '{"type":null,"x":"pong"}',
            '{"type":"pong"',
            '{"x":{"type":"pong"}}',
            b'{"type":"pong"}',
            '{"type":"pong","x":"\ud800"}',
            '{"type":"pong","x":' + "[" * 100_000,
        ],
        ids=lambda message: str(message)[:30].encode("ascii", "replace").decode(),
    )
    def test_no_pong(self, message: str | bytes) -> None:
        assert not is_pong(message)

    @PROPERTY
    @given(message=st.text(max_size=30).map(lambda text: text + "pong" + text) | st.binary())
    def test_never_raises(self, message: str | bytes) -> None:
        assert not is_pong(message)
