"""Plain functions that clients call: in place, without a task."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any

import pytest
import trio
from trio.abc import Clock

from tests.support.commands import serving_clients
from tests.support.tasks import Failure, errors
from verbtrio import App, CallError, Client, Limits

said: ContextVar[str] = ContextVar("said", default="nothing")


def app_with(**settings: Any) -> App:
    app = App(limits=Limits(max_calls=1))
    app.centrifuge("/connection", **settings)

    @app.call("wait")
    async def wait(client: Client, data: float) -> str:
        await trio.sleep(data)
        return "waited"

    return app


async def test_without_a_task(autojump_clock: Clock) -> None:
    app, tasks = app_with(), list[trio.lowlevel.Task]()

    @app.call("look")
    def look(client: Client) -> int:
        tasks.append(trio.lowlevel.current_task())
        return len(client.nursery.child_tasks)

    async with serving_clients(app) as clients:
        speaker = await clients.client()
        before = await speaker.result("rpc", method="look")
        assert await speaker.result("rpc", method="look") == before
        assert len(tasks) == 2
        assert not any(task.name.startswith("call ") for task in tasks)


async def test_in_the_clients_context(autojump_clock: Clock) -> None:
    """What it sets is there for the client's next call, and for no other client's."""
    app = app_with()

    @app.call("set")
    def exchange(client: Client, data: str) -> str:
        before = said.get()
        said.set(data)
        return before

    async with serving_clients(app) as clients:
        ada, bob = await clients.client(), await clients.client()
        answers = [
            (await speaker.result("rpc", method="set", data=data))["data"]
            for speaker, data in ((ada, "a"), (bob, "b"), (ada, "c"), (bob, "d"))
        ]
        assert answers == ["nothing", "nothing", "a", "b"]


async def test_not_beside_as_many_as_may_run(autojump_clock: Clock) -> None:
    app, called = app_with(), list[str]()

    @app.call("plain")
    def plain(client: Client) -> None:
        called.append(client.id)

    async with serving_clients(app) as clients:
        speaker = await clients.client()
        await speaker.say({"id": 50, "rpc": {"method": "wait", "data": 1}}, {"id": 51, "rpc": {"method": "plain"}})
        await clients.settle()
        assert (await speaker.reply({"id": 51}))["error"]["code"] == 111
        assert not called
        assert (await speaker.reply({"id": 50}))["rpc"] == {"data": "waited"}
        assert await speaker.result("rpc", method="plain") == {}
        assert len(called) == 1


async def test_any_number_in_a_message(autojump_clock: Clock) -> None:
    """They are never at the same time. What answers them goes out together."""
    app = app_with()

    @app.call("double")
    def double(client: Client, data: int) -> int:
        return 2 * data

    async with serving_clients(app) as clients:
        speaker = await clients.client()
        numbers = range(100, 130)
        before = len(speaker.messages)
        await speaker.say(*({"id": number, "rpc": {"method": "double", "data": number}} for number in numbers))
        assert [(await speaker.reply({"id": number}))["rpc"]["data"] for number in numbers] == [
            2 * each for each in numbers
        ]
        assert len(speaker.messages) - before == 1


@pytest.mark.parametrize("by", ["rpc", "send"])
async def test_what_it_raises_is_contained(by: str, autojump_clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    def fail(client: Client, data: Any = None) -> None:
        raise Failure

    app = app_with(message=fail)
    app.call("fail")(fail)
    async with serving_clients(app) as clients:
        speaker = await clients.client()
        if by == "rpc":
            assert await speaker.refused("rpc", method="fail") == 100
        else:
            await speaker.say({"send": {"data": 1}})
        assert await speaker.result("rpc", method="wait", data=0.1) == {"data": "waited"}
        assert [type(error) for error in errors(caplog)] == [Failure]


@pytest.mark.parametrize("end", ["answer", "error", "cancel", "timeout", "gone"])
async def test_an_awaitable_that_it_returns_is_awaited_in_a_task(end: str, autojump_clock: Clock) -> None:
    """As a decorated function's, which only looks like a plain one."""
    app, ends = app_with(), list[str]()

    async def later(data: float) -> str:
        try:
            await trio.sleep(data)
        except trio.Cancelled:
            ends.append("cancelled")
            raise
        ends.append("done")
        if end == "error":
            raise CallError(1000, "no")
        return "later"

    @app.call("wrapped")
    def wrapped(client: Client, data: float) -> Any:
        return later(data)

    async with serving_clients(app) as clients:
        speaker = await clients.client()
        timeout = 0.5 if end == "timeout" else 0
        seconds = 1 if end in ("answer", "error") else 100
        await speaker.say({"id": 50, "rpc": {"method": "wrapped", "data": seconds, "timeout": timeout}})
        assert await speaker.refused("rpc", method="wrapped", data=1) == 111  # it counts as any other that runs
        if end == "cancel":
            await speaker.say({"send": {"cancel": 50}})
        elif end == "gone":
            await speaker.close()
        await trio.sleep(2)
        assert ends == ["done" if end in ("answer", "error") else "cancelled"]
        if end == "answer":
            assert (await speaker.reply({"id": 50}))["rpc"] == {"data": "later"}
        elif end in ("error", "timeout"):
            assert (await speaker.reply({"id": 50}))["error"]["code"] == (1000 if end == "error" else 100)


async def test_an_object_whose_call_is_a_coroutine_function_runs_in_a_task(autojump_clock: Clock) -> None:
    app, names = app_with(), list[str]()

    class Look:
        async def __call__(self, client: object) -> None:
            names.append(trio.lowlevel.current_task().name)

    app.call("look")(Look())
    async with serving_clients(app) as clients:
        speaker = await clients.client()
        assert await speaker.result("rpc", method="look") == {}
    assert names[0].startswith("call ")
