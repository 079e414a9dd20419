"""Path parameters by annotation: for WebSocket and HTTP handlers alike. (This module's annotations are strings.)"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from functools import partial, wraps
from typing import TYPE_CHECKING, Annotated, Any, Literal, NewType
from urllib.parse import quote
from uuid import UUID

import msgspec
import pytest
from starlette.convertors import CONVERTOR_TYPES, Convertor, register_url_convertor
from starlette.endpoints import HTTPEndpoint
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from trio.abc import Clock

from tests.support.memory import Service, serving, shake_hands
from tests.test_app import http
from verbtrio import App, WebSocket
from verbtrio.routes.groups import _leaves

if TYPE_CHECKING:
    from decimal import Decimal as Hidden

METHODS = ("get", "post", "put", "patch", "delete")
UUID_TEXT = "12345678-1234-5678-1234-567812345678"


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


UserId = NewType("UserId", int)
Small = Annotated[int, msgspec.Meta(ge=1, le=9)]

NO = object()
"""No such path: 404."""

# What a path holds, and what a handler whose parameter is so annotated gets.
VALUES: list[tuple[Any, dict[str, Any]]] = [
    (str, {"7": "7", "null": "null", "ü": "ü", " ": " ", "1_000": "1_000"}),
    (
        int,
        {
            "7": 7,
            "-7": -7,
            "0": 0,
            "1.0": 1,  # as msgspec has it: JSON's numbers
            "1e3": 1000,
            "9" * 25: int("9" * 25),
            "9" * 4300: int("9" * 4300),
            "9" * 4301: NO,
            **dict.fromkeys(
                ("x", "1.5", "+1", " 1", "1 ", "1_000", "\u0661", "²", "0x1", "01", "nan", "true", "null"), NO
            ),
            "1e400": NO,
        },
    ),
    (
        float,
        {
            "7": 7.0,
            "1.5": 1.5,
            "-1.5": -1.5,
            "1e3": 1000.0,
            **dict.fromkeys(("nan", "NaN", "inf", "-inf", "Infinity", "-Infinity", "1e999", "-1e999"), NO),
            **dict.fromkeys(("x", "+1.5", " 1", "1_0.0", ".5", "5.", "\u0661", "9" * 4300), NO),
        },
    ),
    (bool, {"true": True, "false": False, "1": True, "0": False, "yes": NO, "2": NO, "on": NO}),
    (UUID, {UUID_TEXT: UUID(UUID_TEXT), UUID_TEXT.replace("-", ""): UUID(UUID_TEXT), "x": NO, UUID_TEXT + "0": NO}),
    (
        Decimal,
        {
            "1.50": Decimal("1.50"),
            "1e300": Decimal("1e300"),
            "0e-400": NO,
            **dict.fromkeys(("NaN", "Infinity", "-Infinity", "x", "1e999999999", "-1e999999999", "1e-999999999"), NO),
        },
    ),
    (date, {"2024-02-29": date(2024, 2, 29), "2023-02-29": NO, "x": NO}),
    (time, {"12:30:00": time(12, 30), "25:00:00": NO}),
    (datetime, {"2024-01-02T03:04:05": datetime(2024, 1, 2, 3, 4, 5), "x": NO, "1e20": NO}),
    (timedelta, {"P1D": timedelta(days=1), "x": NO}),
    (Color, {"red": Color.RED, "RED": NO, "green": NO}),
    (Level, {"1": Level.LOW, "3": NO, "LOW": NO}),
    (Literal["a", "b"], {"a": "a", "c": NO}),
    (Literal[1, 2], {"1": 1, "3": NO, "a": NO}),
    (int | None, {"7": 7, "null": None, "x": NO}),
    (str | None, {"7": "7", "null": "null"}),
    (int | str, {"7": "7", "x": "x"}),
    (int | float, {"7": 7, "1.5": 1.5, "nan": NO, "x": NO}),
    (UserId, {"7": 7, "x": NO}),
    (Small, {"9": 9, "10": NO}),
    (Any, {"7": "7"}),
    (object, {"7": "7"}),
]


def annotated(function: Any, annotation: Any) -> Any:
    """`function`, whose parameter `n` is annotated so."""
    function.__annotations__["n"] = annotation
    return function


def ws_handler(got: list[Any], annotation: Any) -> Any:
    async def handler(ws: WebSocket, n: Any) -> None:
        got.append(n)

    return annotated(handler, annotation)


def http_handlers(got: list[Any], annotation: Any) -> Iterator[Any]:
    """A handler in each of its forms."""

    async def coroutine(request: Request, n: Any) -> Response:
        got.append(n)
        return PlainTextResponse(request.url.path)

    def plain(request: Request, n: Any) -> Response:
        got.append(n)
        return PlainTextResponse(request.url.path)

    class Page:
        async def show(self, request: Request, n: Any) -> Response:
            got.append(n)
            return PlainTextResponse(request.url.path)

    async def bound(request: Request, n: Any, text: str) -> Response:
        got.append(n)
        return PlainTextResponse(text)

    annotated(Page.show, annotation)
    yield from (annotated(coroutine, annotation), annotated(plain, annotation), Page().show)
    yield partial(annotated(bound, annotation), text="x")


async def ask(service: Service, path: str) -> int:
    """The status of an upgrade."""
    stream = service.open_stream()
    status = int((await shake_hands(stream, quote(path, safe="/:"))).split(b" ")[1])
    await stream.aclose()
    await service.wait_ended(20)
    return status


@pytest.mark.parametrize(("annotation", "values"), VALUES, ids=[str(annotation) for annotation, _ in VALUES])
class TestValues:
    async def test_of_a_websocket(self, annotation: Any, values: dict[str, Any], autojump_clock: Clock) -> None:
        """Converted, or refused before the upgrade."""
        got: list[Any] = []
        app = App()
        app.ws("/ws/:n")(ws_handler(got, annotation))
        app.group("/group/{n}").ws("/ws")(ws_handler(got, annotation))
        async with serving(app) as service:
            for text, value in values.items():
                for path in (f"/ws/{text}", f"/group/{text}/ws"):
                    status = await ask(service, path)
                    assert (status, got) == ((404, []) if value is NO else (101, [value])), path
                    assert [type(one) for one in got] == [type(value)] * len(got)
                    got.clear()
            assert app.statistics().opened == 2 * len([value for value in values.values() if value is not NO])

    async def test_of_a_request(self, annotation: Any, values: dict[str, Any]) -> None:
        got: list[Any] = []
        app = App()
        for number, handler in enumerate(http_handlers(got, annotation)):
            app.get(f"/{number}/:n")(handler)
            app.group(f"/group{number}/:n").get("/it")(handler)
        async with http(app) as client:
            for text, value in values.items():
                for number in range(4):
                    for path in (f"/{number}/{quote(text)}", f"/group{number}/{quote(text)}/it"):
                        status = (await client.get(path)).status_code
                        assert (status, got) == ((404, []) if value is NO else (200, [value])), path
                        assert [type(one) for one in got] == [type(value)] * len(got)
                        got.clear()


@pytest.mark.parametrize("method", METHODS)
async def test_every_method(method: str) -> None:
    app = App()

    async def endpoint(request: Request, n: int) -> Response:
        return PlainTextResponse(f"{request.method} {n + 1} {request.path_params}")

    assert getattr(app, method)("/things/:n", name="thing")(endpoint) is endpoint
    async with http(app) as client:
        response = await client.request(method.upper(), "/things/7")
        assert response.text == f"{method.upper()} 8 {{'n': '7'}}"
        assert (await client.request(method.upper(), "/things/x")).status_code == 404
        assert (await client.request("OPTIONS", "/things/x")).status_code == 405
    assert app.url_path_for("thing", n="7") == "/things/7"


async def test_not_found_is_the_apps_to_answer() -> None:
    async def ours(request: Request, error: Exception) -> Response:
        return PlainTextResponse("ours", 404)

    app = App(exception_handlers={404: ours})

    @app.get("/things/:n")
    async def endpoint(request: Request, n: int) -> Response:
        return PlainTextResponse("x")

    async with http(app) as client:
        assert (await client.get("/things/x")).text == "ours"


async def test_a_refusal_is_in_the_log(autojump_clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    """At INFO: whoever asks chooses what is in it."""
    caplog.set_level("INFO", logger="verbtrio.endpoint")
    app = App()
    app.ws("/ws/:n")(ws_handler([], int))
    async with serving(app) as service:
        assert await ask(service, "/ws/" + "x" * 500) == 404
        (record,) = caplog.records
        assert record.levelname == "INFO"
        assert "its n is 'xxx" in record.getMessage()
        assert "Expected `int`, got `str`" in record.getMessage()
        assert len(record.getMessage()) < 300


async def test_params_are_as_the_path_converts_them(autojump_clock: Clock) -> None:
    """`ws.params` and `request.path_params` know nothing of the annotation."""
    app = App()

    @app.ws("/ws/:a/{b:int}")
    async def handler(ws: WebSocket, a: int, b: int) -> None:
        await ws.send([a, b, ws.params])

    async with serving(app) as service:
        client = await service.connect("/ws/1/2")
        assert await client.get_message() == '[1,2,{"a":"1","b":2}]'
        await client.aclose()


class TestForms:
    """Of parameters: whatever Python has."""

    async def test_all_at_once(self, autojump_clock: Clock) -> None:
        got: list[Any] = []
        app = App()

        @app.ws("/ws/:a/:b/:c/:d")
        async def handler(ws: WebSocket, a: int, /, b: int = 5, *, c: int, **rest: int) -> None:
            got.append((a, b, c, rest))

        @app.get("/page/:a/:b/:c/:d")
        async def page(request: Request, a: int, /, b: int = 5, *, c: int, **rest: int) -> Response:
            got.append((a, b, c, rest))
            return PlainTextResponse("x")

        async with serving(app) as service, http(app) as client:
            assert await ask(service, "/ws/1/2/3/4") == 101
            assert (await client.get("/page/1/2/3/4")).status_code == 200
            for path in ("x/2/3/4", "1/x/3/4", "1/2/x/4"):
                assert await ask(service, f"/ws/{path}") == 404
                assert (await client.get(f"/page/{path}")).status_code == 404
        assert got == [(1, 2, 3, {"d": "4"})] * 2, "those that have no name of their own are not converted"

    async def test_none_of_them(self) -> None:
        """A handler that asks for none is Starlette's to call, whatever the path has."""
        app = App()

        @app.get("/:a/one")
        async def one(request: Request) -> Response:
            return PlainTextResponse(request.path_params["a"])

        def two(request: Request) -> Response:
            return PlainTextResponse(request.path_params["a"])

        app.get("/:a/two")(partial(two))
        async with http(app) as client:
            assert [(await client.get(f"/x/{name}")).text for name in ("one", "two")] == ["x", "x"]

    async def test_classes_and_asgi_applications(self) -> None:
        """They are called as Starlette calls them."""
        app = App()

        @app.get("/class/:a")
        class Page(HTTPEndpoint):
            async def get(self, request: Request) -> Response:
                return PlainTextResponse(request.path_params["a"])

        app.get("/asgi/:a")(PlainTextResponse("asgi"))
        async with http(app) as client:
            assert [(await client.get(f"/{name}/x")).text for name in ("class", "asgi")] == ["x", "asgi"]

    async def test_a_decorated_handler(self, autojump_clock: Clock) -> None:
        def logged(function: Any) -> Any:
            @wraps(function)
            async def wrapper(*args: Any, **options: Any) -> Any:
                return await function(*args, **options)

            return wrapper

        got: list[Any] = []
        app = App()
        app.ws("/ws/:n")(logged(ws_handler(got, int)))
        app.get("/page/:n")(logged(next(http_handlers(got, int))))
        async with serving(app) as service, http(app) as client:
            assert await ask(service, "/ws/7") == 101
            assert (await client.get("/page/7")).status_code == 200
        assert got == [7, 7]

    async def test_the_name_of_a_route(self) -> None:
        app = App()

        @app.get("/a/:n")
        async def page(request: Request, n: int) -> Response:
            return PlainTextResponse("x")

        app.get("/b/:n")(partial(page))
        assert app.url_path_for("page", n="7") == "/a/7"
        assert app.url_path_for("partial", n="7") == "/b/7"


class Version:
    """What a convertor of somebody's own gives."""


class VersionConvertor(Convertor[Version]):
    regex = "v[0-9]+"

    def convert(self, value: str) -> Version:
        return Version()

    def to_string(self, value: Version) -> str:
        return "v1"


class YearConvertor(Convertor[str]):
    """It gives text."""

    regex = "[0-9]{4}|next"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


class NumberConvertor(Convertor[Decimal]):
    regex = "[0-9a-z]+"

    def convert(self, value: str) -> Decimal:
        return Decimal(value)

    def to_string(self, value: Decimal) -> str:
        return str(value)


@pytest.fixture
def convertors() -> Iterator[None]:
    own: dict[str, Convertor[Any]] = {
        "version": VersionConvertor(),
        "year": YearConvertor(),
        "number": NumberConvertor(),
    }
    for name, convertor in own.items():
        register_url_convertor(name, convertor)
    yield
    for name in own:
        del CONVERTOR_TYPES[name]


@pytest.mark.usefixtures("convertors")
async def test_convertors_of_ones_own(autojump_clock: Clock) -> None:
    """What they give is theirs to know; text is converted by the annotation."""
    got: list[Any] = []
    app = App()
    for annotation in (Version, int, Any):
        app.ws(f"/{getattr(annotation, '__name__', 'any')}/{{n:version}}")(ws_handler(got, annotation))
    app.ws("/year/{n:year}")(ws_handler(got, int))
    async with serving(app) as service:
        for path in ("/Version/v1", "/int/v1", "/Any/v1", "/year/2024"):
            assert await ask(service, path) == 101
        assert await ask(service, "/year/next") == 404
    assert [type(value) for value in got] == [Version, Version, Version, int]


@pytest.mark.usefixtures("convertors")
@pytest.mark.parametrize("annotation", [Decimal, float, int, Decimal | None])
async def test_a_number_of_ones_own_is_within_bounds(annotation: Any, autojump_clock: Clock) -> None:
    """`int(Decimal("1e999999999"))` would take minutes."""
    got: list[Any] = []
    app = App()
    app.ws("/it/{n:number}")(ws_handler(got, annotation))
    async with serving(app) as service:
        for text, status in [("7", 101), ("1e999999999", 404), ("inf", 404), ("nan", 404), ("1e300", 101)]:
            assert await ask(service, f"/it/{text}") == status
    assert got == [Decimal(7), Decimal("1e300")]


CONTRADICTIONS: list[tuple[str, Any]] = [
    *(("int", kind) for kind in (str, bool, UUID, date, datetime, Color, Literal["a"], str | None, list[int])),
    *(("float", kind) for kind in (int, str, bool, Level, Literal[1], int | None)),
    *(("uuid", kind) for kind in (str, int, Color, str | None)),
    *(("path", kind) for kind in (int, float, bool, UUID, date, Decimal, Level, Literal[1], int | None)),
    *(("str", kind) for kind in (bytes, list, list[int], dict, set, tuple, complex, Version, None, int | Version)),
]
AGREEMENTS: list[tuple[str, str, Any, Any]] = [
    *(("int", "7", kind, 7) for kind in (int, int | str, int | None, Any, object, UserId, Small, float, Decimal)),
    ("int", "1", Level, Level.LOW),
    ("int", "1", Literal[1, 2], 1),
    *(("float", "1.5", kind, 1.5) for kind in (float, float | None, Any, object)),
    ("float", "1.5", Decimal, Decimal("1.5")),
    *(("uuid", UUID_TEXT, kind, UUID(UUID_TEXT)) for kind in (UUID, UUID | None, Any, object)),
    *(("path", "a/b", kind, "a/b") for kind in (str, str | None, Any, object, Literal["a/b"], str | int)),
    ("path", "red", Color, Color.RED),
]
NAMES = {"int": "int", "float": "float", "uuid": "UUID", "path": "str", "str": "str"}


class TestContradictions:
    @pytest.mark.parametrize(("convertor", "annotation"), CONTRADICTIONS)
    def test_show_when_the_route_is_made(self, convertor: str, annotation: Any) -> None:
        """Both sides are named, and what to write."""
        app = App()
        for prefix in ("", "/group"):
            routes = app.group(prefix)
            adders = [(routes.ws, ws_handler([], annotation))]
            for method in METHODS:
                adders += [(getattr(routes, method), handler) for handler in http_handlers([], annotation)]
            for add, handler in adders:
                with pytest.raises(TypeError) as caught:
                    add(f"/it/{{n:{convertor}}}")(handler)
                problem = str(caught.value)
                assert "`n: " in problem
                assert f"{{n:{convertor}}} is of the type {NAMES[convertor]}" in problem or "can't be read" in problem
            assert not list(_leaves(app.routes)), "a route that is refused is not there"

    @pytest.mark.parametrize(("convertor", "text", "annotation", "value"), AGREEMENTS)
    async def test_agreements(
        self, convertor: str, text: str, annotation: Any, value: Any, autojump_clock: Clock
    ) -> None:
        got: list[Any] = []
        app = App()
        app.ws(f"/ws/{{n:{convertor}}}")(ws_handler(got, annotation))
        app.get(f"/page/{{n:{convertor}}}")(next(http_handlers(got, annotation)))
        async with serving(app) as service, http(app) as client:
            assert await ask(service, f"/ws/{text}") == 101
            assert (await client.get(f"/page/{text}")).status_code == 200
        assert got == [value, value]

    async def test_a_number_that_a_float_cannot_hold(self, autojump_clock: Clock) -> None:
        """Starlette's convertor makes an `inf` of it."""
        got: list[Any] = []
        app = App()
        app.ws("/ws/{n:float}")(ws_handler(got, float))
        async with serving(app) as service:
            assert await ask(service, "/ws/" + "9" * 400) == 404
        assert got == []


class Depends:
    """As FastAPI has it."""


class Query(Depends): ...


class Header(Depends): ...


class Cookie(Depends): ...


class Path(Depends): ...


class Body(Depends): ...


class Security(Depends): ...


class Form(Depends): ...


class File(Depends): ...


INSTEAD = {
    Depends(): r"middleware put it into \w+\.state, or give it by functools\.partial",
    Security(): r"middleware put it into \w+\.state, or give it by functools\.partial",
    Query(): r"read \w+\.query_params\['x'\]",
    Header(): r"read \w+\.headers",
    Cookie(): r"read \w+\.cookies",
    Body(): r"read `await request\.json\(\)`",
    Form(): r"request\.form\(\)",
    File(): r"request\.form\(\)",
    10: r"nothing fills `x=10`.*its parameters: n\): read \w+\.query_params\['x'\], or give it by functools\.partial",
    None: "nothing fills `x=None`",
    "text": "nothing fills `x='text'`",
}


def with_default(default: Any) -> Iterator[tuple[str, Any]]:
    """Handlers with a parameter that the path does not have, in each form."""

    async def positional(ws: WebSocket, n: int, x: Any = default) -> None: ...
    async def keyword(ws: WebSocket, *, x: Any = default, n: int) -> None: ...
    async def positional_only(ws: WebSocket, x: Any = default, /) -> None: ...
    async def with_rest(ws: WebSocket, x: Any = default, **rest: Any) -> None: ...

    yield from (("ws", handler) for handler in (positional, keyword, positional_only, with_rest))

    async def page(request: Request, n: int, x: Any = default) -> Response: ...  # type: ignore[empty-body]
    async def keyword_page(request: Request, *, x: Any = default) -> Response: ...  # type: ignore[empty-body]
    def plain(request: Request, x: Any = default, /) -> Response: ...  # type: ignore[empty-body]

    yield from ((method, handler) for method in METHODS for handler in (page, keyword_page, plain, partial(page)))


class TestUnfillable:
    """A parameter that nothing can fill shows when the route is made."""

    @pytest.mark.parametrize("default", INSTEAD, ids=lambda default: type(default).__name__)
    def test_a_default(self, default: Any) -> None:
        for method, handler in with_default(default):
            with pytest.raises(TypeError, match=INSTEAD[default]):
                getattr(App(), method)("/it/:n")(handler)

    def test_a_marker_of_a_path_parameter(self) -> None:
        """Its conditions would be ignored."""
        marker = Path()

        async def default(ws: WebSocket, n: int = marker) -> None: ...  # type: ignore[assignment]
        async def plain(ws: WebSocket, n: int) -> None: ...

        plain.__annotations__["n"] = Annotated[int, marker]
        for handler in (default, plain):
            with pytest.raises(TypeError, match=r"nothing fills `n` by Path\(\.\.\.\).*Annotated\[int, msgspec\.Meta"):
                App().ws("/it/:n")(handler)

    def test_a_marker_in_an_annotation(self) -> None:
        async def handler(ws: WebSocket, x: int) -> None: ...

        for marker in (Depends(), Depends):
            handler.__annotations__["x"] = Annotated[int, marker]
            with pytest.raises(TypeError, match=r"nothing fills `x` by Depends"):
                App().ws("/it/:n")(handler)

    def test_a_marker_of_a_hook(self) -> None:
        marker: Any = Depends()

        def hook(ws: WebSocket, database: Any = marker) -> None: ...

        class Chat:
            def open(self, ws: WebSocket, database: Any = marker) -> None: ...

        with pytest.raises(TypeError, match="nothing fills `database` by Depends"):
            App().ws("/ws", open=hook)
        with pytest.raises(TypeError, match="nothing fills `database` by Depends"):
            App().ws("/ws")(Chat)

    async def test_what_a_partial_gives(self, autojump_clock: Clock) -> None:
        got: list[Any] = []
        app = App()

        async def handler(ws: WebSocket, n: int, limit: int = 10) -> None:
            got.append((n, limit))

        app.ws("/ws/:n")(partial(handler, limit=20))
        async with serving(app) as service:
            assert await ask(service, "/ws/1") == 101
        assert got == [(1, 20)]

    def test_positional_rest(self) -> None:
        async def handler(ws: WebSocket, *rest: str) -> None: ...
        async def page(request: Request, *rest: str) -> Response: ...  # type: ignore[empty-body]

        for add, function in ((App().ws, handler), (App().get, page)):
            for path in ("/it/:n", "/it"):
                with pytest.raises(TypeError, match=r"nothing fills `\*rest`"):
                    add(path)(function)

    def test_a_decorator_that_hides_its_function(self) -> None:
        """Neither the parameters nor the type of the messages would be known."""

        async def wrapper(*args: Any, **options: Any) -> Any: ...

        for add in (App().ws, App().get):
            with pytest.raises(TypeError, match=r"takes `\*args`.*\(n\): put @functools\.wraps"):
                add("/it/:n")(wrapper)
            add("/it")(wrapper)  # nothing is lost

    def test_what_the_path_does_not_have(self) -> None:
        async def handler(ws: WebSocket, m: int) -> None: ...
        async def page(request: Request, m: int) -> Response: ...  # type: ignore[empty-body]

        for add, function in ((App().ws, handler), *((getattr(App(), method), page) for method in METHODS)):
            with pytest.raises(TypeError, match=r"asks for 'm', which the path doesn't have \(its parameters: n\)"):
                add("/it/:n")(function)

    def test_without_the_first_parameter(self) -> None:
        async def none() -> None: ...
        async def keyword(*, n: int) -> None: ...
        async def rest(**rest: Any) -> None: ...

        for function in (none, keyword, rest):
            with pytest.raises(TypeError, match="takes too few parameters; the first one is the connection"):
                App().ws("/it/:n")(function)
            for method in METHODS:
                with pytest.raises(TypeError, match="takes too few parameters; the first one is the request"):
                    getattr(App(), method)("/it/:n")(function)

    def test_a_path_parameter_in_the_first_place(self) -> None:
        async def handler(n: int) -> None: ...
        def page(n: int, request: Request) -> Response: ...  # type: ignore[empty-body]

        with pytest.raises(TypeError, match=r"the first parameter is the connection.*write \(ws, n\)"):
            App().ws("/it/:n")(handler)
        with pytest.raises(TypeError, match=r"the first parameter is the request.*write \(request, n\)"):
            App().get("/it/:n")(page)

    def test_a_type_that_only_the_type_checker_knows(self) -> None:
        async def handler(ws: WebSocket, n: Hidden) -> None: ...

        with pytest.raises(TypeError, match=r"the annotation 'Hidden' can't be read.*TYPE_CHECKING"):
            App().ws("/it/:n")(handler)
