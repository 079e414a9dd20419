"""What hooks return, sent; and a message's `ref`, which comes back in the answer and in the error answers."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Awaitable, Callable
from decimal import Decimal
from typing import Any, NamedTuple
from uuid import UUID

import attrs
import msgspec
import pytest
import trio
import trio.testing
from trio.abc import Clock

from tests.support.memory import Service, serving, shake_hands, socket_stream_pair
from verbtrio import JSON, App, Limits, WebSocket, on
from verbtrio.auth import JWTAuth
from verbtrio.connection.answers import MAX_REF_CHARACTERS, ref_in, with_ref
from verbtrio.messages.frame import encode

Answer = Callable[[WebSocket[Any], Any], Any]


class Ask(msgspec.Struct, tag=True):
    what: str = ""
    ref: str | int | float | None = None


class Told(msgspec.Struct, tag=True):
    text: str
    ref: str | int | float | None = None


class Frozen(msgspec.Struct, frozen=True, omit_defaults=True):
    text: str
    ref: str | int | msgspec.UnsetType = msgspec.UNSET


class Plain(msgspec.Struct):
    text: str


@dataclasses.dataclass(frozen=True, slots=True)
class Data:
    text: str
    ref: str | int | None = None


@attrs.frozen
class Attrs:
    text: str
    ref: str | int | None = None


class Row(NamedTuple):
    text: str
    ref: str | None = None


def plain_hook(app: App, answer: Answer) -> None:
    def hook(ws: WebSocket, message: Ask) -> Any:
        return answer(ws, message)

    app.ws("/ws", message=hook)


def coroutine_hook(app: App, answer: Answer) -> None:
    async def hook(ws: WebSocket, message: Ask) -> Any:
        await trio.lowlevel.checkpoint()
        return answer(ws, message)

    app.ws("/ws", message=hook)


def hook_that_returns_a_coroutine(app: App, answer: Answer) -> None:
    async def later(ws: WebSocket, message: Ask) -> Any:
        await trio.lowlevel.checkpoint()
        return answer(ws, message)

    def hook(ws: WebSocket, message: Ask) -> Awaitable[Any]:
        return later(ws, message)

    app.ws("/ws", message=hook)


def method(app: App, answer: Answer) -> None:
    @app.ws("/ws")
    class Handler:
        def message(self, ws: WebSocket, message: Ask) -> Any:
            return answer(ws, message)


def coroutine_method(app: App, answer: Answer) -> None:
    @app.ws("/ws")
    class Handler:
        async def message(self, ws: WebSocket, message: Ask) -> Any:
            return answer(ws, message)


def on_method(app: App, answer: Answer) -> None:
    @app.ws("/ws")
    class Handler:
        @on(Ask)
        def ask(self, ws: WebSocket, message: Ask) -> Any:
            return answer(ws, message)


def on_coroutine_method(app: App, answer: Answer) -> None:
    @app.ws("/ws")
    class Handler:
        @on(Ask)
        async def ask(self, ws: WebSocket, message: Ask) -> Any:
            return answer(ws, message)


FORMS = [
    plain_hook,
    coroutine_hook,
    hook_that_returns_a_coroutine,
    method,
    coroutine_method,
    on_method,
    on_coroutine_method,
]


@pytest.fixture(params=["stream", "socket"])
def pair(request: pytest.FixtureRequest) -> Any:
    """A connection's ends: read by a task, or by the poller."""
    return trio.testing.memory_stream_pair if request.param == "stream" else socket_stream_pair


@pytest.mark.parametrize("form", FORMS)
class TestMessageHooks:
    @pytest.mark.parametrize(
        ("value", "expected"),
        [
            ("text", "text"),
            ("", ""),
            (b"bytes", b"bytes"),
            (b"", b""),
            (bytearray(b"ab"), b"ab"),
            ({"a": 1}, '{"a":1}'),
            ({}, "{}"),
            ([], "[]"),
            ((1, 2), "[1,2]"),
            (Told("x"), '{"type":"Told","text":"x","ref":null}'),
            (Data("x"), '{"text":"x","ref":null}'),
            (Decimal("1.50"), '"1.50"'),
        ],
    )
    async def test_sent(self, form: Any, value: Any, expected: Any, pair: Any, autojump_clock: Clock) -> None:
        app = App(heartbeat=None)
        form(app, lambda ws, message: value)
        async with serving(app) as service:
            client = await service.connect(pair=pair)
            await client.send_message('{"type":"Ask"}')
            assert await client.get_message() == expected
            await client.aclose()

    @pytest.mark.parametrize(
        "answer",
        [
            lambda ws, message: None,
            lambda ws, message: ws.route.broadcast("to all"),  # how many that were: here 1
            lambda ws, message: ws.app.users.send_nowait("somebody", "hello"),  # here 0
            lambda ws, message: True,
            lambda ws, message: 1.5,
            lambda ws, message: ws.join("lobby"),
            lambda ws, message: ws,
            lambda ws, message: ws.route,
        ],
    )
    async def test_not_sent(self, form: Any, answer: Answer, pair: Any, autojump_clock: Clock) -> None:
        app = App(heartbeat=None)
        form(app, answer)
        async with serving(app) as service:
            client = await service.connect(pair=pair)
            await client.send_message('{"type":"Ask", "ref": 7}')
            await trio.testing.wait_all_tasks_blocked()
            app.connections.broadcast("end")
            heard = []
            while (message := await client.get_message()) != "end":
                heard.append(message)
            assert heard in ([], ["to all"])
            await client.aclose()

    async def test_in_order(self, form: Any, pair: Any, autojump_clock: Clock) -> None:
        """Behind what the hook itself has sent, and before the answer to the next message."""

        def answer(ws: WebSocket[Any], message: Ask) -> Any:
            ws.send_nowait(f"first {message.what}")
            return f"then {message.what}"

        app = App(heartbeat=None)
        form(app, answer)
        async with serving(app) as service:
            client = await service.connect(pair=pair)
            for what in "abc":
                await client.send_message(json.dumps({"type": "Ask", "what": what}))
            heard = [await client.get_message() for _ in range(6)]
            assert heard == [f"{when} {what}" for what in "abc" for when in ("first", "then")]
            await client.aclose()

    @pytest.mark.parametrize("value", [object(), {"a": object()}, "\ud800", Plain])
    async def test_what_cannot_be_encoded(
        self, form: Any, value: Any, pair: Any, autojump_clock: Clock, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Is the hook's failure, like what it raises."""
        app = App(heartbeat=None)
        form(app, lambda ws, message: value)
        async with serving(app) as service:
            client = await service.connect(pair=pair)
            await client.send_message('{"type":"Ask"}')
            await service.wait_ended(5)
            assert app.statistics().ended == {"error": 1}
            assert client.closed is not None
            assert client.closed.code == 1011
        assert [record.msg for record in caplog.records if record.levelname == "ERROR"] == ["the handler of %r raised"]

    async def test_to_one_that_has_gone(self, form: Any, pair: Any, autojump_clock: Clock) -> None:
        """What it sent before is handled to the end; the answers go nowhere."""
        app, handled = App(heartbeat=None), []

        def answer(ws: WebSocket[Any], message: Ask) -> Any:
            handled.append(message.what)
            return "an answer"

        form(app, answer)
        async with serving(app) as service:
            client = await service.connect(pair=pair)
            for what in "abc":
                await client.send_message(json.dumps({"type": "Ask", "what": what}))
            await client.aclose()
            await service.wait_ended(5)
            assert handled == ["a", "b", "c"]
            assert app.statistics().ended == {"peer": 1}

    async def test_of_a_hook_that_has_closed(self, form: Any, pair: Any, autojump_clock: Clock) -> None:
        def answer(ws: WebSocket[Any], message: Ask) -> Any:
            ws.close_nowait(4000, "enough")
            return "too late"

        app = App(heartbeat=None)
        form(app, answer)
        async with serving(app) as service:
            client = await service.connect(pair=pair)
            await client.send_message('{"type":"Ask"}')
            await service.wait_ended(5)
            assert app.statistics().ended == {"closed": 1}
            assert client.closed is not None
            assert client.closed.code == 4000

    @pytest.mark.parametrize("answer", [{"a": 1}, Told("x"), Frozen("x"), Data("x"), Attrs("x")])
    async def test_ref(self, form: Any, answer: Any, autojump_clock: Clock) -> None:
        app, ref = App(heartbeat=None), "r"
        form(app, lambda ws, message: answer)
        before = encode(answer).payload
        async with serving(app) as service:
            client = await service.connect()
            await client.send_message(json.dumps({"type": "Ask", "ref": ref}))
            assert json.loads(await client.get_message()) == {**json.loads(before), "ref": ref}
            await client.send_message('{"type": "Ask"}')
            assert await client.get_message() == before.decode(), "what the hook has returned is not changed"
            await client.aclose()

    async def test_ref_of_an_error(self, form: Any, pair: Any, autojump_clock: Clock) -> None:
        app = App(heartbeat=None)
        form(app, lambda ws, message: None)
        async with serving(app) as service:
            client = await service.connect(pair=pair)
            await client.send_message('{"type": "Ask", "what": 5, "ref": "r1"}')
            problem = "Expected `str`, got `int` - at `$.what`"
            assert json.loads(await client.get_message()) == {"type": "error", "message": problem, "ref": "r1"}
            await client.send_message('{"type": "Ask", "what": 5}')
            assert json.loads(await client.get_message()) == {"type": "error", "message": problem}
            await client.aclose()


@pytest.mark.parametrize("form", FORMS)
async def test_a_slow_reader_holds_up_its_answers(form: Any, autojump_clock: Clock) -> None:
    """Whoever does not read its answers is handled no faster than that."""
    app, handled = App(heartbeat=None, limits=Limits(high_water_bytes=4096, send_timeout=1000)), []

    def answer(ws: WebSocket[Any], message: Ask) -> str:
        handled.append(message)
        return "x" * 1000

    form(app, answer)
    message = b'{"type":"Ask"}'
    async with serving(app) as service:
        stream = service.open_stream(trio.testing.lockstep_stream_pair)
        await shake_hands(stream)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.send_all, (b"\x81\x8e\0\0\0\0" + message) * 5000)
            await trio.sleep(100)
            assert 3 < len(handled) < 1000, "those of one slice, at most"
            nursery.cancel_scope.cancel()
        await trio.aclose_forcefully(stream)


@pytest.mark.parametrize("coroutine", [False, True])
async def test_what_a_peer_has_left_is_handled_to_the_end(coroutine: bool, autojump_clock: Clock) -> None:
    """It has gone before the first message was handled: no answer to it may end the handler."""
    app, handled = App(heartbeat=None), []

    async def wait(ws: WebSocket) -> None:
        await trio.sleep(1)

    def hook(ws: WebSocket, message: str) -> str:
        handled.append(message)
        return "an answer"

    async def later(ws: WebSocket, message: str) -> str:
        return hook(ws, message)

    app.ws("/ws", open=wait, message=later if coroutine else hook)
    async with serving(app) as service:
        client = await service.connect()
        for message in "abc":
            await client.send_message(message)
        await trio.sleep(0.95)  # the grace lasts 0.1 s
        await client.aclose()
        await service.wait_ended(5)
        assert app.statistics().ended == {"peer": 1}
    assert handled == ["a", "b", "c"]


async def test_a_peer_that_goes_while_an_answer_waits(autojump_clock: Clock) -> None:
    """The answer's end is not the handler's: what was sent before is still handled."""
    app, handled = App(heartbeat=None, limits=Limits(high_water_bytes=1)), []

    async def hook(ws: WebSocket, message: str) -> str:
        handled.append(message)
        return "x" * 100_000

    app.ws("/ws", message=hook)
    async with serving(app) as service:
        stream = service.open_stream(trio.testing.lockstep_stream_pair)
        await shake_hands(stream)
        masked = b"".join(b"\x81\x81\0\0\0\0" + letter for letter in (b"a", b"b", b"c"))
        await stream.send_all(masked)  # and nothing is read of what comes
        await trio.testing.wait_all_tasks_blocked()
        assert handled in (["a"], ["a", "b"])
        await stream.send_all(b"\x88\x82\0\0\0\0\x03\xe8")
        while await stream.receive_some():  # now it reads, and the answer that waits goes on
            pass
        await service.wait_ended(100)
        assert app.statistics().ended == {"peer": 1}
        await trio.aclose_forcefully(stream)
    assert handled == ["a", "b", "c"]


async def test_one_that_closes_while_an_answer_waits(autojump_clock: Clock) -> None:
    """The end of its connection is no failure of the hook's."""
    app, failed = App(heartbeat=None, limits=Limits(high_water_bytes=1)), []

    async def hook(ws: WebSocket, message: str) -> str:
        ws.nursery.start_soon(ws.close, 4000)
        return "x" * 100_000

    app.ws("/ws", message=hook, error=lambda ws, error: failed.append(error))
    async with serving(app) as service:
        client = await service.connect()
        await client.send_message("x")
        await service.wait_ended(20)
        assert not failed
        assert app.statistics().ended == {"closed": 1}


class TestOpenHooks:
    @pytest.mark.parametrize("form", ["plain", "coroutine", "returns a coroutine", "method", "coroutine method"])
    @pytest.mark.parametrize(
        ("value", "expected"), [("hi", "hi"), (b"hi", b"hi"), ({"a": 1}, '{"a":1}'), (None, None), (3, None)]
    )
    async def test_sent(self, form: str, value: Any, expected: Any, pair: Any, autojump_clock: Clock) -> None:
        app = App(heartbeat=None)

        async def later(ws: WebSocket) -> Any:
            await trio.lowlevel.checkpoint()
            return value

        if form == "plain":
            app.ws("/ws", open=lambda ws: value)
        elif form == "coroutine":
            app.ws("/ws", open=later)
        elif form == "returns a coroutine":
            app.ws("/ws", open=lambda ws: later(ws))
        elif form == "method":

            @app.ws("/ws")
            class Plain:
                def open(self, ws: WebSocket) -> Any:
                    return value

        else:

            @app.ws("/ws")
            class Coroutine:
                async def open(self, ws: WebSocket) -> Any:
                    return value

        async with serving(app) as service:
            client = await service.connect(pair=pair)
            await trio.testing.wait_all_tasks_blocked()
            app.connections.broadcast("end")
            heard = [await client.get_message()]
            assert heard == ([expected] if expected is not None else ["end"])
            await client.aclose()

    async def test_comes_first(self, pair: Any, autojump_clock: Clock) -> None:
        """Before what others broadcast to a room that it has joined."""

        def enter(ws: WebSocket) -> dict[str, int]:
            members = ws.join("lobby").room
            members.broadcast("somebody came")
            return {"here": len(members)}

        app = App(heartbeat=None)
        app.ws("/ws", open=enter, message=lambda ws, text: None)
        async with serving(app) as service:
            client = await service.connect(pair=pair)
            assert {await client.get_message(), await client.get_message()} == {"somebody came", '{"here":1}'}
            await client.aclose()

    @pytest.mark.parametrize("form", ["plain", "coroutine"])
    async def test_what_cannot_be_encoded(self, form: str, autojump_clock: Clock) -> None:
        async def later(ws: WebSocket) -> Any:
            return object()

        app, errors = App(heartbeat=None), []
        opened: Any = later if form == "coroutine" else lambda ws: object()
        app.ws("/ws", open=opened, error=lambda ws, error: errors.append(type(error)))
        async with serving(app) as service:
            client = await service.connect()
            await service.wait_ended(5)
            assert client.closed is not None
            assert client.closed.code == 1011
        assert errors == [TypeError]


@pytest.mark.parametrize("hook", ["close", "error", "leave"])
@pytest.mark.parametrize("coroutine", [False, True])
async def test_other_hooks_answer_nobody(hook: str, coroutine: bool, autojump_clock: Clock) -> None:
    """The connection is over; whatever they return, it harms nothing."""

    async def later(*args: Any) -> Any:
        return object()

    answer: Any = later if coroutine else lambda *args: object()
    app, errors = App(heartbeat=None), []

    def message(ws: WebSocket, message: str) -> None:
        if message == "leave":
            ws.join("lobby", on_leave=answer).leave_nowait()
        else:
            raise ValueError(message)

    hooks: dict[str, Any] = {"error": lambda ws, error: errors.append(str(error))}
    if hook != "leave":
        hooks[hook] = answer
    app.ws("/ws", message=message, **hooks)
    async with serving(app) as service:
        client = await service.connect()
        await client.send_message("leave" if hook == "leave" else "fail")
        await trio.testing.wait_all_tasks_blocked()
        await client.aclose()
        await service.wait_ended(5)
    assert errors == (["fail"] if hook == "close" else [])


class TestRefOfADict:
    @pytest.mark.parametrize("kind", [dict, JSON])
    async def test_comes_back(self, kind: Any, autojump_clock: Clock) -> None:
        app = App(heartbeat=None)

        def hook(ws: WebSocket, message: Any) -> Any:
            return {"heard": True}

        hook.__annotations__["message"] = kind
        app.ws("/ws", message=hook)
        async with serving(app) as service:
            client = await service.connect()
            for ref in ("a", 7):
                await client.send_message(json.dumps({"ref": ref}))
                assert json.loads(await client.get_message()) == {"heard": True, "ref": ref}
            without: list[dict[str, Any]] = [
                {},
                {"ref": None},
                {"ref": True},
                {"ref": []},
                {"ref": {"a": 1}},
                {"ref": "x" * 65},
            ]
            for nothing in without:
                await client.send_message(json.dumps(nothing))
                assert json.loads(await client.get_message()) == {"heard": True}
            await client.aclose()


class TestWithRef:
    @pytest.mark.parametrize("ref", ["a", "", 5, -1, 0, 1.5, "x" * MAX_REF_CHARACTERS, 2**63 - 1])
    @pytest.mark.parametrize("answer", [{"a": 1}, Told("x"), Frozen("x"), Data("x"), Attrs("x")])
    def test_it_is_in_a_copy(self, answer: Any, ref: Any) -> None:
        before = json.loads(encode(answer).payload)
        for message in (Ask(ref=ref), {"ref": ref}):
            assert json.loads(encode(with_ref(answer, message)).payload) == {**before, "ref": ref}
            assert json.loads(encode(answer).payload) == before

    @pytest.mark.parametrize("ref", ["x" * (MAX_REF_CHARACTERS + 1), 2**63, -(2**63), True, False, 1e30, [], {}])
    def test_refs_that_do_not_come_back(self, ref: Any) -> None:
        answer: dict[str, Any] = {}
        for message in (Ask(ref=ref), {"ref": ref}):
            assert with_ref(answer, message) is answer

    @pytest.mark.parametrize(
        "answer",
        [
            "text",
            b"bytes",
            ["list"],
            {"ref": "its own"},
            {"ref": None},
            Told("x", ref=0),
            Frozen("x", ref=""),
            Plain("x"),
            Data("x", "own"),
            Row("x"),
            ("x",),
            UUID(int=5),
        ],
    )
    def test_answers_that_stay_as_they_are(self, answer: Any) -> None:
        assert with_ref(answer, Ask(ref="r")) is answer

    def test_messages_without_one(self) -> None:
        for message in ("text", b"ref", ["ref"], None, 5, Ask(), {"ref": None}, {}, {1: 2}, object()):
            answer: dict[str, Any] = {}
            assert with_ref(answer, message) is answer

    def test_a_uuid(self) -> None:
        class Typed(msgspec.Struct):
            ref: UUID

        assert with_ref({}, Typed(UUID(int=5))) == {"ref": UUID(int=5)}

    def test_a_read_only_property(self) -> None:
        class Odd:
            @property
            def ref(self) -> None:
                return None

        assert with_ref(odd := Odd(), Ask(ref=1)) is odd

    def test_a_struct_whose_ref_is_no_field(self) -> None:
        class Odd(msgspec.Struct):
            @property
            def ref(self) -> None:
                return None

        assert with_ref(odd := Odd(), Ask(ref=1)) is odd


class TestRefIn:
    @pytest.mark.parametrize("form", [str, str.encode])
    @pytest.mark.parametrize(
        ("message", "ref"),
        [
            ('{"ref": "a"}', "a"),
            ('{"ref": 5, "x": [1, {}]}', 5),
            ('{"x": {"ref": 1}, "ref": 2.5}', 2.5),
            ('{"re\\u0066": "escaped"}', "escaped"),
            ('{"ref": ""}', ""),
            ('{"x": "' + "x" * 100_000 + '", "ref": 1}', 1),
            ("{}", None),
            ('{"x": {"ref": 1}}', None),
            ('{"ref": null}', None),
            ('{"ref": true}', None),
            ('{"ref": ["a"]}', None),
            ('{"ref": {"a": 1}}', None),
            (f'{{"ref": "{"x" * 65}"}}', None),
            (f'{{"ref": {2**63}}}', None),
            (f'{{"ref": {"9" * 5000}}}', None),
            ('{"ref": 1e400}', None),
            ('{"ref": 1', None),
            ('{"ref": 1} x', None),
            ("[" * 100_000, None),
            ('{"x": ' * 100_000, None),
            ('[{"ref": 1}]', None),
            ('"ref"', None),
            ("", None),
        ],
    )
    def test_found(self, form: Any, message: str, ref: Any) -> None:
        assert ref_in(form(message)) == ref

    @pytest.mark.parametrize("message", ['{"ref": "\ud800"}', b'{"ref": "\xff"}', b"\x00\xff"])
    def test_no_unicode(self, message: str | bytes) -> None:
        assert ref_in(message) is None


class TestOtherErrorAnswers:
    """Whatever answers a message of the client's."""

    async def conversation(self, service: Service, *messages: str, count: int) -> list[Any]:
        client = await service.connect()
        for message in messages:
            await client.send_message(message)
        with trio.fail_after(5):
            answers = [json.loads(await client.get_message()) for _ in range(count)]
        await client.aclose()
        return answers

    @pytest.mark.parametrize("take", ["for", "receive"])
    async def test_of_a_coroutine_handler(self, take: str, autojump_clock: Clock) -> None:
        app = App(heartbeat=None)

        @app.ws("/ws")
        async def handler(ws: WebSocket[Ask]) -> None:
            if take == "receive":
                while True:
                    await ws.receive()
            async for _ in ws:
                pass

        async with serving(app) as service:
            answers = await self.conversation(service, '{"what": 5, "ref": 3}', '{"ref"', count=2)
        assert [answer.get("ref") for answer in answers] == [3, None]

    async def test_too_many(self, autojump_clock: Clock) -> None:
        app = App(heartbeat=None, limits=Limits(max_messages_per_second=1, message_burst=1))
        app.ws("/ws", message=lambda ws, message: None)
        async with serving(app) as service:
            answers = await self.conversation(service, "{}", '{"ref": "r"}', count=1)
        assert answers == [{"type": "error", "message": "Too many messages: at most 1 a second", "ref": "r"}]

    async def test_tokens(self, autojump_clock: Clock) -> None:
        auth = JWTAuth(key="a key of more than thirty-two bytes", first_message_timeout=5)
        app = App(heartbeat=None)
        app.ws("/ws", message=lambda ws, message: None, middleware=[auth])
        mine, other = (auth.issue({"id": user}, expires_in=1e6) for user in (1, 2))

        async with serving(app) as service:
            client = await service.connect()

            async def say(token: str, **more: Any) -> Any:
                await client.send_message(json.dumps({"type": "auth", "token": token, **more}))
                return json.loads(await client.get_message())

            assert await say(mine, ref=1) == {"type": "authenticated", "ref": 1}
            assert await say(mine) == {"type": "authenticated"}
            refused = await say("nonsense", ref="r2")
            assert (refused["type"], refused["ref"]) == ("error", "r2")
            assert (await say(other, ref=3))["ref"] == 3
            await client.aclose()
