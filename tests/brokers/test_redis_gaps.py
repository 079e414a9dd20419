"""Redis goes, and comes back: what the apps on it are told."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import trio

from tests.rooms.test_presence import by_name
from tests.support.memory import serving
from tests.support.redis_server import RedisServer, redis_server
from verbtrio import App, Room, WebSocket
from verbtrio.brokers.redis import RedisBroker


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


async def until(condition: Callable[[], bool]) -> None:
    with trio.fail_after(20):
        while not condition():
            await trio.sleep(0.02)


def an_app(server: RedisServer, told: list[str]) -> App:
    app = App(broker=RedisBroker(server.url), heartbeat=None, middleware=[by_name])

    def on_gap(room: Room, name: str) -> None:
        told.append(name)

    app.rooms("team:{name}", presence=True, on_gap=on_gap)

    @app.ws("/ws")
    async def handler(ws: WebSocket[str, str]) -> None:
        async with ws.join("team:a"):
            await ws.send("in")
            async for _ in ws:
                pass

    return app


async def test_a_restart(server: RedisServer) -> None:
    told: list[list[str]] = [[], []]
    changes: list[tuple[str, str]] = []

    async def watch(app: App, *, task_status: trio.TaskStatus[None]) -> None:
        async with app.room("team:a").watch() as watch:
            task_status.started()
            async for change in watch:
                changes.append((change.kind, change.user))

    first, second = (an_app(server, each) for each in told)
    async with serving(first) as here, serving(second) as there, trio.open_nursery() as nursery:
        services, one, two = (here, there), here.app, there.app
        await nursery.start(watch, one)
        clients = [
            await service.connect(f"/ws?user={user}") for service, user in zip(services, ("ann", "bob"), strict=True)
        ]
        for client in clients:
            assert await client.get_message() == "in"
        await until(lambda: sorted(changes) == [("join", "ann"), ("join", "bob")])
        changes.clear()
        server.kill()
        await until(lambda: not one.statistics().broker_connected and not two.statistics().broker_connected)
        await clients[1].aclose()
        await until(lambda: len(two.room("team:a").here) == 0)
        server.restart()
        await until(lambda: one.statistics().broker_connected and two.statistics().broker_connected)
        await until(lambda: told[0] == ["a"])
        await until(lambda: changes == [("leave", "bob")])
        assert told[1] == [], "it has no members of the room any more"
        assert one.statistics().missed >= 1
        for service in services:
            await service.hang_up()
        for service in services:
            await service.wait_ended(10)
        nursery.cancel_scope.cancel()
