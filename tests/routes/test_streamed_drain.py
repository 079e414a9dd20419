"""A drain: clients that come back by themselves are not all ended at the same moment."""

from __future__ import annotations

from itertools import pairwise

import pytest
import trio
import trio.testing
from trio.abc import Clock

from tests.support.commands import serving_clients
from tests.support.streamed import Streamed
from verbtrio import App, WebSocket
from verbtrio.hub.drain import SPREAD_FROM, Drain


class Stream:
    """A client that an HTTP response carries."""

    def __init__(self, log: list[float], *, returns_at_once: bool = True) -> None:
        self.returns_at_once = returns_at_once
        self._log = log

    def drain(self) -> None:
        self._log.append(trio.current_time())


def a_drain(seconds: float, streams: int, *, returns_at_once: bool = True) -> tuple[Drain, list[float]]:
    drain = Drain(seconds)
    log: list[float] = []
    for _ in range(streams):
        drain.enter_stream(Stream(log, returns_at_once=returns_at_once))
    return drain, log


async def test_few_end_at_once(autojump_clock: Clock) -> None:
    drain, log = a_drain(2, SPREAD_FROM - 1)
    await drain.run()
    assert log == [0.0] * (SPREAD_FROM - 1)


async def test_many_end_one_after_the_other(autojump_clock: Clock) -> None:
    drain, log = a_drain(2, 1000)
    await drain.run()
    assert len(log) == 1000
    assert max(log) == pytest.approx(1, abs=0.03)
    for tenth in range(10):
        assert 70 <= sum(tenth <= when * 10 < tenth + 1 for when in log) <= 130, "evenly"


async def test_those_that_do_not_come_back_end_at_once(autojump_clock: Clock) -> None:
    drain, log = a_drain(2, 1000, returns_at_once=False)
    await drain.run()
    assert log == [0.0] * 1000


async def test_those_that_come_meanwhile_end_at_once(autojump_clock: Clock) -> None:
    drain, _ = a_drain(2, 1000)
    late: list[float] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(drain.run)
        await trio.sleep(0.5)
        drain.enter_stream(Stream(late))
        assert late == [0.5]


async def test_cancelled_in_the_middle(autojump_clock: Clock) -> None:
    drain, log = a_drain(2, 1000)
    with trio.move_on_after(0.5):
        await drain.run()
    assert len(log) == 1000
    assert log.count(0.5) > 400, "the rest, at once"


@pytest.mark.parametrize("seconds", [1e-9, 0.01])
async def test_a_drain_without_time(seconds: float, autojump_clock: Clock) -> None:
    drain, log = a_drain(seconds, 1000)
    await drain.run()
    assert len(log) == 1000
    assert max(log) <= 0.03


async def test_a_second_drain_has_the_first_ones_deadline(autojump_clock: Clock) -> None:
    """The worker's signal begins one, and the lifespan's end another: who is left then has no time of its own."""
    drain, log = a_drain(2, 1000)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(drain.run)
        await trio.sleep(0.9)
        nursery.start_soon(drain.run)
    assert max(log) <= 1.5


@pytest.mark.parametrize(("websockets", "streams"), [(SPREAD_FROM, 0), (SPREAD_FROM // 2, SPREAD_FROM // 2)])
async def test_the_clients_of_an_app(websockets: int, streams: int, autojump_clock: Clock) -> None:
    """Those of plain routes end at once. All are told why."""
    app = App(drain_timeout=4)
    app.centrifuge("/connection")

    @app.ws("/plain")
    async def plain(ws: WebSocket) -> None:
        async for _ in ws:
            pass

    async with serving_clients(app) as service, trio.open_nursery() as nursery:
        clients = [await service.client() for _ in range(websockets)]
        streamed = [await Streamed(service.service, nursery, "http_stream").connect() for _ in range(streams)]
        other = await service.open("/plain")
        await trio.sleep(0.01)
        assert app.statistics().connections == websockets + 1
        await service.service.shut_down()
        counts = []
        for _ in range(5):
            counts.append(sum(one.closed is not None for one in clients) + sum(one.is_over for one in streamed))
            await trio.sleep(0.5)
        assert counts[0] < 5, "they end in 2 s"
        assert other.closed == (1012, "The server is restarting")
        for before, after in pairwise(counts):
            assert 15 <= after - before <= 35
        assert counts[4] == SPREAD_FROM
        assert {one.closed for one in clients} == {(3001, "shutdown")}
        for one in streamed:
            assert await one.end() == (3001, "shutdown")
            await one.leave()
        assert app.statistics().ended == {"drain": SPREAD_FROM + 1}


async def test_few_clients_of_an_app_end_at_once(autojump_clock: Clock) -> None:
    app = App(drain_timeout=4)
    app.centrifuge("/connection")
    async with serving_clients(app) as service:
        clients = [await service.client() for _ in range(10)]
        await service.service.shut_down()
        await trio.sleep(0.01)
        assert {one.closed for one in clients} == {(3001, "shutdown")}
