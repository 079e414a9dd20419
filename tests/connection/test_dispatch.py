"""`@on(Say)`: a method for each type of message."""

from __future__ import annotations

import enum
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import wraps
from typing import Any, TypedDict

import msgspec
import pytest
from trio.abc import Clock

from tests.support.memory import serving
from verbtrio import App, WebSocket, on
from verbtrio.connection.dispatch import Dispatch, handled
from verbtrio.connection.handler_kinds import HandlerKind, handler_kind, hooks_kind


class Say(msgspec.Struct, tag=True):
    text: str


class Move(msgspec.Struct, tag=True):
    x: int


class Turn(msgspec.Struct, tag=True):
    by: int


class Untagged(msgspec.Struct):
    a: int


class Other(msgspec.Struct):
    b: int


@dataclass
class Data:
    c: int


class Dict(TypedDict):
    d: int


class Colour(enum.Enum):
    RED = "red"


class Unhandled(msgspec.Struct, tag=True):
    pass


def kind_of(handler: type) -> HandlerKind:
    return handler_kind(handler, {})


async def told(handler: type, *messages: Any) -> list[Any]:
    """What a client hears of `handler` that sends these."""
    app = App(heartbeat=None)
    app.ws("/ws")(handler)
    async with serving(app) as service:
        client = await service.connect()
        heard = []
        for message in messages:
            await client.send_message(message if isinstance(message, str | bytes) else json.dumps(message))
            heard.append(await client.get_message())
        await client.aclose()
    return heard


class Chat:
    """All hooks, and plain and coroutine methods."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def open(self, ws: WebSocket) -> None:
        self.said.append("open")

    @on(Say)
    async def say(self, ws: WebSocket, message: Say) -> str:
        self.said.append(message.text)
        return " ".join(self.said)

    @on(Move, Turn)
    def move(self, ws: WebSocket[Any, Any], message: Move | Turn) -> str:
        return f"moved by {message!r}"


class TestDispatch:
    async def test_by_type(self, autojump_clock: Clock) -> None:
        heard = await told(
            Chat,
            {"type": "Say", "text": "a"},
            {"type": "Turn", "by": 5},
            {"type": "Move", "x": 1},
            {"type": "Say", "text": "b"},
        )
        assert heard == ["open a", "moved by Turn(by=5)", "moved by Move(x=1)", "open a b"]

    async def test_what_is_no_such_message(self, autojump_clock: Clock) -> None:
        (unknown, wrong, right) = await told(
            Chat, {"type": "Shout", "ref": 1}, {"type": "Move"}, {"type": "Move", "x": 1}
        )
        assert json.loads(unknown) == {
            "type": "error",
            "message": "Invalid value 'Shout' - at `$.type` (known: 'Say', 'Move', 'Turn')",
            "ref": 1,
        }
        assert json.loads(wrong)["message"] == "Object missing required field `x`"
        assert right == "moved by Move(x=1)"

    async def test_one_instance_a_connection(self, autojump_clock: Clock) -> None:
        for _ in range(2):
            assert await told(Chat, {"type": "Say", "text": "a"}) == ["open a"]

    async def test_close_and_error_hooks_are_as_before(self, autojump_clock: Clock) -> None:
        log: list[Any] = []

        class Handler:
            @on(Say)
            def say(self, ws: WebSocket, message: Say) -> None:
                raise ValueError(message.text)

            def error(self, ws: WebSocket, error: Exception) -> None:
                log.append(str(error))

            async def close(self, ws: WebSocket, code: int, reason: str) -> None:
                log.append(code)

        app = App(heartbeat=None)
        app.ws("/ws")(Handler)
        async with serving(app) as service:
            client = await service.connect()
            await client.send_message('{"type":"Say","text":"what"}')
            await service.wait_ended(5)
        assert log == ["what", 1011]

    @pytest.mark.parametrize(
        ("types", "messages", "expected"),
        [
            ((Untagged,), ['{"a":1}'], ["Untagged(a=1)"]),
            ((Data,), ['{"c":1}'], ["Data(c=1)"]),
            ((str,), ["text"], ["'text'"]),
            ((bytes,), [b"bytes"], ["b'bytes'"]),
            ((str, bytes), ["text", b"bytes"], ["'text'", "b'bytes'"]),
            ((Say | Move,), ['{"type":"Move","x":1}'], ["Move(x=1)"]),
            ((Say | None,), ["null"], ["None"]),
            ((Say, list, int), ["[1]", "5", '{"type":"Say","text":""}'], ["[1]", "5", "Say(text='')"]),
            ((dict,), ['{"a":[]}'], ["{'a': []}"]),
            ((Mapping,), ['{"a":[]}'], ["{'a': []}"]),
            ((Colour,), ['"red"'], ["<Colour.RED: 'red'>"]),
        ],
    )
    async def test_types(self, types: Any, messages: Any, expected: Any, autojump_clock: Clock) -> None:
        class Handler:
            @on(*types)
            def any_of_them(self, ws: WebSocket, message) -> str:  # type: ignore[no-untyped-def]
                return repr(message)

        assert await told(Handler, *messages) == expected

    async def test_static_class_and_decorated_methods(self, autojump_clock: Clock) -> None:
        def logged(function: Any) -> Any:
            @wraps(function)
            def wrapper(*args: Any) -> Any:
                return function(*args) + ", logged"

            return wrapper

        class Handler:
            @on(Say)
            @staticmethod
            def say(ws: WebSocket, message: Say) -> str:
                return "static"

            @classmethod
            @on(Move)
            def move(cls, ws: WebSocket, message: Move) -> str:
                return cls.__name__

            @logged
            @on(Turn)
            def turn(self, ws: WebSocket, message: Turn) -> str:
                return "turn"

        heard = await told(Handler, {"type": "Say", "text": ""}, {"type": "Move", "x": 1}, {"type": "Turn", "by": 1})
        assert heard == ["static", "Handler", "turn, logged"]

    async def test_a_method_called_message(self, autojump_clock: Clock) -> None:
        class Handler:
            @on(Say)
            def message(self, ws: WebSocket, message: Say) -> str:
                return message.text

        assert await told(Handler, {"type": "Say", "text": "a"}) == ["a"]

    async def test_a_method_called_as_elsewhere(self, autojump_clock: Clock) -> None:
        """It is called, so its name is no mistake."""

        class Elsewhere:
            @on(Say)
            def on_message(self, ws: WebSocket, message: Say) -> str:
                return message.text

        assert await told(Elsewhere, {"type": "Say", "text": "a"}) == ["a"]

    def test_the_nearest_base_counts(self) -> None:
        """Of what a decode hook makes; in whatever order the methods stand."""

        class Command:
            pass

        class Admin(Command):
            pass

        class Reset(Admin):
            pass

        class Both:
            @on(Command)
            def command(self, ws: WebSocket, message: Command) -> str:
                return "command"

            @on(Admin)
            def admin(self, ws: WebSocket, message: Admin) -> str:
                return "admin"

        dispatch = Dispatch(Both(), handled(Both))
        assert [dispatch(None, kind()) for kind in (Command, Admin, Reset)] == ["command", "admin", "admin"]

    def test_the_union_is_the_message_type(self) -> None:
        assert kind_of(Chat).decoder.kind == Say | Move | Turn

        class One:
            @on(Say)
            def say(self, ws: WebSocket, message: Say) -> None: ...

        assert kind_of(One).decoder.kind is Say

    def test_its_description(self) -> None:
        app = App()
        app.ws("/ws")(Chat)
        described = app.asyncapi_document(title="x", version="1")
        assert set(described["components"]["messages"]) == {"Say", "Move", "Turn", "ErrorMessage"}


class TestInheritance:
    async def test_inherited(self, autojump_clock: Clock) -> None:
        class More(Chat):
            def never(self) -> None: ...

        assert kind_of(More).decoder.kind == Say | Move | Turn
        assert await told(More, {"type": "Say", "text": "a"}) == ["open a"]

    async def test_overridden_by_name(self, autojump_clock: Clock) -> None:
        class Louder(Chat):
            async def say(self, ws: WebSocket, message: Say) -> str:
                return (await super().say(ws, message)).upper()

        assert await told(Louder, {"type": "Say", "text": "a"}) == ["OPEN A"]

    async def test_overridden_for_other_messages(self, autojump_clock: Clock) -> None:
        class Other(Chat):
            @on(Turn)
            def move(self, ws: WebSocket, message: Turn) -> str:  # type: ignore[override]
                return "turned"

        assert kind_of(Other).decoder.kind == Say | Turn
        assert await told(Other, {"type": "Turn", "by": 1}) == ["turned"]

    def test_taken_away(self) -> None:
        class Quiet(Chat):
            say = None  # type: ignore[assignment]

        assert kind_of(Quiet).decoder.kind == Move | Turn

    async def test_a_mixin(self, autojump_clock: Clock) -> None:
        class Moving:
            @on(Move)
            def move(self, ws: WebSocket, message: Move) -> str:
                return "moved"

        class Saying:
            @on(Say)
            def say(self, ws: WebSocket, message: Say) -> str:
                return "said"

        class Both(Moving, Saying):
            pass

        assert await told(Both, {"type": "Say", "text": ""}, {"type": "Move", "x": 1}) == ["said", "moved"]

    def test_an_override_that_cannot_be_called(self) -> None:
        class Wrong(Chat):
            def say(self, ws: WebSocket) -> str:  # type: ignore[override]
                return ""

        with pytest.raises(TypeError, match=r"Wrong\.say is called with \(ws, message\)"):
            kind_of(Wrong)


class TestMistakes:
    """They show when they are written."""

    @pytest.mark.parametrize(
        "wrong",
        [
            "Say",
            5,
            None,
            Any,
            object,
            Dict,
            list[int],
            dict[str, int],
            lambda: None,
            Say("instance"),
            [Say, Move],
            Say | Any,
        ],
    )
    def test_no_class(self, wrong: Any) -> None:
        with pytest.raises(TypeError, match=r"@on takes classes .*@on\(Say\), not"):
            on(wrong)
        with pytest.raises(TypeError, match="@on takes classes"):
            on(Say, wrong)

    def test_without_parentheses(self) -> None:
        with pytest.raises(TypeError, match=r"as @on\(Say\), not <function"):

            @on
            def say(self: Any, ws: WebSocket, message: Say) -> None: ...

    def test_nothing(self) -> None:
        with pytest.raises(TypeError, match="needs the type"):
            on()

    @pytest.mark.parametrize("thing", [Say, 5, "text", None])
    def test_on_no_method(self, thing: Any) -> None:
        with pytest.raises(TypeError, match="@on decorates a method"):
            on(Say)(thing)

    def test_two_for_one_type(self) -> None:
        class Twice:
            @on(Say)
            def one(self, ws: WebSocket, message: Say) -> None: ...

            @on(Move | Say)
            def two(self, ws: WebSocket, message: Say | Move) -> None: ...

        with pytest.raises(TypeError, match=r"Twice: both one and two are @on\(Say\)"):
            kind_of(Twice)

    def test_two_for_one_type_by_inheritance(self) -> None:
        class Twice(Chat):
            @on(Say)
            def louder(self, ws: WebSocket, message: Say) -> None: ...

        with pytest.raises(TypeError, match=r"both say and louder are @on\(Say\)"):
            kind_of(Twice)

    def test_beside_a_message_hook(self) -> None:
        class Both(Chat):
            def message(self, ws: WebSocket, message: Say) -> None: ...

        with pytest.raises(TypeError, match="Both has a message hook beside"):
            kind_of(Both)

    @pytest.mark.parametrize("hook", ["open", "close", "error"])
    def test_a_hook(self, hook: str) -> None:
        def method(self: Any, ws: WebSocket, *more: Any) -> None: ...

        handler = type("Handler", (), {hook: on(Say)(method)})
        with pytest.raises(TypeError, match=f"Handler.{hook} is the {hook} hook, and @on a message"):
            kind_of(handler)

    @pytest.mark.parametrize(
        "types", [(Untagged, Other), (Untagged, Say), (Untagged, Data), (dict, Untagged), (Say, Data)]
    )
    def test_what_cannot_be_told_apart(self, types: Any) -> None:
        class Handler:
            @on(*types)
            def any_of_them(self, ws: WebSocket, message) -> None: ...  # type: ignore[no-untyped-def]

        with pytest.raises(TypeError, match=r"Handler: a message of \w+ .*a tag.*tag=True"):
            kind_of(Handler)

    def test_one_tag_for_two(self) -> None:
        class Same(msgspec.Struct, tag="Say"):
            pass

        class Handler:
            @on(Say, Same)
            def any_of_them(self, ws: WebSocket, message) -> None: ...  # type: ignore[no-untyped-def]

        with pytest.raises(TypeError, match="tag"):
            kind_of(Handler)

    @pytest.mark.parametrize("annotation", ["Move", "str", "Say", "Unhandled", "Move | Turn"])
    def test_another_annotation(self, annotation: str) -> None:
        def method(self: Any, ws: WebSocket, message: Any) -> None: ...

        method.__annotations__["message"] = annotation
        handler = type("Handler", (), {"say": on(Say, Move)(method)})
        with pytest.raises(TypeError, match=r"method is @on\(Say, Move\), and its message is annotated"):
            kind_of(handler)

    @pytest.mark.parametrize("annotation", ["Say", "Any", "msgspec.Struct", "Say | Move", "object"])
    def test_an_annotation_that_takes_it(self, annotation: str) -> None:
        def method(self: Any, ws: WebSocket, message: Any) -> None: ...

        method.__annotations__["message"] = annotation
        assert kind_of(type("Handler", (), {"say": on(Say)(method)})).decoder.kind is Say

    def test_another_signature(self) -> None:
        class Handler:
            @on(Say)
            def say(self, message: Say) -> None: ...

        with pytest.raises(TypeError, match=r"say is called with \(ws, message\)"):
            kind_of(Handler)

    def test_a_connection_that_is_none(self) -> None:
        class Handler:
            @on(Say)
            def say(self, message: Say, ws: WebSocket) -> None: ...

        with pytest.raises(TypeError, match="the connection's parameter is annotated"):
            kind_of(Handler)

    def test_neither_hooks_nor_methods(self) -> None:
        class Handler:
            def say(self, ws: WebSocket, message: Say) -> None: ...

        with pytest.raises(TypeError, match=r"has none of the hooks .*, and no method that is @on a message"):
            kind_of(Handler)


def test_hooks_that_are_functions_are_none_of_it() -> None:
    """`@on` is for classes: a route's `message=` is one function."""

    def say(ws: WebSocket, message: Move) -> None: ...

    assert hooks_kind({"message": say}).decoder.kind is Move
