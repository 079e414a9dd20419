"""A room's own task, as its members see it: joins wait for it, and what becomes of them when it fails."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing
import trio_websocket
from trio.abc import Clock

from tests.support.memory import serving
from verbtrio import App, BrokerUnavailable, Cause, History, Limits, Restart, Room, RoomUnavailable, WebSocket

NAME = "game:7"


class Game:
    """A room's task that does what a test says, and an app whose clients join its room."""

    def __init__(self, **options: Any) -> None:
        self.app = App(heartbeat=None)
        self.go = trio.Event()
        self.log: list[str] = []
        self.fail = trio.Event()
        self.seen: list[str] = []
        self.app.room_task("game:{id:int}", **options)(self.game)
        self.app.ws("/ws")(self.handler)

    async def game(self, room: Room, id: int, *, task_status: trio.TaskStatus[None]) -> None:  # noqa: A002 -- the pattern's
        assert (room.name, id) == (NAME, 7)
        self.log.append("begins")
        try:
            await self.go.wait()
            task_status.started()
            self.log.append("started")
            room.broadcast("started")
            await self.fail.wait()
            raise ValueError("secret")
        finally:
            self.log.append("over")

    async def handler(self, ws: WebSocket[str]) -> None:
        try:
            async with ws.join(NAME, on_leave=lambda room, ws: self.seen.append("left")) as membership:
                await ws.send("in")
                try:
                    await trio.sleep_forever()
                finally:
                    self.seen.append(f"block over: {membership.kicked and membership.kicked.code}")
        except RoomUnavailable as error:
            await ws.send(str(error))
        if ws.closed is None:
            await trio.sleep_forever()


async def test_a_join_waits_until_the_task_has_started(autojump_clock: Clock) -> None:
    game = Game()
    async with serving(game.app) as service:
        client = await service.connect()
        await trio.sleep(5)
        assert (len(game.app.room(NAME)), game.log) == (1, ["begins"])
        game.go.set()
        assert [await client.get_message() for _ in range(2)] == ["started", "in"]
        other = await service.connect()
        assert await other.get_message() == "in"
        assert game.app.statistics().room_tasks == 1
        for one in (client, other):
            await one.aclose()
        await trio.sleep(29)
        assert game.log == ["begins", "started"], "it lingers"
        client = await service.connect()
        assert await client.get_message() == "in"
        await client.aclose()
        await trio.sleep(31)
        assert game.log == ["begins", "started", "over"]
        assert game.app.statistics().room_tasks == 0


async def test_it_never_says_that_it_has_started(autojump_clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    game = Game(restart=None)
    async with serving(game.app) as service:
        clients = [await service.connect() for _ in range(3)]
        for client in clients:
            with trio.fail_after(11):
                assert "task" in str(await client.get_message())
        await trio.sleep(1)
        assert len(game.app.room(NAME)) == 0
        assert game.seen == [], "nobody was in: no block has begun, and no leave hook is called"
        assert game.log == ["begins", "over"]
        for client in clients:
            assert client.closed is None, "the connections go on"
            await client.aclose()
    assert "game" in caplog.text


async def test_its_last_failure_removes_the_members(autojump_clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    game = Game(restart=Restart(max=1, within=60))
    game.go.set()
    async with serving(game.app) as service:
        client = await service.connect()
        assert {await client.get_message(), await client.get_message()} == {"in", "started"}
        game.fail.set()
        await trio.sleep(5)
        assert game.log == 2 * ["begins", "started", "over"]
        assert sorted(game.seen) == ["block over: 1011", "left"]
        assert client.closed is None
        late = await service.connect()
        assert "secret" not in str(await late.get_message())
        assert len(game.app.room(NAME)) == 0
        await trio.sleep(61)
        game.fail = trio.Event()
        again = await service.connect()
        assert await again.get_message() in ("in", "started"), "it is forgiven"
        for one in (client, late, again):
            await one.aclose()
        await service.wait_ended(5)
        assert game.app.statistics().ended == {Cause.PEER: 3}
        assert game.app.statistics().room_task_failures == 2
    assert caplog.text.count("ValueError: secret") == 2


async def test_a_drain_ends_tasks_and_those_who_wait_for_them(autojump_clock: Clock) -> None:
    game = Game()
    async with serving(game.app) as service:
        await service.connect()
        await trio.sleep(1)
        await service.shut_down()
        await service.wait_ended(3)
        assert game.log == ["begins", "over"]


async def test_a_task_may_close_its_own_room(autojump_clock: Clock) -> None:
    app, log = App(), list[str]()

    @app.room_task("game:{id}", linger=0)
    async def short(room: Room) -> None:
        await trio.sleep(1)
        room.close(4000, "over")
        log.append("closed")
        try:
            await trio.sleep_forever()
        finally:
            log.append("cancelled")

    @app.ws("/ws")
    async def handler(ws: WebSocket[str]) -> None:
        async with ws.join("game:1") as membership:
            await trio.sleep_forever()
        assert membership.kicked is not None
        await ws.send(membership.kicked.reason)

    async with serving(app) as service:
        client = await service.connect()
        assert await client.get_message() == "over"
        await trio.sleep(1)
    assert log == ["closed", "cancelled"]


async def test_a_task_s_publications_are_remembered(autojump_clock: Clock) -> None:
    app = App()

    async def tick(room: Room, symbol: str) -> None:
        while True:
            await room.publish({"symbol": symbol})
            await trio.sleep(1)

    app.rooms("prices:{symbol}", history=History(size=5), task=tick)

    @app.ws("/ws")
    async def handler(ws: WebSocket[str]) -> None:
        ws.join("prices:X")
        async for _ in ws:
            pass

    async with serving(app) as service:
        client = await service.connect()
        await trio.sleep(9.5)
        page = await app.room("prices:X").history()
        assert [message.position.offset for message in page.messages] == [6, 7, 8, 9, 10]
        await client.aclose()


async def test_there_may_be_so_many_rooms_with_tasks(autojump_clock: Clock) -> None:
    """Whoever joins room after room can't start task after task: those that linger count."""
    app = App(limits=Limits(max_rooms_with_tasks=3))
    app.room_task("game:{id}", linger=10)(idle)
    app.rooms("plain:{id}")

    @app.ws("/ws")
    async def handler(ws: WebSocket[str]) -> None:
        for number in range(3):
            await (await ws.join(f"game:{number}")).leave()
        with pytest.raises(RoomUnavailable, match="There are too many rooms with tasks"):
            ws.join("game:3")
        assert (ws.rooms, app.statistics().room_tasks) == (frozenset(), 3)
        await ws.join("game:2")
        await ws.join("plain:3")
        await trio.sleep(11)
        await ws.join("game:3")
        await ws.send("done")

    async with serving(app) as service:
        client = await service.connect()
        assert await client.get_message() == "done"


async def idle(room: Room) -> None:
    await trio.sleep_forever()


async def test_a_broker_that_is_away_is_no_error_of_the_handler(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    app = App()

    @app.ws("/ws")
    async def handler(ws: WebSocket[str]) -> None:
        raise BrokerUnavailable("redis://user:secret@10.0.0.1 is away")

    async with serving(app) as service:
        client = await service.connect()
        with pytest.raises(trio_websocket.ConnectionClosed):
            await client.get_message()
        assert client.closed is not None
        assert (client.closed.code, client.closed.reason) == (1013, "Not available")
        await service.wait_ended(5)
        assert app.statistics().ended == {Cause.DENIED: 1}
    assert not [record for record in caplog.records if record.levelname == "ERROR"]
