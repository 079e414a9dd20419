"""Who is present in a room: once a user, with a grace for those who come back in a moment."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
import trio.testing
import trio_websocket
from starlette.requests import HTTPConnection
from starlette.responses import Response
from trio.abc import Clock

from tests.support.http import Exchange
from tests.support.memory import Service, serving
from verbtrio import App, LimitExceeded, Room, WebSocket
from verbtrio.brokers import PresenceChange, Present, Session
from verbtrio.rooms.presence import WATCH_CHANGES

ROOM = "team:a"


async def by_name(request: HTTPConnection, call_next: Callable[[Any], Awaitable[Response]]) -> Response:
    request.scope["user"] = request.query_params.get("user")
    return await call_next(request)


def team(**settings: Any) -> App:
    """An app whose clients are who they say they are, and join one room."""
    app = App(middleware=[by_name], heartbeat=None)
    app.rooms("team:{name}", **{"presence": True, **settings})

    @app.ws("/ws")
    async def handler(ws: WebSocket[str, str]) -> None:
        info = {"name": ws.user.upper()} if ws.user else None
        async with ws.join(ROOM, presence=info) as membership:
            async for text in ws:
                if text == "leave":
                    await membership.leave()
                elif text == "drop":
                    ws.close_nowait()
                else:
                    membership.update({"name": text})

    return app


async def enter(service: Service, user: str = "") -> trio_websocket.WebSocketConnection:
    client = await service.connect(f"/ws?user={user}" if user else "/ws")
    await trio.testing.wait_all_tasks_blocked(0.01)
    return client


async def present(service: Service) -> dict[str, Present]:
    return await service.app.room(ROOM).presence()


class Watched:
    """The changes of a room, as they come."""

    def __init__(self) -> None:
        self.changes: list[PresenceChange] = []

    async def watch(self, service: Service, *, task_status: trio.TaskStatus[dict[str, Present]]) -> None:
        async with service.app.room(ROOM).watch() as changes:
            task_status.started(dict(changes.present))
            async for change in changes:
                self.changes.append(change)

    def take(self) -> list[tuple[str, str]]:
        taken: list[tuple[str, str]] = [(change.kind, change.user) for change in self.changes]
        self.changes.clear()
        return taken


async def test_once_a_user_however_many_tabs(autojump_clock: Clock) -> None:
    watched = Watched()
    async with serving(team()) as service, trio.open_nursery() as nursery:
        assert await nursery.start(watched.watch, service) == {}
        one = await enter(service, "ann")
        two = await enter(service, "ann")
        bob = await enter(service, "bob")
        assert await present(service) == {"ann": Present({"name": "ANN"}, 2), "bob": Present({"name": "BOB"}, 1)}
        assert watched.take() == [("join", "ann"), ("join", "bob")]
        await one.aclose()
        await trio.sleep(60)
        assert await present(service) == {"ann": Present({"name": "ANN"}, 1), "bob": Present({"name": "BOB"}, 1)}
        assert watched.take() == []
        await two.aclose()
        await trio.sleep(60)
        assert await present(service) == {"bob": Present({"name": "BOB"}, 1)}
        assert watched.changes == [PresenceChange("leave", "ann", {"name": "ANN"})]
        await bob.aclose()
        await trio.sleep(60)
        assert await present(service) == {}
        nursery.cancel_scope.cancel()


async def test_a_page_that_is_loaded_again_is_no_leave_and_no_join(autojump_clock: Clock) -> None:
    watched = Watched()
    async with serving(team()) as service, trio.open_nursery() as nursery:
        await nursery.start(watched.watch, service)
        client = await enter(service, "ann")
        assert watched.take() == [("join", "ann")]
        for _ in range(3):
            await client.aclose()
            await trio.sleep(4)
            assert await present(service) == {"ann": Present({"name": "ANN"}, 0)}
            client = await enter(service, "ann")
            assert await present(service) == {"ann": Present({"name": "ANN"}, 1)}
        await trio.sleep(60)
        assert watched.take() == []
        await client.aclose()
        await trio.sleep(4.9)
        assert watched.take() == []
        await trio.sleep(0.2)
        assert watched.take() == [("leave", "ann")]
        nursery.cancel_scope.cancel()


async def test_leaving_the_room_has_no_grace(autojump_clock: Clock) -> None:
    async with serving(team()) as service:
        for user, leave in (("ann", "leave"), ("bob", "kick")):
            client = await enter(service, user)
            assert user in await present(service)
            if leave == "leave":
                await client.send_message("leave")
            else:
                service.app.room(ROOM).close()
            await trio.sleep(0.01)
            assert await present(service) == {}
            await client.aclose()


async def test_without_a_user_each_connection_is_one(autojump_clock: Clock) -> None:
    async with serving(team()) as service:
        clients = [await enter(service) for _ in range(2)]
        ids = [member.id for member in service.app.room(ROOM).here]
        assert await present(service) == {each: Present(None, 1) for each in ids}
        for client in clients:
            await client.aclose()
        await trio.sleep(10)
        assert await present(service) == {}


async def test_update(autojump_clock: Clock) -> None:
    watched = Watched()
    async with serving(team()) as service, trio.open_nursery() as nursery:
        await nursery.start(watched.watch, service)
        client = await enter(service, "ann")
        await client.send_message("Ann")
        await client.send_message("Ann")  # nothing new
        await trio.sleep(1)
        assert watched.changes[1:] == [PresenceChange("update", "ann", {"name": "Ann"})]
        assert await present(service) == {"ann": Present({"name": "Ann"}, 1)}
        await client.aclose()
        nursery.cancel_scope.cancel()


async def test_a_join_without_public_info_keeps_it(autojump_clock: Clock) -> None:
    """Such as that of an event stream, which has none to give."""
    app, watched = team(), Watched()
    app.sse("/events", room=ROOM)
    app.ws("/silent")(silent)
    async with serving(app) as service, trio.open_nursery() as nursery:
        await nursery.start(watched.watch, service)
        client = await enter(service, "ann")
        stream = await Exchange(service.open_stream()).request("/events?user=ann")
        tab = await service.connect("/silent?user=ann")
        await trio.sleep(1)
        assert await present(service) == {"ann": Present({"name": "ANN"}, 3)}
        assert watched.take() == [("join", "ann")]
        for one in (client, stream, tab):
            await one.aclose()
        nursery.cancel_scope.cancel()


async def silent(ws: WebSocket[str]) -> None:
    async with ws.join(ROOM):
        await trio.sleep_forever()


async def test_public_info_is_a_copy_and_must_be_json(autojump_clock: Clock) -> None:
    app = App()
    app.rooms("team:{name}", presence=True)
    mine: dict[str, Any] = {"tags": ["a"]}

    @app.ws("/ws")
    async def handler(ws: WebSocket[str]) -> None:
        with pytest.raises(TypeError, match="object"):
            ws.join(ROOM, presence={"not": object()})
        assert (ws.rooms, len(app.room(ROOM))) == (frozenset(), 0)
        membership = ws.join(ROOM, presence=mine)
        mine["tags"].append("b")
        assert [each.info for each in (await membership.presence()).values()] == [{"tags": ["a"]}]
        with pytest.raises(TypeError, match="object"):
            membership.update(object())
        assert membership.update("text")
        assert ws.join(ROOM, presence=["joined again"], exist_ok=True) is membership
        assert [each.info for each in (await membership.presence()).values()] == [["joined again"]]
        assert await membership.leave()
        assert membership.update("gone") is False
        assert await membership.presence() == {}
        with pytest.raises(RuntimeError, match="no presence"):
            ws.join("plain", presence={})
        assert ws.rooms == frozenset()
        await ws.send("done")

    async with serving(app) as service:
        client = await service.connect()
        assert await client.get_message() == "done"


async def messages(client: trio_websocket.WebSocketConnection) -> list[dict[str, Any]]:
    """What has come within a second."""
    come = []
    with trio.move_on_after(1):
        while True:
            come.append(json.loads(await client.get_message()))
    return come


def diff(**changes: dict[str, Any]) -> dict[str, Any]:
    return {"type": "presence_diff", "room": ROOM, "joins": {}, "updates": {}, "leaves": {}, **changes}


async def test_members_are_told(autojump_clock: Clock) -> None:
    async with serving(team(join_leave=True)) as service:
        ann = await enter(service, "ann")
        bob = await enter(service, "bob")
        second = await enter(service, "bob")
        one, two = {"name": "ANN"}, {"name": "BOB"}
        assert await messages(ann) == [
            {"type": "presence_state", "room": ROOM, "users": {"ann": one}},
            diff(joins={"ann": one, "bob": two}),
        ]
        assert (await messages(bob))[0] == {"type": "presence_state", "room": ROOM, "users": {"ann": one, "bob": two}}
        await messages(second)
        await bob.send_message("Bob")
        await second.send_message("Bobby")
        assert await messages(ann) == [diff(updates={"bob": {"name": "Bobby"}})]
        await bob.aclose()
        await second.aclose()
        assert await messages(ann) == []
        await trio.sleep(10)
        assert await messages(ann) == [diff(leaves={"bob": {"name": "Bobby"}})]
        await ann.aclose()


async def test_a_thousand_who_come_at_once_are_few_messages(autojump_clock: Clock) -> None:
    async with serving(team(join_leave=True)) as service:
        ann = await enter(service, "ann")
        await messages(ann)
        session = service.app._running_hub().host.session
        for number in range(1000):
            session.enter(ROOM, f"c{number}", f"u{number}", None)
        (only,) = await messages(ann)
        assert len(only["joins"]) == 1000
        for number in range(1000):
            session.exit(ROOM, f"c{number}", 0)
        (only,) = await messages(ann)
        assert len(only["leaves"]) == 1000
        await ann.aclose()


def delay_presence(session: Session) -> tuple[trio.Event, trio.Event]:
    """What the broker says of who is present arrives late. Gives when it has been read, and what lets it go on."""
    read = session.presence
    reading, go = trio.Event(), trio.Event()

    async def slowly(room: str) -> dict[str, Present]:
        state = await read(room)
        reading.set()
        await go.wait()
        return state

    session.presence = slowly  # type: ignore[method-assign]  # the tests' own delay
    return reading, go


async def test_whoever_joins_while_others_come_misses_nobody(autojump_clock: Clock) -> None:
    """The state is read, others come, then the state arrives: they are in it, or in a later diff."""
    async with serving(team(join_leave=True)) as service:
        session = service.app._running_hub().host.session
        reading, go = delay_presence(session)
        ann = await enter(service, "ann")
        await reading.wait()
        session.enter(ROOM, "c1", "bob", "b")
        session.enter(ROOM, "c2", "cyd", "c")
        session.exit(ROOM, "c2", 0)
        await trio.sleep(1)
        go.set()
        state, *diffs = await messages(ann)
        assert state["users"] == {"ann": {"name": "ANN"}, "bob": "b"}
        assert diffs == []
        await ann.aclose()


async def test_whoever_joins_while_very_many_come_and_go_misses_nobody(autojump_clock: Clock) -> None:
    """More changes than a watch holds, while the state is on its way."""
    async with serving(team(join_leave=True)) as service:
        session = service.app._running_hub().host.session
        reading, go = delay_presence(session)
        ann = await enter(service, "ann")
        await reading.wait()
        for number in range(WATCH_CHANGES):
            session.enter(ROOM, "c", "bob", number)
        session.enter(ROOM, "d", "cyd", None)
        session.exit(ROOM, "c", 0)
        go.set()
        state, *_ = await messages(ann)
        assert state["users"] == {"ann": {"name": "ANN"}, "cyd": None}
        session.exit(ROOM, "d", 0)
        await ann.aclose()


@pytest.mark.parametrize("leaves", [False, True])
async def test_those_who_come_at_once_read_the_state_once(leaves: bool, autojump_clock: Clock) -> None:
    """Each would be told as many users as there are. Where the one that reads it leaves, another one does."""
    async with serving(team(join_leave=True)) as service:
        session = service.app._running_hub().host.session
        read = session.presence
        reads, go = 0, trio.Event()

        async def slowly(room: str) -> dict[str, Present]:
            nonlocal reads
            reads += 1
            await go.wait()
            return await read(room)

        session.presence = slowly  # type: ignore[method-assign]  # this test's own delay
        clients = [await enter(service, f"u{number}") for number in range(10)]
        assert reads == 1
        if leaves:
            service.app.room(ROOM).here[0].close_nowait()
            await trio.testing.wait_all_tasks_blocked()
            await clients.pop(0).aclose()
        go.set()
        for client in clients:
            state, *_ = await messages(client)
            assert state["users"] == {f"u{number}": {"name": f"U{number}"} for number in range(10)}
        assert reads == 1 + leaves
        assert not service.app._running_hub().host.news._newcomers
        for client in clients:
            await client.aclose()


async def test_a_watcher_that_is_too_slow_is_told_so(autojump_clock: Clock) -> None:
    async with serving(team()) as service:
        session = service.app._running_hub().host.session
        async with service.app.room(ROOM).watch() as changes:
            for number in range(WATCH_CHANGES + 1):
                session.enter(ROOM, f"c{number}", f"u{number}", None)
            for number in range(WATCH_CHANGES):
                assert (await anext(changes)).user == f"u{number}"
            with pytest.raises(LimitExceeded, match="1000 changes behind"):
                await anext(changes)
        assert not service.app._running_hub().host.news._watches
        for number in range(WATCH_CHANGES + 1):
            session.exit(ROOM, f"c{number}", 0)


async def test_watching_a_room_where_somebody_is(autojump_clock: Clock) -> None:
    async with serving(team()) as service:
        client = await enter(service, "ann")
        async with service.app.room(ROOM).watch() as changes:
            assert changes.present == {"ann": Present({"name": "ANN"}, 1)}
        await client.aclose()


async def test_nobody_is_present_before_the_join_is_complete(autojump_clock: Clock) -> None:
    """A room's task has to have started; whoever leaves before has never been present."""
    go = trio.Event()

    async def task(room: Any, *, task_status: trio.TaskStatus[None]) -> None:
        await go.wait()
        task_status.started()
        await trio.sleep_forever()

    watched = Watched()
    async with serving(team(task=task)) as service, trio.open_nursery() as nursery:
        await nursery.start(watched.watch, service)
        ann = await enter(service, "ann")
        await ann.aclose()
        await trio.sleep(1)
        bob = await enter(service, "bob")
        assert await present(service) == {}
        go.set()
        await trio.sleep(0.1)
        assert list(await present(service)) == ["bob"]
        assert watched.take() == [("join", "bob")]
        await bob.aclose()
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("way", ["update", "join"])
async def test_an_update_before_the_join_is_complete(way: str, autojump_clock: Clock) -> None:
    """It waits for the room's task, and is present afterwards: with what it has said last."""
    app, start = App(middleware=[by_name]), trio.Event()
    app.rooms(ROOM, presence=True)

    @app.room_task(ROOM)
    async def task(room: Room, *, task_status: trio.TaskStatus[None]) -> None:
        await start.wait()
        task_status.started()

    @app.ws("/ws")
    async def handler(ws: WebSocket[str]) -> None:
        membership = ws.join(ROOM, presence={"name": "first"})
        if way == "update":
            assert membership.update({"name": "second"})
        else:
            ws.join(ROOM, exist_ok=True, presence={"name": "second"})
        await membership
        async for _ in ws:
            pass

    async with serving(app) as service:
        client = await enter(service, "ann")
        assert await present(service) == {}
        start.set()
        await trio.testing.wait_all_tasks_blocked()
        assert await present(service) == {"ann": Present({"name": "second"}, 1)}
        await client.aclose()
