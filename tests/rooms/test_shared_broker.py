"""Two apps that share a broker are one service: rooms, users, histories and presence are the same in both."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import trio
import trio.testing
import trio_websocket
from trio.abc import Clock

from tests.rooms.test_presence import by_name
from tests.support.memory import Service, serving
from verbtrio import App, Cause, WebSocket
from verbtrio.brokers import History, MemoryBroker, Present

ROOM = "chat:a"


def node(broker: MemoryBroker) -> App:
    app = App(broker=broker, middleware=[by_name])
    app.rooms("chat:{room}", history=History(), presence=True)

    @app.ws("/ws")
    async def handler(ws: WebSocket[str, str]) -> None:
        async with ws.join(ROOM), ws.join("plain"):
            await ws.send(ws.id)
            async for text in ws:
                app.room("plain").broadcast(text, exclude=ws)

    return app


@asynccontextmanager
async def two_nodes() -> AsyncIterator[tuple[Service, Service]]:
    broker = MemoryBroker()
    async with serving(node(broker)) as one, serving(node(broker)) as two:
        yield one, two
        await trio.sleep(1)  # what each has had is gone before either checks that nothing is left
    assert not broker.sessions


class Client:
    def __init__(self, ws: trio_websocket.WebSocketConnection, identity: str) -> None:
        self.ws, self.id = ws, identity

    @classmethod
    async def of(cls, service: Service, user: str = "ann") -> Client:
        ws = await service.connect(f"/ws?user={user}")
        return cls(ws, str(await ws.get_message()))

    async def heard(self) -> list[str]:
        come = []
        with trio.move_on_after(0.5):
            while True:
                come.append(str(await self.ws.get_message()))
        return come


async def test_broadcasts_reach_both(autojump_clock: Clock) -> None:
    async with two_nodes() as (one, two):
        a, b = await Client.of(one), await Client.of(two, "bob")
        room = one.app.room("plain")
        assert room.broadcast("to all") == 1, "those here"
        assert (await a.heard(), await b.heard()) == (["to all"], ["to all"])
        await a.ws.send_message("from a")
        assert (await a.heard(), await b.heard()) == ([], ["from a"])
        for exclude in (b.id, [b.id, "nobody's"], two.app.room("plain").here[0]):
            room.broadcast("not to b", exclude=exclude)
            assert (await a.heard(), await b.heard()) == (["not to b"], [])
        del exclude
        room.broadcast("not to bob", exclude_user="bob")
        assert (await a.heard(), await b.heard()) == (["not to bob"], [])
        one.app.connections.broadcast("to all connections")
        two.app.connections.broadcast("from the other")
        expected = ["to all connections", "from the other"]
        assert (await a.heard(), await b.heard()) == (expected, expected)
        for member in room.here:
            member.route.broadcast("to the route")  # type: ignore[attr-defined]  # it is a WebSocket
        del member
        assert (await a.heard(), await b.heard()) == (["to the route"], ["to the route"])
        assert await one.app.connections.publish("published") is None
        assert (await a.heard(), await b.heard()) == (["published"], ["published"])
        for client in (a, b):
            await client.ws.aclose()


@pytest.mark.parametrize("exclude", [5, [5], [SimpleNamespace(id="a user's")], b"id", {None: 1}])
async def test_a_mistaken_exclude_sends_nothing_to_the_others_either(exclude: Any, autojump_clock: Clock) -> None:
    async with two_nodes() as (one, two):
        a, b = await Client.of(one), await Client.of(two, "bob")
        with pytest.raises(TypeError, match="this takes a member, its id"):
            one.app.room("plain").broadcast("a mistake", exclude=exclude)
        assert (await a.heard(), await b.heard()) == ([], [])
        for client in (a, b):
            await client.ws.aclose()


async def test_counts(autojump_clock: Clock) -> None:
    async with two_nodes() as (one, two):
        a, b, c = await Client.of(one), await Client.of(two), await Client.of(two)
        for service, here in ((one, 1), (two, 2)):
            room = service.app.room(ROOM)
            assert (len(room), await room.count(), len(room.here)) == (3, 3, here)
            assert len(service.app.connections) == 3
            assert f"({here} here)" in repr(room)
        assert await one.app.room("nobody").count() == 0
        for client in (a, b, c):
            await client.ws.aclose()
        await trio.sleep(0.1)
        assert (len(one.app.room(ROOM)), await two.app.room(ROOM).count()) == (0, 0)


async def test_a_history_is_one(autojump_clock: Clock) -> None:
    async with two_nodes() as (one, two):
        a = await Client.of(one)
        first = await two.app.room(ROOM).publish("1")
        second = await one.app.room(ROOM).publish("2")
        assert first is not None
        assert second is not None
        assert (second.epoch, second.offset) == (first.epoch, 2)
        assert [message.data for message in (await two.app.room(ROOM).history()).messages] == ["1", "2"]
        assert await a.heard() == ["1", "2"]
        await a.ws.aclose()


async def test_presence_is_one(autojump_clock: Clock) -> None:
    async with two_nodes() as (one, two):
        async with two.app.room(ROOM).watch() as changes:
            a, b = await Client.of(one), await Client.of(two)
            assert await one.app.room(ROOM).presence() == {"ann": Present(None, 2)}
            await a.ws.aclose()
            await trio.sleep(10)
            assert await one.app.room(ROOM).presence() == {"ann": Present(None, 1)}
            await b.ws.aclose()
            await trio.sleep(4)
            a = await Client.of(one)
            await trio.sleep(10)
            await a.ws.aclose()
            await trio.sleep(10)
            kinds = [(await anext(changes)).kind for _ in range(2)]
            assert kinds == ["join", "leave"]


async def test_users(autojump_clock: Clock) -> None:
    async with two_nodes() as (one, two):
        a, b = await Client.of(one), await Client.of(two)
        assert await one.app.users.send("ann", "to both") == 2
        assert two.app.users.send_nowait("ann", "again") == 1
        assert await one.app.users.send("bob", "to nobody") == 0
        assert (await a.heard(), await b.heard()) == (["to both", "again"], ["to both", "again"])
        assert await one.app.users.disconnect("ann", code=4000, reason="bye") == 2
        for client, service in ((a, one), (b, two)):
            with pytest.raises(trio_websocket.ConnectionClosed):
                await client.ws.get_message()
            assert client.ws.closed is not None
            assert client.ws.closed.code == 4000
            await service.wait_ended(5)
            assert service.app.statistics().ended == {Cause.KICKED: 1}


async def test_whose_process_ends_may_come_back_in_another(autojump_clock: Clock) -> None:
    broker = MemoryBroker()
    async with serving(node(broker)) as one:
        async with serving(node(broker)) as two:
            b = await Client.of(two, "bob")
            assert await one.app.room(ROOM).presence() == {"bob": Present(None, 1)}
            await two.shut_down()
            with pytest.raises(trio_websocket.ConnectionClosed):
                await b.ws.get_message()
        assert await one.app.room(ROOM).count() == 0
        assert await one.app.room(ROOM).presence() == {"bob": Present(None, 0)}
        await trio.sleep(6)
        assert await one.app.room(ROOM).presence() == {}


async def test_odd_names(autojump_clock: Clock) -> None:
    """A room's name that looks like what the broker calls the framework's own."""
    broker = MemoryBroker()
    apps = [App(broker=broker), App(broker=broker)]
    names = ["\0", "\0\0x", "\0('verbtrio', 'connections')", "('verbtrio', 'connections')", "connections", ""]
    for app in apps:

        @app.ws("/ws")
        async def handler(ws: WebSocket[str]) -> None:
            for name in names:
                ws.join(name)
            await ws.send("in")
            async for _ in ws:
                pass

    async with serving(apps[0]) as one, serving(apps[1]) as two:
        clients: list[Any] = [await one.connect(), await two.connect()]
        for client in clients:
            assert await client.get_message() == "in"
        for name in names:
            assert len(one.app.room(name)) == 2
            one.app.room(name).broadcast(name)
            await two.app.room(name).publish(name)
            for client in clients:
                assert [await client.get_message() for _ in range(2)] == [name, name]
        for client in clients:
            await client.aclose()
