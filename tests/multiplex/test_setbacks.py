"""A handler that fails again and again: SDKs subscribe again at once, and must not make it a loop."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import trio
from trio.abc import Clock

from tests.support.commands import Speaker, serving_clients
from verbtrio import App, Denied, Subscription
from verbtrio.multiplex.setbacks import FIRST_SECONDS, FORGOTTEN_SECONDS, MAX_ROOMS, MOST_SECONDS, Setbacks

TOO_SOON = {"code": 100, "message": "internal server error", "temporary": True}


class TestSetbacks:
    def test_it_takes_longer_each_time(self) -> None:
        setbacks, now = Setbacks(), 0.0
        assert not setbacks.is_too_soon("a", now)
        expected = [FIRST_SECONDS * 2**n for n in range(5)]
        assert expected[-1] < MOST_SECONDS < 2 * expected[-1]
        for seconds in [*expected, MOST_SECONDS, MOST_SECONDS]:
            setbacks.failed("a", now)
            assert setbacks.is_too_soon("a", now + seconds - 0.01)
            now += seconds
            assert not setbacks.is_too_soon("a", now)

    def test_it_is_forgotten(self) -> None:
        setbacks = Setbacks()
        for now in (0.0, FIRST_SECONDS + FORGOTTEN_SECONDS):
            setbacks.failed("a", now)
            assert not setbacks.is_too_soon("a", now + FIRST_SECONDS)

    def test_rooms_are_apart(self) -> None:
        setbacks = Setbacks()
        setbacks.failed("a", 0.0)
        assert not setbacks.is_too_soon("b", 0.0)

    def test_those_that_are_forgotten_are_gone(self) -> None:
        setbacks = Setbacks()
        for number in range(10):
            setbacks.failed(str(number), 0.0)
        setbacks.failed("a", FIRST_SECONDS + FORGOTTEN_SECONDS)
        assert len(setbacks) == 1

    def test_there_are_not_too_many(self) -> None:
        setbacks = Setbacks()
        for number in range(MAX_ROOMS + 10):
            setbacks.failed(str(number), 0.0)
        assert len(setbacks) == MAX_ROOMS
        assert not setbacks.is_too_soon("0", 0.0)
        assert setbacks.is_too_soon(str(MAX_ROOMS), 0.0)


async def again(client: Speaker, channel: str) -> dict[str, Any]:
    """Subscribe, as an SDK does at once when it is told to."""
    reply = await client.ask("subscribe", channel=channel)
    await trio.sleep(0.05)
    return reply


async def test_a_handler_that_fails_each_time(autojump_clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    app = App()
    began: list[float] = []

    @app.rooms("bad:{name}")
    async def bad(sub: Subscription, name: str) -> None:
        began.append(trio.current_time())
        await sub.accept()
        raise ValueError("it never works")

    app.rooms("open", subscribe=True)
    app.centrifuge("/connection")
    async with serving_clients(app) as served:
        client = await served.client()
        while trio.current_time() < began[0] + 100 if began else True:
            reply = await again(client, "bad:a")
            assert "subscribe" in reply or reply["error"] == TOO_SOON
        gaps = [later - before for before, later in pairwise(began)]
        assert gaps == pytest.approx([1, 2, 4, 8, 16, 30, 30], abs=0.2)
        assert {one["code"] for one in client.of("unsubscribe")} == {2503}
        assert "subscribe" in await again(client, "open"), "others are not affected"
        logged = [record for record in caplog.records if record.name == "verbtrio.subscriptions"]
        assert len(logged) == len(began)
        del logged


async def test_other_ends_have_none(autojump_clock: Clock) -> None:
    app = App()

    @app.rooms("no:{name}")
    async def no(sub: Subscription, name: str) -> None:
        await sub.accept()
        raise Denied("not now")

    @app.rooms("yes:{name}")
    async def yes(sub: Subscription, name: str) -> None:
        await sub.accept()
        await sub.unsubscribe(2500)

    app.centrifuge("/connection")
    async with serving_clients(app) as served:
        client = await served.client()
        for channel in ("no:a", "yes:a"):
            for _ in range(3):
                assert "subscribe" in await again(client, channel)
