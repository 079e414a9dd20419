"""Tasks that run once in all processes: who runs them, who takes over and when; never two at once."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from trio.abc import Clock
from trio.testing import wait_all_tasks_blocked

from tests.support.memory import serving
from tests.support.room_tasks import House, house, lines
from verbtrio import App, Restart, Room, WebSocket
from verbtrio.base.errors import BrokerUnavailable
from verbtrio.brokers import MemoryBroker
from verbtrio.rooms.room_task import RoomTask
from verbtrio.rooms.task_run import TaskState

WAITING, STARTING, RUNNING = TaskState.WAITING, TaskState.STARTING, TaskState.RUNNING


class Game:
    """A task of a room that runs in one of several processes.

    Attributes:
        runs: how many run now.
        began, ended: when, each with the fence.
        cleans_up: seconds that it takes to end.
        plan: what the next runs raise, at once; or return, where it is `None`.
    """

    def __init__(self, **settings: Any) -> None:
        self.runs = 0
        self.began: list[tuple[float, int]] = []
        self.ended: list[tuple[float, int]] = []
        self.cleans_up = 0.0
        self.plan: list[Exception | None] = []
        self.task = RoomTask(self.play, singleton=True, **settings)
        self.slow_task = RoomTask(self.play_slowly, singleton=True, **settings)

    async def play(self, room: Any, fence: int) -> None:
        self.began.append((trio.current_time(), fence))
        self.runs += 1
        assert self.runs == 1, "never two at once"
        try:
            if self.plan:
                if (failure := self.plan.pop(0)) is not None:
                    raise failure
                return
            await trio.sleep_forever()
        finally:
            if self.cleans_up:
                with trio.move_on_after(self.cleans_up, shield=True):
                    await trio.sleep_forever()
            self.runs -= 1
            self.ended.append((trio.current_time(), fence))

    async def play_slowly(self, room: Any, fence: int, task_status: trio.TaskStatus[None]) -> None:
        await trio.sleep(3)
        task_status.started()
        await self.play(room, fence)


@asynccontextmanager
async def houses() -> AsyncIterator[tuple[House, House]]:
    """Two processes."""
    broker = MemoryBroker()
    async with house(broker) as one, house(broker) as other:
        yield one, other


async def both(one: House, other: House, game: Game) -> None:
    """The room has members in both; the first one has the lease."""
    await one.enter("room", game.task)
    await wait_all_tasks_blocked()
    await other.enter("room", game.task)
    await wait_all_tasks_blocked()


class Outage:
    """A broker that one process can't reach."""

    def __init__(self, here: House) -> None:
        self._session: Any = here.session
        self._methods = {name: getattr(here.session, name) for name in ("acquire", "renew", "release")}
        self._is_over = trio.Event()
        for name in self._methods:
            setattr(self._session, name, self._fail)

    async def _fail(self, *arguments: Any) -> None:
        await trio.lowlevel.checkpoint()
        raise BrokerUnavailable("it is away")

    def end(self) -> None:
        for name in self._methods:
            delattr(self._session, name)
        self._is_over.set()


class Silence(Outage):
    """A broker that does not answer, until it is back."""

    async def _fail(self, *arguments: Any) -> None:
        await self._is_over.wait()
        raise BrokerUnavailable("it was away")


async def test_one_process_runs_it(autojump_clock: Clock) -> None:
    game = Game()
    async with houses() as (one, other):
        await both(one, other, game)
        await trio.sleep(1000)
        assert (one.states, other.states) == ([RUNNING], [WAITING])
        assert (one.table.running, other.table.running) == (1, 0)
        assert len(game.began) == 1


async def test_each_room_has_its_own(autojump_clock: Clock) -> None:
    first, second = Game(), Game()
    async with houses() as (one, other):
        one.join("a", first.task)
        other.join("b", second.task)
        await trio.sleep(1)
        assert (first.runs, second.runs) == (1, 1)


async def test_each_task_of_a_room_has_its_own(autojump_clock: Clock) -> None:
    """Even if both have the same name."""
    first, second = Game(), Game()
    assert first.task.name == second.task.name
    async with houses() as (one, other):
        one.join("a", first.task, second.task)
        other.join("a", first.task, second.task)
        await trio.sleep(1)
        assert (first.runs, second.runs) == (1, 1)


async def test_a_join_waits_for_started_where_it_runs(autojump_clock: Clock) -> None:
    """In another process it is started as soon as somebody has the lease."""
    game = Game()
    async with houses() as (one, other):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(one.enter, "room", game.slow_task)
            await trio.sleep(1)
            assert one.states == [STARTING]
            await other.enter("room", game.slow_task)
            assert trio.current_time() == 1
            assert not one.table.is_ready("room")
        assert trio.current_time() == 3
        assert (one.states, other.states) == ([RUNNING], [WAITING])


class TestTakeOver:
    async def test_at_once_when_the_room_is_empty_there(self, autojump_clock: Clock) -> None:
        """After `linger`, with a fence that is higher."""
        game = Game(linger=5)
        async with houses() as (one, other):
            await both(one, other, game)
            await trio.sleep(10)
            one.leave("room")
            await trio.sleep(4)
            assert one.states == [RUNNING], "it lingers"
            await trio.sleep(1.1)
            assert (one.states, other.states) == ([], [RUNNING])
            (first, second) = game.began
            assert second[0] == pytest.approx(game.ended[0][0])
            assert second[1] > first[1]

    async def test_at_once_when_the_process_ends(self, autojump_clock: Clock) -> None:
        game = Game()
        broker = MemoryBroker()
        async with house(broker) as other:
            async with house(broker) as one:
                await both(one, other, game)
                await trio.sleep(10)
                one.table.close(10)
                await one.table.wait_ended()
                await wait_all_tasks_blocked()
                assert other.states == [RUNNING]
                assert trio.current_time() == pytest.approx(10)

    async def test_once_it_has_cleaned_up(self, autojump_clock: Clock) -> None:
        game = Game(linger=0)
        game.cleans_up = 2
        async with houses() as (one, other):
            await both(one, other, game)
            one.leave("room")
            await trio.sleep(1.9)
            assert other.states == [WAITING]
            await trio.sleep(0.2)
            assert other.states == [RUNNING]

    async def test_when_it_is_given_up(self, autojump_clock: Clock) -> None:
        """By the process in which it has failed for the last time: its members have to go, others try themselves."""
        game = Game(restart=Restart(max=1, within=60, delay=1))
        game.plan = [ValueError("first"), ValueError("last")]
        async with houses() as (one, other):
            await both(one, other, game)
            await trio.sleep(2)
            assert [name for name, _ in one.dismissed] == ["room"]
            assert other.dismissed == []
            assert (one.states, other.states) == ([], [RUNNING])
            (first, second, third) = game.began
            assert first[1] == second[1] < third[1], "it starts again under the same lease"

    @pytest.mark.parametrize("outage", [Outage, Silence])
    @pytest.mark.parametrize("begins", [2.0, 2.6, 2.7, 7.9])
    async def test_when_the_broker_is_away_from_one(
        self, outage: type[Outage], begins: float, autojump_clock: Clock, caplog: pytest.LogCaptureFixture
    ) -> None:
        """It ends before the other can have the lease, which is within the time that was promised; and waits then."""
        caplog.set_level("INFO")
        game = Game(lease=10)
        async with houses() as (one, other):
            await both(one, other, game)
            await trio.sleep(begins)
            away = outage(one)
            with trio.fail_after(10):
                while other.states != [RUNNING]:
                    await trio.sleep(0.01)
            assert game.ended[0][0] < game.began[1][0] - 1, "there is time to clean up"
            assert one.states == [WAITING]
            assert any("is lost" in line for line in lines(caplog))
            away.end()
            await trio.sleep(100)
            assert (one.states, other.states) == ([WAITING], [RUNNING])
            assert one.dismissed == []

    async def test_a_lease_that_somebody_else_has(self, autojump_clock: Clock) -> None:
        """The broker has forgotten it: it ends with the next renewal."""
        game = Game()
        async with houses() as (one, _):
            await one.enter("room", game.task)
            await wait_all_tasks_blocked()
            session: Any = one.session
            session._broker.leases.clear()
            await trio.sleep(3)
            assert len(game.began) == 2
            assert game.began[0][1] < game.began[1][1]
            assert one.states == [RUNNING]


class TestWithoutABroker:
    async def test_it_starts_when_that_is_back(self, autojump_clock: Clock) -> None:
        """Joins don't wait, and members are told nothing."""
        game = Game()
        async with house() as one:
            away = Outage(one)
            await one.enter("room", game.slow_task)
            assert one.states == [WAITING]
            await trio.sleep(100)
            assert (one.states, one.members["room"], game.began) == ([WAITING], 1, [])
            away.end()
            await trio.sleep(6)
            assert one.states == [RUNNING]

    async def test_it_goes_on_through_a_short_outage(self, autojump_clock: Clock) -> None:
        game = Game(lease=10)
        async with houses() as (one, other):
            await both(one, other, game)
            for _ in range(10):
                away = Outage(one)
                await trio.sleep(3)
                away.end()
                await trio.sleep(3)
            assert (one.states, other.states) == ([RUNNING], [WAITING])
            assert len(game.began) == 1

    async def test_it_ends_with_the_room(self, autojump_clock: Clock) -> None:
        game = Game(linger=0)
        async with house() as one:
            away = Outage(one)
            await one.enter("room", game.task)
            await trio.sleep(1)
            one.leave("room")
            await wait_all_tasks_blocked()
            assert one.states == []
            away.end()


async def test_one_that_is_done_is_not_run_elsewhere(autojump_clock: Clock) -> None:
    """As long as its process has members: then the next one begins."""
    game = Game(linger=1)
    game.plan = [None]
    async with houses() as (one, other):
        await both(one, other, game)
        await trio.sleep(100)
        assert (one.states, other.states) == ([TaskState.DONE], [WAITING])
        assert (one.table.running, other.table.running) == (0, 0)
        one.leave("room")
        await trio.sleep(1.1)
        assert (one.states, other.states) == ([], [RUNNING])


async def test_one_that_is_done_does_not_begin_again_with_another_lease(autojump_clock: Clock) -> None:
    game = Game()
    game.plan = [None]
    async with house() as one:
        await one.enter("room", game.task)
        await wait_all_tasks_blocked()
        away = Outage(one)
        await trio.sleep(20)
        away.end()
        await trio.sleep(20)
        assert one.states == [TaskState.DONE]
        assert len(game.began) == 1


async def test_one_that_does_not_end_is_named(autojump_clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    game = Game()
    game.cleans_up = 30
    async with house() as one:
        await one.enter("room", game.task)
        await wait_all_tasks_blocked()
        away = Outage(one)
        await trio.sleep(20)
        assert [line for line in lines(caplog) if "has not ended" in line]
        away.end()
        game.cleans_up = 0
        await trio.sleep(30)


async def test_every_moment_of_losing_it(autojump_clock: Clock) -> None:
    """Whoever can't reach the broker, and for however long: there are never two (which `Game` asserts)."""
    game = Game(lease=1)
    async with houses() as (one, other):
        await both(one, other, game)
        for step in range(1, 60):
            away = (Outage, Silence)[step % 2]((one, other)[step % 3 % 2])
            await trio.sleep(0.037 * step)
            away.end()
            await trio.sleep(0.5)
        await trio.sleep(5)
        assert game.runs == 1
    fences = [fence for _, fence in game.began]
    assert fences == sorted(set(fences))


async def test_apps(autojump_clock: Clock) -> None:
    """From end to end: the decorator, the room that it is called with, and the drain."""
    broker = MemoryBroker()
    fences: list[int] = []

    def an_app(name: str) -> App:
        app = App(broker=broker)

        @app.room_task("game:{number:int}", singleton=True, lease=5)
        async def game(room: Room, number: int, *, fence: int, task_status: trio.TaskStatus[None]) -> None:
            fences.append(fence)
            task_status.started()
            while True:
                await trio.sleep(1)
                room.broadcast({"by": name, "game": number})

        @app.ws("/ws")
        async def handler(ws: WebSocket[str, Any]) -> None:
            async with ws.join("game:7"):
                async for _ in ws:
                    pass

        return app

    async with serving(an_app("other")) as other:
        async with serving(an_app("one")) as one:
            there = await one.connect()
            here = await other.connect()
            assert (await there.get_message(), await here.get_message()) == ('{"by":"one","game":7}',) * 2
            await one.shut_down()
            with trio.fail_after(3):
                while (said := await here.get_message()) != '{"by":"other","game":7}':
                    assert said == '{"by":"one","game":7}'
            await there.aclose()
            await here.aclose()
            await trio.sleep(1)
    assert len(fences) == 2
    assert fences[0] < fences[1]


class TestMistakes:
    async def _play(self, room: Any, fence: int) -> None: ...

    def test_a_fence_without_a_lease(self) -> None:
        with pytest.raises(TypeError, match="fence"):
            RoomTask(self._play)

    def test_a_pattern_that_has_one(self) -> None:
        with pytest.raises(TypeError, match="rename the pattern's parameter"):
            RoomTask(self._play, ["fence"], singleton=True)

    @pytest.mark.parametrize("singleton", [1, "yes", None])
    def test_what_is_no_bool(self, singleton: Any) -> None:
        with pytest.raises(TypeError, match="singleton is True or False"):
            RoomTask(self._play, singleton=singleton)

    @pytest.mark.parametrize("lease", [0, -1, float("inf"), float("nan")])
    def test_a_lease_that_is_none(self, lease: Any) -> None:
        with pytest.raises(ValueError, match="lease"):
            RoomTask(self._play, singleton=True, lease=lease)
