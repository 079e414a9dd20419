"""Who is present, and how many members there are, after Redis or a process was away."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import trio

from tests.support.redis_processes import Worker, check_clean, connected, eventually, process, processes
from tests.support.redis_server import RedisServer, redis_server
from verbtrio.brokers.records import Present
from verbtrio.brokers.redis import liveness

ROOM = "room"


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


@pytest.fixture
def persistent() -> Iterator[RedisServer]:
    with redis_server(persistent=True) as server:
        yield server


@pytest.fixture
def quick_death(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(liveness, "DEATH_SECONDS", 2.0)
    monkeypatch.setattr(liveness, "HEARTBEAT_SECONDS", 0.3)


async def enter(worker: Worker, *names: str) -> None:
    """Have connections of these users in the room."""
    for name in names:
        worker.session.enter(ROOM, f"{name} at {worker.name}", name, {"name": name})
    await eventually(lambda: are_present(worker, *names))


async def are_present(worker: Worker, *names: str) -> bool:
    return set(names) <= set(await worker.session.presence(ROOM))


async def present(worker: Worker, *names: str) -> None:
    """Wait until exactly these users are present."""
    expected = {name: Present({"name": name}) for name in names}

    async def are() -> bool:
        return await worker.session.presence(ROOM) == expected

    await eventually(are)


def changes(worker: Worker) -> list[tuple[str, str]]:
    return [(kind, user) for kind, user, _ in worker.process.changes_in(ROOM)]


async def test_users_of_a_process_that_was_cut_off(server: RedisServer) -> None:
    """Who went meanwhile leaves once; who stayed neither leaves nor joins again."""
    async with processes(server, 2) as (one, two):
        await two.subscribe(ROOM)
        await one.subscribe(ROOM)
        await enter(one, "stays", "goes")
        one.proxy.refuse()
        one.proxy.cut()
        await eventually(lambda: not one.session.health.is_connected)
        one.session.exit(ROOM, "goes at a", 0)
        one.session.enter(ROOM, "comes at a", "comes", {"name": "comes"})
        one.proxy.accept()
        await two.until(lambda: ("leave", "goes") in changes(two) and ("join", "comes") in changes(two))
        await present(two, "stays", "comes")
        assert sorted(changes(two)) == [("join", "comes"), ("join", "goes"), ("join", "stays"), ("leave", "goes")]
        await eventually(lambda: two.session.elsewhere(ROOM) == 1)
        assert await two.session.count(ROOM) == 2
    await check_clean(server)


async def test_a_grace_outlasts_the_absence(server: RedisServer) -> None:
    """Who went meanwhile with a grace, and comes back elsewhere within it, neither leaves nor joins."""
    async with processes(server, 2) as (one, two):
        await two.subscribe(ROOM)
        await enter(one, "moves", "goes")
        one.proxy.refuse()
        one.proxy.cut()
        await eventually(lambda: not one.session.health.is_connected)
        one.session.exit(ROOM, "moves at a", 30)
        one.session.exit(ROOM, "goes at a", 0)
        one.proxy.accept()
        await two.until(lambda: ("leave", "goes") in changes(two))
        await enter(two, "moves")
        await present(two, "moves")
        assert changes(two) == [("join", "moves"), ("join", "goes"), ("leave", "goes")]
    await check_clean(server)


async def test_all_are_written_anew_after_a_restart_without_data(server: RedisServer) -> None:
    async with processes(server, 2) as (one, two):
        for worker in (one, two):
            await worker.subscribe(ROOM, members=3)
        await enter(one, "first")
        await enter(two, "second")
        server.restart()
        await present(one, "first", "second")
        await eventually(lambda: one.session.elsewhere(ROOM) == two.session.elsewhere(ROOM) == 3)
        assert await one.session.count(ROOM) == 6
    await check_clean(server)


async def test_nobody_comes_or_goes_by_a_restart_with_all_data(persistent: RedisServer) -> None:
    async with processes(persistent, 2) as (one, two):
        for worker in (one, two):
            await worker.subscribe(ROOM)
        await enter(one, "first")
        await enter(two, "second")
        await one.until(lambda: len(changes(one)) == 2)
        persistent.restart()
        await one.until(lambda: ROOM in one.process.gaps)
        await two.until(lambda: ROOM in two.process.gaps)
        one.session.enter(ROOM, "third", "third", {"name": "third"})
        await two.until(lambda: ("join", "third") in changes(two))
        await present(two, "first", "second", "third")
        await eventually(lambda: one.session.elsewhere(ROOM) == two.session.elsewhere(ROOM) == 1)
        await eventually(lambda: len(persistent.ask("ZRANGE", "verbtrio:{processes}:p", 0, -1)) == 2)
        assert changes(two) == [("join", "first"), ("join", "second"), ("join", "third")]
    await check_clean(persistent)


@pytest.mark.usefixtures("quick_death")
async def test_a_process_that_dies_without_a_word(server: RedisServer) -> None:
    """The others see its users leave, once, and its members gone."""
    async with processes(server, 2) as (two, three):
        for worker in (two, three):
            await worker.subscribe(ROOM)
        await enter(two, "other")
        async with process(server, "dead") as dead:
            await dead.subscribe(ROOM, members=5)
            await enter(dead, "one", "two")
            await eventually(lambda: two.session.elsewhere(ROOM) == 6)
            dead.proxy.refuse()
            dead.proxy.cut()
            await two.until(lambda: ("leave", "one") in changes(two) and ("leave", "two") in changes(two))
            await eventually(lambda: two.session.elsewhere(ROOM) == 1)
        await present(two, "other")
        assert sorted(changes(three)) == sorted(changes(two))
        assert sorted(changes(two)) == [
            ("join", "one"),
            ("join", "other"),
            ("join", "two"),
            ("leave", "one"),
            ("leave", "two"),
        ]
    await check_clean(server)


@pytest.mark.usefixtures("quick_death")
async def test_a_process_that_was_taken_for_dead_comes_back(server: RedisServer) -> None:
    """Its users leave, and are in again, once."""
    async with processes(server, 2) as (one, two):
        for worker in (one, two):
            await worker.subscribe(ROOM)
        await enter(one, "user")
        one.proxy.stall()
        await two.until(lambda: ("leave", "user") in changes(two))
        one.proxy.flow()
        await two.until(lambda: changes(two).count(("join", "user")) == 2)
        await present(two, "user")
        await eventually(lambda: two.session.elsewhere(ROOM) == 1)
        await trio.sleep(1)
        assert changes(two) == [("join", "user"), ("leave", "user"), ("join", "user")]
    await check_clean(server)


@pytest.mark.usefixtures("quick_death")
async def test_nobody_is_dead_after_redis_was_frozen(server: RedisServer) -> None:
    async with processes(server, 3) as workers:
        for worker in workers:
            await worker.subscribe(ROOM)
            await enter(worker, worker.name)
        server.freeze()
        await trio.sleep(4)
        server.thaw()
        await connected(*workers)
        await trio.sleep(2.5)
        await present(workers[0], "a", "b", "c")
        for worker in workers:
            assert not any(kind == "leave" for kind, _ in changes(worker))
            await eventually(lambda: workers[0].session.elsewhere(ROOM) == 2)
    await check_clean(server)


async def test_a_grace_that_the_last_process_leaves_behind(server: RedisServer) -> None:
    """Nobody is left who could end it: so it ends with the process."""
    async with process(server) as one:
        await enter(one, "user")
        one.session.exit(ROOM, "user at a", 30)
    await check_clean(server)
