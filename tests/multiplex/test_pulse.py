"""Pings and their answers: when the first one comes, how long an answer may take, and which ones nobody asked for."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.abc import Clock

from tests.support.commands import PATH, message_of, serving_clients
from tests.support.memory import shake_hands
from tests.support.wire import FIN, TEXT, frame
from verbtrio import App
from verbtrio.multiplex.pulse import NEVER, Due, Pulse


def app_with(**settings: Any) -> App:
    app = App()
    app.centrifuge("/connection", **settings)
    return app


class TestPulse:
    @given(st.floats(1, 100), st.floats(0, 1e6))
    def test_the_first_ping_comes_within_the_second_half(self, interval: float, now: float) -> None:
        pulse = Pulse(interval, 10)
        pulse.connected(now)
        assert now + interval * 0.5 <= pulse.next <= now + interval

    def test_they_are_spread(self) -> None:
        """Those that come back at the same moment are not all pinged at the same moment."""
        first = []
        for _ in range(100):
            pulse = Pulse(25, 10)
            pulse.connected(0)
            first.append(pulse.next)
        assert len(set(first)) > 90
        assert max(first) - min(first) > 6

    def test_an_answer_is_due(self) -> None:
        pulse = Pulse(1000, 10)
        pulse.connected(0)
        assert pulse.pong() is False
        assert pulse.due(1000, is_busy=False) is Due.PING
        assert pulse.next == 1010
        assert pulse.due(1005, is_busy=False) is Due.NOTHING
        assert pulse.pong() is True
        assert pulse.pong() is False
        assert pulse.due(1010, is_busy=False) is Due.NOTHING

    def test_an_answer_may_stand_behind_something_larger(self) -> None:
        pulse = Pulse(1000, 10)
        pulse.connected(0)
        assert pulse.due(1000, is_busy=False) is Due.PING
        assert pulse.due(1010, is_busy=True) is Due.NOTHING
        assert pulse.next == 1020
        assert pulse.due(1020, is_busy=False) is Due.NO_PONG

    def test_a_clock_that_was_late_does_not_ping_twice(self) -> None:
        pulse = Pulse(1, 10)
        pulse.connected(0)
        assert pulse.due(100, is_busy=False) is Due.PING
        assert pulse.due(100, is_busy=False) is Due.NOTHING
        assert 100 < pulse.next <= 101

    def test_without_an_answer_there_is_no_second_ping(self) -> None:
        pulse = Pulse(1, 10)
        pulse.connected(0)
        assert [pulse.due(second, is_busy=False) for second in (1, 2, 3)] == [Due.PING, Due.NOTHING, Due.NOTHING]

    def test_nothing_is_due_before_it_has_begun(self) -> None:
        pulse = Pulse(25, 10)
        assert pulse.next == NEVER
        assert pulse.due(1e9, is_busy=False) is Due.NOTHING
        pulse.stale = 10
        assert pulse.due(10, is_busy=True) is Due.STALE
        pulse.stale, pulse.expires = NEVER, 20
        assert pulse.due(20, is_busy=True) is Due.EXPIRED


async def test_a_client_that_answers_stays(autojump_clock: Clock) -> None:
    async with serving_clients(app_with()) as clients:
        speaker = await clients.client()
        await trio.sleep(1000)
        assert speaker.closed is None
        assert 38 <= speaker.lines.count({}) <= 41


async def test_one_that_does_not_is_ended(autojump_clock: Clock) -> None:
    async with serving_clients(app_with(ping=20, pong_timeout=7)) as clients:
        speaker, began = await clients.client(), trio.current_time()
        speaker.answers_pings = False
        assert await speaker.end() == (3012, "no pong")
        assert 17 <= trio.current_time() - began <= 27.2
        assert speaker.lines.count({}) == 1


@pytest.mark.parametrize(
    "answer",
    ["{}", '{"id": 0}', '{"publish": {"channel": "a", "data": 1}}', '{"unknown": {}}'],
)
async def test_an_answer_that_nobody_asked_for(answer: str, autojump_clock: Clock) -> None:
    """Whatever has no id and is no `send` is one."""
    async with serving_clients(app_with()) as clients:
        speaker = await clients.client()
        speaker.answers_pings = False
        while {} not in speaker.lines:
            await trio.sleep(1)
        await speaker.raw(answer)
        await clients.settle()
        assert speaker.closed is None
        await speaker.raw(answer)
        assert await speaker.end() == (3501, "bad request")


async def test_one_in_the_middle_of_a_message_has_more_time(autojump_clock: Clock) -> None:
    """Its answer stands behind that."""
    app = app_with(ping=20, pong_timeout=5)
    async with serving_clients(app) as clients:
        stream = clients.service.open_stream()
        await shake_hands(stream, PATH)
        whole = frame(FIN | TEXT, message_of({"id": 1, "connect": {}}).encode())
        await stream.send_all(whole)
        large = frame(FIN | TEXT, message_of({"id": 2, "publish": {"channel": "a", "data": "x" * 50_000}}).encode())
        large += frame(FIN | TEXT, b"{}")
        for at in range(0, len(large), 1000):
            await stream.send_all(large[at : at + 1000])
            await trio.sleep(1)
        await trio.sleep(2)
        assert app.statistics().connections == 1
        await trio.sleep(100)
        assert app.statistics().ended == {"heartbeat": 1}


async def test_one_whose_messages_wait_has_more_time(autojump_clock: Clock) -> None:
    """What it has sent, its answer perhaps among it, waits for a command before."""

    async def connect(client: object) -> None: ...

    class Slow:
        async def authenticate(self, token: str) -> dict[str, object]:
            await trio.sleep(60 if token == "slow" else 0)
            return {"sub": "ada"}

    async with serving_clients(app_with(auth=Slow(), ping=10, pong_timeout=2)) as clients:
        speaker = await clients.client(token="fast")
        await speaker.say(speaker.command("refresh", token="slow"))
        await trio.sleep(55)
        assert speaker.closed is None
        await trio.sleep(20)
        assert speaker.closed is None
        assert "refresh" in speaker.replies(2)[0]
