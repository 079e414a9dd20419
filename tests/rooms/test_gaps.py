"""What was lost on the way here is told: to the application, to clients that count on a history, to watchers."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing
from trio.abc import Clock

from tests.rooms.test_event_stream_resume import heard, listen
from tests.rooms.test_presence import by_name
from tests.support.commands import serving_clients
from tests.support.http import Exchange
from tests.support.memory import Service, serving
from tests.support.sse import parse
from tests.support.switched_broker import SwitchedBroker
from verbtrio import App, Client, History, Limits, PresenceChange, Room, WebSocket
from verbtrio.hub.gaps import AT_ONCE, SETTLE_SECONDS


def an_app(broker: SwitchedBroker, pattern: str = "chat:{name}", *, limits: Limits | None = None, **rooms: Any) -> App:
    """An app whose plain clients join the rooms that they name."""
    app = App(broker=broker, heartbeat=None, limits=limits, middleware=[by_name])
    app.rooms(pattern, **rooms)

    @app.ws("/ws/:room")
    async def handler(ws: WebSocket[str, str], room: str) -> None:
        async with ws.join(f"chat:{room}"):
            await ws.send("joined")
            async for _ in ws:
                pass

    return app


@asynccontextmanager
async def served(app: App) -> AsyncIterator[Service]:
    """Serve the app; its clients hang up at the end."""
    async with serving(app) as service:
        yield service
        await service.hang_up()


async def enter(service: Service, room: str = "a", user: str = "") -> Any:
    client = await service.connect(f"/ws/{room}?user={user}")
    while await client.get_message() != "joined":
        pass  # it is told who is there
    return client


class TestOnGap:
    @pytest.mark.parametrize("history", [None, History()])
    async def test_tells_the_members_here(self, history: History | None, autojump_clock: Clock) -> None:
        broker = SwitchedBroker()

        def reload(room: Room, name: str) -> None:
            assert room.broadcast({"reload": name}, here_only=True) == 1

        one, two = (an_app(broker, on_gap=reload, history=history) for _ in range(2))
        async with served(one) as here, served(two) as there:
            a, b = await enter(here), await enter(there)
            await enter(here, "unharmed")
            broker.is_away = True
            assert one.room("chat:a").broadcast("lost") == 1
            assert one.statistics().broker_connected is False
            assert one.statistics().broker_dropped == 1
            assert await a.get_message() == "lost"
            broker.come_back("chat:a")
            assert [json.loads(await each.get_message()) for each in (a, b)] == [{"reload": "a"}] * 2
            with trio.move_on_after(5):
                raise AssertionError(await a.get_message())
            assert one.statistics().missed == 1
            assert one.statistics().broker_connected is True
            for service in (here, there):
                await service.hang_up()
            await trio.sleep(1)  # what each has had is gone before either checks that nothing is left

    async def test_at_once_and_again(self, autojump_clock: Clock) -> None:
        """16 rooms at once, one room once at a time; what has come meanwhile is told after that."""
        running: list[str] = []
        called: list[str] = []
        peak = 0

        async def slow(room: Room) -> None:
            nonlocal peak
            assert room.name not in running
            running.append(room.name)
            called.append(room.name)
            peak = max(peak, len(running))
            await trio.sleep(1)
            running.remove(room.name)

        broker = SwitchedBroker()
        app = an_app(broker, on_gap=slow)
        names = [f"chat:{number}" for number in range(3 * AT_ONCE)]
        async with served(app) as service:
            for name in names:
                await enter(service, name.removeprefix("chat:"))
            broker.come_back(*names)
            await trio.sleep(0.5)
            broker.come_back(*names[:4])
            await trio.sleep(10)
            assert sorted(called) == sorted(names + names[:4])
            assert peak == AT_ONCE
            called.clear()
            broker.come_back("chat:1")
            await service.hang_up()
            await trio.sleep(5)
            assert called in ([], ["chat:1"])

    async def test_what_it_raises_is_contained(self, autojump_clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
        def fails(room: Room) -> None:
            raise ValueError("mine")

        broker = SwitchedBroker()
        app = an_app(broker, on_gap=fails)
        names = [f"chat:{number}" for number in range(40)]
        async with served(app) as service:
            for name in names:
                await enter(service, name.removeprefix("chat:"))
            broker.come_back(*names)
            await trio.sleep(5)
            logged = [record.getMessage() for record in caplog.records if "on_gap" in record.getMessage()]
        assert len(logged) == 4
        assert logged[-1] == "on_gap failed for 37 more rooms"
        assert "fails of the room 'chat:" in logged[0]

    async def test_one_that_hangs_is_cancelled(self, autojump_clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
        ends: list[float] = []

        async def hangs(room: Room) -> None:
            begun = trio.current_time()
            try:
                await trio.sleep_forever()
            finally:
                ends.append(trio.current_time() - begun)

        broker = SwitchedBroker()
        app = an_app(broker, on_gap=hangs, limits=Limits(hook_timeout=3))
        async with served(app) as service:
            await enter(service)
            broker.come_back("chat:a")
            await trio.sleep(10)
            assert len(ends) == 1
            assert "took longer than 3 s" in caplog.text
            broker.come_back("chat:a")
            await trio.sleep(1)
            await service.shut_down()
            await trio.sleep(0.01)
            assert len(ends) == 2, "cancelled when the drain begins"

    async def test_one_line_an_outage(self, autojump_clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
        broker = SwitchedBroker()
        app = an_app(broker, "other:{name}")
        async with served(app) as service:
            for number in range(20):
                await enter(service, str(number))
            broker.come_back(*(f"chat:{number}" for number in range(20)))
            await trio.sleep(0.5)
            broker.come_back("chat:3")
            await trio.sleep(5)
            warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
            assert warnings == [
                "messages may have been lost in 20 rooms on the way here, since the broker was away or too slow"
            ]
            assert app.statistics().missed == 21, "a room without settings counts, too"

    @pytest.mark.parametrize(
        ("function", "message"),
        [
            (1, "on_gap is a function"),
            (lambda: None, "too few parameters"),
            (lambda room, nonsense: None, "asks for 'nonsense'"),
            (lambda name: None, "parameter of the pattern"),
        ],
    )
    def test_mistakes(self, function: Any, message: str) -> None:
        with pytest.raises(TypeError, match=message):
            App().rooms("chat:{name}", on_gap=function)


class TestClients:
    """Of `app.centrifuge`."""

    async def test_they_subscribe_again_where_there_is_a_history(self, autojump_clock: Clock) -> None:
        broker = SwitchedBroker()
        app = App(broker=broker)
        app.centrifuge("/connection")
        app.rooms("chat:{name}", history=History(), subscribe=True)
        app.rooms("plain:{name}", subscribe=True)
        async with serving_clients(app) as clients:
            speaker = await clients.client()
            position = await speaker.result("subscribe", channel="chat:a")
            await speaker.result("subscribe", channel="plain:a")
            broker.come_back("chat:a", "plain:a")
            await app.room("chat:a").publish({"after": 1})
            await clients.settle()
            assert speaker.of("unsubscribe") == [{"code": 2500, "reason": "insufficient state"}]
            assert [push["channel"] for push in speaker.pushes] == ["chat:a"]
            assert speaker.closed is None
            again = await speaker.result("subscribe", channel="chat:a", recover=True, epoch=position["epoch"])
            assert again["recovered"] is True
            assert [publication["data"] for publication in again["publications"]] == [{"after": 1}]

    async def test_nothing_comes_after_a_gap(self, autojump_clock: Clock) -> None:
        """Or a client would go on from there, and never know."""
        broker = SwitchedBroker()
        app = App(broker=broker)
        app.centrifuge("/connection")
        app.rooms("chat:{name}", history=History(), subscribe=True)
        async with serving_clients(app) as clients:
            speaker = await clients.client()
            await speaker.result("subscribe", channel="chat:a")
            broker.come_back("chat:a")
            app.room("chat:a").broadcast({"not": "for it"})
            await clients.settle()
            assert speaker.published() == []
            assert len(app.room("chat:a")) == 0

    async def test_one_that_the_server_has_subscribed_connects_again(self, autojump_clock: Clock) -> None:
        broker = SwitchedBroker()
        app = App(broker=broker)

        async def connect(client: Client) -> None:
            await client.subscribe("chat:a")

        app.centrifuge("/connection", connect=connect)
        app.rooms("chat:{name}", history=History())
        async with serving_clients(app) as clients:
            speaker = await clients.client()
            assert len(app.room("chat:a")) == 1
            broker.come_back("chat:a")
            await clients.settle()
            assert speaker.closed == (3010, "insufficient state")

    async def test_a_gap_before_it_is_told(self, autojump_clock: Clock) -> None:
        broker = SwitchedBroker()
        app = App(broker=broker)
        app.centrifuge("/connection")
        app.rooms("chat:{name}", history=History(), subscribe=True)
        async with serving_clients(app) as clients:
            speaker = await clients.client()
            broker.delay = 1
            command = speaker.command("subscribe", channel="chat:a")
            await speaker.say(command)
            await trio.sleep(1.5)
            broker.come_back("chat:a")
            await speaker.reply(command)
            await clients.settle()
            assert speaker.of("unsubscribe") == [{"code": 2500, "reason": "insufficient state"}]
            broker.delay = 0


async def test_event_subscribers(autojump_clock: Clock) -> None:
    broker = SwitchedBroker()
    app = App(broker=broker)
    app.rooms("news:{name}", history=History())
    app.sse("/events/{name}", room="news:{name}")
    app.sse("/plain/{name}", room="{name}")
    async with served(app) as service:
        remembering = await listen(service)
        plain = await Exchange(service.open_stream()).request("/plain/a")
        await trio.sleep(0.1)
        broker.come_back("news:a", "a")
        for room in ("news:a", "a"):
            await app.room(room).publish("after")
        events = [[(event.event, event.data) for event in parse(await heard(each))] for each in (remembering, plain)]
        gap = ("gap", '{"oldest":null,"last":null}')
        assert events == [[gap, ("message", "after")], [("message", "after")]]


class TestPresence:
    async def watched(self, app: App, changes: list[tuple[str, str, Any]], *, task_status: Any) -> None:
        async with app.room("chat:a").watch() as watch:
            task_status.started()
            async for change in watch:
                changes.append((change.kind, change.user, change.info))

    async def test_the_difference_is_told(self, autojump_clock: Clock) -> None:
        broker = SwitchedBroker()
        app = an_app(broker, presence=True, join_leave=True)
        changes: list[tuple[str, str, Any]] = []
        async with trio.open_nursery() as nursery, served(app) as service:
            member = await enter(service, user="ann")
            await nursery.start(lambda task_status: self.watched(app, changes, task_status=task_status))
            session = broker.sessions[0]
            for _ in range(2):  # what comes after a gap is told once, and fits
                with losing(session.process):
                    session.inner.enter("chat:a", "1", "bob", {"n": 1})
                session.inner.enter("chat:a", "2", "eve", None)
                with losing(session.process):
                    session.inner.exit("chat:a", "2", 0)
                broker.come_back()
                await trio.sleep(SETTLE_SECONDS + 1)
                assert changes == [("join", "eve", None), ("leave", "eve", None), ("join", "bob", {"n": 1})]
                with losing(session.process):
                    session.inner.exit("chat:a", "1", 0)
                session.inner.enter("chat:a", "1", "bob", {"n": 2})
                assert changes == changes[:3]
                await trio.testing.wait_all_tasks_blocked()
                assert changes[3:] == [("update", "bob", {"n": 2})]
                with losing(session.process):
                    session.inner.exit("chat:a", "1", 0)
                broker.is_away = True
                broker.come_back()
                broker.is_away = True
                await trio.sleep(10)
                assert len(changes) == 4
                broker.is_away = False
                await trio.sleep(2)
                assert changes[4:] == [("leave", "bob", {"n": 2})]
                changes.clear()
            told: list[tuple[str, str]] = []
            while told.count(("leaves", "bob")) < 2:
                diff = json.loads(await member.get_message())
                told += [(kind, user) for kind in ("joins", "updates", "leaves") for user in diff[kind]]
            once = [("joins", "eve"), ("joins", "bob"), ("leaves", "eve"), ("updates", "bob"), ("leaves", "bob")]
            assert [each for each in told if each[1] != "ann"] == once * 2
            nursery.cancel_scope.cancel()

    async def test_nothing_is_kept(self, autojump_clock: Clock) -> None:
        broker = SwitchedBroker()
        app = an_app(broker, presence=True, join_leave=True)
        async with served(app) as service:
            await enter(service, user="ann")
            await trio.sleep(1)
            news = app._running_hub().host.news
            assert news.has_picture("chat:a")
            broker.come_back()
            await service.hang_up()
            await trio.sleep(20)
            assert not news.has_picture("chat:a")

    async def test_none_with_a_broker_in_memory(self, autojump_clock: Clock) -> None:
        app = App(middleware=[by_name])
        app.rooms("chat:{name}", presence=True)
        async with app.lifespan(), app.room("chat:a").watch():
            assert not app._running_hub().host.news.has_picture("chat:a")


class losing:  # noqa: N801 -- a block, as functions make them
    """A block in which the process is not told of changes."""

    def __init__(self, process: Any) -> None:
        self._process = process
        self._changed: Callable[[str, PresenceChange], None] = process.changed

    def __enter__(self) -> None:
        self._process.changed = lambda room, change: None

    def __exit__(self, *exc: object) -> None:
        self._process.changed = self._changed
