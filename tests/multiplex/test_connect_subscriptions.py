"""Subscriptions that the application makes while a client connects (`app.centrifuge(connect=...)`)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from trio.abc import Clock

from tests.support.commands import ClientService, serving_clients
from verbtrio import App, Client, Denied, Subscription
from verbtrio.brokers import History


class Desk:
    """An app whose `connect=` does what a test says."""

    def __init__(self) -> None:
        self.app = App()
        self.app.rooms("history:{name}", history=History(size=10))
        self.app.rooms("denied:{name}", guard=lambda member: False)
        self.app.centrifuge("/connection", connect=self.connect)
        self.rooms: list[str] = ["plain"]
        self.refuses = False
        self.subscriptions: list[Subscription] = []

    async def connect(self, client: Client) -> None:
        for room in self.rooms:
            self.subscriptions.append(await client.subscribe(room, data={"of": room}))
        if self.refuses:
            raise Denied("no")

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[ClientService]:
        async with serving_clients(self.app) as clients:
            yield clients
            self.subscriptions.clear()  # nothing may be left that refers to a connection


@pytest.fixture
def desk() -> Desk:
    return Desk()


async def test_it_is_told_with_the_reply(desk: Desk, autojump_clock: Clock) -> None:
    async with desk.serving() as clients:
        speaker = await clients.open()
        assert (await speaker.result("connect"))["subs"] == {"plain": {"data": {"of": "plain"}}}
        desk.app.room("plain").broadcast("hello")
        await clients.settle()
        assert speaker.published("plain") == ["hello"]
        assert desk.subscriptions[0].is_accepted
        assert desk.subscriptions[0].is_server_side


async def test_what_is_said_before_the_reply_comes_behind_it(desk: Desk, autojump_clock: Clock) -> None:
    async def connect(client: Client) -> None:
        sub = await client.subscribe("plain")
        sub.send_nowait("for you")
        desk.app.room("plain").broadcast("for all")
        await trio.sleep(1)

    app = App()
    desk.app = app
    app.centrifuge("/connection", connect=connect)
    async with serving_clients(app) as clients:
        speaker = await clients.client()
        await clients.settle()
        assert list(speaker.lines[0]) == ["id", "connect"]
        assert speaker.published("plain") == ["for you", "for all"]


async def test_it_recovers(desk: Desk, autojump_clock: Clock) -> None:
    desk.rooms = ["history:a"]
    async with desk.serving() as clients:
        room = desk.app.room("history:a")
        first = await room.publish({"n": 1})
        await room.publish({"n": 2})
        assert first is not None
        speaker = await clients.open()
        at = {"recover": True, "epoch": first.epoch, "offset": first.offset}
        result = (await speaker.result("connect", subs={"history:a": at}))["subs"]["history:a"]
        assert result["recovered"]
        assert [publication["data"] for publication in result["publications"]] == [{"n": 2}]
        assert desk.subscriptions[0].is_recovered


async def test_a_refusal_is_the_applications(desk: Desk, autojump_clock: Clock) -> None:
    """It may catch it; if not, the client is refused."""
    desk.rooms = ["plain", "denied:a"]
    async with desk.serving() as clients:
        speaker = await clients.open()
        assert await speaker.refused("connect") == 103
        assert len(desk.app.room("plain")) == 0


async def test_a_client_that_is_refused_is_in_no_room(desk: Desk, autojump_clock: Clock) -> None:
    desk.refuses = True
    async with desk.serving() as clients:
        speaker = await clients.open()
        assert await speaker.refused("connect") == 103
        assert len(desk.app.room("plain")) == 0
        assert not desk.subscriptions[0].is_server_side or desk.subscriptions[0].is_over


async def test_a_client_that_leaves_meanwhile_is_in_no_room(desk: Desk, autojump_clock: Clock) -> None:
    seen: list[int] = []

    async def connect(client: Client) -> None:
        await client.subscribe("plain")
        seen.append(len(desk.app.room("plain")))
        await trio.sleep_forever()

    desk.app = App()
    desk.app.centrifuge("/connection", connect=connect)
    async with desk.serving() as clients:
        speaker = await clients.open()
        await speaker.say(speaker.command("connect"))
        await clients.settle()
        await speaker.hang_up()
        await clients.settle()
        assert seen == [1]
        assert len(desk.app.room("plain")) == 0


async def test_once_is_enough(desk: Desk, autojump_clock: Clock) -> None:
    desk.rooms = ["plain", "plain"]
    async with desk.serving() as clients:
        speaker = await clients.open()
        assert await speaker.refused("connect") == 100


class TestSendingToOne:
    async def test_only_that_client_gets_it(self, autojump_clock: Clock) -> None:
        subs: list[Subscription] = []
        app = App()

        @app.rooms("chat:{name}", history=History())
        async def chat(sub: Subscription) -> None:
            subs.append(sub)
            with pytest.raises(RuntimeError, match="has not been let in yet"):
                sub.send_nowait("too early")
            await sub.accept()
            await sub.send({"hello": "you"})

        app.centrifuge("/connection")
        async with serving_clients(app) as clients:
            one, other = await clients.client(), await clients.client()
            await one.result("subscribe", channel="chat:a")
            await other.result("subscribe", channel="chat:a")
            await clients.settle()
            assert one.published("chat:a") == [{"hello": "you"}]
            await subs[0].send(b"bytes")
            await clients.settle()
            assert one.published("chat:a") == [{"hello": "you"}, "Ynl0ZXM="]
            assert other.published("chat:a") == [{"hello": "you"}]
            assert (await app.room("chat:a").history()).messages == (), "it is not remembered"
            await one.result("unsubscribe", channel="chat:a")
            with pytest.raises(Denied, match="has ended"):
                await subs.pop(0).send("x")
            subs.clear()
