"""Rooms of all settings against a model, whatever comes, goes, crashes, stalls or waits, and whenever.

`ROOMS_EXAMPLES=2000` tries so many plans, other ones each time.
"""

from __future__ import annotations

import logging
import os
import traceback
from collections.abc import Iterator
from typing import Any, TypeAlias

import pytest
import trio
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from tests.support.memory import serving
from tests.support.room_clients import RoomTask
from tests.support.room_model import ROOMS
from tests.support.room_stage import CLIENTS, Stage, an_app, assert_forgotten
from verbtrio import WebSocket
from verbtrio.brokers import MemoryBroker

Scene: TypeAlias = list[tuple[Any, ...]]
"""Steps that are played one after the other: see `Stage`."""

EXAMPLES = int(os.environ.get("ROOMS_EXAMPLES", "0"))

clients = st.integers(0, CLIENTS - 1)
apps = st.integers(0, 1)
names = st.sampled_from([*ROOMS])
infos = st.sampled_from([None, 1, {"v": 2}])
sinces = st.sampled_from(["", "last", "last", "old", "bogus"])
joins = st.tuples(st.just("join"), clients, names, sinces, infos)
publications = st.tuples(st.just("publish"), names, apps)
steps = st.one_of(
    joins,
    joins,
    joins,
    publications,
    publications,
    st.tuples(st.just("broadcast"), names, st.none() | clients, apps),
    st.tuples(st.sampled_from(["leave", "kick"]), clients, names),
    st.tuples(st.just("update"), clients, names, infos),
    st.tuples(st.sampled_from(["drop", "connect", "connect", "stall", "wake"]), clients),
    st.tuples(st.just("page"), clients, names, st.sampled_from(["", "last", "old"]), st.none() | st.integers(0, 3)),
    st.tuples(st.just("close"), names, apps),
    st.tuples(st.just("flood"), names),
    st.tuples(st.just("crash"), apps),
    st.tuples(st.sampled_from(["slow", "start", "release", "release"])),
    st.tuples(st.just("hold"), st.sampled_from(["before", "after"])),
    st.tuples(st.just("advance"), st.integers(1, 9)),
    st.tuples(st.just("advance"), st.integers(1, 40)),
)
single = steps.map(lambda step: [step])


def perhaps(*scenes: Scene) -> st.SearchStrategy[Scene]:
    return st.sampled_from([[], *scenes])


@st.composite
def returns(draw: st.DrawFn) -> Scene:
    """A client that comes back to a room with a history, while things are said there, or is about to."""
    client, name = draw(clients), draw(st.sampled_from([name for name, kind in ROOMS.items() if kind.size]))
    return [
        ("connect", client),
        ("join", client, name, "", draw(infos)),
        ("publish", name, draw(apps)),
        draw(st.sampled_from([("leave", client, name), ("drop", client), ("kick", client, name)])),
        ("connect", client),
        *draw(st.lists(publications.map(lambda step: ("publish", name, step[2])), max_size=6)),
        *draw(perhaps([("hold", "before")], [("hold", "after")])),
        ("join", client, name, "last", draw(infos)),
        *draw(st.lists(st.sampled_from([("publish", name, 0), ("broadcast", name, None, 1)]), max_size=4)),
        *draw(perhaps([("broadcast", name, client, 0)], [("broadcast", name, client, 1)])),
        *draw(interruptions(client, name)),
        *draw(perhaps([("release",)], [("release",), ("page", client, name, "last", None)])),
    ]


def interruptions(client: int, name: str) -> st.SearchStrategy[Scene]:
    """What may happen to a join that is not complete, if anything."""
    leave, again = ("leave", client, name), ("join", client, name, "last", 1)
    other = ("join", (client + 2) % CLIENTS, name, "", 2)  # of the same app, where there are two
    ends: list[Scene] = [
        [("kick", client, name)],
        [("drop", client)],
        [("flood", name)],
        [other, leave],
        [other, ("advance", 1)],
    ]
    return perhaps([], [("update", client, name, 3)], [leave], [leave, again], *ends)


@st.composite
def starts(draw: st.DrawFn) -> Scene:
    """A room's task that takes its time to start."""
    client, other = draw(clients), draw(clients)
    return [
        ("slow",),
        ("connect", client),
        ("join", client, "game:a", draw(sinces), draw(infos)),
        ("publish", "game:a", 0),
        *draw(interruptions(client, "game:a")),
        *draw(perhaps([("advance", 2)], [("advance", 4)])),
        ("join", other, "game:a", draw(sinces), draw(infos)),
        *draw(perhaps([("start",)], [("start",), ("crash", 0), ("advance", 2)])),
    ]


@st.composite
def absences(draw: st.DrawFn) -> Scene:
    """A client that goes, and comes back within the grace or after it."""
    client, name = draw(clients), draw(st.sampled_from([name for name, kind in ROOMS.items() if kind.grace]))
    return [
        ("connect", client),
        ("join", client, name, "", draw(infos)),
        draw(st.sampled_from([("drop", client), ("drop", client), ("leave", client, name)])),
        ("advance", draw(st.integers(1, 7))),
        ("connect", client),
        ("join", client, name, "", draw(infos)),
        *draw(perhaps([("advance", 6)])),
    ]


scenes = st.one_of(st.just([]), single, single, single, returns(), absences(), starts())
# Many, or Hypothesis plays short plans; some of them empty, so that they still shrink to few.
plans = st.lists(scenes, min_size=12, max_size=25).map(lambda scenes: [step for scene in scenes for step in scene])


LEAVES_BEFORE_IT_IS_TOLD: Scene = [
    ("join", 0, "team:a", "", None),
    ("join", 2, "team:a", "", None),
    ("publish", "team:a", 0),
    ("leave", 0, "team:a"),
    ("hold", "before"),
    ("join", 0, "team:a", "last", None),
    ("leave", 0, "team:a"),
    ("release",),
]
"""A member that leaves while it is replayed to, from a room that others are in: seldom found at random."""


@pytest.fixture(autouse=True, scope="module")
def silence() -> Iterator[None]:
    """What is logged of tasks that crash is tested elsewhere."""
    logger = logging.getLogger("verbtrio")
    logger.setLevel(logging.CRITICAL)
    yield
    logger.setLevel(logging.NOTSET)


async def one_app(plan: Scene, *, drains: bool) -> None:
    broker, task = MemoryBroker(), RoomTask()
    entered: list[WebSocket] = []
    async with serving(an_app(broker, task, entered)) as service, trio.open_nursery() as nursery:
        stage = Stage([service], [task], entered, nursery)
        await stage.play(plan)
        await stage.finish(drains=drains)
        assert_forgotten([service.app], broker)
        del stage
        nursery.cancel_scope.cancel()
    assert_nothing_left(broker)


async def two_apps(plan: Scene, *, drains: bool) -> None:
    broker, tasks = MemoryBroker(), [RoomTask(), RoomTask()]
    entered: list[WebSocket] = []
    async with (
        serving(an_app(broker, tasks[0], entered)) as one,
        serving(an_app(broker, tasks[1], entered)) as two,
        trio.open_nursery() as nursery,
    ):
        stage = Stage([one, two], tasks, entered, nursery)
        await stage.play(plan)
        await stage.finish(drains=drains)
        assert_forgotten([one.app, two.app], broker)
        del stage
        nursery.cancel_scope.cancel()
    assert_nothing_left(broker)


def assert_nothing_left(broker: MemoryBroker) -> None:
    assert not broker.sessions


@pytest.mark.parametrize("play", [one_app, two_apps])
@settings(
    deadline=None,
    max_examples=EXAMPLES or 80,
    derandomize=not EXAMPLES,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(plan=plans, drains=st.booleans())
@example(plan=LEAVES_BEFORE_IT_IS_TOLD, drains=False)
def test_exactly_what_the_model_says(play: Any, plan: Scene, drains: bool) -> None:
    async def run() -> None:
        await play(plan, drains=drains)

    try:
        trio.run(run, clock=MockClock(autojump_threshold=0))
    except BaseException as error:
        let_go(error)
        raise


def let_go(error: BaseException) -> None:
    """Hypothesis keeps what fails: the next plan would find the connections that its frames refer to."""
    traceback.clear_frames(error.__traceback__)
    for one in error.exceptions if isinstance(error, BaseExceptionGroup) else ():
        let_go(one)
