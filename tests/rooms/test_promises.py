"""What docs/rooms.md and the pages beside it promise, so far as no other module is about it."""

from __future__ import annotations

import json
from typing import Any

import pytest
import trio
import trio.testing
import trio_websocket
from trio.abc import Clock

from tests.rooms.test_presence import ROOM as TEAM
from tests.rooms.test_presence import enter, messages, team
from tests.rooms.test_resume import chat, publish, read, texts
from tests.support.memory import serving
from verbtrio import App, Cause, History, Limits, Room, WebSocket

FEW = Limits(max_backlog_bytes=10_000, high_water_bytes=1_000)


async def until_closed(client: trio_websocket.WebSocketConnection) -> list[dict[str, Any]]:
    """What has come until the connection has ended."""
    come = []
    while True:
        try:
            come.append(json.loads(await client.get_message()))
        except trio_websocket.ConnectionClosed:
            return come


class TestDelivery:
    async def test_a_client_that_is_too_slow_resumes(self, autojump_clock: Clock) -> None:
        """What it had, and what it is told after it has come back, is everything, once."""
        history = History(size=100, stamp="position")
        async with serving(chat(history, limits=FEW)) as service:
            first = await publish(service, "0")
            client = await service.connect(f"/ws?since={first}")
            await trio.testing.wait_all_tasks_blocked()
            sent = [str(number) + 1000 * "x" for number in range(1, 60)]
            await publish(service, *sent)
            had = await until_closed(client)
            assert client.closed is not None
            assert client.closed.code == 1008
            assert len(had) < len(sent)
            since = had[-1]["position"] if had else first
            back = await service.connect(f"/ws?since={since}")
            assert [message["text"] for message in had] + await texts(back, len(sent) - len(had)) == sent
            await back.aclose()
            await service.wait_ended(5)
            assert service.app.statistics().ended == {Cause.SLOW: 1, Cause.PEER: 1}

    async def test_a_policy_that_drops_may_drop_what_was_published(self, autojump_clock: Clock) -> None:
        history = History(size=100, stamp="position")
        limits = Limits(max_backlog_bytes=10_000, high_water_bytes=1_000, backlog_policy="drop_oldest")
        async with serving(chat(history, limits=limits)) as service:
            client = await service.connect("/ws")
            await trio.testing.wait_all_tasks_blocked()
            await publish(service, *[1000 * "x" for _ in range(60)])
            come = []
            with trio.move_on_after(1):
                while True:
                    come += await read(client, 1)
            offsets = [int(message["position"].partition(":")[2]) for message in come]
            assert offsets == sorted(set(offsets))
            assert offsets[-1] == 60
            assert len(offsets) == 60 - service.app.statistics().dropped < 60
            await client.aclose()

    async def test_a_server_that_starts_again_remembers_nothing(self, autojump_clock: Clock) -> None:
        app = chat()
        async with serving(app) as service:
            first = await publish(service, "1")
        async with serving(app) as service:
            await publish(service, "another 1")
            client = await service.connect(f"/ws?since={first}")
            (gap,) = await read(client, 1)
            assert gap["oldest"] == gap["last"] != str(first)
            await client.aclose()


class TestCancellation:
    @pytest.mark.parametrize("form", ["await", "block"])
    async def test_a_join_that_waits(self, form: str, autojump_clock: Clock) -> None:
        app, seen, go, left = App(), list[bool](), trio.Event(), list[str]()

        @app.room_task("game:{id}")
        async def game(room: Room, *, task_status: trio.TaskStatus[None]) -> None:
            await go.wait()
            task_status.started()
            await trio.sleep_forever()

        @app.ws("/ws")
        async def handler(ws: WebSocket[str]) -> None:
            membership = ws.join("game:1", on_leave=lambda room, ws: left.append(room.name))
            with trio.move_on_after(1) as scope:
                if form == "await":
                    await membership
                else:
                    async with membership:
                        raise AssertionError("the block must not begin")
            assert scope.cancelled_caught
            seen.append("game:1" in ws.rooms)
            go.set()
            await trio.sleep(1)
            seen.append(membership.is_settled and "game:1" in ws.rooms)

        async with serving(app) as service:
            client = await service.connect()
            await until_closed(client)
        assert seen == [form == "await"] * 2
        assert left == (["game:1"] if form == "await" else [])


class TestWhatClientsDo:
    async def test_one_that_comes_and_goes_is_one_message_in_50_ms(self, autojump_clock: Clock) -> None:
        async with serving(team(join_leave=True)) as service:
            ann = await enter(service, "ann")
            await messages(ann)
            session = service.app._running_hub().host.session
            begin = trio.current_time()
            for _ in range(500):
                session.enter(TEAM, "c", "bob", None)
                session.exit(TEAM, "c", 0)
                await trio.sleep(0.001)
            passed = trio.current_time() - begin
            told = await messages(ann)
            assert len(told) <= passed / 0.05 + 1
            assert all(set(diff["joins"]) | set(diff["leaves"]) == {"bob"} for diff in told)
            assert "bob" in told[-1]["leaves"]
            await ann.aclose()

    async def test_rooms_that_were_left_keep_their_tasks_for_a_while(self, autojump_clock: Clock) -> None:
        """`Limits.max_rooms` bounds the rooms that a connection is in, not those that it has left."""
        app = App(limits=Limits(max_rooms=1), heartbeat=None)

        @app.room_task("game:{id}", linger=10)
        async def game(room: Room) -> None:
            await trio.sleep_forever()

        @app.ws("/ws")
        async def handler(ws: WebSocket[str]) -> None:
            async for name in ws:
                async with ws.join(name):
                    pass

        async with serving(app) as service:
            client = await service.connect()
            for number in range(50):
                await client.send_message(f"game:{number}")
            await trio.sleep(1)
            assert app.statistics().room_tasks == 50
            await trio.sleep(10)
            assert app.statistics().room_tasks == 0
            await client.aclose()

    async def test_a_state_that_is_larger_than_a_backlog(self, autojump_clock: Clock) -> None:
        """One message may be."""
        app = App(limits=FEW, heartbeat=None)
        app.rooms("team:{name}", presence=True, join_leave=True)

        @app.ws("/ws")
        async def handler(ws: WebSocket[str]) -> None:
            async with ws.join(TEAM, presence=1000 * "x"):
                await trio.sleep_forever()

        async with serving(app) as service:
            clients = [await enter(service) for _ in range(30)]
            for number, client in enumerate(clients, 1):
                state, *_ = await messages(client)
                assert len(state["users"]) == number
                await client.aclose()


class TestWhatHandlersDo:
    async def test_a_block_that_raises_has_no_grace(
        self, autojump_clock: Clock, caplog: pytest.LogCaptureFixture
    ) -> None:
        app = App()
        app.rooms("team:{name}", presence=True)

        @app.ws("/ws")
        async def handler(ws: WebSocket[str]) -> None:
            async with ws.join(TEAM):
                await ws.receive()
                raise ValueError("broken")

        async with serving(app) as service:
            client = await enter(service)
            assert len(await app.room(TEAM).presence()) == 1
            await client.send_message("x")
            await until_closed(client)
            assert await app.room(TEAM).presence() == {}
        assert "broken" in caplog.text

    async def test_a_room_that_is_not_available_is_an_error(
        self, autojump_clock: Clock, caplog: pytest.LogCaptureFixture
    ) -> None:
        app = App()

        @app.room_task("game:{id}", restart=None)
        async def game(room: Room) -> None:
            raise ValueError("broken")

        @app.ws("/ws")
        async def handler(ws: WebSocket[str]) -> None:
            ws.join("game:1")
            await trio.sleep(1)
            ws.join("game:1")

        async with serving(app) as service:
            client = await service.connect()
            await until_closed(client)
            assert client.closed is not None
            assert client.closed.code == 1011
        assert "RoomUnavailable" in caplog.text


async def test_what_a_task_says_at_the_drain_is_heard_by_nobody(autojump_clock: Clock) -> None:
    app, reached = App(), list[int]()

    @app.room_task("game:{id}")
    async def game(room: Room) -> None:
        try:
            await trio.sleep_forever()
        finally:
            reached.append(room.broadcast("the end"))

    @app.ws("/ws")
    async def handler(ws: WebSocket[str]) -> None:
        async with ws.join("game:1"):
            await trio.sleep_forever()

    async with serving(app) as service:
        client = await service.connect()
        await trio.testing.wait_all_tasks_blocked()
        await service.shut_down()
        assert await until_closed(client) == []
    assert reached == [0]
