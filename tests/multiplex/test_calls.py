"""Functions that clients call, and messages that they send: what comes of them, how long they run, what ends them."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from typing import Any
from weakref import ref

import msgspec
import pytest
import trio
from trio.abc import Clock

from tests.support.commands import Speaker, serving_clients
from tests.support.tasks import Failure, errors
from verbtrio import App, BrokerUnavailable, CallError, Client, Denied, LimitExceeded, Limits, MessageError
from verbtrio.multiplex.calls import Call

INTERNAL = {"code": 100, "message": "internal server error", "temporary": True}
TIMEOUT = {"code": 100, "message": "timeout", "temporary": True}


class Rename(msgspec.Struct):
    name: str


class Large(msgspec.Struct, weakref=True):
    text: str


class Recorder:
    """A call that lasts, and when it ended, and how."""

    def __init__(self) -> None:
        self.ends: list[Any] = []  # of (when, how)
        self.running = 0

    async def run(self, seconds: float) -> str:
        self.running += 1
        how = "cancelled"
        try:
            await trio.sleep(seconds)
            how = "done"
        finally:
            self.running -= 1
            self.ends.append((round(trio.current_time(), 1), how))
        return how


def app_with(limits: Limits | None = None, **settings: Any) -> tuple[App, Recorder]:
    app, recorder = App(limits=limits), Recorder()
    app.centrifuge("/connection", **settings)

    @app.call("wait")
    async def wait(client: Client, data: float) -> str:
        return await recorder.run(data)

    return app, recorder


class TestAResult:
    @pytest.mark.parametrize(
        ("returned", "result"),
        [
            (None, {}),
            (5, {"data": 5}),
            (0, {"data": 0}),
            ("text", {"data": "text"}),
            (b"bytes", {"data": "Ynl0ZXM="}),
            ({"a": [1, None]}, {"data": {"a": [1, None]}}),
            (Rename("x"), {"data": {"name": "x"}}),
            ([], {"data": []}),
        ],
    )
    @pytest.mark.parametrize("plain", [False, True])
    async def test_is_what_the_function_returns(
        self, returned: Any, result: Any, plain: bool, autojump_clock: Clock
    ) -> None:
        app, _ = app_with()

        def plainly(client: Client) -> Any:
            return returned

        async def later(client: Client) -> Any:
            await trio.sleep(1)
            return returned

        app.call("get")(plainly if plain else later)
        async with serving_clients(app) as clients:
            assert await (await clients.client()).result("rpc", method="get") == result

    async def test_depends_on_data_of_the_type(self, autojump_clock: Clock) -> None:
        app, _ = app_with()

        @app.call("rename")
        async def rename(client: Client, data: Rename) -> Rename:
            return Rename(data.name.upper())

        @app.call("bytes")
        async def take(client: Client, data: bytes) -> int:
            return len(data)

        async with serving_clients(app) as clients:
            speaker = await clients.client()
            assert await speaker.result("rpc", method="rename", data={"name": "ada"}) == {"data": {"name": "ADA"}}
            assert await speaker.result("rpc", method="bytes", data="Ynl0ZXM=") == {"data": 5}
            invalid: list[Any] = [{"name": 5}, {}, None, "x", []]
            for wrong in invalid:
                assert await speaker.refused("rpc", method="rename", data=wrong) == 107
            assert await speaker.refused("rpc", method="rename") == 107
            assert await speaker.refused("rpc", method="bytes", data="ü") == 107
            assert app.statistics().invalid == 7

    @pytest.mark.parametrize(
        ("data", "message"),
        [
            ({"data": [1]}, "Expected `object`, got `array`"),
            ({"data": None}, "Expected `object`, got `null`"),
            ({}, "Expected `object`, got `null`: no data were sent"),
            ({"data": {"name": 5}}, "Expected `str`, got `int` - at `$.name`"),
        ],
    )
    async def test_says_what_is_wrong_with_other_data(
        self, data: dict[str, Any], message: str, autojump_clock: Clock
    ) -> None:
        """The JSON is valid: it is the application's type that it is not of."""
        app, _ = app_with()

        @app.call("rename")
        async def rename(client: Client, data: Rename) -> None: ...

        async with serving_clients(app) as clients:
            reply = await (await clients.client()).ask("rpc", method="rename", **data)
            assert reply["error"] == {"code": 107, "message": message}

    async def test_comes_when_it_is_there(self, autojump_clock: Clock) -> None:
        app, _ = app_with()
        async with serving_clients(app) as clients:
            speaker = await clients.client()
            slow, fast = (speaker.command("rpc", method="wait", data=seconds) for seconds in (5, 1))
            ping = speaker.command("ping")
            await speaker.say(slow, fast, ping)
            await speaker.reply(slow)
            assert [line["id"] for line in speaker.lines] == [1, ping["id"], fast["id"], slow["id"]]


class TestAnError:
    @pytest.mark.parametrize(
        ("make", "error"),
        [
            (lambda: CallError(400, "taken"), {"code": 400, "message": "taken"}),
            (lambda: CallError(1999, "later", temporary=True), {"code": 1999, "message": "later", "temporary": True}),
            (lambda: Denied("no"), {"code": 103, "message": "no"}),
            (lambda: MessageError("what?"), {"code": 107, "message": "what?"}),
            (lambda: LimitExceeded("full"), {"code": 106, "message": "full"}),
            (lambda: BrokerUnavailable("secret"), {"code": 100, "message": "not available now", "temporary": True}),
            (lambda: Failure("secret"), INTERNAL),
            (lambda: KeyError("secret"), INTERNAL),
            (lambda: ExceptionGroup("secret", [CallError(400, "a")]), {"code": 400, "message": "a"}),
            (lambda: ExceptionGroup("secret", [CallError(400, "a"), Failure("secret")]), INTERNAL),
        ],
        ids=["own", "temporary", "denied", "invalid", "limit", "broker", "failure", "KeyError", "group", "groups"],
    )  # fmt: skip
    @pytest.mark.parametrize("plain", [False, True])
    async def test_is_what_the_function_raises(
        self,
        make: Callable[[], Exception],
        error: dict[str, Any],
        plain: bool,
        autojump_clock: Clock,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        app, _ = app_with()

        def plainly(client: Client) -> None:
            raise make()

        async def later(client: Client) -> None:
            await trio.lowlevel.checkpoint()
            raise make()

        app.call("get")(plainly if plain else later)
        async with serving_clients(app) as clients:
            speaker = await clients.client()
            assert (await speaker.ask("rpc", method="get"))["error"] == error
            assert "secret" not in str(speaker.messages)
            assert len(errors(caplog)) == (error == INTERNAL)
            assert all("TestAnError" in record.getMessage() for record in caplog.records if record.exc_info)
            assert await speaker.result("rpc", method="wait", data=0) == {"data": "done"}

    async def test_of_what_can_not_be_encoded(self, autojump_clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
        app, _ = app_with()

        @app.call("get")
        async def get(client: Client) -> object:
            return object()

        async with serving_clients(app) as clients:
            speaker = await clients.client()
            assert (await speaker.ask("rpc", method="get"))["error"] == INTERNAL
            assert [type(error) for error in errors(caplog)] == [TypeError]

    async def test_where_there_is_no_such_function(self, autojump_clock: Clock) -> None:
        app, _ = app_with()
        async with serving_clients(app) as clients:
            speaker = await clients.client()
            assert await speaker.refused("rpc", method="Wait", data=1) == 104
            assert await speaker.refused("rpc", data=1) == 104

    async def test_where_too_many_run(self, autojump_clock: Clock) -> None:
        app, recorder = app_with(Limits(max_calls=3))
        async with serving_clients(app) as clients:
            speaker = await clients.client()
            commands = [speaker.command("rpc", method="wait", data=1) for _ in range(5)]
            await speaker.say(*commands)
            replies = [await speaker.reply(command) for command in commands]
            assert [reply.get("error", {}).get("code") for reply in replies] == [None, None, None, 111, 111]
            await speaker.result("rpc", method="wait", data=1)
            assert len(recorder.ends) == 4


class TestTheTime:
    @pytest.mark.parametrize(
        ("patience", "longest", "ended"),
        [(2.5, 30, 2.5), (100, 3, 3), (0, 3, 3), (1e308, 3, 3), (0.001, 30, 0)],
    )
    async def test_is_the_callers_within_ours(
        self, patience: float, longest: float, ended: float, autojump_clock: Clock
    ) -> None:
        app, recorder = app_with(Limits(call_timeout=longest))
        async with serving_clients(app) as clients:
            speaker, began = await clients.client(), trio.current_time()
            reply = await speaker.ask("rpc", method="wait", data=1000, timeout=patience)
            assert reply["error"] == TIMEOUT
            assert recorder.ends == [(pytest.approx(began + ended, abs=0.11), "cancelled")]

    async def test_may_be_over_before_it_has_begun(self, autojump_clock: Clock) -> None:
        """Its caller is told so all the same."""
        app, recorder = app_with()
        async with serving_clients(app) as clients:
            speaker = await clients.client()
            await trio.sleep(1)
            assert (await speaker.ask("rpc", method="wait", data=1, timeout=1e-300))["error"] == TIMEOUT
            assert recorder.ends == []

    async def test_may_be_without_end(self, autojump_clock: Clock) -> None:
        app, recorder = app_with(Limits(call_timeout=float("inf")))
        async with serving_clients(app) as clients:
            speaker = await clients.client()
            assert await speaker.result("rpc", method="wait", data=250.0) == {"data": "done"}
            assert (await speaker.ask("rpc", method="wait", data=250.0, timeout=1))["error"] == TIMEOUT
            assert recorder.running == 0

    @pytest.mark.parametrize("together", [True, False], ids=["in one message", "later"])
    async def test_is_over_when_the_caller_says_so(self, together: bool, autojump_clock: Clock) -> None:
        app, recorder = app_with()
        async with serving_clients(app) as clients:
            speaker = await clients.client()
            call, other = (speaker.command("rpc", method="wait", data=20) for _ in range(2))
            cancel: dict[str, Any] = {"send": {"cancel": call["id"]}}
            if together:
                await speaker.say(call, other, cancel)
            else:
                await speaker.say(call, other)
                await trio.sleep(1)
                await speaker.say(cancel, cancel, {"send": {"cancel": 12345}})
            await trio.sleep(0.05)
            assert recorder.running == 1
            await trio.sleep(30)
            assert speaker.replies(call["id"]) == [], "it is not answered: nobody waits for it"
            assert speaker.replies(other["id"])[0]["rpc"] == {"data": "done"}
            await speaker.say({"send": {"cancel": other["id"]}})
            assert await speaker.result("rpc", method="wait", data=0) == {"data": "done"}

    @pytest.mark.parametrize("gone", [Speaker.close, Speaker.hang_up], ids=["by a Close frame", "without one"])
    async def test_is_over_when_the_caller_has_gone(self, gone: Any, autojump_clock: Clock) -> None:
        app, recorder = app_with()
        async with serving_clients(app) as clients:
            speaker = await clients.client()
            await speaker.say(*[speaker.command("rpc", method="wait", data=20) for _ in range(3)])
            await clients.settle()
            assert recorder.running == 3
            now = trio.current_time()
            await gone(speaker)
            await clients.settle()
            assert recorder.ends == [(pytest.approx(now, abs=0.06), "cancelled")] * 3

    async def test_is_over_for_calls_with_the_same_id(self, autojump_clock: Clock) -> None:
        app, recorder = app_with()
        async with serving_clients(app) as clients:
            speaker = await clients.client()
            await speaker.say(*[{"id": 9, "rpc": {"method": "wait", "data": 20}}] * 3)
            await clients.settle()
            now = trio.current_time()
            await speaker.close()
            await clients.settle()
            assert recorder.ends == [(pytest.approx(now, abs=0.06), "cancelled")] * 3

    async def test_a_call_that_comes_with_the_end_does_not_run_on(self, autojump_clock: Clock) -> None:
        """Its caller has gone before its first line."""
        app, recorder = app_with()
        async with serving_clients(app) as clients:
            speaker = await clients.client()
            await speaker.say(speaker.command("rpc", method="wait", data=20))
            await speaker.close()
            await clients.service.wait_ended(1)
            assert [how for _, how in recorder.ends] in ([], ["cancelled"])

    async def test_a_function_that_does_not_end_with_it(self, autojump_clock: Clock) -> None:
        """It has a result all the same."""
        app, _ = app_with()

        @app.call("stubborn")
        async def stubborn(client: Client) -> str:
            with trio.CancelScope(shield=True):
                await trio.sleep(5)
            return "done"

        async with serving_clients(app) as clients:
            speaker = await clients.client()
            assert await speaker.result("rpc", method="stubborn", timeout=1) == {"data": "done"}


class TestOneAfterAnother:
    """A task that has run a call may run the next one: nothing of the one is the other's."""

    async def test_they_do_not_share_what_ends_them(self, autojump_clock: Clock) -> None:
        app, recorder = app_with()

        @app.call("fail")
        async def fail(client: Client) -> None:
            raise Denied

        async with serving_clients(app) as clients:
            speaker = await clients.client()

            async def done(seconds: float, **how: Any) -> None:
                assert await speaker.result("rpc", method="wait", data=seconds, **how) == {"data": "done"}
                await clients.settle()

            await done(0.1, timeout=1)
            await done(5)
            assert (await speaker.ask("rpc", method="wait", data=5, timeout=1))["error"] == TIMEOUT
            await done(5, timeout=20)
            assert await speaker.refused("rpc", method="fail") == 103
            await done(0.1)
            call = speaker.command("rpc", method="wait", data=5)
            await speaker.say(call)
            await clients.settle()
            await speaker.say({"send": {"cancel": call["id"]}})
            await clients.settle()
            await done(0.1)
            await speaker.say({"send": {"cancel": call["id"]}}, {"send": {"cancel": speaker.lines[-1]["id"]}})
            await clients.settle()
            await done(0.1)
            await trio.sleep(100)
            await done(0.1)
            assert recorder.running == 0

    async def test_they_do_not_share_a_context(self, autojump_clock: Clock) -> None:
        app, _ = app_with()
        variable: ContextVar[int] = ContextVar("variable", default=0)

        @app.call("count")
        async def count(client: Client) -> int:
            variable.set(variable.get() + 1)
            await trio.lowlevel.checkpoint()
            return variable.get()

        async with serving_clients(app) as clients:
            speaker = await clients.client()
            for _ in range(3):
                assert await speaker.result("rpc", method="count") == {"data": 1}
                await clients.settle()

    async def test_what_one_has_had_is_not_kept(self, autojump_clock: Clock) -> None:
        app, _ = app_with()
        kept: list[ref[Large]] = []

        @app.call("large")
        async def large(client: Client, data: Large) -> Large:
            result = Large(data.text)
            kept.extend((ref(data), ref(result)))
            return result

        async with serving_clients(app) as clients:
            speaker = await clients.client()
            await speaker.result("rpc", method="large", data={"text": "x"})
            await clients.settle()
            assert [one() for one in kept] == [None, None]


class TestAMessage:
    async def test_is_for_the_function_that_takes_them(self, autojump_clock: Clock) -> None:
        seen: list[Any] = []

        async def message(client: Client, data: Any) -> str:
            seen.append(data)
            await client.send({"got": data})
            return "nobody is told"

        app, _ = app_with(message=message)
        async with serving_clients(app) as clients:
            speaker = await clients.client()
            await speaker.say({"send": {"data": 1}}, {"id": 7, "send": {"data": 2}}, {"send": {}})
            await trio.sleep(1)
            assert sorted(seen, key=str) == [1, 2, None]
            assert speaker.replies(7) == []
            assert [push["message"]["data"] for push in speaker.pushes] == [{"got": each} for each in seen]

    async def test_is_nothing_without_one(self, autojump_clock: Clock) -> None:
        app, _ = app_with()
        async with serving_clients(app) as clients:
            speaker = await clients.client()
            await speaker.say({"send": {"data": 1}})
            assert await speaker.refused("ping") == 108
            assert len(speaker.lines) == 2

    async def test_that_fails_is_logged(self, autojump_clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
        async def message(client: Client, data: int) -> None:
            if data:
                raise Failure
            raise Denied

        app, _ = app_with(message=message)
        async with serving_clients(app) as clients:
            speaker = await clients.client()
            await speaker.say({"send": {"data": 1}}, {"send": {"data": 0}}, {"send": {"data": "x"}})
            assert await speaker.refused("ping") == 108
            await clients.settle()
            assert [type(error) for error in errors(caplog)] == [Failure]
            assert len(speaker.lines) == 2

    async def test_that_came_before_the_end_is_handled(self, autojump_clock: Clock) -> None:
        seen: list[int] = []

        async def message(client: Client, data: int) -> None:
            await trio.sleep(0.02)
            seen.append(data)

        app, _ = app_with(message=message)
        async with serving_clients(app) as clients:
            speaker = await clients.client()
            await speaker.say(*[{"send": {"data": n}} for n in range(5)])
            await speaker.close()
            await trio.sleep(1)
            assert sorted(seen) == list(range(5))

    async def test_counts_as_a_call(self, autojump_clock: Clock) -> None:
        running = most = 0

        async def message(client: Client) -> None:
            nonlocal running, most
            running += 1
            most = max(most, running)
            await trio.sleep(1)
            running -= 1

        app, _ = app_with(Limits(max_calls=4), message=message)
        async with serving_clients(app) as clients:
            speaker = await clients.client()
            await speaker.say(*[{"send": {"data": n}} for n in range(50)])
            await trio.sleep(5)
            assert (running, most) == (0, 4)


class TestAFunction:
    @pytest.mark.parametrize(
        ("function", "message"),
        [
            (5, "not 5"),
            (Rename, "not <class"),
            (lambda: None, r"called with \(client, data\)"),
            (lambda client, data, more: None, r"called with \(client, data\)"),
            (lambda *, client: None, r"called with \(client, data\)"),
        ],
    )
    def test_that_can_not_be_called_so(self, function: Any, message: str) -> None:
        with pytest.raises(TypeError, match=message):
            Call(function)

    def test_that_generates(self) -> None:
        def generate(client: Client) -> Any:
            yield 1

        with pytest.raises(TypeError, match="generator"):
            Call(generate)

    def test_with_a_type_that_can_not_be_told(self) -> None:
        async def take(client: Client, data: str | bytes) -> None: ...

        with pytest.raises(TypeError, match="can't tell them apart"):
            Call(take)

    def test_with_any_arguments(self) -> None:
        def take(*args: Any) -> None: ...

        client = object()
        assert Call(take).arguments(client, msgspec.Raw(b"[1]"), is_binary=False) == (client, [1])
