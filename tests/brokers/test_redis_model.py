"""Rooms of several processes on one Redis, whatever comes, goes, is cut off or begins anew, and whenever.

`REDIS_EXAMPLES=2000` tries so many plans, other ones each time.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from typing import Any, TypeAlias

import pytest
import trio
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.support.redis_life import SIZES
from tests.support.redis_server import RedisServer, redis_server
from tests.support.redis_stage import USERS, RedisStage
from verbtrio.brokers.redis import liveness

Scene: TypeAlias = list[tuple[Any, ...]]
"""Steps that are played one after the other: see `RedisStage`."""

EXAMPLES = int(os.environ.get("REDIS_EXAMPLES", "0"))

clients = st.integers(0, len(USERS) - 1)
processes = st.integers(0, 2)
names = st.sampled_from([*SIZES])
moments = st.sampled_from([0.01, 0.05, 0.2])

publications = st.tuples(st.just("publish"), processes, names)
broadcasts = st.tuples(st.just("broadcast"), processes, names)
joins = st.tuples(st.just("join"), clients, names, st.booleans())
peaceful = st.one_of(
    joins,
    joins,
    publications,
    publications,
    broadcasts,
    st.tuples(st.just("leave"), clients, names),
    st.tuples(st.just("move"), clients, processes),
    st.tuples(st.just("history"), processes, names),
    st.tuples(st.just("sleep"), st.sampled_from([0.0, 0.0, 0.01])),
)
faults = st.one_of(
    st.tuples(st.sampled_from(["cut", "cut", "abandon"]), processes),
    st.tuples(st.just("stall"), processes, moments, st.sampled_from(["up", "down"])),
    st.tuples(st.just("delay"), processes, st.sampled_from([0.0, 0.01, 0.03])),
    st.tuples(st.just("refuse"), processes, moments),
    st.tuples(st.just("replace"), processes, st.booleans()),
    st.tuples(st.sampled_from(["flush_scripts", "restart"])),
)


@st.composite
def talks(draw: st.DrawFn) -> Scene:
    """Several processes say something in one room, at once."""
    name = draw(names)
    steps = st.tuples(st.sampled_from(["publish", "publish", "broadcast"]), processes, st.just(name))
    return draw(st.lists(steps, min_size=2, max_size=8))


@st.composite
def troubles(draw: st.DrawFn) -> Scene:
    """A fault while something is said."""
    return [
        *draw(talks()),
        draw(faults),
        *draw(talks()),
        ("sleep", draw(st.sampled_from([0.0, 0.02, 0.1]))),
        *draw(talks()),
    ]


beginning: Scene = [("join", number, name, False) for number in range(len(USERS)) for name in SIZES]
peace = st.one_of(st.just([]), peaceful.map(lambda step: [step]), peaceful.map(lambda step: [step]), talks())
war = st.one_of(st.just([]), peaceful.map(lambda step: [step]), talks(), troubles(), troubles(), st.just([("settle",)]))


def plans(scenes: st.SearchStrategy[Scene]) -> st.SearchStrategy[Scene]:
    """Many scenes; some of them empty, so that they still shrink to few."""
    return st.tuples(st.sampled_from([[], beginning, beginning]), st.lists(scenes, min_size=6, max_size=16)).map(
        lambda both: [*both[0], *(step for scene in both[1] for step in scene)]
    )


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


@pytest.fixture(autouse=True)
def short_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dead processes are found soon."""
    monkeypatch.setattr(liveness, "HEARTBEAT_SECONDS", 0.2)
    monkeypatch.setattr(liveness, "DEATH_SECONDS", 1.5)


@pytest.fixture(autouse=True)
def silence() -> Iterator[None]:
    logger = logging.getLogger("verbtrio")
    logger.setLevel(logging.CRITICAL)
    yield
    logger.setLevel(logging.NOTSET)


def play(server: RedisServer, plan: Scene, timeout: float) -> None:
    async def run() -> None:
        async with trio.open_nursery() as nursery:
            stage = RedisStage(server, nursery, {"timeout": timeout})
            await stage.begin()
            await stage.play(plan)
            await stage.finish()
            nursery.cancel_scope.cancel()

    server.flush()
    trio.run(run)


def budget(examples: int) -> settings:
    return settings(
        deadline=None,
        max_examples=EXAMPLES or examples,
        derandomize=not EXAMPLES,
        phases=[Phase.explicit, Phase.generate] if not EXAMPLES else [*Phase],
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture],
    )


@budget(4)
@given(plan=plans(peace))
def test_without_faults_nothing_is_missing(server: RedisServer, plan: Scene) -> None:
    play(server, plan, 30)


@budget(6)
@given(plan=plans(war))
def test_with_faults_it_is_there_or_a_gap_is_told(server: RedisServer, plan: Scene) -> None:
    play(server, plan, 1)
