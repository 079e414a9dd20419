"""Short messages: what is nearly right, or another framework's way, is answered with what to write instead."""

from __future__ import annotations

import abc
import copy
import inspect
import re
from dataclasses import dataclass
from typing import Any, TypedDict

import msgspec
import pytest
import trio
from starlette.endpoints import WebSocketEndpoint
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.websockets import WebSocket as StarletteWebSocket
from trio.abc import Clock

from tests.support.memory import serving
from verbtrio import App, Client, Member, Room, Subscription, WebSocket
from verbtrio.auth import JWTAuth

METHODS = ("get", "post", "put", "patch", "delete")
ADDERS = ("ws", "sse", *METHODS)
CENTRIFUGE = "auth, anonymous, connect, message, "


async def chat(ws: WebSocket) -> None: ...


async def page(request: Request) -> Response:
    return PlainTextResponse("x")


async def auth(request: Any, call_next: Any) -> Response:
    response: Response = await call_next(request)
    return response


def places() -> dict[str, Any]:
    """Where routes are added."""
    app = App()
    return {"app": app, "group": app.group("/api"), "inner": app.group("/a/:b").group("/c")}


@pytest.mark.parametrize("where", places())
class TestPaths:
    @pytest.mark.parametrize("method", ["ws", *METHODS])
    def test_without_parentheses(self, where: str, method: str) -> None:
        """`@app.ws` above a handler: a function, a class or anything else that is called."""
        add = getattr(places()[where], method)
        for handler in (chat, page, WebSocketEndpoint):
            with pytest.raises(TypeError, match=rf'write @app\.{method}\("/path"\) above {handler.__name__}'):
                add(handler)
        with pytest.raises(TypeError, match=rf'app\.{method} takes a path: app\.{method}\("/path"\)'):
            add()

    @pytest.mark.parametrize("method", [*ADDERS, "group"])
    def test_that_are_none(self, where: str, method: str) -> None:
        add = getattr(places()[where], method)
        for nothing in (None, 5, b"/ws", ["/ws"], *((chat,) if method in ("sse", "group") else ())):
            with pytest.raises(TypeError, match=rf'takes a path, a str: app\.{method}\("/path"\), not '):
                add(nothing)

    @pytest.mark.parametrize("method", ADDERS)
    def test_without_a_slash(self, where: str, method: str) -> None:
        for path in ("ws", ":room", "{room}", "", "*"):
            with pytest.raises(ValueError, match=rf'a path begins with "/": write app\.{method}\("/'):
                getattr(places()[where], method)(path)
            with pytest.raises(ValueError, match='a path begins with "/"'):
                getattr(places()[where], method)(path=path)

    @pytest.mark.parametrize("method", [*ADDERS, "group"])
    def test_and_a_handler_beside(self, where: str, method: str) -> None:
        """As in Express, and in Verb."""
        with pytest.raises(TypeError) as caught:
            getattr(places()[where], method)("/it", chat)
        if method in ("sse", "group"):
            assert "takes everything but the path by keyword" in str(caught.value)
        else:
            assert f"write @app.{method}(path) above chat, or app.{method}(path)(chat)" in str(caught.value)
        with pytest.raises(TypeError, match=r"hooks are keywords: app\.ws\(path, open=\.\.\., message=\.\.\.\)"):
            places()[where].ws("/it", {"message": chat})

    @pytest.mark.parametrize("method", [*ADDERS, "group"])
    @pytest.mark.parametrize(
        "middleware", [auth, JWTAuth("x" * 32), Middleware(GZipMiddleware), "auth", None, 5, {"auth": auth}]
    )
    def test_middleware_in_no_list(self, where: str, method: str, middleware: Any) -> None:
        with pytest.raises(TypeError, match=r"middleware is a list: middleware=\["):
            getattr(places()[where], method)("/it/:room", middleware=middleware)


def test_middleware_of_the_app_in_no_list() -> None:
    function: Any = auth
    with pytest.raises(TypeError, match=r"middleware is a list: middleware=\[auth\]"):
        App(middleware=function)
    with pytest.raises(TypeError, match=r"middleware is a list: middleware=\[auth\]"):
        App().asyncapi(title="x", version="1", middleware=function)
    nested: Any = [auth]
    with pytest.raises(TypeError, match=r"`app\.use\(one, another\)` takes no list"):
        App().use(nested)
    for listed in ([auth], (auth,)):
        App(middleware=listed).get("/", middleware=listed)(page)


class TestKeywords:
    @pytest.mark.parametrize(
        ("method", "keyword", "instead"),
        [
            *(("ws", f"on_{hook}", f"write `{hook}=`") for hook in ("open", "message", "close", "error")),
            *(("ws", f"on{hook}", f"write `{hook}=`") for hook in ("open", "message", "close", "error")),
            ("ws", "on_connect", "write `open=`"),
            ("ws", "on_receive", "write `message=`"),
            ("ws", "on_disconnect", "write `close=`"),
            ("ws", "messages", "write `message=`"),
            ("ws", "mesage", "write `message=`"),
            ("ws", "ping_interval", "write `heartbeat=`"),
            ("ws", "max_size", "write `limits=`"),
            ("ws", "origins", "write `allowed_origins=`"),
            ("ws", "whatever", "leave it out"),
            ("sse", "on_open", "leave it out"),
            ("sse", "retries", "write `retry=`"),
            ("group", "dependencies", "write `middleware=`"),
            *((method, "dependencies", "write `middleware=`") for method in METHODS),
            *((method, "middlewares", "write `middleware=`") for method in METHODS),
            *((method, "response_model", "the handler returns a response") for method in METHODS),
            *((method, "status_code", "the handler returns a response") for method in METHODS),
            *((method, "tags", "leave it out: HTTP routes have no OpenAPI") for method in METHODS),
            *((method, "methods", "each method has its own: get, post, put, patch and delete") for method in METHODS),
            *((method, "limits", "leave it out") for method in METHODS),
        ],
    )
    def test_that_there_are_not(self, method: str, keyword: str, instead: str) -> None:
        """The sentence says what to write, and what there is."""
        for routes in places().values():
            with pytest.raises(TypeError) as caught:
                getattr(routes, method)("/it", **{keyword: chat})
            assert str(caught.value).startswith(f"app.{method}() takes no {keyword!r}: {instead}")
            assert "(it takes " in str(caught.value)
            assert "middleware" in str(caught.value)

    @pytest.mark.parametrize(
        ("keyword", "instead"),
        [
            *((name, "write `ping=`") for name in ("heartbeat", "ping_interval")),
            *((name, "write `pong_timeout=`") for name in ("ping_timeout", "pong_time_out")),
            *((name, "write `auth=`") for name in ("jwt", "tokens", "authenticate")),
            *((name, "write `connect=`") for name in ("on_connect", "open", "on_connecting")),
            *((name, "write `message=`") for name in ("on_message", "receive")),
            *((name, "write `allowed_origins=`") for name in ("origins", "cors")),
            *((name, "write `middleware=`") for name in ("dependencies", "guards", "guard")),
            ("allow_anonymous", "write `anonymous=`"),
            ("user_personal_channel", "write `personal=`"),
            *(
                (name, "what clients may do is declared by `@app.call` and `app.rooms`")
                for name in ("rpc", "namespaces")
            ),
            ("whatever", "leave it out"),
        ],
    )
    def test_that_an_endpoint_for_clients_has_not(self, keyword: str, instead: str) -> None:
        add: Any = App().centrifuge
        with pytest.raises(TypeError) as caught:
            add("/connection", **{keyword: chat})
        assert str(caught.value).startswith(f"app.centrifuge() takes no {keyword!r}: {instead} (it takes {CENTRIFUGE}")

    def test_signatures_are_as_they_were(self) -> None:
        """For `help`, and editors."""
        assert list(inspect.signature(App.ws).parameters)[:3] == ["self", "path", "open"]
        assert App.get.__doc__ is not None


class Moved(msgspec.Struct):
    x: int


@dataclass
class Place:
    x: int


class TypedMove(TypedDict):
    x: int


class TestCalls:
    def test_without_a_name(self) -> None:
        call: Any = App().call
        with pytest.raises(TypeError, match=r'app\.call takes a name: write @app\.call\("rename"\) above chat'):
            call(chat)
        with pytest.raises(TypeError, match=r'app\.call takes a name: app\.call\("rename"\)'):
            call()
        with pytest.raises(TypeError, match=r"app\.call takes a name, a str: .* not 5"):
            call(5)

    @pytest.mark.parametrize("kind", [str, int, dict, dict[str, Any], Moved, Place, TypedMove])
    def test_that_forget_the_client(self, kind: Any) -> None:
        """They would be called with the client, and find no field in it."""

        async def move(data: Any) -> None: ...

        move.__annotations__["data"] = kind
        with pytest.raises(
            TypeError, match=r"the first parameter is the client, .*write `async def .*move\(client, data: "
        ):
            App().call("move")(move)

    def test_that_do_not(self) -> None:
        async def move(client: Client, data: Moved) -> None: ...
        async def either(client: Any) -> None: ...
        async def whoever(member: Member) -> None: ...
        async def all_of_it(*given: Any) -> None: ...

        app = App()
        for function in (move, either, whoever, all_of_it, lambda client, data: data):
            app.call(function.__name__)(function)

    def test_with_more(self) -> None:
        call: Any = App().call
        with pytest.raises(TypeError, match=r"write @app\.call\(name\) above chat, or app\.call\(name\)\(chat\)"):
            call("rename", chat)
        with pytest.raises(
            TypeError, match=r"no 'timeout': callers say .*`Limits\.call_timeout`.*\(it takes nothing else"
        ):
            call("rename", timeout=5)


def misspelt(name: str, arguments: str) -> type:
    """A handler class with a message hook, and one of that name."""
    space: dict[str, Any] = {}
    exec(f"def {name}({arguments}): pass", space)
    return type("Chat", (), {"open": lambda self, ws: None, name: space[name]})


class TestClasses:
    @pytest.mark.parametrize(
        ("name", "hook"),
        [
            *((f"on_{hook}", hook) for hook in ("open", "message", "close", "error")),
            *((f"on{hook}", hook) for hook in ("open", "message", "close", "error")),
            *((f"on{hook.title()}", hook) for hook in ("open", "message", "close", "error")),
            ("on_connect", "open"),
            ("on_receive", "message"),
            ("on_disconnect", "close"),
        ],
    )
    def test_hooks_of_other_frameworks(self, name: str, hook: str) -> None:
        for arguments in ("self", "self, ws", "self, *rest"):
            with pytest.raises(
                TypeError, match=rf"Chat\.{name} is not a hook, and is never called: name it `{hook}\(self"
            ):
                App().ws("/ws")(misspelt(name, arguments))

    @pytest.mark.parametrize(
        ("name", "arguments", "hook"),
        [
            ("messages", "self, ws, message", "message"),
            ("mesage", "self, ws, message", "message"),
            ("closed", "self, ws, code, reason", "close"),
            ("errors", "self, ws, error", "error"),
            ("receive", "self, ws, message", "message"),
            ("disconnect", "self, ws, code, reason", "close"),
        ],
    )
    def test_hooks_nearly_right(self, name: str, arguments: str, hook: str) -> None:
        with pytest.raises(TypeError, match=rf"Chat\.{name} is not a hook, and is never called: name it `{hook}\(self"):
            App().ws("/ws")(misspelt(name, arguments))

    @pytest.mark.parametrize(
        ("name", "arguments"),
        [
            ("messages", "self"),
            ("messages", "self, since"),
            ("errors", "self"),
            ("closed", "self"),
            ("connect", "self, database"),
            ("disconnect", "self"),
            ("receive", "self"),
            ("opened", "self, ws"),  # beside `open`
            ("say", "self, ws, message"),
            ("_on_message", "self, ws, message"),
        ],
    )
    def test_other_methods(self, name: str, arguments: str) -> None:
        """A method that does not fit a hook, or exists besides the hook, is the class's own."""
        App().ws("/ws")(misspelt(name, arguments))

    def test_attributes_are_no_hooks(self) -> None:
        class Chat:
            messages: list[str] = []  # noqa: RUF012 -- a name like a hook's
            on_message = None

            def open(self, ws: WebSocket) -> None: ...

        App().ws("/ws")(Chat)

    def test_inherited_from_starlette(self) -> None:
        with pytest.raises(TypeError, match="is not a hook, and is never called"):
            App().ws("/ws")(WebSocketEndpoint)

    def test_that_need_arguments(self) -> None:
        class Initialized:
            def __init__(self, database: str) -> None: ...
            def open(self, ws: WebSocket) -> None: ...

        class Keyword:
            def __init__(self, *, database: str) -> None: ...
            def open(self, ws: WebSocket) -> None: ...

        class New:
            def __new__(cls, database: str) -> Any: ...
            def open(self, ws: WebSocket) -> None: ...

        class Inherited(Initialized): ...

        for handler in (Initialized, Keyword, New, Inherited):
            with pytest.raises(
                TypeError, match=r"is instantiated without arguments for each connection.*'database'.*app\.state"
            ):
                App().ws("/ws")(handler)

    def test_that_are_abstract(self) -> None:
        class Chat(abc.ABC):
            @abc.abstractmethod
            def message(self, ws: WebSocket, message: str) -> None: ...

        with pytest.raises(TypeError, match=r"Chat is abstract.*it lacks message"):
            App().ws("/ws")(Chat)

    def test_an_instance(self) -> None:
        class Chat:
            def open(self, ws: WebSocket) -> None: ...

        instance: Any = Chat()
        with pytest.raises(TypeError, match="is an instance: give its class"):
            App().ws("/ws")(instance)

    def test_that_need_none(self) -> None:
        class Chat:
            def __init__(self, database: str = "", *rest: Any, **options: Any) -> None: ...
            def open(self, ws: WebSocket) -> None: ...

        App().ws("/ws")(Chat)


async def second(ws: WebSocket) -> None: ...


def second_page(request: Request) -> Response:
    return PlainTextResponse("x")


class TestTheSamePathTwice:
    """Of two, the second would never be called."""

    @pytest.mark.parametrize(
        ("one", "other"),
        [
            ("/it", "/it"),
            ("/it/:a", "/it/:a"),
            ("/it/:a", "/it/{b}"),
            ("/it/:a", "/it/{b:str}"),
            ("/it/{a:int}/x", "/it/{b:int}/x"),
            ("/{a:path}", "/{b:path}"),
        ],
    )
    @pytest.mark.parametrize("groups", [("", ""), ("/g", "/g"), ("", "/g"), ("/g", ""), ("/:x", "/:y")])
    def test_of_one_shape(self, one: str, other: str, groups: tuple[str, str]) -> None:
        """In the app, in a group, in two groups with one prefix, or in one of each."""
        for method, first, last in (("ws", chat, second), *((method, page, second_page) for method in METHODS)):
            app = App()
            adders: list[Any] = []
            for group, path in zip(groups, (one, other), strict=True):
                full = "/g" in groups and not group
                adders.append((app if not group else app.group(group), f"/g{path}" if full else path))
            (routes, path), (others, again) = adders
            getattr(routes, method)(path)(first)
            with pytest.raises(ValueError, match=rf"has a handler already, {first.__name__} by .*{last.__name__}"):
                getattr(others, method)(again)(last)

    def test_hooks_are_named(self) -> None:
        app = App()
        app.ws("/it", open=chat)
        with pytest.raises(ValueError, match=r"has a handler already, chat by '/it': of it and second,"):
            app.ws("/it", message=lambda ws, message: None, open=second)

    def test_of_event_streams(self) -> None:
        app = App()
        app.sse("/events/:room")
        with pytest.raises(ValueError, match=r"'/events/\{name\}' has a handler already"):
            app.get("/events/:name")(page)
        with pytest.raises(ValueError, match="has a handler already"):
            app.sse("/events/:room")
        app.asyncapi(title="x", version="1")
        with pytest.raises(ValueError, match=r"'/asyncapi\.json' has a handler already"):
            app.asyncapi(title="x", version="1")

    def test_of_starlettes(self) -> None:
        app = App(routes=[Route("/it", page), Route("/all", PlainTextResponse("x"))])
        with pytest.raises(ValueError, match="'/it' has a handler already, page"):
            app.get("/it")(second_page)
        for method in METHODS:
            with pytest.raises(ValueError, match="'/all' has a handler already"):
                getattr(app, method)("/all")(page)

    def test_what_is_not_the_same(self) -> None:
        """Another method, another convertor, another kind, another app."""
        app = App()
        for method in METHODS:
            getattr(app, method)("/it/:a")(page)
        app.ws("/it/:a")(chat)
        for convertor in ("int", "float", "uuid", "path"):
            app.ws(f"/it/{{a:{convertor}}}")(chat)
            app.get(f"/it/{{a:{convertor}}}")(page)
        app.ws("/it/a")(chat)
        app.ws("/it/:a/")(chat)
        app.ws("/It/:a")(chat)
        app.group("/it").ws("/:a/b")(chat)
        app.router.routes.insert(0, Route("/head", page, methods=["HEAD"]))
        app.get("/head")(page)
        inner = App()
        inner.ws("/a")(chat)
        app.mount("/it", inner)
        app.mount("/it", inner)

    def test_what_is_refused_is_not_there(self) -> None:
        app = App()
        app.ws("/it")(chat)
        with pytest.raises(ValueError, match="has a handler already"):
            app.ws("/it")(second)
        assert len(app.routes) == 1


HABITS = {
    "accept": "the upgrade is accepted before the handler begins",
    **dict.fromkeys(("send_json", "send_text", "send_bytes", "send_str", "emit"), "await ws.send(data)"),
    **dict.fromkeys(("receive_text", "receive_json", "receive_bytes", "recv", "receive_str"), "await ws.receive()"),
    **dict.fromkeys(("iter_text", "iter_json", "iter_bytes"), "async for message in ws"),
    **dict.fromkeys(("client_state", "application_state", "readyState"), "ws.ready_state"),
    **dict.fromkeys(("ping", "pong"), "Heartbeat"),
    **dict.fromkeys(("on", "once", "addEventListener", "onmessage", "on_message"), "the hooks of the route"),
    **dict.fromkeys(("publish", "subscribe", "to"), "ws.join(room)"),
    **dict.fromkeys(("disconnect", "terminate"), "await ws.close(code, reason)"),
    "broadcast": "ws.route.broadcast",
    "close_code": "ws.closed",
    "send_denial_response": "middleware",
}


OF_CLIENTS = {
    Client: {
        **dict.fromkeys(("emit", "push", "send_json"), "await client.send(data)"),
        **dict.fromkeys(("publish", "broadcast", "to"), "app.room(name).broadcast(data)"),
        **dict.fromkeys(("join", "enter_room"), "await client.subscribe(name)"),
        **dict.fromkeys(("leave", "leave_room"), "client.unsubscribe(name)"),
        **dict.fromkeys(("close", "kick"), "await client.disconnect(code, reason)"),
        **dict.fromkeys(("on", "call", "rpc", "receive"), "@app.call(name)"),
        **dict.fromkeys(("rooms", "channels"), "client.subscriptions"),
        **dict.fromkeys(("data", "assigns"), "client.state"),
        **dict.fromkeys(("token", "info"), "client.claims"),
        "handshake": "client.headers",
    },
    Subscription: {
        **dict.fromkeys(("push", "emit", "reply"), "await sub.send(data)"),
        **dict.fromkeys(("broadcast", "broadcast_from"), "await sub.publish(data)"),
        **dict.fromkeys(("reject", "deny"), 'raise Denied("why")'),
        **dict.fromkeys(("leave", "close", "disconnect", "kick"), "await sub.unsubscribe(code, reason)"),
        **dict.fromkeys(("history", "presence"), "await sub.room.history()"),
        **dict.fromkeys(("recv", "messages"), "async for said in sub"),
        **dict.fromkeys(("channel", "topic"), "sub.name"),
        **dict.fromkeys(("assigns", "state"), "sub.client.state"),
        **dict.fromkeys(("params", "payload"), "sub.data"),
        **dict.fromkeys(("token", "info"), "sub.claims"),
        **dict.fromkeys(("id", "ws", "socket"), "sub.client"),
    },
}


@pytest.mark.parametrize("kind", OF_CLIENTS)
class TestClients:
    """What clients have in Socket.IO, Phoenix and Centrifugo's library."""

    def test_under_another_name(self, kind: Any) -> None:
        some = object.__new__(kind)
        for name, instead in OF_CLIENTS[kind].items():
            assert not hasattr(some, name)
            with pytest.raises(AttributeError) as caught:
                getattr(some, name)
            assert caught.value.name == name
            assert str(caught.value).startswith(f"a verbtrio.{kind.__name__} has no {name!r}; use ")
            assert instead in str(caught.value)

    def test_what_is_there(self, kind: Any) -> None:
        """No sentence stands before what there is, nor names what there is not."""
        holders = {"client": Client, "sub": Subscription, "room": Room}
        for name in OF_CLIENTS[kind]:
            with pytest.raises(AttributeError) as caught:
                getattr(kind, name)
            for path in re.findall(r"`(?:await )?((?:client|sub)\.[\w.]+)", str(caught.value)):
                owner, *parts = path.split(".")
                for part in parts:
                    assert hasattr(holders[owner], part) or part == "claims", path
                    owner = part


def test_what_a_group_has_not() -> None:
    group: Any = App().group("/api")
    for name in ("centrifuge", "call", "rooms", "room_task", "task", "every", "use"):
        with pytest.raises(AttributeError) as caught:
            getattr(group, name)
        instead = "`middleware=` of `app.group`" if name == "use" else f"`app.{name}"
        assert str(caught.value).startswith(f"a verbtrio.Group has no {name!r}; use {instead}")
        assert hasattr(App, name), "the sentence names what there is"


async def test_blocks_and_loops_of_a_subscription() -> None:
    some: Any = object.__new__(Subscription)
    with pytest.raises(TypeError, match="write `async for said in sub`"):
        for _ in some:
            pass
    with pytest.raises(TypeError, match=r"leave `async with sub` out, and write `await sub\.accept\(\)`"):
        async with some:
            pass


class TestConnections:
    """What other libraries' WebSockets have."""

    async def test_under_another_name(self, autojump_clock: Clock) -> None:
        said: dict[str, str] = {}
        app = App()

        @app.ws("/ws")
        async def handler(ws: WebSocket) -> None:
            anything: Any = ws
            for name in HABITS:
                assert not hasattr(ws, name)
                with pytest.raises(AttributeError) as caught:
                    getattr(anything, name)
                assert caught.value.name == name
                said[name] = str(caught.value)

        async with serving(app) as service:
            await service.connect()
        for name, instead in HABITS.items():
            assert said[name].startswith(f"a verbtrio.WebSocket has no {name!r}; use ")
            assert instead in said[name]

    def test_all_that_starlettes_have(self) -> None:
        """Its own `WebSocket`'s public methods and attributes are here, or there is a sentence."""
        theirs = {name for name in vars(StarletteWebSocket) if not name.startswith("_")}
        theirs |= {"client_state", "application_state"}
        assert len(theirs) > 10
        assert not [name for name in theirs if not hasattr(WebSocket, name) and name not in vars(WebSocket)]

    async def test_what_is_set_is_there(self, autojump_clock: Clock) -> None:
        """An application may keep something of its own under such a name."""
        app = App()

        @app.ws("/ws")
        async def handler(ws: WebSocket) -> None:
            anything: Any = ws
            anything.data = 5
            await ws.send(anything.data)

        async with serving(app) as service:
            client = await service.connect()
            assert await client.get_message() == "5"
            await client.aclose()

    async def test_what_nobody_has(self, autojump_clock: Clock) -> None:
        """Python's own words; what asks whether something is there gets its answer."""
        app = App()

        @app.ws("/ws")
        async def handler(ws: WebSocket) -> None:
            anything: Any = ws
            with pytest.raises(AttributeError, match=r"^'WebSocket' object has no attribute 'sned'"):
                _ = anything.sned
            for name in ("_id", "__await__", "__getattr__"):
                assert not hasattr(WebSocket, name)
            assert hasattr(ws, "nursery")
            assert ws.id == ws.id == vars(ws)["_id"]
            assert copy.copy(ws).id == ws.id
            await ws.send("done")

        async with serving(app) as service:
            client = await service.connect()
            assert await client.get_message() == "done"
            await client.aclose()

    async def test_blocks_and_loops_of_another_kind(self, autojump_clock: Clock) -> None:
        """`with ws.join(...)`, `for message in ws`, `async with ws`."""
        app = App()

        @app.ws("/ws")
        async def handler(ws: WebSocket) -> None:
            anything: Any = ws
            with pytest.raises(TypeError, match=r"write `async with ws\.join\(\.\.\.\)`, not `with"):
                with anything.join("room"):
                    pass
            with pytest.raises(TypeError, match=r"write `async for message in ws`"):
                for _ in anything:
                    pass
            with pytest.raises(TypeError, match=r"leave `async with ws` out"):
                async with anything:
                    pass
            assert ws["type"] == "websocket"
            assert "path" in ws
            await ws.send("done")

        async with serving(app) as service:
            client = await service.connect()
            assert await client.get_message() == "done"
            await client.aclose()

    async def test_a_hook_that_joins_in_one_expression(self, autojump_clock: Clock) -> None:
        """What `join` gives is nothing to await, and a hook may return it."""
        app = App()
        app.ws("/ws", open=lambda ws: ws.join("room"))
        async with serving(app) as service:
            client = await service.connect()
            await trio.sleep(1)
            room: Room = app.room("room")
            assert len(room) == 1
            await client.aclose()
