"""What a client protocol is told of a room's connections, and how its members come in without the news for others."""

from __future__ import annotations

import json
from typing import Any

import pytest
import trio
import trio.testing
from trio.abc import Clock

from tests.rooms.test_local import Listener
from tests.rooms.test_presence import ROOM, enter, messages, present, team
from tests.support.memory import Service, serving
from verbtrio import App
from verbtrio.brokers import ConnectionChange, MemoryBroker, Present, PresentConnection
from verbtrio.messages.frame import Frame
from verbtrio.messages.published import PresenceFrame
from verbtrio.rooms.host import RoomHost
from verbtrio.rooms.settling import Settling
from verbtrio.testing.brokers import RecordingProcess


def host_of(service: Service) -> RoomHost:
    return service.app._running_hub().host


def join(service: Service, one: Listener, name: str = ROOM, **arguments: Any) -> Settling | None:
    """Join as `app.centrifuge` does."""
    settings: dict[str, Any] = {"user": one.id, "since": None, "introduced": False, "on_refused": print, **arguments}
    return host_of(service).joins.join(name, one, one, **settings)


def types(frames: list[Frame]) -> list[str]:
    return [json.loads(frame.payload)["type"] for frame in frames]


async def test_connections_that_come_and_go_are_news(autojump_clock: Clock) -> None:
    """Each tab, and without the grace of its user."""
    async with serving(team()) as service:
        news: list[tuple[str, str, str, Any]] = []

        def hear(room: str, change: ConnectionChange) -> None:
            news.append((change.kind, room, change.user, change.info))

        unheard = await enter(service, "eve")
        host_of(service).connection_news = hear
        tabs = [await enter(service, "ann"), await enter(service, "ann")]
        came = ("join", ROOM, "ann", {"name": "ANN"})
        assert news == [came, came]
        ids = [member.id for member in service.app.room(ROOM).here]
        connections = await host_of(service).connections(ROOM)
        assert list(connections) == ids
        assert list(connections.values()) == [
            PresentConnection("eve", {"name": "EVE"}),
            PresentConnection("ann", {"name": "ANN"}),
            PresentConnection("ann", {"name": "ANN"}),
        ]
        await tabs[0].send_message("Ann")
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert (await host_of(service).connections(ROOM))[ids[1]] == PresentConnection("ann", {"name": "Ann"})
        for tab in tabs:
            await tab.aclose()
        await trio.testing.wait_all_tasks_blocked(0.01)
        went = [("leave", ROOM, "ann", {"name": "Ann"}), ("leave", ROOM, "ann", {"name": "ANN"})]
        assert news == [came, came, *went]
        assert list(await host_of(service).connections(ROOM)) == [ids[0]]
        assert (await present(service))["ann"] == Present({"name": "Ann"}, 0)
        host_of(service).connection_news = None
        await unheard.aclose()
        await trio.sleep(60)
        assert news == [came, came, *went]


async def test_rooms_of_the_framework_are_no_news(autojump_clock: Clock) -> None:
    """An app that shares the broker may say anything of them: they have no name that an application knows."""
    broker = MemoryBroker()
    async with serving(App(broker=broker)) as service, broker.session(RecordingProcess()) as other:
        news: list[tuple[str, str]] = []
        host_of(service).connection_news = lambda room, change: news.append((room, change.connection))
        other.enter("\0('a route',)", "c1", "ann", None)
        other.enter("\0\0odd", "c2", "ann", None)
        other.enter("plain", "c3", "ann", None)
        assert news == [("\0odd", "c2"), ("plain", "c3")]
        host_of(service).connection_news = None


async def test_a_room_without_presence_knows_no_connections() -> None:
    async with serving(App()) as service:
        with pytest.raises(RuntimeError, match="presence=True"):
            await host_of(service).connections("a")


async def test_news_for_members_are_frames_of_their_own(autojump_clock: Clock) -> None:
    """So that a client protocol can pass over them, and over nothing else."""
    async with serving(team(join_leave=True)) as service:
        one = Listener("one")
        settling = join(service, one, introduced=True)
        assert settling is not None
        await settling.run()
        service.app.room(ROOM).broadcast({"type": "said"})
        client = await enter(service, "ann")
        await trio.sleep(1)
        assert types(one.held) == ["presence_state", "said", "presence_diff"]
        assert [isinstance(frame, PresenceFrame) for frame in one.held] == [True, False, True]
        assert types([one.held[0]]) == [(await messages(client))[0]["type"]], "a plain client has the same bytes"
        await client.aclose()
        service.app._running_hub().rooms.leave(ROOM, one)


async def test_a_member_that_is_not_introduced_has_nothing_to_wait_for(autojump_clock: Clock) -> None:
    """It is present at once, is told no state, and holds up no news."""
    async with serving(team(join_leave=True)) as service:
        one = Listener("one")
        assert join(service, one, presence="info", details={"of": "this one"}) is None
        assert not host_of(service).news._newcomers
        assert await host_of(service).connections(ROOM) == {
            one.id: PresentConnection(one.id, "info", {"of": "this one"})
        }
        await trio.sleep(1)
        assert types(one.held) == ["presence_diff"]
        service.app._running_hub().rooms.leave(ROOM, one)


async def test_a_member_that_is_not_introduced_waits_for_what_else_there_is(autojump_clock: Clock) -> None:
    """For a room's task, here."""
    go = trio.Event()

    async def task(room: Any, *, task_status: trio.TaskStatus[None]) -> None:
        await go.wait()
        task_status.started()
        await trio.sleep_forever()

    async with serving(team(join_leave=True, task=task)) as service, trio.open_nursery() as nursery:
        one = Listener("one")
        settling = join(service, one)
        assert settling is not None
        nursery.start_soon(settling.run)
        await trio.testing.wait_all_tasks_blocked()
        assert (await present(service), host_of(service).news._newcomers) == ({}, {})
        go.set()
        await settling.wait()
        assert await present(service) == {one.id: Present(None, 1)}
        assert one.held == []
        service.app._running_hub().rooms.leave(ROOM, one)


async def test_details_that_can_not_be_encoded() -> None:
    """They are refused before anything has changed."""
    async with serving(team()) as service:
        one = Listener("one")
        with pytest.raises(TypeError, match="object"):
            join(service, one, details=object())
        assert one not in service.app.room(ROOM)


async def test_details_in_a_room_without_presence() -> None:
    """They are left out: unlike `presence=`, they are not what an application asks for."""
    async with serving(team(presence=False)) as service:
        one = Listener("one")
        assert join(service, one, details=1) is None
        assert one in service.app.room(ROOM)
        service.app._running_hub().rooms.leave(ROOM, one)
