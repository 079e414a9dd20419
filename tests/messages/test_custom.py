"""Types that JSON has no form for: Pydantic's models, and others, by an app's `encode=` and `decode=` hooks."""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable
from fractions import Fraction
from typing import Annotated, Any, Literal

import msgspec
import pydantic
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount
from trio.abc import Clock

from tests.support.http import Exchange
from tests.support.memory import serving
from verbtrio import App, EventStream, JSONArray, MessageError, ServerSentEvent, Stream, WebSocket, on
from verbtrio.messages.custom import MAX_PROBLEM_CHARACTERS, explanation
from verbtrio.messages.decoder import INVALID_JSON, Decoder
from verbtrio.messages.frame import encode, encoder


class Say(pydantic.BaseModel):
    type: Literal["say"] = "say"
    text: str = pydantic.Field(max_length=10)
    ref: str | int | None = None


class Move(pydantic.BaseModel):
    type: Literal["move"] = "move"
    x: int


class Louder(Say):
    """One of another class."""


class Frozen(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(frozen=True)

    text: str
    ref: int | None = None


class Point:
    """A plain class."""

    def __init__(self, x: int, y: int) -> None:
        self.x, self.y = x, y

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Point) and (self.x, self.y) == (other.x, other.y)

    __hash__ = None  # type: ignore[assignment]


class Path(msgspec.Struct, tag=True):
    """A struct with others' types in it."""

    points: list[Point]
    said: Say | None = None


Described = Annotated[Fraction, msgspec.Meta(extra_json_schema={"type": "string", "pattern": "/"})]
Discriminated = Annotated[Say | Move, pydantic.Field(discriminator="type")]


def dump(value: Any) -> Any:
    """All of this module's."""
    match value:
        case pydantic.BaseModel():
            return value.model_dump(mode="json", exclude_none=True)
        case Point():
            return {"x": value.x, "y": value.y}
        case Fraction():
            return f"{value.numerator}/{value.denominator}"
    raise TypeError(f"no form for {value!r}")


def make(kind: Any, value: Any) -> Any:
    if kind is Point:
        return Point(**value)
    if kind is Fraction:
        return Fraction(value)
    return pydantic.TypeAdapter(kind).validate_python(value)


def app_with(**settings: Any) -> App:
    return App(heartbeat=None, encode=dump, decode=make, **settings)


SAY = Say(text="hi")
SAID = '{"type":"say","text":"hi"}'


class TestSent:
    """Wherever an application sends."""

    @pytest.mark.parametrize(
        ("value", "text"),
        [
            (SAY, SAID),
            ([SAY], f"[{SAID}]"),
            ({"said": SAY}, f'{{"said":{SAID}}}'),
            (Path([Point(1, 2)], SAY), f'{{"type":"Path","points":[{{"x":1,"y":2}}],"said":{SAID}}}'),
            ({"a": 1}, '{"a":1}'),
            ("text", "text"),
        ],
    )
    @pytest.mark.parametrize(
        "way", ["send", "send_nowait", "broadcast", "route", "connections", "users", "member", "returned"]
    )
    async def test_to_a_websocket(self, way: str, value: Any, text: str, autojump_clock: Clock) -> None:
        app = app_with(middleware=[as_ada])

        @app.ws("/ws")
        class Handler:
            def open(self, ws: WebSocket) -> None:
                ws.join("lobby")

            async def message(self, ws: WebSocket, message: str) -> Any:
                match way:
                    case "send":
                        await ws.send(value)
                    case "send_nowait":
                        ws.send_nowait(value)
                    case "broadcast":
                        app.room("lobby").broadcast(value)
                    case "route":
                        ws.route.broadcast(value)
                    case "connections":
                        app.connections.broadcast(value)
                    case "users":
                        await app.users.send("ada", value)
                    case "member":
                        for member in app.room("lobby").here:
                            member.send_nowait(value)
                    case "returned":
                        return value
                return None

        async with serving(app) as service:
            client = await service.connect()
            await client.send_message("go")
            assert await client.get_message() == text
            await client.aclose()

    @pytest.mark.parametrize("way", ["broadcast", "users", "member"])
    async def test_to_a_listener(self, way: str, autojump_clock: Clock) -> None:
        app = app_with(middleware=[as_ada])
        app.sse("/events", room="lobby", keep_alive=None)
        async with serving(app) as service:
            events = await Exchange(service.open_stream()).request("/events")
            match way:
                case "broadcast":
                    app.room("lobby").broadcast(SAY)
                case "users":
                    await app.users.send("ada", SAY)
                case "member":
                    app.users.connections("ada")[0].send_nowait(SAY)
            assert await events.until(b"\n\n") == f"data: {SAID}\n\n".encode()
            await events.aclose()

    @pytest.mark.parametrize(
        ("response", "body"),
        [
            (lambda: JSONArray([SAY, {"a": Point(1, 2)}]), f'[{SAID},\n{{"a":{{"x":1,"y":2}}}}]'),
            (lambda: EventStream([SAY]), f"data: {SAID}\n\n"),
            (lambda: EventStream([ServerSentEvent(SAY, event="said")]), f"event: said\ndata: {SAID}\n\n"),
            (lambda: EventStream([Fraction(1, 3)]), "data: 1/3\n\n"),
            (lambda: EventStream([[Fraction(1, 3)]]), 'data: ["1/3"]\n\n'),
            (lambda: Stream(["text"]), "text"),
        ],
    )
    @pytest.mark.parametrize("where", ["app", "group", "mounted"])
    async def test_in_a_response(self, where: str, response: Callable[[], Response], body: str) -> None:
        app = app_with()
        served: Any = app

        async def endpoint(request: Request) -> Response:
            return response()

        match where:
            case "app":
                app.get("/x")(endpoint)
            case "group":
                app.group("/x").get("/y")(endpoint)
            case "mounted":
                app.get("/y")(endpoint)
                served = Starlette(routes=[Mount("/x", app=app)], lifespan=app.lifespan)
        async with serving(app, served) as service:
            client = await Exchange(service.open_stream()).request("/x" if where == "app" else "/x/y")
            assert (await client.rest()).decode() == body
            await client.aclose()

    async def test_in_a_mounted_app_its_own_hook_counts(self) -> None:
        inner, outer = App(encode=lambda value: "inner"), App(encode=lambda value: "outer")

        async def endpoint(request: Request) -> Response:
            return JSONArray([SAY])

        inner.get("/x")(endpoint)
        outer.get("/x")(endpoint)
        outer.mount("/inner", inner)
        async with serving(outer) as service:
            for path, expected in (("/x", b'["outer"]'), ("/inner/x", b'["inner"]')):
                client = await Exchange(service.open_stream()).request(path)
                assert await client.rest() == expected
                await client.aclose()

    async def test_without_a_hook(self, autojump_clock: Clock) -> None:
        app = App(heartbeat=None)

        @app.ws("/ws")
        async def handler(ws: WebSocket) -> None:
            for call in (ws.send_nowait, ws.route.broadcast, lambda data: app.users.send_nowait("ada", data)):
                with pytest.raises(TypeError, match="Say"):
                    call(SAY)
            with pytest.raises(TypeError, match="Say"):
                await ws.send(SAY)
            await ws.send("done")

        async with serving(app) as service:
            client = await service.connect()
            assert await client.get_message() == "done"
            await client.aclose()


async def as_ada(request: Any, call_next: Any) -> Response:
    request.scope["user"] = "ada"
    response: Response = await call_next(request)
    return response


class TestEncoder:
    def test_without_a_hook_it_is_the_plain_one(self) -> None:
        assert encoder(None) is encode

    @pytest.mark.parametrize(
        ("made", "payload", "text"),
        [
            ("text", b"text", True),
            (b"bytes", b"bytes", False),
            (bytearray(b"ab"), b"ab", False),
            (memoryview(b"ab"), b"ab", False),
            ({"a": 1}, b'{"a":1}', True),
            (None, b"null", True),
            (5, b"5", True),
            ([Fraction(1, 3)], b'["1/3"]', True),
        ],
    )
    def test_what_the_hook_returns_is_what_is_sent(self, made: Any, payload: bytes, text: bool) -> None:
        frame = encoder(lambda value: made if value is SAY else dump(value))(SAY)
        assert (frame.payload, frame.text) == (payload, text)

    @pytest.mark.parametrize(("made", "inside"), [("text", '"text"'), (b"bytes", '"Ynl0ZXM="')])
    def test_within_a_message_it_is_json(self, made: Any, inside: str) -> None:
        assert encoder(lambda value: made)([SAY]).payload.decode() == f"[{inside}]"

    @pytest.mark.parametrize("data", ["x", b"x", bytearray(b"x"), {"a": [1]}, 5, None])
    def test_not_asked_for_what_json_has_a_form_for(self, data: Any) -> None:
        frame = encoder(lambda value: pytest.fail("asked"))(data)
        assert (frame.payload, frame.text) == (encode(data).payload, encode(data).text)

    def test_a_hook_that_does_nothing(self) -> None:
        with pytest.raises(TypeError, match="encode hook returned the Say"):
            encoder(lambda value: value)([SAY])

    @pytest.mark.parametrize("error", [ValueError("no"), TypeError("no"), KeyError("no"), NotImplementedError("no")])
    def test_a_hook_that_raises(self, error: Exception) -> None:
        def hook(value: Any) -> Any:
            raise error

        with pytest.raises(type(error)) as caught:
            encoder(hook)({"a": SAY})
        assert caught.value is error

    async def test_nobody_gets_anything_of_what_cannot_be_encoded(self, autojump_clock: Clock) -> None:
        def hook(value: Any) -> Any:
            raise ValueError("no")

        app = App(heartbeat=None, encode=hook)

        @app.ws("/ws")
        async def handler(ws: WebSocket) -> None:
            with pytest.raises(ValueError, match="no"):
                ws.route.broadcast(SAY)
            await ws.send("done")

        async with serving(app) as service:
            client = await service.connect()
            assert await client.get_message() == "done"
            await client.aclose()

    def test_bytes_are_no_event(self) -> None:
        with pytest.raises(TypeError, match="events are text"):
            ServerSentEvent(SAY).encode(encoder(lambda value: b"bytes"))


class TestReceived:
    @pytest.mark.parametrize(
        ("kind", "message", "expected"),
        [
            (Say, '{"type":"say","text":"hi"}', SAY),
            (Say, b'{"type":"say","text":"hi"}', SAY),
            (Say | Move, '{"type":"move","x":1}', Move(x=1)),
            (Discriminated, '{"type":"move","x":1}', Move(x=1)),
            (Say | None, "null", None),
            (list[Say], f"[{SAID}]", [SAY]),
            (dict[str, Say], f'{{"a":{SAID}}}', {"a": SAY}),
            (Path, f'{{"type":"Path","points":[{{"x":1,"y":2}}],"said":{SAID}}}', Path([Point(1, 2)], SAY)),
            (Fraction, '"1/3"', Fraction(1, 3)),
            (Described, '"1/3"', Fraction(1, 3)),
            (list[Described], '["1/3"]', [Fraction(1, 3)]),
            (Point, '{"x":1,"y":2}', Point(1, 2)),
            (int | Say, "5", 5),
            (dict[str, object], '{"a":[1]}', {"a": [1]}),
        ],
    )
    def test_made_by_the_hook(self, kind: Any, message: str | bytes, expected: Any) -> None:
        assert Decoder[Any](kind, make)(message) == expected

    @pytest.mark.parametrize(
        ("kind", "message", "problem"),
        [
            (Say, "{", INVALID_JSON),
            (Say, "[" * 100_000, INVALID_JSON),
            (Say, b"\xff", INVALID_JSON),
            (Say, '{"type":"say"}', "1 validation error for Say text Field required"),
            (Say, "[]", "1 validation error for Say Input should be a valid dictionary or instance of Say"),
            (Discriminated, '{"type":"stay"}', "Input tag 'stay' found using 'type' does not match"),
            (list[Say], '[{"type":"say"}]', "Field required"),
            (Point, '{"x":1}', "missing 1 required positional argument: 'y'"),
            (Point, "[]", "must be a mapping, not list"),
            (Fraction, '"x"', "Invalid literal for Fraction: 'x'"),
            (Path, '{"type":"Path","points":[{}]}', " - at `$.points[0]`"),
            (Path, '{"type":"Path","points":{}}', "Expected `array`, got `object` - at `$.points`"),
        ],
    )
    def test_what_is_something_else(self, kind: Any, message: str | bytes, problem: str) -> None:
        with pytest.raises(MessageError) as caught:
            Decoder(kind, make)(message)
        assert problem in str(caught.value)
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize("kind", [Say, Say | Move, list[Say], Path])
    def test_the_answer_is_short(self, kind: Any) -> None:
        def refuse(kind: Any, value: Any) -> Any:
            raise ValueError("x" * 100_000)

        message = {"type": "Path", "points": [{}]} if kind is Path else [{}] if kind == list[Say] else {}
        with pytest.raises(MessageError) as caught:
            Decoder(kind, refuse)(json.dumps(message))
        assert len(str(caught.value)) <= MAX_PROBLEM_CHARACTERS + 3

    @pytest.mark.parametrize("kind", [Say, Say | Move, list[Say]])
    @pytest.mark.parametrize(
        "error", [ValueError("Expected tea"), TypeError("Expected tea"), MessageError("Expected tea")]
    )
    def test_the_hooks_own_words(self, kind: Any, error: Exception) -> None:
        def refuse(kind: Any, value: Any) -> Any:
            raise error

        with pytest.raises(MessageError, match=r"^Expected tea"):
            Decoder(kind, refuse)("[{}]" if kind == list[Say] else "{}")

    @pytest.mark.parametrize("kind", [Say, Say | Move, list[Say], Path])
    @pytest.mark.parametrize("error", [KeyError("x"), AttributeError("x"), ZeroDivisionError("x")])
    def test_a_mistake_of_the_hooks(self, kind: Any, error: Exception) -> None:
        """Is the application's error, not the client's."""

        def fail(kind: Any, value: Any) -> Any:
            raise error

        message = {"type": "Path", "points": [{}]} if kind is Path else [{}] if kind == list[Say] else {}
        with pytest.raises(type(error)) as caught:
            Decoder(kind, fail)(json.dumps(message))
        assert caught.value is error

    @pytest.mark.parametrize("kind", [Say, list[Say], dict[str, Say]])
    def test_a_hook_that_makes_something_else(self, kind: Any) -> None:
        message = {list[Say]: "[{}]", dict[str, Say]: '{"a":{}}'}.get(kind, "{}")
        with pytest.raises(RuntimeError, match=r"decode hook was asked for a Say and returned \{\}"):
            Decoder(kind, lambda kind, value: value)(message)

    @pytest.mark.parametrize("form", ["coroutine", "hook", "method", "on"])
    async def test_by_each_form_of_handler(self, form: str, autojump_clock: Clock) -> None:
        app = app_with()
        if form == "coroutine":

            @app.ws("/ws")
            async def handler(ws: WebSocket[Say | Move]) -> None:
                async for message in ws:
                    await ws.send(repr(message))

        elif form == "hook":

            def hook(ws: WebSocket, message: Say | Move) -> str:
                return repr(message)

            app.ws("/ws", message=hook)
        elif form == "method":

            @app.group("").ws("/ws")
            class Handler:
                def message(self, ws: WebSocket, message: Say | Move) -> str:
                    return repr(message)

        else:

            @app.ws("/ws")
            class Dispatching:
                @on(Say)
                def say(self, ws: WebSocket, message: Say) -> str:
                    return repr(message)

                @on(Move)
                async def move(self, ws: WebSocket, message: Move) -> str:
                    return repr(message)

        async with serving(app) as service:
            client = await service.connect()
            for message in (SAY, Move(x=1)):
                await client.send_message(message.model_dump_json())
                assert await client.get_message() == repr(message)
            await client.send_message('{"type":"say","text":"far too long","ref":9}')
            answer = json.loads(await client.get_message())
            assert (answer["type"], answer["ref"]) == ("error", 9)
            assert "at most 10 characters" in answer["message"]
            await client.aclose()
            await service.wait_ended(5)
            assert app.statistics().ended == {"peer": 1}

    @pytest.mark.parametrize("made", [Louder(text="hi"), None, {}])
    async def test_something_else_for_a_method(self, made: Any, autojump_clock: Clock) -> None:
        """A subclass is as good; anything else is the hook's mistake."""
        app, errors = App(heartbeat=None, encode=dump, decode=lambda kind, value: made), []

        @app.ws("/ws")
        class Handler:
            @on(Say, Move)
            def either(self, ws: WebSocket, message: Say | Move) -> str:
                return type(message).__name__

            def error(self, ws: WebSocket, error: Exception) -> None:
                errors.append(str(error))

        async with serving(app) as service:
            client = await service.connect()
            await client.send_message("{}")
            if isinstance(made, Louder):
                assert await client.get_message() == "Louder"
                await client.aclose()
            await service.wait_ended(5)
        assert errors == ([] if made else [f"the app's decode hook made {made!r}, which no method is @on"])

    @pytest.mark.parametrize("answer", [Say(text="yes"), Frozen(text="yes")])
    async def test_ref(self, answer: Any, autojump_clock: Clock) -> None:
        app = app_with()

        def hook(ws: WebSocket, message: Say) -> Any:
            return answer

        app.ws("/ws", message=hook)
        async with serving(app) as service:
            client = await service.connect()
            await client.send_message('{"text":"hi","ref":5}')
            assert json.loads(await client.get_message())["ref"] == 5
            await client.send_message('{"text":"hi"}')
            assert "ref" not in json.loads(await client.get_message())
            await client.aclose()
        assert answer.ref is None

    async def test_a_failing_hook_ends_its_connection_alone(
        self, autojump_clock: Clock, caplog: pytest.LogCaptureFixture
    ) -> None:
        def fail(kind: Any, value: Any) -> Any:
            raise KeyError("a mistake")

        app = App(heartbeat=None, decode=fail)

        @app.ws("/ws")
        async def handler(ws: WebSocket[Say]) -> None:
            async for _ in ws:
                pass

        async with serving(app) as service:
            client = await service.connect()
            await client.send_message("{}")
            await service.wait_ended(5)
            assert client.closed is not None
            assert client.closed.code == 1011


class TestRoutes:
    """Mistakes show when the route is made."""

    @pytest.mark.parametrize(
        "kind", [Say, Say | Move, Discriminated, Described, Say | None, int | Say, list[Say], Path, dict[str, Say]]
    )
    @pytest.mark.parametrize("where", ["ws", "message"])
    def test_a_type_without_a_hook(self, kind: Any, where: str) -> None:
        async def handler(ws: WebSocket) -> None: ...
        def hook(ws: WebSocket, message: Any) -> None: ...

        handler.__annotations__["ws"] = WebSocket[kind]
        hook.__annotations__["message"] = kind
        app = App()
        with pytest.raises(TypeError, match=r"JSON can't? ?be decoded to|JSON can be decoded to") as caught:
            app.ws("/ws")(handler) if where == "ws" else app.ws("/ws", message=hook)
        assert "App(decode=" in str(caught.value)
        assert not app.routes

    @pytest.mark.parametrize("kind", [dict[str, object], dict[str, Hashable], list[object]])
    def test_types_that_json_values_are_of(self, kind: Any) -> None:
        """They need no hook, and none is asked."""
        Decoder(kind)
        value = Decoder[Any](kind, lambda kind, value: pytest.fail("asked"))(
            '{"a":"b"}' if "dict" in str(kind) else '["b"]'
        )
        assert value in ({"a": "b"}, ["b"])

    @pytest.mark.parametrize("kind", [set[Point], dict[Fraction, int], frozenset[Say], set[object]])
    def test_keys_whose_hash_nobody_knows(self, kind: Any) -> None:
        """What a hook makes may be made so that all have one hash."""
        with pytest.raises(TypeError, match="CWE-407"):
            Decoder(kind, make)

    @pytest.mark.parametrize(
        "hooks",
        [
            {"encode": 5},
            {"decode": "text"},
            {"encode": lambda: None},
            {"encode": lambda a, b: None},
            {"decode": lambda value: None},
            {"decode": lambda a, b, c: None},
        ],
    )
    def test_a_hook_that_cannot_be_called(self, hooks: Any) -> None:
        name = "encode" if "encode" in hooks else "decode"
        with pytest.raises(TypeError, match=rf"{name}.*\((value|type, value)\)"):
            App(**hooks)

    def test_a_coroutine_function(self) -> None:
        async def hook(*args: Any) -> Any: ...

        make_app: Any = App
        for name in ("encode", "decode"):
            with pytest.raises(TypeError, match=f"{name}= takes a plain function"):
                make_app(**{name: hook})

    def test_built_in_hooks(self) -> None:
        App(encode=str, decode=isinstance)


class TestDescription:
    def test_models(self) -> None:
        class Part(pydantic.BaseModel):
            name: str

        class Whole(pydantic.BaseModel):
            parts: list[Part]
            other: Say | Move = pydantic.Field(discriminator="type")

        app = app_with()

        async def handler(ws: WebSocket) -> None: ...

        handler.__annotations__["ws"] = WebSocket[Annotated[Say | Move, pydantic.Field(discriminator="type")]]
        app.ws("/ws", sends=Whole)(handler)
        described = app.asyncapi_document(title="x", version="1")
        assert set(described["components"]["messages"]) == {"Say", "Move", "Whole", "ErrorMessage"}
        schemas = described["components"]["schemas"]
        assert schemas["Say"]["properties"]["text"] == {"maxLength": 10, "title": "Text", "type": "string"}
        assert schemas["Whole"]["properties"]["parts"]["items"] == {"$ref": "#/components/schemas/Whole.Part"}
        assert {"Whole.Part", "Whole.Say", "Whole.Move"} <= set(schemas)
        for ref in references(described):
            assert resolve(described, ref), ref

    def test_a_model_and_a_struct_of_one_name(self) -> None:
        struct = msgspec.defstruct("Say", [("other", int)])
        app = app_with()

        async def handler(ws: WebSocket) -> None: ...

        handler.__annotations__["ws"] = WebSocket[Say]
        app.ws("/ws", sends=struct)(handler)
        described = app.asyncapi_document(title="x", version="1")
        assert "text" in described["components"]["schemas"]["Say_2"]["properties"]
        assert "other" in described["components"]["schemas"]["Say"]["properties"]

    def test_a_type_that_is_annotated_with_a_schema(self) -> None:
        app = app_with()

        async def handler(ws: WebSocket[Described]) -> None: ...

        app.ws("/ws")(handler)
        described = app.asyncapi_document(title="x", version="1")
        assert described["components"]["messages"]["string"]["payload"] == {"type": "string", "pattern": "/"}

    def test_a_type_without_a_schema(self) -> None:
        app = app_with()

        async def handler(ws: WebSocket[Point]) -> None: ...

        app.ws("/ws")(handler)
        with pytest.raises(TypeError, match=r"Point.* has no JSON Schema: .*`model_json_schema`"):
            app.asyncapi_document(title="x", version="1")


def references(part: Any) -> list[str]:
    if isinstance(part, list):
        return [ref for one in part for ref in references(one)]
    if not isinstance(part, dict):
        return []
    own = [part["$ref"]] if isinstance(part.get("$ref"), str) else []
    return own + [ref for one in part.values() for ref in references(one)]


def resolve(document: Any, ref: str) -> Any:
    for name in ref.removeprefix("#/").split("/"):
        document = document[name.replace("~1", "/")]
    return document


class Many(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")

    ids: list[str] = []


@pytest.mark.parametrize("wrong", [{"ids": [1] * 20_000}, {f"a{number}": 0 for number in range(20_000)}])
@pytest.mark.parametrize("kind", [Many, list[Many]])
def test_of_many_mistakes_the_number(kind: Any, wrong: Any) -> None:
    """The text that names each would be a hundred times as long as the message."""
    decoder = Decoder[Any](kind, lambda kind, value: kind.model_validate(value))
    with pytest.raises(MessageError) as caught:
        decoder(json.dumps(wrong if kind is Many else [wrong]))
    assert "20000 errors in the message" in str(caught.value)


def test_a_long_text_is_cut_before_it_is_looked_at() -> None:
    class Text(str):
        """Says what is asked of it."""

        __slots__ = ()

        def split(self, *_: Any) -> Any:
            raise AssertionError("all of it is split")

    class Error(ValueError):
        def __str__(self) -> str:
            return Text("x " * 10**6)

    assert len(explanation(Error())) <= MAX_PROBLEM_CHARACTERS + 3
