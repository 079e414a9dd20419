"""Paths that are no route's, although they look like one's to a regular expression, or to a reverse proxy.

`location = /admin { deny all; }` in nginx does not cover `/admin%0a`: so that must not be `/admin` here either.
And `/admin/..` is `/` for it, whatever is guarded: so that must not be in `/admin` here.
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
    """The answer to a GET with the path as it is: httpx takes dots out of it, as browsers do."""
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
                assert (await client.get(path)).status_code == 200, f"{path} is a route's"
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
            assert b" 101 " in await shake_hands(stream, path), f"{path} is a route's"
            await stream.aclose()
            for bad in ("%0a", "%0d", "%0d%0a", "%00", "%1b", "%7f", "%c2%85", "/%0a", "%0a/", *DOTS):
                answer = await shake_hands(service.open_stream(), path + bad)
                assert answer.startswith(b"HTTP/1.1 404 "), (path, bad)


async def test_in_another_application(autojump_clock: Clock) -> None:
    """Where another framework's router stands before it, the App has the last word about its own routes."""
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
async def test_whatever_else_is_a_parameter(path: str) -> None:
    app = App()
    added(app)
    async with http(app) as client:
        assert (await client.get(path)).status_code == 200


async def test_a_room_has_no_line_breaks(autojump_clock: Clock) -> None:
    """`%0a` within a parameter: what a log, an event stream or a header makes of it is one fault less to make."""
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
    """Starlette redirects `/admin/` to `/admin`, and the other way around."""
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
    """A 404 as any other path that is no route's: neither a 500 nor a traceback."""
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
