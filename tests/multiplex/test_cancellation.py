"""What happens when a client, a subscription or a call is cut off, at every step of its life: nothing is left of it.

Each test plays the same scene again and again. In the nth run, what is to end ends after the nth step that any task of
the client's has made; the last run is the one in which that does not come any more.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
from trio.abc import Clock, Instrument

from tests.support.commands import KEY, ClientService, Speaker, serving_clients, token
from verbtrio import App, Cause, Client, CloseInfo, Member, Room, Subscription
from verbtrio.auth import JWTAuth
from verbtrio.brokers import History
from verbtrio.multiplex.life import SubscriptionLife
from verbtrio.multiplex.session import ClientSession

OF_CLIENTS = ("TakeOverServer.run", "subscription to", "call ", "Stage.")


class Stage:
    """An app, and what runs in it for clients."""

    def __init__(self) -> None:
        self.running: list[str] = []
        app = self.app = App()
        auth = JWTAuth(KEY)
        authenticate = auth.authenticate

        class Slow:
            async def authenticate(self, token: str) -> dict[str, Any]:
                await trio.sleep(0.01)
                return await authenticate(token)

        app.centrifuge("/connection", auth=Slow(), connect=self.connect, message=self.message, personal="#{user}")
        rooms = app.rooms(
            "chat:{name}", history=History(), presence=True, join_leave=True, guard=self.guard, token=True
        )
        rooms(self.chat)
        app.rooms("task:{name}", subscribe=True)
        app.room_task("task:{name}", linger=0.001)(self.task)
        app.call("work")(self.work)

    def guard(self, member: Member) -> bool:
        return True

    async def task(self, room: Room, *, task_status: trio.TaskStatus[None]) -> None:
        await trio.sleep(0.01)
        task_status.started()
        await trio.sleep_forever()

    async def connect(self, client: Client) -> str:
        return str(await self.run("connect", 0.01))

    async def message(self, client: Client) -> None:
        await self.run("message", 0.01)

    async def work(self, client: Client) -> str:
        sub = await client.subscribe("plain")
        assert sub.is_accepted
        done = await self.run("work", 0.01)
        await client.send(done)
        return done

    async def chat(self, sub: Subscription) -> None:
        self.running.append("chat")
        try:
            sub.nursery.start_soon(self.run, "child", 0.3)
            await trio.sleep(0.01)
            await sub.accept(data=1, presence=2)
            async for said in sub:
                await sub.publish(said)
            await trio.sleep(0.01)
        finally:
            self.running.remove("chat")

    async def run(self, what: str, seconds: float) -> str:
        self.running.append(what)
        try:
            await trio.sleep(seconds)
        finally:
            self.running.remove(what)
        return what

    async def play(self, speaker: Speaker) -> None:
        """What the client says. It doesn't look whether it is answered."""
        subscribe = {"token": token(channel="chat:a"), "recover": True, "join_leave": True}
        await speaker.say(
            speaker.command("connect", token=token(channels=["task:b"])),
            speaker.command("subscribe", channel="chat:a", **subscribe),
            speaker.command("subscribe", channel="task:a"),
        )
        await trio.sleep(0.1)
        await speaker.say(
            speaker.command("publish", channel="chat:a", data=1),
            speaker.command("presence", channel="chat:a"),
            {"send": {"data": 1}},
            speaker.command("history", channel="chat:a", limit=-1),
            speaker.command("publish", channel="chat:a", data=2),
            speaker.command("sub_refresh", channel="chat:a", token=token(channel="chat:a")),
            speaker.command("rpc", method="work", timeout=5),
        )
        await trio.sleep(0.05)
        await speaker.say(
            speaker.command("refresh", token=token()),
            speaker.command("unsubscribe", channel="chat:a"),
            speaker.command("subscribe", channel="chat:a", **subscribe),
        )
        await trio.sleep(0.1)


class Cut(Instrument):
    """Calls a function after so many steps of the clients' tasks."""

    def __init__(self, steps: int, function: Callable[[], object]) -> None:
        self._left = steps
        self._function = function
        self.failure: BaseException | None = None

    @property
    def has_come(self) -> bool:
        return self._left <= 0

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        if any(name in task.name for name in OF_CLIENTS):
            self._left -= 1
            if self._left == 0:
                try:
                    self._function()
                except BaseException as error:
                    self.failure = error


class Seen:
    """The parts of the client of this run."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.nurseries: list[trio.Nursery] = []
        self.sessions: list[ClientSession] = []
        self.lives: list[SubscriptionLife] = []
        run_session, run_life = ClientSession.run, SubscriptionLife.run

        async def session(this: ClientSession, nursery: trio.Nursery) -> None:
            self.nurseries.append(nursery)
            self.sessions.append(this)
            await run_session(this, nursery)

        async def life(this: SubscriptionLife) -> None:
            self.lives.append(this)
            await run_life(this)

        monkeypatch.setattr(ClientSession, "run", session)
        monkeypatch.setattr(SubscriptionLife, "run", life)

    def clear(self) -> None:
        for kept in (self.nurseries, self.sessions, self.lives):
            kept.clear()

    # What may end

    def nursery(self) -> None:
        for nursery in self.nurseries:
            nursery.cancel_scope.cancel()

    def gone(self) -> None:
        for session in self.sessions:
            session._peer.end(CloseInfo(Cause.GONE, 1006))

    def closed(self) -> None:
        for session in self.sessions:
            session._peer.end(CloseInfo(Cause.PEER, 1000))

    def kicked(self) -> None:
        for session in self.sessions:
            session._peer.end(CloseInfo(Cause.KICKED, 1008, "out"))

    def subscriptions(self) -> None:
        for life in self.lives:
            if life.nursery is not None:
                life.nursery.cancel_scope.cancel()

    def ended(self) -> None:
        for life in self.lives:
            life.end(2500, "")

    def calls_cancelled(self) -> None:
        for session in self.sessions:
            if session._calls is not None:
                session._calls.cancel_all()


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Seen:
    return Seen(monkeypatch)


@pytest.mark.parametrize("how", ["nursery", "gone", "closed", "kicked", "stop"])
async def test_a_client_is_cut_off(how: str, seen: Seen, autojump_clock: Clock) -> None:
    stage = Stage()
    async with serving_clients(stage.app) as clients:
        connections = Connections(clients.service.connections)
        clients.service.connections = connections  # type: ignore[assignment]  # it does what is asked of one here
        stop = how == "stop"
        for steps in range(1, 1000):
            speaker = await clients.open()
            if not await _play(stage, speaker, Cut(steps, connections.newest.cancel if stop else getattr(seen, how))):
                break
            with trio.fail_after(60):
                await speaker.end() if how != "gone" else await speaker.hang_up()
            await _assert_nothing_is_left(stage, clients)
            seen.clear()
        await speaker.close()
        await _assert_nothing_is_left(stage, clients)
        seen.clear()
        assert steps > 35
        assert any("rpc" in line for line in speaker.lines), "the last run is whole"


@pytest.mark.parametrize("how", ["subscriptions", "ended", "calls_cancelled"])
async def test_a_part_is_cut_off(how: str, seen: Seen, autojump_clock: Clock) -> None:
    """The client and its other parts go on."""
    stage = Stage()
    async with serving_clients(stage.app) as clients:
        for steps in range(1, 1000):
            speaker = await clients.open()
            came = await _play(stage, speaker, Cut(steps, getattr(seen, how)))
            assert speaker.closed is None
            assert len(speaker.replies(2)) <= 1
            if seen.sessions and any("connect" in line for line in speaker.lines):
                assert await speaker.refused("ping") == 108
                for room in ("chat:a", "plain", "task:a"):
                    await speaker.result("unsubscribe", channel=room)
                await trio.sleep(0.5)
                assert len(stage.app.room("chat:a")) == 0
                assert not any(session._calls.running for session in seen.sessions if session._calls is not None)
                assert stage.running == []
            await speaker.close()
            await _assert_nothing_is_left(stage, clients)
            seen.clear()
            if not came:
                break
        assert steps > 35


async def _play(stage: Stage, speaker: Speaker, cut: Cut) -> bool:
    """Play the scene; return whether the cut has come."""
    trio.lowlevel.add_instrument(cut)
    try:
        await stage.play(speaker)
    finally:
        trio.lowlevel.remove_instrument(cut)
    assert cut.failure is None
    return cut.has_come


class Connections:
    """The connections' nursery, with a scope for the newest: the server's hard stop cancels what runs for it."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self.newest = trio.CancelScope()

    @property
    def child_tasks(self) -> frozenset[trio.lowlevel.Task]:
        return self._nursery.child_tasks

    def start_soon(self, run: Callable[[], Awaitable[None]]) -> None:
        self.newest = trio.CancelScope()
        self._nursery.start_soon(self._run, run, self.newest, name="TakeOverServer.run")

    async def _run(self, run: Callable[[], Awaitable[None]], scope: trio.CancelScope) -> None:
        with scope:
            await run()


async def _assert_nothing_is_left(stage: Stage, clients: ClientService) -> None:
    await clients.service.wait_ended(10)
    statistics = stage.app.statistics()
    assert (statistics.connections, statistics.memberships, statistics.users) == (0, 0, 0)
    assert (len(clients.hub.client_news), clients.timers) == (0, 0)
    assert stage.running == []
