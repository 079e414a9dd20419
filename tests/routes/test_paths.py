"""Paths that match no route, although a regular expression, or a reverse proxy, might take them for a route's.

`location = /admin { deny all; }` in nginx does not cover `/admin%0a`, so that must not be `/admin` here either. And
nginx takes `/admin/..` for `/`, which it may not guard, so that must not be below `/admin` here.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Host, Mount, Route, Router, WebSocketRoute
from starlette.websockets import WebSocket as StarletteWebSocket
from trio.abc import Clock

from tests.support.memory import serving, shake_hands
from tests.test_app import http
from verbtrio import App, WebSocket
from verbtrio.guards.refusals import MAX_WARNINGS
from verbtrio.security import SecurityHeaders

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
CONTROLS = [chr(code) for code in (*range(0x20), *range(0x7F, 0xA0))]
DOTS = (
    "/..",
    "/.",
    "/../",
    "/./",
    "/../x",
    "/./x",
    "/%2e%2e",
    "/.%2e/",
    "/%2E",
    "%2f..",
    "%2f%2e%2f",
    "/x/../..",
    "//..",
)
SPELLINGS = ("{path}{bad}", "{path}{bad}/", "{path}/{bad}", "{bad}{path}", "/{bad}{path}")


async def page(request: Request) -> Response:
    return PlainTextResponse("hello")


async def welcome(websocket: StarletteWebSocket) -> None:
    await websocket.accept()
    await websocket.close()


async def pure_asgi(scope: Any, receive: Any, send: Any) -> None:
    await PlainTextResponse("hello")(scope, receive, send)


def added(app: App) -> None:
    for path in ("/admin", "/n/{n:int}", "/f/{f:float}", "/u/{u:uuid}", "/s/:name", "/p/{rest:path}"):
        for method in ("get", "post", "put", "patch", "delete"):
            getattr(app, method)(path)(page)
    app.ws("/ws", message=lambda ws, message: None)
    app.ws("/ws/:room", message=lambda ws, message: None)
    app.ws("/wn/{n:int}", message=lambda ws, message: None)
    app.ws("/wp/{rest:path}", message=lambda ws, message: None)
    app.sse("/events/:room")
    app.asyncapi(title="test", version="1")


def grouped(app: App) -> None:
    group = app.group("/group").group("/inner/:name")
    group.get("/admin")(page)
    group.ws("/ws", message=lambda ws, message: None)
    group.sse("/events", room="news")
    app.group("").get("/bare")(page)


def starlettes(app: App) -> None:
    app.router.routes += [Route("/admin", page), WebSocketRoute("/ws", welcome), Mount("/asgi", app=pure_asgi)]
    app.mount("/mounted", Starlette(routes=[Route("/admin", page), WebSocketRoute("/ws", welcome)]))
    app.mount("/router", Router([Route("/admin", page)]))
    inner = App()
    added(inner)
    app.mount("/app", inner)
    app.host("test", Router([Route("/hosted", page)]))


PATHS: list[tuple[Callable[[App], None], str, str]] = [
    *((added, "GET", path) for path in ("/admin", "/n/7", "/f/1.5", "/p/a/b", "/events/it", "/asyncapi.json")),
    (added, "GET", "/u/12345678-1234-5678-1234-567812345678"),
    *((added, "WS", path) for path in ("/ws", "/ws/lobby", "/wn/7", "/wp/a/b")),
    *((grouped, "GET", path) for path in ("/group/inner/it/admin", "/group/inner/it/events", "/bare")),
    (grouped, "WS", "/group/inner/it/ws"),
    *((starlettes, "GET", path) for path in ("/admin", "/asgi/admin", "/mounted/admin", "/router/admin", "/app/admin")),
    *((starlettes, "GET", path) for path in ("/app/s/it", "/hosted")),
    *((starlettes, "WS", path) for path in ("/ws", "/mounted/ws", "/app/ws", "/app/ws/lobby")),
]


async def status_of(app: App, path: str) -> int:
    """The answer to a GET with the path as it is: httpx removes dot segments, as browsers do."""
    sent = list[Any]()

    async def receive() -> Any:
        return {"type": "http.request"}

    async def send(message: Any) -> None:
        sent.append(message)

    scope: dict[str, Any] = {
        "type": "http",
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "headers": [(b"host", b"test")],
    }
    scope |= {"path": unquote(path), "raw_path": path.encode(), "query_string": b"", "root_path": ""}
    await app(scope, receive, send)
    return int(sent[0]["status"])


@pytest.mark.parametrize("add", [added, grouped, starlettes])
async def test_http_with_a_control_character_or_dots_is_not_found(add: Callable[[App], None]) -> None:
    app = App()
    add(app)
    paths = [path for adds, method, path in PATHS if adds is add and method == "GET"]
    async with app.lifespan(), http(app) as client:
        for path in paths:
            if "events" not in path:  # a stream, which has no end
                assert (await client.get(path)).status_code == 200, f"{path} has a route"
            for bad, spelling in product(CONTROLS, SPELLINGS):
                url = spelling.format(path=path, bad=quote(bad))
                if url.startswith("/"):
                    assert (await client.get(url)).status_code == 404, url
            for dots in DOTS:
                assert await status_of(app, path + dots) == 404, (path, dots)
                assert await status_of(app, "/.." + path) == 404, path
                assert await status_of(app, path.replace("/", dots.rstrip("/x") + "/", 1)) == 404, (dots, path)
            for method in METHODS:
                assert (await client.request(method, path + "%0a")).status_code == 404, (method, path)


@pytest.mark.parametrize("add", [added, grouped, starlettes])
async def test_a_websocket_with_a_control_character_or_dots_is_not_found(
    add: Callable[[App], None], autojump_clock: Clock
) -> None:
    app = App()
    add(app)
    async with serving(app) as service:
        for path in [path for adds, method, path in PATHS if adds is add and method == "WS"]:
            stream = service.open_stream()
            assert b" 101 " in await shake_hands(stream, path), f"{path} has a route"
            await stream.aclose()
            for bad in ("%0a", "%0d", "%0d%0a", "%00", "%1b", "%7f", "%c2%85", "/%0a", "%0a/", *DOTS):
                answer = await shake_hands(service.open_stream(), path + bad)
                assert answer.startswith(b"HTTP/1.1 404 "), (path, bad)


async def test_in_another_application(autojump_clock: Clock) -> None:
    """Behind another framework's router, too, the App checks the paths of its own routes."""
    app = App()
    added(app)
    outer = Starlette(routes=[Mount("/chat", app=app), Host("elsewhere", app)], lifespan=app.lifespan)
    async with serving(app, outer) as service, http(outer) as client:
        assert (await client.get("/chat/admin")).status_code == 200
        assert (await client.get("/chat/admin%0a")).status_code == 404
        assert (await client.get("http://elsewhere/admin%0a")).status_code == 404
        stream = service.open_stream()
        assert b" 101 " in await shake_hands(stream, "/chat/ws")
        await stream.aclose()
        assert b" 404 " in await shake_hands(service.open_stream(), "/chat/ws%0a")


async def test_it_is_answered_as_other_unknown_paths_are() -> None:
    async def ours(request: Request, error: Exception) -> Response:
        return PlainTextResponse("ours", 404)

    app = App(exception_handlers={404: ours}, middleware=[Middleware(SecurityHeaders)])
    app.get("/admin")(page)
    async with http(app) as client:
        unknown, bad = await client.get("/nowhere"), await client.get("/admin%0a")
    assert (bad.status_code, bad.text, bad.headers) == (404, "ours", unknown.headers)


@pytest.mark.parametrize(
    "path",
    [
        "/s/a%20b",
        "/s/%C3%BC",
        "/s/%F0%9F%8E%89",
        "/s/a%5Cb",
        "/s/%250a",
        "/s/...",
        "/s/.a",
        "/s/a.",
        "/s/a..b",
        "/s/..a",
        "/s/.well-known",
        "/p/a/.../b",
        "/s/%252e%252e",
    ],
)
async def test_other_characters_may_be_in_a_parameter(path: str) -> None:
    app = App()
    added(app)
    async with http(app) as client:
        assert (await client.get(path)).status_code == 200


async def test_a_room_has_no_line_breaks(autojump_clock: Clock) -> None:
    """`%0a` within a parameter is refused, too, so it can't get into a log, an event stream or a header."""
    app = App()

    @app.ws("/ws/:room")
    async def chat(ws: WebSocket, room: str) -> None:
        await ws.send(room)

    async with serving(app) as service:
        assert b" 404 " in await shake_hands(service.open_stream(), "/ws/lob%0aby")
        client = await service.connect("/ws/lobby")
        assert await client.get_message() == "lobby"
        await client.aclose()


@pytest.mark.parametrize("catch_all", [None, "/{rest:path}/", "/files/{rest:path}/", "/x{rest:path}"])
async def test_slashes_redirect_to_this_host_alone(catch_all: str | None) -> None:
    """Starlette redirects `/admin/` to `/admin`, and vice versa."""
    app = App()
    added(app)
    app.get("/slash/")(page)
    app.get("/:a/:b")(page)
    if catch_all is not None:
        app.get(catch_all)(page)
        app.mount("/mounted", Starlette(routes=[Route(catch_all, page)]))
    evil = ["//evil.com", "///evil.com", "/\\evil.com", "/%5cevil.com", "/%2fevil.com", "/%2f%2fevil.com"]
    evil += ["//evil.com/..;/ws", "//evil.com/admin", "//evil.com%2f..", "/%09/evil.com", "/@evil.com", "/%0a/evil.com"]
    evil += [
        "/admin/%2f/evil.com",
        "//evil.com/slash",
        "/files//evil.com",
        "/mounted//evil.com",
        "/%3f//evil.com",
        "//",
    ]
    redirects = 0
    async with http(app) as client:
        for path in ["/admin", "/slash", "/ws", *evil]:
            for end in ("", "/", "//", "/%2f", "%2f", "/.."):
                request = client.build_request("GET", "http://test/")
                request.url = request.url.copy_with(raw_path=(path + end).encode())
                response = await client.send(request)
                if (location := response.headers.get("location")) is not None:
                    redirects += 1
                    assert response.status_code == 307
                    assert urlsplit(location)[:2] == ("http", "test"), (path + end, location)
    assert redirects >= 2


@pytest.mark.parametrize("digits", [4300, 4301, 15_000])
async def test_a_number_that_python_refuses_to_read(
    digits: int, autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """A 404, like any other path without a route: neither a 500 nor a traceback."""
    app = App()
    added(app)
    number = "1" * digits
    async with serving(app) as service:
        statuses = set()
        for path in (f"/n/{number}", f"/s/{number}", f"/p/x/{number}x"):
            stream = service.open_stream()
            await stream.send_all(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            statuses.add(bytes((await stream.receive_some())[9:12]))
            await stream.aclose()
        assert statuses == ({b"200"} if digits <= 4300 else {b"404"})
        assert (await shake_hands(service.open_stream(), f"/wn/{number}"))[9:12] == (
            b"101" if digits <= 4300 else b"404"
        )
        await service.hang_up()
    assert not caplog.records


def mixed() -> App:
    """An app with routes of each kind, in groups, Starlette's own, and in mounted applications."""
    app = App()
    app.ws("/ws", message=lambda ws, message: None)
    app.ws("/ws/:room/{n:int}", message=lambda ws, message: None)
    app.group("/g").group("/:name").ws("/ws", message=lambda ws, message: None)
    app.group("").ws("/bare", message=lambda ws, message: None)
    app.router.routes.append(WebSocketRoute("/starlettes", welcome))
    app.get("/page")(page)
    app.ws("/both", message=lambda ws, message: None)
    app.get("/both")(page)
    app.ws("/posted", message=lambda ws, message: None)
    app.post("/posted")(page)
    inner = App()
    inner.ws("/ws", message=lambda ws, message: None)
    app.mount("/inner", inner)
    app.mount("/other", Starlette(routes=[WebSocketRoute("/ws", welcome)]))
    return app


KNOWN = (
    " are /ws, /ws/{room}/{n:int}, /g/{name}/ws, /bare, /starlettes, /both, /posted, /inner/ws, /other/ws",
    ", under '/inner', are /ws",
)


class TestAnUnknownWebSocket:
    @pytest.mark.parametrize(
        ("path", "known"),
        [
            *(
                (path, KNOWN[0])
                for path in ("/", "/wss", "/ws/", "/ws/a/b", "/g/x", "/g//ws", "/page", "/WS", "/bare/x")
            ),
            *((path, KNOWN[1]) for path in ("/inner/", "/inner/wss")),
        ],
    )
    async def test_is_404_and_a_line_that_names_the_routes(
        self, path: str, known: str, autojump_clock: Clock, caplog: pytest.LogCaptureFixture
    ) -> None:
        async with serving(mixed()) as service:
            assert (await shake_hands(service.open_stream(), path)).startswith(b"HTTP/1.1 404 ")
            (record,) = caplog.records
            assert record.levelname == "WARNING"
            assert record.getMessage() == (f"the upgrade of {path!r} is refused with 404: the WebSocket routes{known}")

    async def test_without_any_routes(self, autojump_clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
        async with serving(App()) as service:
            assert b" 404 " in await shake_hands(service.open_stream(), "/ws")
        assert "there are no WebSocket routes" in caplog.text

    async def test_with_many(self, autojump_clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
        app = App()
        for number in range(25):
            app.ws(f"/ws{number}", message=lambda ws, message: None)
        async with serving(app) as service:
            assert b" 404 " in await shake_hands(service.open_stream(), "/nowhere")
        assert "/ws9 and 15 more" in caplog.text
        assert "/ws10" not in caplog.text

    async def test_does_not_fill_the_log(self, autojump_clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
        """Each is warned of once, only so many are in all, and a long one is cut."""
        caplog.set_level("DEBUG", logger="verbtrio.paths")
        async with serving(mixed()) as service:
            for path in ("/" + "x" * 5000, *(f"/{number // 2}" for number in range(60))):
                await shake_hands(service.open_stream(), path)
            warnings = [record for record in caplog.records if record.levelname == "WARNING"]
            assert len(warnings) == len({record.getMessage() for record in warnings}) == MAX_WARNINGS
            assert len(caplog.records) == 61
            assert max(len(record.getMessage()) for record in caplog.records) < 400

    async def test_of_another_application_is_its_own_to_answer(
        self, autojump_clock: Clock, caplog: pytest.LogCaptureFixture
    ) -> None:
        async with serving(mixed()) as service:
            assert b" 403 " in await shake_hands(service.open_stream(), "/other/wss")
        assert caplog.records == []

    @pytest.mark.parametrize("denial", [True, False])
    async def test_over_plain_asgi(self, denial: bool, caplog: pytest.LogCaptureFixture) -> None:
        """A server without the denial extension can only say 403."""
        sent: list[Any] = []

        async def receive() -> Any:
            return {"type": "websocket.connect"}

        async def send(message: Any) -> None:
            sent.append(message)

        app = App(take_over=False)
        scope: dict[str, Any] = {"type": "websocket", "path": "/nowhere", "query_string": b"", "headers": []}
        if denial:
            scope["extensions"] = {"websocket.http.response": {}}
        await app(scope, receive, send)
        assert sent[0]["type"] == ("websocket.http.response.start" if denial else "websocket.close")
        assert sent[0].get("status", 404) == 404
        assert "'/nowhere' is refused with 404" in caplog.text

    async def test_goes_through_the_apps_middleware(self, autojump_clock: Clock) -> None:
        async def stamp(request: Any, call_next: Any) -> Response:
            response: Response = await call_next(request)
            response.headers["x-stamp"] = "1"
            return response

        async def refuse(request: Any, call_next: Any) -> Response:
            return PlainTextResponse("who are you?", 401)

        for middleware, status in ((stamp, b" 404 "), (refuse, b" 401 ")):
            app = App(middleware=[middleware])
            async with serving(app) as service:
                answer = await shake_hands(service.open_stream(), "/nowhere")
            assert status in answer
            assert (b"x-stamp: 1" in answer) is (middleware is stamp)


class TestAPlainRequestOfAWebSocket:
    @pytest.mark.parametrize("method", METHODS)
    async def test_is_426(self, method: str, caplog: pytest.LogCaptureFixture) -> None:
        """Whatever the method: a 405 would have to name one that is allowed."""
        async with http(mixed()) as client:
            for path in ("/ws", "/ws/a/5", "/g/x/ws", "/bare", "/starlettes", "/inner/ws"):
                response = await client.request(method, path)
                assert response.status_code == 426, path
                assert response.headers["upgrade"] == "websocket"
                assert response.headers["connection"] == "Upgrade"
                assert method == "HEAD" or "ws:// or wss://" in response.text
        assert caplog.records == []

    @pytest.mark.parametrize("method", METHODS)
    async def test_is_not_what_other_paths_are(self, method: str) -> None:
        """An HTTP route with that path answers itself, and other paths have no WebSocket."""
        expected = {"/page": 200, "/both": 200, "/posted": 405, "/nowhere": 404, "/ws/a/b": 404, "/ws/a": 404}
        expected |= {"/ws%0a": 404, "/ws/..": 404, "/other/ws": 404, "/g//ws": 404, "/ws/a/" + "1" * 5000: 404}
        async with http(mixed()) as client:
            for path, status in expected.items():
                if path in ("/page", "/both") and method not in ("GET", "HEAD"):
                    status = 405
                elif path == "/posted" and method == "POST":
                    status = 200
                if path != "/ws/..":
                    assert (await client.request(method, path)).status_code == status, path
        assert await status_of(mixed(), "/ws/..") == 404

    async def test_is_answered_by_the_apps_handlers(self) -> None:
        """Like a 404, by its exception handlers, and within its middleware."""

        async def ours(request: Request, error: Exception) -> Response:
            return PlainTextResponse("ours", 426)

        app = App(exception_handlers={426: ours}, middleware=[Middleware(SecurityHeaders)])
        app.ws("/ws", message=lambda ws, message: None)
        async with http(app) as client:
            response = await client.get("/ws")
            assert (response.status_code, response.text) == (426, "ours")
            assert response.headers["x-content-type-options"] == "nosniff"

    async def test_over_http_2_names_no_connection(self) -> None:
        """HTTP/2 forbids `Connection` and `Upgrade` (RFC 9113 section 8.2.2)."""
        sent: list[Any] = []

        async def receive() -> Any:
            return {"type": "http.request"}

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {
            "type": "http",
            "http_version": "2",
            "method": "GET",
            "path": "/ws",
            "query_string": b"",
            "headers": [],
        }
        await mixed()(scope, receive, send)
        assert sent[0]["status"] == 426
        assert not {b"connection", b"upgrade"} & {name for name, _ in sent[0]["headers"]}

    async def test_on_the_wire(self, autojump_clock: Clock) -> None:
        """The connection stays usable: another request may follow."""
        async with serving(mixed()) as service:
            stream = service.open_stream()
            for method in (b"GET", b"HEAD", b"GET"):
                await stream.send_all(method + b" /ws HTTP/1.1\r\nHost: x\r\n\r\n")
                answer = bytes(await stream.receive_some())
                while b"\r\n\r\n" not in answer or (method == b"GET" and not answer.endswith(b"wss://")):
                    answer += await stream.receive_some()
                assert answer.startswith(b"HTTP/1.1 426 ")
                assert b"upgrade: websocket\r\n" in answer.lower()
            await stream.aclose()
