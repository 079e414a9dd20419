"""Who is told which clients come and go, and in how many messages."""

from __future__ import annotations

import json
from typing import Any

import pytest
import trio
from trio.abc import Clock

from tests.support.commands import serving_clients
from verbtrio import App
from verbtrio.base.timers import Timers
from verbtrio.brokers.records import ConnectionChange
from verbtrio.messages.frame import Frame
from verbtrio.multiplex import news as news_module
from verbtrio.multiplex.news import AT_ONCE, COLLECT_SECONDS, ConnectionNews
from verbtrio.multiplex.peer import MESSAGE_BYTES
from verbtrio.protocols.json_encoding import JSON

ROOM = "here:x"


class Listener:
    """A peer that keeps what it is told."""

    encoding = JSON

    def __init__(self, on_hold: Any = None) -> None:
        self.held: list[Frame] = []
        self.on_hold = on_hold

    def hold(self, frame: Frame) -> None:
        self.held.append(frame)
        if self.on_hold is not None:
            self.on_hold()

    @property
    def heard(self) -> list[tuple[str, str]]:
        lines = [json.loads(line)["push"] for frame in self.held for line in frame.payload.split(b"\n")]
        return [(kind, push[kind]["info"]["client"]) for push in lines for kind in ("join", "leave") if kind in push]


def change(kind: Any, connection: str) -> ConnectionChange:
    return ConnectionChange(kind, connection, "ada")


async def run_timers(timers: Timers) -> None:
    with trio.move_on_after(1):
        await timers.run()


def listening(count: int) -> tuple[ConnectionNews, Timers, list[Any]]:
    timers = Timers()
    news = ConnectionNews(timers)
    peers: list[Any] = [Listener() for _ in range(count)]
    for peer in peers:
        news.add(ROOM, peer)
    return news, timers, peers


async def test_a_few_are_told_at_once(autojump_clock: Clock) -> None:
    news, timers, peers = listening(AT_ONCE)
    news.tell(ROOM, change("join", "c"))
    assert all(peer.heard == [("join", "c")] for peer in peers)
    assert len(timers) == 0


async def test_many_are_told_together(autojump_clock: Clock) -> None:
    news, timers, peers = listening(AT_ONCE + 1)
    for number in range(100):
        news.tell(ROOM, change("join", f"c{number}"))
    assert all(peer.held == [] for peer in peers)
    start = trio.current_time()
    await run_timers(timers)
    for peer in peers:
        assert peer.heard == [("join", f"c{number}") for number in range(100)]
        assert len(peer.held) == 1, "one message for all of them"
    assert len({id(peer.held[0]) for peer in peers}) == 1, "made once"
    news.tell(ROOM, change("leave", "c1"))
    await run_timers(timers)
    assert peers[0].heard[100:] == [("leave", "c1")], "and again later"
    assert trio.current_time() > start + COLLECT_SECONDS


async def test_one_that_comes_and_goes_all_the_time_is_told_of_twice(autojump_clock: Clock) -> None:
    """Otherwise a subscribe and an unsubscribe, of 100 bytes, would be as many messages as there are subscribers."""
    news, timers, peers = listening(AT_ONCE + 1)
    for _ in range(50):
        news.tell(ROOM, change("join", "c"))
        news.tell(ROOM, change("leave", "c"))
    news.tell(ROOM, change("join", "d"))
    await run_timers(timers)
    assert peers[0].heard == [("join", "c"), ("leave", "c"), ("join", "d")]


@pytest.mark.parametrize(("kinds", "told"), [("jlj", "j"), ("ljl", "l"), ("lj", "lj"), ("jljl", "jl"), ("ljlj", "lj")])
async def test_what_remains_is_what_has_become_of_it(kinds: str, told: str, autojump_clock: Clock) -> None:
    news, timers, peers = listening(AT_ONCE + 1)
    names = {"j": "join", "l": "leave"}
    for kind in kinds:
        news.tell(ROOM, change(names[kind], "c"))
    await run_timers(timers)
    assert peers[0].heard == [(names[kind], "c") for kind in told]


async def test_a_message_has_a_size(autojump_clock: Clock) -> None:
    news, timers, peers = listening(AT_ONCE + 1)
    for number in range(2000):
        news.tell(ROOM, change("join", f"c{number:040}"))
    late: Any = Listener()
    news.add(ROOM, late)
    news.tell(ROOM, change("join", "late"))
    await run_timers(timers)
    assert len(peers[0].held) > 1
    assert all(len(frame) <= MESSAGE_BYTES for frame in peers[0].held)
    assert len(peers[0].heard) == 2001
    assert late.heard[-1] == ("join", "late")
    assert len(late.held) == 1, "it need not know who was there before: that is what presence tells"


async def test_one_that_goes_while_it_is_told_is_not_told_out_of_turn(
    autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(news_module, "AT_ONCE", 2)
    news, timers, peers = listening(3)

    def go() -> None:
        if peers[0].on_hold is not None:
            peers[0].on_hold = None
            news.discard(ROOM, peers[0])
            news.tell(ROOM, change("leave", "slow"))

    peers[0].on_hold = go
    news.tell(ROOM, change("join", "c"))
    await run_timers(timers)
    assert peers[0].heard == [("join", "c")]
    assert peers[1].heard == peers[2].heard == [("join", "c"), ("leave", "slow")]


async def test_a_room_that_nobody_listens_to_is_forgotten(autojump_clock: Clock) -> None:
    news, timers, peers = listening(AT_ONCE + 1)
    news.tell(ROOM, change("join", "c"))
    for peer in peers:
        news.discard(ROOM, peer)
    assert len(news) == len(timers) == 0
    again: Any = Listener()
    news.add(ROOM, again)
    await run_timers(timers)
    assert again.heard == []


async def test_clients_of_a_large_room(autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(news_module, "AT_ONCE", 1)
    app = App()
    app.centrifuge("/connection")
    app.rooms("here:{name}", presence=True, join_leave=True, subscribe=True)
    async with serving_clients(app) as clients:
        speakers = [await clients.client() for _ in range(4)]
        for speaker in speakers:
            await speaker.result("subscribe", channel=ROOM, join_leave=True)
        await trio.sleep(1)
        assert len(speakers[0].of("join")) == 4
        assert speakers[0].messages[-1].count("\n") == 2, "three joins in one message"
        await speakers[3].result("unsubscribe", channel=ROOM)
        await trio.sleep(1)
        assert [len(speaker.of("leave")) for speaker in speakers] == [1, 1, 1, 0]
