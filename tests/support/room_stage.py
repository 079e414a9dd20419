"""Apps with rooms of all settings, and their clients, beside the model of tests/support/room_model.py."""

from __future__ import annotations

from typing import Any

import trio
import trio.testing

from tests.rooms.test_presence import by_name
from tests.support.memory import Service
from tests.support.room_clients import Connection, Gate, RoomTask, shake_hands
from tests.support.room_model import (
    BACKLOG,
    DELAY,
    LINGER,
    RESTARTS,
    ROOMS,
    WITHIN,
    Client,
    Epoch,
    Join,
    Message,
    Model,
)
from verbtrio import App, HistoryGap, LimitExceeded, Limits, Restart, Room, RoomUnavailable, WebSocket
from verbtrio.base.position import Position
from verbtrio.brokers import History, MemoryBroker
from verbtrio.rooms.settings import Presence

CLIENTS = 4
USERS = ("ann", "bob", "ann", "eve")


def an_app(broker: MemoryBroker, task: RoomTask, entered: list[WebSocket]) -> App:
    limits = Limits(max_backlog_bytes=BACKLOG, high_water_bytes=BACKLOG, send_timeout=10_000)
    app = App(broker=broker, middleware=[by_name], heartbeat=None, limits=limits)
    for name, kind in ROOMS.items():
        if name == "plain":
            continue
        app.rooms(
            name.replace(":a", ":{name}"),
            history=History(size=kind.size, ttl=kind.ttl, stamp="position") if kind.size else None,
            presence=False if kind.grace is None else Presence(grace=kind.grace),
            join_leave=kind.join_leave,
            max_members=kind.max_members,
        )
    restart = Restart(max=RESTARTS, within=WITHIN, delay=DELAY)
    app.room_task("game:{name}", linger=LINGER, restart=restart, start_timeout=10_000)(task.run)

    @app.ws("/ws")
    async def handler(ws: WebSocket) -> None:
        entered.append(ws)
        async for _ in ws:
            pass

    return app


class Stage:
    """The model and the apps, side by side: each step is done to both, and then all that can be seen is compared."""

    def __init__(
        self,
        services: list[Service],
        tasks: list[RoomTask],
        entered: list[WebSocket],
        nursery: trio.Nursery,
    ) -> None:
        self.model = Model(len(services))
        self._services = services
        self._tasks = tasks
        self._entered = entered
        self._nursery = nursery
        self._gate = Gate()
        self._connections: dict[int, Connection] = {}
        self._watched: dict[tuple[int, str], list[tuple[str, str, Any]]] = {}
        self._said: dict[int, Message] = {}
        self._known: list[dict[str, dict[int, str]]] = [{name: {} for name in ROOMS} for _ in range(CLIENTS)]
        self._epochs: dict[str, Epoch] = {}

    async def play(self, plan: list[tuple[Any, ...]]) -> None:
        for service in self._services:
            self._gate.delay(service.app)
        for name, kind in ROOMS.items():
            for app in range(len(self._services)) if kind.grace is not None else ():
                await self._nursery.start(self._watch, app, name)
        for number in range(CLIENTS):
            await self._connect(number)
        for step in plan:
            await getattr(self, f"_{step[0]}")(*step[1:])
            await trio.testing.wait_all_tasks_blocked()
            await self._compare()

    async def finish(self, *, drains: bool) -> None:
        """End, by a drain or by the clients; and wait until all is forgotten."""
        if drains:
            for service in self._services:
                await service.shut_down()
            await trio.testing.wait_all_tasks_blocked()
            assert not any(task.running for task in self._tasks)
            for connection in self._connections.values():
                assert connection.ws.closed is not None
                assert connection.ws.closed.code == 1012
                connection.wake()
            await trio.sleep(30)
        for connection in self._connections.values():
            await trio.aclose_forcefully(connection.stream)
        self._connections.clear()
        await trio.sleep(300)

    def _room(self, name: str, app: int = 0) -> Room:
        return self._services[app].app.room(name)

    async def _watch(self, app: int, name: str, *, task_status: trio.TaskStatus[None]) -> None:
        changes = self._watched[app, name] = []
        async with self._room(name, app).watch() as watch:
            assert watch.present == {}
            task_status.started()
            async for change in watch:
                changes.append((change.kind, change.user, change.info))

    # Connections

    async def _connect(self, number: int) -> None:
        if number in self._connections:
            return
        app = number % len(self._services)
        stream = self._services[app].open_stream(trio.testing.lockstep_stream_pair)
        await shake_hands(stream, f"/ws?user={USERS[number]}")
        await trio.testing.wait_all_tasks_blocked()
        client = Client(number, app, USERS[number])
        connection = Connection(client, stream, self._entered.pop(), self._known[number])
        self._connections[number] = connection
        self._nursery.start_soon(connection.read)

    async def _drop(self, number: int) -> None:
        if (connection := self._connections.get(number)) is None:
            return
        self.model.drop(connection.model)
        await self._lost(connection)

    async def _lost(self, connection: Connection) -> None:
        """The connection has ended. What it has not taken it has not got."""
        del self._connections[connection.model.number]
        await trio.aclose_forcefully(connection.stream)
        await trio.testing.wait_all_tasks_blocked()
        for name, heard in connection.heard.items():
            expected = [message.number for message in connection.model.heard[name]]
            assert heard == expected[: len(heard)]
            assert connection.model.is_stalled or len(heard) == len(expected)
        self._check_outcomes(connection)

    async def _stall(self, number: int) -> None:
        connection = self._connections.get(number)
        if connection is not None and not connection.model.is_stalled:
            connection.model.is_stalled = True
            connection.stall()

    async def _wake(self, number: int) -> None:
        if (connection := self._connections.get(number)) is not None:
            connection.model.is_stalled = False
            connection.wake()

    # Memberships

    async def _join(self, number: int, name: str, where: str, info: Any) -> None:
        kind, connection = ROOMS[name], self._connections.get(number)
        if connection is None:
            return
        if kind.grace is None:
            info = None
        if name in connection.model.joins:
            if info is not None:
                connection.ws.join(name, exist_ok=True, presence=info)
                self.model.update(connection.model.joins[name], info)
            return
        if kind.task and any(join.stage == "start" for join in self.model.rooms[name].members[connection.model.app]):
            return  # several that wait for a start go on in any order
        text, since = self._since(number, name, where) if kind.size else (None, None)
        join = Join(connection.model, name, info, text is not None, since)
        error = ""
        try:
            membership = connection.ws.join(name, since=text, presence=info)
        except (LimitExceeded, RoomUnavailable) as refused:
            error = type(refused).__name__
        assert error == self.model.refusal(connection.model, name)
        if error:
            return
        self.model.join(join)
        connection.views.pop(name, None)
        connection.memberships[name] = membership
        self._nursery.start_soon(connection.wait, join, membership)

    def _since(self, number: int, name: str, where: str) -> tuple[str | None, tuple[Epoch, int] | None]:
        """A position as a client has it, and as the model has it."""
        if where == "bogus":
            return "nonsense", None
        message = self._remembered(number, name, where)
        if message is None:
            return None, None
        assert message.epoch is not None
        return self._known[number][name][message.number], (message.epoch, message.offset)

    def _remembered(self, number: int, name: str, where: str) -> Message | None:
        """A message that the client has got, with its position: the last one, or one long ago."""
        known = self._known[number][name]
        if not where or not known:
            return None
        return self._said[list(known)[-1 if where == "last" else len(known) // 2]]

    async def _leave(self, number: int, name: str) -> None:
        if (connection := self._member(number, name)) is not None:
            self.model.leave(connection.model.joins[name])
            assert await connection.memberships.pop(name).leave()

    async def _kick(self, number: int, name: str) -> None:
        if (connection := self._member(number, name)) is not None:
            self.model.kick(connection.model.joins[name])
            assert self._room(name, connection.model.app).kick(connection.ws) == 1

    async def _update(self, number: int, name: str, info: Any) -> None:
        if ROOMS[name].grace is not None and (connection := self._member(number, name)) is not None:
            self.model.update(connection.model.joins[name], info)
            assert connection.memberships[name].update(info)

    def _member(self, number: int, name: str) -> Connection | None:
        connection = self._connections.get(number)
        return connection if connection is not None and name in connection.model.joins else None

    async def _close(self, name: str, app: int) -> None:
        app %= len(self._services)
        self.model.close(app, name)
        self._room(name, app).close()

    # Messages

    async def _publish(self, name: str, app: int) -> None:
        message = self.model.publish(name)
        position = await self._room(name, app % len(self._services)).publish(self._text(name, message))
        if message.epoch is None:
            assert position is None
        else:
            self._check_position(position, message.epoch, message.offset)

    def _check_position(self, position: Position | None, epoch: Epoch | None, offset: int) -> None:
        assert position is not None
        assert epoch is not None
        assert self._epochs.setdefault(position.epoch, epoch) is epoch
        assert epoch.name in (None, position.epoch)
        epoch.name = position.epoch
        assert position.offset == offset

    def _text(self, name: str, message: Message) -> dict[str, Any]:
        self._said[message.number] = message
        return {"n": message.number, "room": name}

    async def _broadcast(self, name: str, number: int | None, app: int) -> None:
        connection = None if number is None else self._connections.get(number)
        message = self.model.say(name, None if connection is None else connection.model)
        exclude = None if connection is None else connection.ws
        self._room(name, app % len(self._services)).broadcast(self._text(name, message), exclude=exclude)

    async def _flood(self, name: str) -> None:
        for message in self.model.flood(name):
            self._room(name).broadcast({**self._text(name, message), "padding": (BACKLOG - 5000) * "."})
            await trio.testing.wait_all_tasks_blocked()
        for connection in [*self._connections.values()]:
            if not connection.model.is_alive:
                assert connection.ws.closed is not None
                assert connection.ws.closed.reason.startswith("Too slow")
                await self._lost(connection)

    async def _page(self, number: int, name: str, where: str, limit: int | None) -> None:
        if not ROOMS[name].size or self.model.hold:
            return
        since = self._remembered(number, name, where)
        text = None if since is None else self._known[number][name][since.number]
        state = self.model.rooms[name]
        for reverse in (False, True):
            expected = self.model.page(name, since, limit, reverse=reverse)
            try:
                page = await self._room(name).history(since=text, limit=limit, reverse=reverse)
            except HistoryGap as gap:
                assert expected is None
                oldest, last = gap.oldest, gap.last
            else:
                assert expected is not None
                assert [message.json()["n"] for message in page.messages] == [message.number for message in expected]
                assert [message.position.offset for message in page.messages] == [one.offset for one in expected]
                oldest, last = page.oldest, page.position
            self._check_position(last, state.epoch, state.top)
            assert (oldest and oldest.offset) == (state.messages[0].offset if state.messages else None)

    async def _hold(self, mode: str) -> None:
        if not self.model.hold:
            self.model.hold = self._gate.mode = mode

    async def _release(self) -> None:
        self.model.release()
        self._gate.mode = ""
        for waiting in self._gate.waiting:
            waiting.set()
            await trio.testing.wait_all_tasks_blocked()
        self._gate.waiting.clear()

    # Tasks

    async def _slow(self) -> None:
        self.model.is_slow = True
        for task in self._tasks:
            task.is_slow = True

    async def _start(self) -> None:
        self.model.start()
        for task in self._tasks:
            task.start()
            await trio.testing.wait_all_tasks_blocked()

    async def _crash(self, app: int) -> None:
        app %= len(self._services)
        if self.model.rooms["game:a"].tasks[app].phase == "running":
            self.model.crash(app, "game:a")
            self._tasks[app].crash()

    # Time

    async def _advance(self, seconds: int) -> None:
        self.model.advance(seconds)
        await trio.sleep(seconds)
        await trio.testing.wait_all_tasks_blocked()
        for connection in self._connections.values():
            for name, join in connection.model.joins.items():
                if ROOMS[name].join_leave and join.stage == "in" and not connection.model.is_stalled:
                    assert connection.views[name] == {user: info for user, info, _ in self.model.present(name)}

    # What can be seen

    async def _compare(self) -> None:
        for connection in self._connections.values():
            self._check_outcomes(connection)
            assert connection.ws.rooms == frozenset(connection.model.joins)
            if not connection.model.is_stalled:
                for name, heard in connection.heard.items():
                    assert heard == [message.number for message in connection.model.heard[name]], name
        for name, state in self.model.rooms.items():
            for app, members in enumerate(state.members):
                room = self._room(name, app)
                assert [member.id for member in room.here] == [self._id(join.client) for join in members]
                assert len(room) == await room.count() == len(state)
                if state.kind.grace is not None:
                    present = [(user, one.info, one.connections) for user, one in (await room.presence()).items()]
                    assert present == self.model.present(name)
                    assert self._watched[app, name] == state.changes
        self._check_tasks()
        for app, service in enumerate(self._services):
            newcomers = service.app._running_hub().host.news._newcomers.get("team:a")
            waiting = {join.client.number for join in self.model.rooms["team:a"].members[app] if join.stage != "in"}
            assert {member.id for member in (newcomers.peers if newcomers else ())} == {
                self._connections[number].ws.id for number in waiting
            }

    def _id(self, client: Client) -> str:
        return self._connections[client.number].ws.id

    def _check_outcomes(self, connection: Connection) -> None:
        for join, outcome in connection.outcomes.items():
            assert outcome == join.outcome
        for join in connection.model.joins.values():
            assert connection.outcomes.get(join, "") == join.outcome

    def _check_tasks(self) -> None:
        for service, real, task in zip(self._services, self._tasks, self.model.rooms["game:a"].tasks, strict=True):
            assert real.running == (task.phase in ("starting", "running"))
            assert real.begun == task.begun
            statistics = service.app.statistics()
            assert statistics.room_task_failures == task.failures
            states = [info.state for info in service.app._running_hub().room_tasks.tasks()]
            assert states == ([] if task.phase == "none" else [task.phase])


def assert_forgotten(apps: list[App], broker: MemoryBroker) -> None:
    """Nothing is left of any room, in the apps, which still run, or in the broker."""
    assert not len(broker.histories)
    assert not broker.histories.bytes
    assert not len(broker.presence)
    assert not broker.presence.presences
    assert not broker._expiries
    assert not broker._graces
    assert not len(broker._timers)
    for app in apps:
        hub = app._running_hub()
        assert not hub.host.session._present  # type: ignore[attr-defined]  # it is a MemorySession
        news = hub.host.news
        assert not any((news._newcomers, news._pending, news._due))
        assert not hub.room_tasks.tasks()
        assert not hub.room_tasks._refused
        assert not len(hub.timers)
