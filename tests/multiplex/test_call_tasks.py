"""The task that runs a client's calls one after the other: nothing of one call is left for the next."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any

import pytest
import trio
from trio.abc import Clock

from tests.support.commands import Speaker, serving_clients
from verbtrio import App, Client, Limits
from verbtrio.multiplex.running_calls import LATE

said: ContextVar[str] = ContextVar("said", default="nothing")


class Calls:
    """An app whose calls tell in which task they run."""

    def __init__(self, **limits: Any) -> None:
        self.app = App(limits=Limits(**limits))
        self.app.centrifuge("/connection")
        self.tasks: list[trio.lowlevel.Task] = []
        self.names: list[str] = []
        self.deadlines: list[float] = []
        self.app.call("look")(self.look)
        self.app.call("wait")(self.wait)
        self.app.call("fail")(self.fail)

    async def look(self, client: Client, data: str) -> str:
        task = trio.lowlevel.current_task()
        self.tasks.append(task)
        self.names.append(task.name)
        self.deadlines.append(trio.current_effective_deadline())
        before = said.get()
        said.set(data)
        return before

    async def wait(self, client: Client, data: float) -> None:
        self.tasks.append(trio.lowlevel.current_task())
        await trio.sleep(data)

    async def fail(self, client: Client) -> None:
        self.tasks.append(trio.lowlevel.current_task())
        raise RuntimeError("on purpose")


async def look(speaker: Speaker, data: str = "", **more: Any) -> str:
    result = await speaker.result("rpc", method="look", data=data, **more)
    return str(result["data"])


def lives(task: trio.lowlevel.Task) -> bool:
    return task.parent_nursery is not None and task in task.parent_nursery.child_tasks


async def test_the_next_call_runs_in_it(autojump_clock: Clock) -> None:
    calls = Calls()
    async with serving_clients(calls.app) as clients:
        speaker = await clients.client()
        for data in ("a", "b", "c"):
            assert await look(speaker, data) == "nothing", "each call has a context of its own"
        assert len(set(calls.tasks)) == 1
        assert [name.partition("#")[0] for name in calls.names] == ["call Calls.look "] * 3
        assert len(set(calls.names)) == 3


async def test_each_call_has_its_own_deadline(autojump_clock: Clock) -> None:
    calls = Calls(call_timeout=30.0)
    async with serving_clients(calls.app) as clients:
        speaker = await clients.client()
        began = trio.current_time()
        for timeout in (1, 5, 0, 0, 2, 0):
            await look(speaker, timeout=timeout)
        ours = pytest.approx(began + 30 * (1 + LATE / 2), abs=30 * LATE / 2 + 0.2)
        one, five, two = (pytest.approx(began + seconds, abs=0.2) for seconds in (1, 5, 2))
        assert calls.deadlines == [one, five, ours, ours, two, ours]
        assert len(set(calls.tasks)) == 1


async def test_two_calls_at_once_have_two(autojump_clock: Clock) -> None:
    calls = Calls()
    async with serving_clients(calls.app) as clients:
        speaker = await clients.client()
        await speaker.say(speaker.command("rpc", method="wait", data=1), speaker.command("rpc", method="wait", data=2))
        await trio.sleep(3)
        assert len(set(calls.tasks)) == 2
        (left,) = [task for task in calls.tasks if lives(task)]
        await look(speaker)
        assert calls.tasks[2] is left


@pytest.mark.parametrize("patience", [1, 3])
async def test_it_ends_with_the_last_deadline(patience: float, autojump_clock: Clock) -> None:
    calls = Calls()
    async with serving_clients(calls.app) as clients:
        speaker = await clients.client()
        await look(speaker, timeout=patience)
        (task,) = calls.tasks
        await trio.sleep(patience - 0.5)
        assert lives(task)
        await trio.sleep(1)
        assert not lives(task)
        await look(speaker)
        assert calls.tasks[1] is not task


async def test_it_ends_with_a_call_that_was_cancelled(autojump_clock: Clock) -> None:
    calls = Calls()
    async with serving_clients(calls.app) as clients:
        speaker = await clients.client()
        await look(speaker)
        call = speaker.command("rpc", method="wait", data=20)
        await speaker.say(call)
        await trio.sleep(1)
        await speaker.say({"send": {"cancel": call["id"]}})
        await clients.settle()
        assert calls.tasks[0] is calls.tasks[1]
        assert not lives(calls.tasks[1])
        assert await look(speaker) == "nothing"


async def test_a_call_that_is_cancelled_before_it_begins_does_not_run(autojump_clock: Clock) -> None:
    calls = Calls()
    async with serving_clients(calls.app) as clients:
        speaker = await clients.client()
        await look(speaker)
        call = speaker.command("rpc", method="look", data="")
        await speaker.say(call, {"send": {"cancel": call["id"]}}, speaker.command("rpc", method="look", data=""))
        await clients.settle()
        assert len(calls.tasks) == 2, "the first one, and the one behind it"
        assert calls.tasks[0] is not calls.tasks[1]
        assert speaker.replies(call["id"]) == []


async def test_it_ends_with_a_call_that_fails(autojump_clock: Clock) -> None:
    calls = Calls()
    async with serving_clients(calls.app) as clients:
        speaker = await clients.client()
        for _ in range(2):
            assert (await speaker.ask("rpc", method="fail"))["error"]["code"] == 100
        assert calls.tasks[0] is not calls.tasks[1]
        assert not any(lives(task) for task in calls.tasks)


async def test_it_ends_with_its_client(autojump_clock: Clock) -> None:
    calls = Calls(call_timeout=float("inf"))
    async with serving_clients(calls.app) as clients:
        speaker = await clients.client()
        await look(speaker)
        began = trio.current_time()
        await speaker.close()
        await clients.service.wait_ended(1)
        assert trio.current_time() - began < 0.1
        assert not lives(calls.tasks[0])
