"""Whatever an application may call, called in another thread than the one in which the app is served.

Each public member has its place in one of the tables below: a new one that is in none fails the test.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, cast

import pytest
import trio
import trio.testing
import trio_websocket
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount
from trio.abc import Clock

import verbtrio
from tests.support.http import Exchange
from tests.support.memory import Service, serving
from tests.test_exports import EXPORTED
from tests.test_layers import imports
from verbtrio import (
    App,
    Client,
    EventStream,
    EventSubscriber,
    History,
    JSONArray,
    Membership,
    Stream,
    Subscription,
    WebSocket,
)
from verbtrio.auth import JWTAuth
from verbtrio.base.close import Cause
from verbtrio.base.threads import same_thread_check
from verbtrio.http.event_subscriber import SubscriberPeer
from verbtrio.metrics import AppCollector

REFUSED = "make it `async def`"
AUTH = JWTAuth(key="a key of more than thirty-two bytes")


class World:
    """A served app: one WebSocket that only listens, with a message unread; one that echoes; an event stream; and a
    client of the Centrifuge protocol, with two subscriptions: one has a message unread, one is not accepted yet."""

    app: App
    service: Service
    ws: WebSocket[Any]
    membership: Membership
    kept: Membership
    subscriber: EventSubscriber
    peer: SubscriberPeer
    client: Client
    sub: Subscription[Any]
    waiting: Subscription[Any]
    clients: list[trio_websocket.WebSocketConnection]
    events: Exchange

    def state(self) -> str:
        """All that a call might change; as text, which refers to no connection."""
        hub = self.app._running_hub()
        sockets = [
            (
                ws,
                ws.closed,
                ws.rooms,
                ws.ready_state,
                ws.dropped,
                len(ws._peer.inbox),
                (ws._peer.outbox.size, list(ws._peer.outbox.held)),
            )
            for ws in self.app.connections.here
            if isinstance(ws, WebSocket)
        ]
        one, client = self.peer, self.client
        all_of_it = (
            self.app.statistics(),
            {key: list(hub.rooms.members(key)) for key in hub.rooms},
            {user: self.app.users.connections(user) for user in self.app.users},
            sockets,
            (one.closed, one._waiting and list(one._waiting._entries), list(one.held), one.dropped, one._body.deadline),
            (self.membership._left, self.membership._scope.cancel_called),
            (client.closed, client.subscriptions, client.dropped, client._peer.held, client._peer.queued),
            [
                (sub, sub.is_over, sub._life.intake and list(sub._life.intake._messages or ()))
                for sub in (self.sub, self.waiting)
            ],
            dict(hub.quotas._taken),
            (len(hub.timers), hub.draining, hub.until_drain.cancel_called, self.app._life.hub is hub),
            (len(hub.rooms._dismissed), self.app._background, list(hub.room_table)),
            self.app.user_middleware,
        )
        return repr(all_of_it)

    async def check_served(self) -> None:
        """Everybody is still here, and has what is said."""
        self.app.room("hall").broadcast("after")
        with trio.fail_after(5):
            assert await self.clients[0].get_message() == "after"
            assert await self.events.until(b"\n\n") == b"data: after\n\n"
            await self.clients[1].send_message("echo")
            assert await self.clients[1].get_message() == "echo"

    async def shut_down(self) -> None:
        await self.service.shut_down()
        await self.service.wait_ended(5)
        assert self.app.statistics().ended == {Cause.DRAIN: 5}


async def as_somebody(request: Any, call_next: Any) -> Response:
    request.scope["user"] = {"id": "bob" if request.url.path.startswith("/events") else "ada"}
    response: Response = await call_next(request)
    return response


@asynccontextmanager
async def world() -> AsyncIterator[World]:
    here = World()
    here.app = app = App(heartbeat=None, middleware=[as_somebody], allowed_origins=["*"])

    @app.ws("/quiet")
    async def quiet(ws: WebSocket) -> None:
        here.ws, here.membership = ws, ws.join("hall")
        await trio.sleep_forever()

    @app.ws("/ws")
    async def echo(ws: WebSocket) -> None:
        async for message in ws:
            await ws.send(message)

    app.sse("/events/:room", keep_alive=None)
    app.rooms("kept:{name}", history=History(), presence=True)

    @app.ws("/kept")
    async def keep(ws: WebSocket) -> None:
        here.kept = ws.join("kept:a")
        await trio.sleep_forever()

    app.centrifuge("/connection", ping=1e9)  # a virtual clock does not wait for a thread

    @app.rooms("subs:{name}", history=History(), presence=True)
    async def listen(sub: Subscription[Any], name: str) -> None:
        if name == "a":
            here.sub, here.client = sub, sub.client
            await sub.accept()
        else:
            here.waiting = sub
        await trio.sleep_forever()

    async with serving(app) as service:
        here.service = service
        here.clients = [await service.connect(path) for path in ("/quiet", "/ws", "/kept")]
        here.events = await Exchange(service.open_stream()).request("/events/hall")
        await here.clients[0].send_message("unread")
        here.clients.append(await service.connect("/connection/websocket"))
        commands = [
            {"id": 1, "connect": {}},
            {"id": 2, "subscribe": {"channel": "subs:a"}},
            {"id": 3, "subscribe": {"channel": "subs:b"}},
        ]
        await here.clients[-1].send_message("\n".join(map(json.dumps, commands)))
        await trio.testing.wait_all_tasks_blocked()
        await here.clients[-1].send_message(json.dumps({"id": 4, "publish": {"channel": "subs:a", "data": "unread"}}))
        await trio.testing.wait_all_tasks_blocked()
        (here.subscriber,) = (one for one in app.room("hall").here if isinstance(one, EventSubscriber))
        here.peer = cast("SubscriberPeer", here.subscriber._peer)
        yield here
        # `serving` looks for what is left: nothing that this test holds.
        del here.ws, here.membership, here.kept, here.subscriber, here.peer, here.client, here.sub, here.waiting


Call = Callable[[World], Any]
CHECKED: dict[str, Call] = {
    "Member.send_nowait": lambda w: w.ws.send_nowait("x"),
    "Member.close_nowait": lambda w: w.ws.close_nowait(),
    "WebSocket.join": lambda w: w.ws.join("other"),
    "WebSocket.join again": lambda w: w.ws.join("hall", exist_ok=True),
    "WebSocket.leave_nowait": lambda w: w.ws.leave_nowait("hall"),
    "WebSocket.leave_nowait of another": lambda w: w.ws.leave_nowait("other"),
    "Membership.leave_nowait": lambda w: w.membership.leave_nowait(),
    "Room.broadcast": lambda w: w.app.room("hall").broadcast("x"),
    "Room.broadcast to nobody": lambda w: w.app.room("nowhere").broadcast("x"),
    "Room.broadcast to all": lambda w: w.app.connections.broadcast("x"),
    "Room.broadcast to the route": lambda w: w.ws.route.broadcast("x"),
    "Room.broadcast but for some": lambda w: w.app.room("hall").broadcast("x", exclude=[w.ws]),
    "Room.broadcast but for an id": lambda w: w.app.room("hall").broadcast("x", exclude="an id"),
    "Room.broadcast but for a user": lambda w: w.app.room("hall").broadcast("x", exclude_user="ada"),
    "Room.broadcast with a key": lambda w: w.app.room("hall").broadcast("x", key="k", ttl=5),
    "Room.broadcast by a membership": lambda w: w.membership.broadcast("x"),
    "Room.kick": lambda w: w.app.room("hall").kick(w.ws),
    "Room.kick by an id": lambda w: w.app.room("hall").kick("an id"),
    "Room.kick of a subscriber": lambda w: w.app.room("hall").kick(w.subscriber),
    "Room.kick of a user": lambda w: w.app.room("hall").kick(user="ada"),
    "Room.kick of nobody": lambda w: w.app.room("nowhere").kick(w.ws),
    "Room.kick from the route": lambda w: w.ws.route.kick(w.ws),
    "Room.kick by a membership": lambda w: w.membership.kick(w.ws),
    "Room.close": lambda w: w.app.room("hall").close(),
    "Room.close with nobody in it": lambda w: w.app.room("nowhere").close(),
    "Room.close of all": lambda w: w.app.connections.close(),
    "Room.close of the route": lambda w: w.ws.route.close(),
    "Room.close by a membership": lambda w: w.membership.close(),
    "Room.watch": lambda w: w.app.room("kept:a").watch(),
    "Membership.update": lambda w: w.kept.update({}),
    "Users.send_nowait": lambda w: w.app.users.send_nowait("ada", "x"),
    "Users.send_nowait to a subscriber": lambda w: w.app.users.send_nowait("bob", "x"),
    "Users.send_nowait to nobody": lambda w: w.app.users.send_nowait("nobody", "x"),
    "Users.disconnect_nowait": lambda w: w.app.users.disconnect_nowait("ada"),
    "Users.disconnect_nowait of a subscriber": lambda w: w.app.users.disconnect_nowait("bob"),
    "Users.disconnect_nowait of nobody": lambda w: w.app.users.disconnect_nowait("nobody"),
    "Member.send_nowait of a subscriber": lambda w: w.subscriber.send_nowait("x"),
    "Member.close_nowait of a subscriber": lambda w: w.subscriber.close_nowait(),
    "Member.send_nowait of a client": lambda w: w.client.send_nowait("x"),
    "Client.close_nowait": lambda w: w.client.close_nowait(),
    "Client.unsubscribe": lambda w: w.client.unsubscribe("subs:a"),
    "Client.unsubscribe from elsewhere": lambda w: w.client.unsubscribe("nowhere"),
    "Subscription.send_nowait": lambda w: w.sub.send_nowait("x"),
    "Room.broadcast to a subscription": lambda w: w.sub.room.broadcast("x"),
    "Room.kick of a client": lambda w: w.sub.room.kick(w.client),
    "App.statistics": lambda w: w.app.statistics(),
    "AppCollector.collect": lambda w: list(AppCollector(w.app).collect()),
}
"""Changes something, wakes somebody, or tells of several things at one moment: refused in another thread."""

CHECKED_COROUTINES: dict[str, Callable[[World], Awaitable[Any]]] = {
    "WebSocket.send": lambda w: w.ws.send("x"),
    "WebSocket.receive": lambda w: w.ws.receive(),
    "WebSocket.__anext__": lambda w: anext(w.ws),
    "WebSocket.close": lambda w: w.ws.close(),
    "WebSocket.leave": lambda w: w.ws.leave("hall"),
    "WebSocket.leave of another": lambda w: w.ws.leave("other"),
    "Membership.leave": lambda w: w.membership.leave(),
    "Room.count": lambda w: w.app.room("hall").count(),
    "Room.count with nobody in it": lambda w: w.app.room("nowhere").count(),
    "Room.publish": lambda w: w.app.room("hall").publish("x"),
    "Room.publish with nobody in it": lambda w: w.app.room("kept:a").publish("x"),
    "Room.history": lambda w: w.app.room("kept:a").history(),
    "Room.presence": lambda w: w.app.room("kept:a").presence(),
    "Membership.__await__": lambda w: w.membership,
    "Users.send": lambda w: w.app.users.send("ada", "x"),
    "Users.send to a subscriber": lambda w: w.app.users.send("bob", "x"),
    "Users.send to nobody": lambda w: w.app.users.send("nobody", "x"),
    "Users.disconnect": lambda w: w.app.users.disconnect("ada"),
    "Users.disconnect of a subscriber": lambda w: w.app.users.disconnect("bob"),
    "Users.disconnect of nobody": lambda w: w.app.users.disconnect("nobody"),
    "Client.send": lambda w: w.client.send("x"),
    "Client.disconnect": lambda w: w.client.disconnect(),
    "Client.subscribe": lambda w: w.client.subscribe("elsewhere"),
    "Subscription.accept": lambda w: w.waiting.accept(),
    "Subscription.receive": lambda w: w.sub.receive(),
    "Subscription.__anext__": lambda w: anext(w.sub),
    "Subscription.send": lambda w: w.sub.send("x"),
    "Subscription.publish": lambda w: w.sub.publish("x"),
    "Subscription.unsubscribe": lambda w: w.sub.unsubscribe(),
    "Subscription.unsubscribe of one that waits": lambda w: w.waiting.unsubscribe(),
    "Membership.__aenter__": lambda w: w.membership.__aenter__(),
    "Membership.__aexit__": lambda w: w.membership.__aexit__(None, None, None),
}
"""Coroutine functions that another Trio run, in another thread, must not run."""


async def enter_lifespan(w: World) -> None:
    async with w.app.lifespan():
        pass


REFUSED_WHILE_SERVED: dict[str, Call] = {
    "App.use": lambda w: w.app.use(as_somebody),
    "Background.task": lambda w: w.app.task(trio.sleep_forever),
    "Background.every": lambda w: w.app.every(1)(trio.sleep_forever),
    "RoomDeclarations.rooms": lambda w: w.app.rooms("late:{room}"),
    "RoomDeclarations.room_task": lambda w: w.app.room_task("late:{room}"),
    "App.listen": lambda w: w.app.listen(0),
    "App.serve": lambda w: trio.run(w.app.serve, 0),
    "App.lifespan": lambda w: trio.run(enter_lifespan, w),
}
"""Refused in whatever thread, with a reason of their own."""

TOO_LATE = {"App.use", "Background.task", "Background.every", "RoomDeclarations.rooms", "RoomDeclarations.room_task"}
"""Of those, what must be done before the app is served."""

READ: dict[str, Call] = {
    "Member.id": lambda w: w.ws.id,
    "Member.params": lambda w: w.ws.params,
    "WebSocket.user": lambda w: w.ws.user,
    "WebSocket.ready_state": lambda w: w.ws.ready_state,
    "Member.closed": lambda w: w.ws.closed,
    "WebSocket.rooms": lambda w: w.ws.rooms,
    "WebSocket.route": lambda w: w.ws.route,
    "Member.dropped": lambda w: w.ws.dropped,
    "WebSocket.nursery": lambda w: w.ws.nursery,
    "WebSocket.__class_getitem__": lambda w: WebSocket[str],
    "WebSocket.__repr__": lambda w: repr(w.ws),
    "WebSocket.__aiter__": lambda w: aiter(w.ws),
    "Room.__len__": lambda w: len(w.app.room("hall")),
    "Room.__bool__": lambda w: bool(w.app.room("hall")),
    "Room.here": lambda w: w.app.room("hall").here,
    "Room.__contains__": lambda w: w.ws in w.app.room("hall"),
    "Room.__contains__ of an id": lambda w: w.ws.id in w.app.room("hall"),
    "Room.__repr__": lambda w: repr(w.app.room("hall")),
    "Membership.is_settled": lambda w: w.membership.is_settled,
    "Membership.room": lambda w: w.membership.room,
    "Room.__repr__ of a membership": lambda w: repr(w.membership),
    "Users.__len__": lambda w: len(w.app.users),
    "Users.__iter__": lambda w: [user for user in w.app.users],  # noqa: C416
    "Users.__contains__": lambda w: "ada" in w.app.users,
    "Users.connections": lambda w: w.app.users.connections("ada"),
    "Member.params of a subscriber": lambda w: w.subscriber.params,
    "Member.user": lambda w: w.subscriber.user,
    "Member.closed of a subscriber": lambda w: w.subscriber.closed,
    "EventSubscriber.__repr__": lambda w: repr(w.subscriber),
    "Client.user": lambda w: w.client.user,
    "Client.nursery": lambda w: w.client.nursery,
    "Client.subscriptions": lambda w: w.client.subscriptions,
    "Client.__repr__": lambda w: repr(w.client),
    **{
        f"Subscription.{name}": partial(lambda name, w: getattr(w.sub, name), name)
        for name in (
            *("name", "client", "user", "room", "claims", "data", "nursery"),
            *("is_server_side", "is_accepted", "is_over", "is_recovered"),
        )
    },
    "Subscription.__repr__": lambda w: repr(w.sub),
    "Subscription.__aiter__": lambda w: aiter(w.sub),
    "Subscription.__class_getitem__": lambda w: Subscription[str],
    "App.room": lambda w: w.app.room("hall"),
    "App.connections": lambda w: w.app.connections,
    "App.users": lambda w: w.app.users,
    "App.asyncapi_document": lambda w: w.app.asyncapi_document(title="x", version="1"),
    "Group.__repr__": lambda w: repr(w.app.group("/reading")),
    "AppCollector.describe": lambda w: list(AppCollector(w.app).describe()),
    # Made in a route's thread, and sent by the task of the request.
    "Stream": lambda w: type(Stream(["x"])),
    "EventStream": lambda w: type(EventStream(["x"])),
    "JSONArray": lambda w: type(JSONArray(["x"])),
    "last_event_id": lambda w: verbtrio.last_event_id(Request({"type": "http", "headers": []})),
    "ServerSentEvent.encode": lambda w: verbtrio.ServerSentEvent("x").encode(),
    "on": lambda w: type(verbtrio.on(Clock)),
    "JWTAuth.connection_token": lambda w: AUTH.verify(AUTH.connection_token("ada", expires_in=1e6))["sub"],  # type: ignore[index]
    "JWTAuth.subscription_token": lambda w: AUTH.verify(AUTH.subscription_token("ada", "chat:1", expires_in=1e6))[
        "channel"
    ],  # type: ignore[index]
    "JWTAuth.issue": lambda w: AUTH.verify(AUTH.issue({"id": 1}, expires_in=1e6))["id"],  # type: ignore[index]
}
"""Reads, or touches nothing of the app's: allowed everywhere."""

ROUTES: dict[str, Call] = {
    "HTTPRoutes.get": lambda w: w.app.get("/get")(page),
    "HTTPRoutes.post": lambda w: w.app.post("/post")(page),
    "HTTPRoutes.put": lambda w: w.app.put("/put")(page),
    "HTTPRoutes.patch": lambda w: w.app.patch("/patch")(page),
    "HTTPRoutes.delete": lambda w: w.app.delete("/delete")(page),
    "Routes.ws": lambda w: w.app.ws("/late", open=lambda ws: None),
    "Routes.sse": lambda w: w.app.sse("/late/:room"),
    "Routes.group": lambda w: w.app.group("/late"),
    "App.asyncapi": lambda w: w.app.asyncapi(title="x", version="1"),
    "HealthRoutes.health": lambda w: w.app.health("/late-health"),
    "ClientRoutes.centrifuge": lambda w: w.app.centrifuge("/late"),
    "ClientRoutes.call": lambda w: w.app.call("late")(lambda client: None),
}
"""Adds a route, or a function that clients call, in whatever thread the app is written: one entry more in a list, and
nobody waits for one."""

SENTENCES = {
    *("WebSocket.__iter__", "WebSocket.__aenter__", "WebSocket.__aexit__"),
    *("Membership.__enter__", "Membership.__exit__", "Room.__iter__"),
    *("Subscription.__iter__", "Subscription.__aenter__", "Subscription.__aexit__"),
}
"""What is there only to say what to write instead (see test_mistakes): it reads nothing, and changes nothing."""

BY_THE_REQUEST = {"App.__call__", "Stream.__call__"}
"""Called by the task of a request, with what only that has."""

BY_ITS_BLOCK = {"PresenceWatch.__aiter__", "PresenceWatch.__anext__"}
"""Called in the block of `room.watch()`, which no other thread can enter. Its queue is Trio's, for one run."""

NOTHING_OF_TRIO = {
    *(
        "AuthenticationError",
        "Cause",
        "CloseInfo",
        "ConnectionClosed",
        "HandshakeError",
        "Heartbeat",
        "JWTAuth",
        "Limits",
    ),
    *(
        "LimitExceeded",
        "MessageError",
        "NotRunning",
        "TrustedProxies",
        "Upgrade",
        "UpgradeRequest",
        "VerbtrioError",
    ),
    *("BrokerUnavailable", "Denied", "History", "HistoryGap", "Position", "Presence", "PresenceChange", "Present"),
    *("Page", "Publication"),
}
"""Classes whose modules don't import Trio: values, and what is made of them."""

GENERATED = {
    "__init__",
    "__post_init__",
    "__eq__",
    "__hash__",
    "__new__",
    "__subclasshook__",
    "__copy__",
    "__deepcopy__",
}


def page(request: Request) -> Response:
    return PlainTextResponse("page")


def public_members() -> Iterator[str]:
    """`Class.member` for each function and property that an application may use, and each public function."""
    for public in (*(getattr(verbtrio, name) for name in EXPORTED), JWTAuth, AppCollector):
        if inspect.isfunction(public):
            yield public.__name__
        elif inspect.isclass(public) and public is not Any:
            for owner in public.__mro__:
                if owner.__module__.startswith("verbtrio"):
                    yield from members_of(owner)


def members_of(owner: type) -> Iterator[str]:
    for name, member in vars(owner).items():
        is_special = name.startswith("__") and name not in GENERATED
        if (
            (is_special or not name.startswith("_"))
            and (isinstance(member, property | classmethod | staticmethod) or inspect.isfunction(member))
            and not (is_special and dataclasses.is_dataclass(owner))
        ):
            yield f"{owner.__name__}.{name}"


TABLES: list[dict[str, Any]] = [CHECKED, CHECKED_COROUTINES, REFUSED_WHILE_SERVED, READ, ROUTES]


def test_every_public_member_is_in_a_table() -> None:
    found = {name for name in public_members() if name.partition(".")[0] not in NOTHING_OF_TRIO}
    listed = {name.partition(" ")[0] for table in TABLES for name in table} | BY_THE_REQUEST | BY_ITS_BLOCK | SENTENCES
    assert {"WebSocket.send", "Room.broadcast", "Users.__iter__", "HTTPRoutes.get"} <= found, (
        "the test itself sees something"
    )
    assert found - listed == set(), "say in one of the tables what these do in another thread"
    tokens = {"JWTAuth.issue", "JWTAuth.connection_token", "JWTAuth.subscription_token"}
    made = {"Stream", "EventStream", "JSONArray", *tokens}  # no member, or one of a class that is exempt
    assert listed - found == made, "these are gone"


@pytest.mark.parametrize("name", sorted(NOTHING_OF_TRIO))
def test_nothing_of_trio(name: str) -> None:
    public = JWTAuth if name == "JWTAuth" else getattr(verbtrio, name)
    module = public.__module__.partition(".")[2]
    assert not {each.partition(".")[0] for each in imports(module)} & {"trio", "anyio"}


async def in_worker(function: Callable[..., Any], *args: Any) -> Any:
    """Run in a thread, and return when that has let go of what it ran: it has a last step to take once it has reported
    back, and until then holds what the call has raised, and all its frames."""
    try:
        return await trio.to_thread.run_sync(function, *args)
    finally:
        await trio.to_thread.run_sync(lambda: None)  # the thread that was busy last is the first to be used again


async def in_a_thread(call: Callable[[], Any]) -> Any:
    """As Starlette calls a route that is a plain function."""
    return await in_worker(call)


async def in_another_run(call: Callable[[], Any]) -> Any:
    """In a thread that has a Trio run of its own."""

    async def main() -> Any:
        result = call()
        return await result if hasattr(result, "__await__") else result

    return await in_worker(trio.run, main)


async def by_trio(call: Callable[[], Any]) -> Any:
    """From a thread, as the error says."""

    async def main() -> Any:
        result = call()
        return await result if hasattr(result, "__await__") else result

    return await in_worker(trio.from_thread.run, main)


@pytest.mark.parametrize("elsewhere", [in_a_thread, in_another_run])
@pytest.mark.parametrize("name", CHECKED)
async def test_refused(name: str, elsewhere: Any, autojump_clock: Clock) -> None:
    async with world() as w:
        before = w.state()
        with pytest.raises(RuntimeError, match=REFUSED):
            await elsewhere(lambda: CHECKED[name](w))
        assert w.state() == before
        await w.check_served()
        await w.shut_down()


@pytest.mark.parametrize("name", CHECKED_COROUTINES)
async def test_coroutines_refused_in_another_run(name: str, autojump_clock: Clock) -> None:
    async with world() as w:
        before = w.state()
        with pytest.raises(RuntimeError, match=REFUSED):
            await in_another_run(lambda: CHECKED_COROUTINES[name](w))
        assert w.state() == before
        await w.check_served()
        await w.shut_down()


@pytest.mark.parametrize("name", [*CHECKED, *(name for name in CHECKED_COROUTINES if not name.endswith("__aexit__"))])
async def test_from_a_thread_as_the_error_says(name: str, autojump_clock: Clock) -> None:
    """So what the tests above call is right, but for the thread."""
    async with world() as w:
        if name == "Membership.__aenter__":  # with its end: a scope belongs to one task

            async def enter_and_leave() -> None:
                async with w.membership:
                    pass

            await by_trio(enter_and_leave)
            assert w.membership._left
        else:
            await by_trio(lambda: {**CHECKED, **CHECKED_COROUTINES}[name](w))
        await w.service.shut_down()
        await w.service.wait_ended(5)


@pytest.mark.parametrize("name", REFUSED_WHILE_SERVED)
async def test_refused_while_served(name: str, autojump_clock: Clock) -> None:
    async with world() as w:
        before = w.state()
        with pytest.raises(RuntimeError, match="app has started" if name in TOO_LATE else "running already"):
            await in_a_thread(lambda: REFUSED_WHILE_SERVED[name](w))
        assert w.state() == before
        await w.check_served()
        await w.shut_down()


@pytest.mark.parametrize("elsewhere", [in_a_thread, in_another_run])
@pytest.mark.parametrize("name", READ)
async def test_allowed(name: str, elsewhere: Any, autojump_clock: Clock) -> None:
    async with world() as w:
        before = w.state()
        read = await elsewhere(lambda: READ[name](w))
        assert repr(read) == repr(READ[name](w))
        del read
        assert w.state() == before
        await w.check_served()
        await w.shut_down()


@pytest.mark.parametrize("name", ROUTES)
async def test_routes_may_be_added(name: str, autojump_clock: Clock) -> None:
    async with world() as w:
        before, there = w.state(), len(w.app.routes) + len(w.app._calls)
        await in_a_thread(lambda: ROUTES[name](w))
        assert w.state() == before
        assert len(w.app.routes) + len(w.app._calls) > there
        await w.check_served()
        await w.shut_down()


async def test_one_id(autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is made when it is first asked for: another thread that asks at the same time gets the same."""
    async with world() as w:
        ids: list[str] = []
        real = uuid.uuid4

        def meanwhile() -> uuid.UUID:
            monkeypatch.undo()
            ids.append(w.ws.id)
            return real()

        monkeypatch.setattr(uuid, "uuid4", meanwhile)
        ids.append(w.ws.id)
        assert ids == [w.ws.id, w.ws.id]
        await w.shut_down()


@pytest.mark.parametrize("scope_type", ["websocket", "http"])
async def test_called_by_another_run(scope_type: str, autojump_clock: Clock) -> None:
    """A served app is not for another run's server, nor for a test client beside it: no connection begins there."""
    async with world() as w:
        before = w.state()
        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message)

        async def receive() -> Any:
            return {"type": "websocket.connect" if scope_type == "websocket" else "http.request"}

        path = "/ws" if scope_type == "websocket" else "/events/hall"
        scope: dict[str, Any] = {
            "type": scope_type,
            "path": path,
            "method": "GET",
            "headers": [],
            "query_string": b"",
            "client": None,
        }
        with pytest.raises(RuntimeError, match=REFUSED):
            await in_another_run(lambda: w.app(scope, receive, send))
        assert [message.get("status") for message in sent if message["type"].endswith("start")] in ([], [500])
        assert "websocket.accept" not in [message["type"] for message in sent]
        assert w.state() == before
        await w.check_served()
        await w.shut_down()


async def test_a_mounted_app(autojump_clock: Clock) -> None:
    app = App()
    async with serving(app, Starlette(routes=[Mount("/chat", app=app)])):
        with pytest.raises(RuntimeError, match=REFUSED):
            await in_a_thread(lambda: app.connections.broadcast("x"))


def test_the_check() -> None:
    check = same_thread_check()
    check()
    with pytest.raises(RuntimeError, match=r"trio\.from_thread\.run_sync"):
        trio.run(in_a_thread, check)
