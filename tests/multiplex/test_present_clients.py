"""Who is told who is in a room, and how often that is read."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.abc import Clock

from tests.support.commands import ClientService, serving_clients
from verbtrio import App, BrokerUnavailable
from verbtrio.multiplex import present_clients
from verbtrio.multiplex.present_clients import KEPT_SECONDS

ROOM = "here:x"


@pytest.fixture
def app() -> App:
    app = App()
    app.centrifuge("/connection")
    app.rooms("here:{name}", presence=True, subscribe=True)
    return app


class Readings:
    """Counts how often a room's presence is read, which takes a while."""

    def __init__(self, clients: ClientService) -> None:
        self.count = 0
        self.error: Exception | None = None
        session = clients.hub.host.session
        read = session.connections

        async def connections(room: str) -> Any:
            self.count += 1
            await trio.sleep(0.1)
            if self.error is not None:
                raise self.error
            return await read(room)

        session.connections = connections  # type: ignore[method-assign]  # this test's own count


async def test_a_small_room_is_read_each_time(app: App, autojump_clock: Clock) -> None:
    async with serving_clients(app) as clients:
        readings = Readings(clients)
        speaker = await clients.client()
        await speaker.result("subscribe", channel=ROOM)
        for _ in range(3):
            await speaker.result("presence", channel=ROOM)
        assert readings.count == 3
        assert len(clients.hub.present_clients) == 0


async def test_a_large_room_is_read_once_a_second(
    app: App, autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(present_clients, "LARGE", 3)
    async with serving_clients(app) as clients:
        readings = Readings(clients)
        speakers = [await clients.client() for _ in range(4)]
        for speaker in speakers[:3]:
            await speaker.result("subscribe", channel=ROOM)
        commands = [speaker.command("presence", channel=ROOM) for speaker in speakers]
        for speaker, command in zip(speakers, commands, strict=True):
            await speaker.say(command)
        for speaker, command in zip(speakers, commands, strict=True):
            assert len((await speaker.reply(command))["presence"]["presence"]) == 3
        assert readings.count == 1, "who asks meanwhile waits for that"
        await speakers[3].result("subscribe", channel=ROOM)
        stats = await speakers[3].result("presence_stats", channel=ROOM)
        assert (stats["num_clients"], readings.count) == (3, 1)
        await trio.sleep(KEPT_SECONDS + 0.1)
        assert len(clients.hub.present_clients) == 0
        assert len((await speakers[3].result("presence", channel=ROOM))["presence"]) == 4
        assert readings.count == 2


async def test_who_fails_to_read_leaves_it_to_the_next(
    app: App, autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(present_clients, "LARGE", 1)
    async with serving_clients(app) as clients:
        readings = Readings(clients)
        one, other = await clients.client(), await clients.client()
        await one.result("subscribe", channel=ROOM)
        readings.error = BrokerUnavailable("away")
        assert await one.refused("presence", channel=ROOM) == 100
        await one.say(one.command("presence", channel=ROOM))
        await clients.settle()
        await one.hang_up()
        readings.error = None
        await trio.sleep(5)
        await other.result("subscribe", channel=ROOM)
        assert len((await other.result("presence", channel=ROOM))["presence"]) == 1
