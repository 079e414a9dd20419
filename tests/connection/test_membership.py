"""Who comes into a room and leaves it: by each verb, in each form of a handler, whichever way its client has come."""

from __future__ import annotations

import inspect
import uuid
from collections.abc import Callable
from contextvars import ContextVar
from types import SimpleNamespace
from typing import Any

import pytest
import trio
import trio.testing
import trio_websocket
from trio.abc import Clock

from tests.support.http import Exchange
from tests.support.memory import serving
from tests.support.sse import parse
from tests.support.ways import FORMS, WAYS, add_handler, clients_of
from verbtrio import App, Cause, CloseInfo, ConnectionClosed, LimitExceeded, Limits, Membership, Room, WebSocket
from verbtrio.base.close import DRAINED
from verbtrio.hub.flusher import FLUSH_MEMBERS

ways = pytest.mark.parametrize("way", WAYS)
HOOKS = ["plain", "async"]


def leave_hook(kind: str, called: list[Any]) -> Any:
    """One that notes for which room it was called, and whether who has left is in it."""

    def plain(room: Room, ws: WebSocket[Any]) -> None:
        called.append((room.name, type(room), ws in room))

    async def later(room: Room, ws: WebSocket[Any]) -> None:
        await trio.lowlevel.checkpoint()
        plain(room, ws)

    return plain if kind == "plain" else later


CALLED = [("hall", Room, False)]


async def as_somebody(request: Any, call_next: Any) -> Any:
    """Who a client is, its path's end says."""
    request.scope["user"] = {"id": request.url.path.rpartition("/")[2]}
    return await call_next(request)


class TestOffersWhatItsRoomDoes:
    async def test_each_public_member(self, autojump_clock: Clock) -> None:
        app = App()

        @app.ws("/ws")
        async def handler(ws: WebSocket) -> None:
            async with ws.join("hall") as membership:
                room = app.room("hall")
                assert isinstance(membership, Membership)
                names = [name for name in dir(room) if not name.startswith("_")]
                assert {"broadcast", "kick", "close", "name"} <= set(names), "the test itself sees something"
                for name in names:
                    mine, its = getattr(membership, name), getattr(room, name)
                    assert getattr(mine, "__func__", mine) == getattr(its, "__func__", its)
                assert (len(membership), membership.here, ws in membership, bool(membership)) == (1, (ws,), True, True)
                assert repr(membership) == "<Membership 'hall' (1 here)>"
                assert repr(membership.room) == repr(room)
                assert membership.broadcast("said") == 1
                await trio.sleep_forever()

        async with serving(app) as service:
            client = await service.connect()
            assert await client.get_message() == "said"
            await client.aclose()

    async def test_a_handle_it_stays(self, autojump_clock: Clock) -> None:
        app = App()

        @app.ws("/ws")
        async def handler(ws: WebSocket) -> None:
            membership = ws.join("hall")
            await membership.leave()
            assert (len(membership), membership.broadcast("nobody hears"), membership.close()) == (0, 0, 0)
            ws.join("hall")
            assert membership.broadcast("said") == 1
            async for _ in ws:
                pass

        async with serving(app) as service:
            client = await service.connect()
            assert await client.get_message() == "said"
            await client.aclose()


class TestLeave:
    @pytest.mark.parametrize("hook", HOOKS)
    @pytest.mark.parametrize("verb", ["leave", "leave_nowait"])
    @ways
    async def test_by_name(self, way: str, verb: str, hook: str, autojump_clock: Clock) -> None:
        """From a task beside it: the block is cancelled, the connection goes on, and the hook is called, once."""
        app, called = App(), list[Any]()

        async def leave(ws: WebSocket[str]) -> None:
            if verb == "leave":
                left = [await ws.leave("hall"), await ws.leave("hall"), await ws.leave("elsewhere")]
            else:
                left = [ws.leave_nowait("hall"), ws.leave_nowait("hall"), ws.leave_nowait("elsewhere")]
            assert left == [True, False, False]
            assert ws.rooms == {"kitchen"}

        @app.ws("/ws")
        async def handler(ws: WebSocket[str]) -> None:
            ws.join("kitchen")
            async with ws.join("hall", on_leave=leave_hook(hook, called)) as members:
                ws.nursery.start_soon(leave, ws)
                await trio.sleep_forever()
            assert members.kicked is None
            await ws.send("left")
            async for text in ws:
                await ws.send(text)

        async with clients_of(app, way) as connect:
            client = await connect()
            await client.send("on")
            assert [await client.heard(), await client.heard()] == ["left", "on"]
            assert called == CALLED
            await client.close()
        assert called == CALLED

    @pytest.mark.parametrize("form", FORMS)
    @ways
    async def test_in_hooks(self, way: str, form: str, autojump_clock: Clock) -> None:
        app, called = App(), list[Any]()

        def message(ws: WebSocket[str], text: str) -> None:
            if text == "join":
                ws.join("hall", on_leave=leave_hook("plain", called), exist_ok=True)
            ws.send_nowait(f"{len(app.room('hall'))} {text == 'leave' and ws.leave_nowait('hall')}")

        add_handler(app, form, message=message)
        async with clients_of(app, way) as connect:
            client = await connect()
            await client.send("join", "join", "leave", "leave", "see")
            assert [await client.heard() for _ in range(5)] == ["1 False", "1 False", "1 True", "0 False", "0 False"]
            assert called == CALLED
            await client.close()

    async def test_its_own_verbs_say_whether_it_was_in(self, autojump_clock: Clock) -> None:
        app = App()

        @app.ws("/ws")
        async def handler(ws: WebSocket) -> None:
            one, other = ws.join("hall"), ws.join("kitchen")
            assert (one.leave_nowait(), one.leave_nowait()) == (True, False)
            assert (await other.leave(), await other.leave()) == (True, False)
            await ws.send("said")

        async with serving(app) as service:
            client = await service.connect()
            assert await client.get_message() == "said"
            await client.aclose()

    async def test_cancelled_it_has_left(self, autojump_clock: Clock) -> None:
        app, called = App(), list[Any]()

        @app.ws("/ws")
        async def handler(ws: WebSocket) -> None:
            for name in ("hall", "hall"):  # in it, and not
                with trio.CancelScope() as scope:
                    scope.cancel()
                    ws.join(name, on_leave=leave_hook("async", called), exist_ok=True)
                    await ws.leave(name)
                assert ws.rooms == frozenset()
            with trio.CancelScope() as scope:
                scope.cancel()
                await ws.leave("hall")
            assert scope.cancelled_caught, "it is a checkpoint, also where there is nothing to leave"
            await ws.send("said")

        async with serving(app) as service:
            client = await service.connect()
            assert await client.get_message() == "said"
            await client.aclose()
        assert called == CALLED * 2

    async def test_after_the_end(self, autojump_clock: Clock) -> None:
        app, left = App(), list[bool]()

        async def close(ws: WebSocket, code: int, reason: str) -> None:
            left.extend([await ws.leave("hall"), ws.leave_nowait("hall")])

        app.ws("/ws", open=lambda ws: ws.join("hall") and None, close=close)
        async with serving(app) as service:
            client = await service.connect()
            await client.aclose()
        assert left == [False, False]


class TestExistOk:
    @pytest.mark.parametrize("form", FORMS)
    @ways
    async def test_the_same_membership(self, way: str, form: str, autojump_clock: Clock) -> None:
        app, called = App(limits=Limits(max_rooms=1)), list[Any]()

        def opened(ws: WebSocket[str]) -> None:
            first = ws.join("hall", exist_ok=True)
            assert ws.join("hall", exist_ok=True) is first, "the limit is not for those who are in"
            with pytest.raises(RuntimeError, match=r"in the room 'hall' already: exist_ok=True"):
                ws.join("hall")
            with pytest.raises(LimitExceeded):
                ws.join("kitchen", exist_ok=True)
            for bad in (lambda room: None, 5):
                with pytest.raises(TypeError):
                    ws.join("hall", exist_ok=True, on_leave=bad)  # type: ignore[arg-type]  # that is the point
            hook = leave_hook("plain", called)
            assert ws.join("hall", exist_ok=True, on_leave=hook) is first
            ws.join("hall", exist_ok=True, on_leave=lambda room, ws: called.append("a later one"))
            assert len(app.room("hall")) == 1
            ws.send_nowait("checked")

        add_handler(app, form, opened=opened)
        async with clients_of(app, way) as connect:
            client = await connect()
            assert await client.heard() == "checked"
            await client.close()
        assert called == CALLED, "the first that was given, once"

    async def test_a_new_one_once_it_has_left(self, autojump_clock: Clock) -> None:
        app = App()

        @app.ws("/ws")
        async def handler(ws: WebSocket) -> None:
            first = ws.join("hall")
            first.leave_nowait()
            again = ws.join("hall", exist_ok=True)
            assert again is not first
            assert (first.leave_nowait(), ws in app.room("hall")) == (False, True)
            ws.close_nowait()
            with pytest.raises(ConnectionClosed):
                ws.join("hall", exist_ok=True)

        async with serving(app) as service:
            client = await service.connect()
            await client.aclose()

    async def test_its_block_is_entered_once(self, autojump_clock: Clock) -> None:
        app = App()

        @app.ws("/ws")
        async def handler(ws: WebSocket) -> None:
            async with ws.join("hall") as members:
                with pytest.raises(RuntimeError, match=r"the block of this membership in 'hall' has been entered"):
                    async with ws.join("hall", exist_ok=True):
                        raise AssertionError("not reached")
                assert ws.rooms == {"hall"}
                await ws.send("checked")
            assert ws not in members
            with pytest.raises(RuntimeError, match="has been entered"):
                await members.__aenter__()

        async with serving(app) as service:
            client = await service.connect()
            assert await client.get_message() == "checked"
            await client.aclose()


Kick = Callable[[App, WebSocket[Any]], int]
KICKS: dict[str, Kick] = {
    "a member": lambda app, ws: app.room("hall").kick(ws, code=4001, reason="noisy"),
    "a list": lambda app, ws: app.room("hall").kick([ws, ws], code=4001, reason="noisy"),
    "a set": lambda app, ws: app.room("hall").kick({ws}, code=4001, reason="noisy"),
    "a user": lambda app, ws: app.room("hall").kick(user=ws.user["id"], code=4001, reason="noisy"),
    "close": lambda app, ws: app.room("hall").close(4001, "noisy"),
    "by a membership": lambda app, ws: ws.join("hall", exist_ok=True).kick(ws, code=4001, reason="noisy"),
    "close by a membership": lambda app, ws: ws.join("hall", exist_ok=True).close(4001, "noisy"),
}
KICKED = CloseInfo(Cause.KICKED, 4001, "noisy")


class TestKick:
    @pytest.mark.parametrize("hook", HOOKS)
    @pytest.mark.parametrize("kick", KICKS)
    @ways
    async def test_from_the_room_alone(self, way: str, kick: str, hook: str, autojump_clock: Clock) -> None:
        """The block is cancelled, with what was said before heard, and nothing of after; the connection goes on."""
        app, called = App(middleware=[as_somebody]), list[Any]()
        sockets = list[WebSocket[str]]()

        @app.ws("/ws")
        async def handler(ws: WebSocket[str]) -> None:
            sockets.append(ws)
            ws.join("kitchen")
            async with ws.join("hall", on_leave=leave_hook(hook, called)) as members:
                await trio.sleep_forever()
            assert members.kicked == KICKED
            async for text in ws:
                await ws.send(text)

        async with clients_of(app, way) as connect:
            client = await connect()
            await trio.testing.wait_all_tasks_blocked()
            (ws,) = sockets
            app.room("hall").broadcast("before")
            assert KICKS[kick](app, ws) == 1
            assert (ws in app.room("hall"), sorted(ws.rooms), len(app.room("hall"))) == (False, ["kitchen"], 0)
            assert app.room("hall").broadcast("after") == 0
            assert (
                app.room("hall").kick(ws) == app.room("hall").kick(user=ws.user["id"]) == app.room("hall").close() == 0
            )
            assert called == [], "no hook is called in place"
            await client.send("on")
            assert [await client.heard(), await client.heard()] == ["before", "on"]
            await trio.testing.wait_all_tasks_blocked()
            assert called == CALLED
            assert ws.closed is None
            del ws
            sockets.clear()
            await client.close()
        assert called == CALLED

    @pytest.mark.parametrize("form", FORMS)
    @ways
    async def test_in_hooks(self, way: str, form: str, autojump_clock: Clock) -> None:
        """Among them one that removes itself."""
        app, called, kept = App(), list[Any](), list[Membership]()

        def opened(ws: WebSocket[str]) -> None:
            kept.append(ws.join("hall", on_leave=leave_hook("plain", called)))

        def message(ws: WebSocket[str], text: str) -> None:
            ws.send_nowait(f"{app.room('hall').kick(ws)} {sorted(ws.rooms)}")

        add_handler(app, form, opened=opened, message=message)
        async with clients_of(app, way) as connect:
            client, other = await connect(), await connect()
            await client.send("x", "x")
            assert [await client.heard(), await client.heard()] == ["1 []", "0 []"]
            await trio.testing.wait_all_tasks_blocked()
            assert [membership.kicked for membership in kept] == [CloseInfo(Cause.KICKED, 1008), None]
            assert called == CALLED
            assert len(app.room("hall")) == 1, "nobody else"
            kept.clear()
            await client.close()
            await other.close()
        assert called == CALLED * 2

    @pytest.mark.parametrize("hook", HOOKS)
    @pytest.mark.parametrize("end", ["closed", "hung up", "returned", "cancelled", "drained"])
    @ways
    async def test_and_the_connection_ends_at_the_same_moment(
        self, way: str, end: str, hook: str, autojump_clock: Clock
    ) -> None:
        """The hook is called all the same, and once."""
        app, called, go = App(), list[Any](), trio.Event()
        sockets = list[WebSocket[str]]()

        @app.ws("/ws")
        async def handler(ws: WebSocket[str]) -> None:
            sockets.append(ws)
            ws.join("hall", on_leave=leave_hook(hook, called))
            await go.wait()

        async with clients_of(app, way) as connect:
            client = await connect()
            await trio.testing.wait_all_tasks_blocked()
            (ws,) = sockets
            sockets.clear()
            assert app.room("hall").kick(ws) == 1
            if end == "closed":
                ws.close_nowait()
            elif end == "hung up":
                await client.hang_up()
            elif end == "returned":
                go.set()
            elif end == "cancelled":
                ws.nursery.cancel_scope.cancel()
            else:
                await connect.service.shut_down()
            del ws
            await trio.sleep(1)
            await client.close()
        assert called == CALLED

    @pytest.mark.parametrize("hook", HOOKS)
    async def test_who_is_back_is_not_said_to_have_left(self, hook: str, autojump_clock: Clock) -> None:
        app, called = App(), list[Any]()

        @app.ws("/ws")
        async def handler(ws: WebSocket[str]) -> None:
            async with ws.join("hall", on_leave=leave_hook(hook, called)) as members:
                members.kick(ws)
                ws.join("hall", on_leave=leave_hook(hook, called))
                await trio.sleep_forever()
            await trio.testing.wait_all_tasks_blocked()
            assert ws in members
            assert called == []
            await ws.send("checked")

        async with serving(app) as service:
            client = await service.connect()
            assert await client.get_message() == "checked"
            await client.aclose()
        assert called == CALLED

    async def test_before_the_block_is_entered(self, autojump_clock: Clock) -> None:
        app = App()

        @app.ws("/ws")
        async def handler(ws: WebSocket[str]) -> None:
            membership = ws.join("hall")
            app.room("hall").close()
            await trio.lowlevel.checkpoint()
            async with membership:
                await trio.sleep_forever()
            await ws.send("checked")

        async with serving(app) as service:
            client = await service.connect()
            assert await client.get_message() == "checked"
            await client.aclose()

    async def test_a_hook_that_removes_the_next(self, autojump_clock: Clock) -> None:
        """However many there are: none is called within another, and one that fails is no other's."""
        app, depths = App(), list[int]()

        def remove_the_next(room: Room, ws: WebSocket[Any]) -> None:
            depths.append(len(inspect.stack(0)))
            for member in room.here[:1]:
                room.kick(member)
            if len(depths) == 3:
                raise ValueError("on purpose")

        app.ws("/ws", open=lambda ws: ws.join("hall", on_leave=remove_the_next) and None)
        async with serving(app) as service:
            clients = [await service.connect() for _ in range(10)]
            await trio.testing.wait_all_tasks_blocked()
            app.room("hall").kick(app.room("hall").here[0])
            await trio.testing.wait_all_tasks_blocked()
            assert len(depths) == 10
            assert len(set(depths)) == 1
            assert len(app.connections) == 10
            for client in clients:
                await client.aclose()

    async def test_more_than_one_step_takes(self, autojump_clock: Clock) -> None:
        """They are out of the room at once, and what follows is seen to in parts."""
        app, called = App(), list[Any]()
        many = FLUSH_MEMBERS + 10
        app.ws("/ws", open=lambda ws: ws.join("hall", on_leave=leave_hook("plain", called)) and None)
        async with serving(app) as service:
            clients = [await service.connect() for _ in range(many)]
            await trio.testing.wait_all_tasks_blocked()
            app.room("hall").broadcast("before")
            assert app.room("hall").close() == many
            assert len(app.room("hall")) == app.statistics().memberships == 0
            for client in clients:
                assert await client.get_message() == "before"
            await trio.testing.wait_all_tasks_blocked()
            assert called == CALLED * many
            for client in clients:
                await client.aclose()


class TestThoseWhoAreInItForLife:
    """A route's room, everybody's, and an event stream's: to be removed is to end."""

    @pytest.mark.parametrize("form", FORMS)
    @pytest.mark.parametrize("whose", ["route", "everybody"])
    @pytest.mark.parametrize("verb", ["member", "user", "close"])
    @ways
    async def test_connections(self, way: str, verb: str, whose: str, form: str, autojump_clock: Clock) -> None:
        app, ends = App(middleware=[as_somebody]), list[Any]()
        sockets = list[WebSocket[str]]()
        add_handler(app, form, opened=sockets.append)

        async with clients_of(app, way) as connect:
            client = await connect()
            await trio.testing.wait_all_tasks_blocked()
            (ws,) = sockets
            room = ws.route if whose == "route" else app.connections
            room.broadcast("before")
            if verb == "member":
                assert room.kick(ws, code=4001, reason="noisy") == 1
            elif verb == "user":
                assert room.kick(user="ws", code=4001, reason="noisy") == 1
            else:
                assert room.close(4001, "noisy") == 1
            assert (len(room), room.broadcast("after")) == (0, 0)
            assert await client.closed() == (4001, "noisy")
            assert client.said == ["before"]
            ends.append(ws.closed)
            del ws
            sockets.clear()
            await client.close()
            await connect.service.wait_ended(10)
            assert app.statistics().ended == {"kicked": 1}
        assert ends == [KICKED]

    @pytest.mark.parametrize("verb", ["member", "user", "close"])
    async def test_event_streams(self, verb: str, autojump_clock: Clock) -> None:
        app = App(middleware=[as_somebody])
        app.sse("/events/:room", keep_alive=None)
        async with serving(app) as service:
            client = await Exchange(service.open_stream()).request("/events/hall")
            other = await Exchange(service.open_stream()).request("/events/kitchen")
            await trio.testing.wait_all_tasks_blocked()
            room = app.room("hall")
            room.broadcast("before")
            if verb == "member":
                assert room.kick(room.here[0], code=4001, reason="noisy") == 1
            elif verb == "user":
                assert room.kick(user="hall", code=4001, reason="noisy") == 1
            else:
                assert room.close(4001, "noisy") == 1
            assert (len(room), room.broadcast("after")) == (0, 0)
            events = [(event.event, event.data) for event in parse(await client.rest())]
            assert events == [("message", "before"), ("close", '{"code":4001,"reason":"noisy"}')]
            assert app.statistics().ended == {"kicked": 1}
            assert len(app.room("kitchen")) == 1
            await client.aclose()
            await other.aclose()

    async def test_a_user_of_several(self, autojump_clock: Clock) -> None:
        """All of a user's connections that are in the room, and nobody else's; not those that are elsewhere."""
        app = App(middleware=[as_somebody])

        @app.ws("/ws/:room/:user")
        async def handler(ws: WebSocket, room: str, user: str) -> None:
            async with ws.join(room) as members:
                await trio.sleep_forever()
            assert members.kicked is not None
            await ws.send("kicked")
            await trio.sleep_forever()

        app.sse("/events/:room/:user", keep_alive=None)
        async with serving(app) as service:
            adas = [await service.connect("/ws/hall/ada") for _ in range(2)]
            others = [await service.connect("/ws/hall/bob"), await service.connect("/ws/kitchen/ada")]
            stream = await Exchange(service.open_stream()).request("/events/hall/ada")
            await trio.testing.wait_all_tasks_blocked()
            assert app.room("hall").kick(user="ada") == 3
            for client in adas:
                assert await client.get_message() == "kicked"
            await stream.rest()
            assert (len(app.room("hall")), len(app.room("kitchen"))) == (1, 1)
            for client in (*adas, *others):
                await client.aclose()
            await stream.aclose()


class TestExcludeUser:
    async def test_all_the_connections_of_one_user(self, autojump_clock: Clock) -> None:
        app = App(middleware=[as_somebody])

        @app.ws("/ws/:user")
        async def handler(ws: WebSocket, user: str) -> None:
            ws.join("hall")
            await trio.sleep_forever()

        app.sse("/events/:room/:user", keep_alive=None)
        async with serving(app) as service:
            adas = [await service.connect("/ws/ada") for _ in range(2)]
            bob, seven = await service.connect("/ws/bob"), await service.connect("/ws/7")
            stream = await Exchange(service.open_stream()).request("/events/hall/ada")
            await trio.testing.wait_all_tasks_blocked()
            hall = app.room("hall")
            sockets = {ws.params["user"]: ws for ws in app.connections.here if isinstance(ws, WebSocket)}
            assert hall.broadcast("1", exclude_user="ada") == 2
            assert hall.broadcast("2", exclude_user=7) == 4
            assert hall.broadcast("3", exclude_user="nobody") == 5
            assert hall.broadcast("4", exclude_user="ada", exclude=sockets["bob"]) == 1
            assert hall.broadcast("5", exclude_user="ada", exclude=[sockets["bob"], sockets["ada"]]) == 1
            assert hall.broadcast("6", exclude_user="ada", exclude=[]) == 2
            assert hall.broadcast("7", exclude_user=uuid.UUID(int=1)) == 5
            assert app.connections.broadcast("8", exclude_user="ada") == 2
            assert next(iter(sockets.values())).route.broadcast("9", exclude_user="bob") == 3
            sockets.clear()
            heard: dict[Any, list[Any]] = {}
            for client, count in ((adas[0], 4), (adas[1], 4), (bob, 6), (seven, 8)):
                heard[client] = [await client.get_message() for _ in range(count)]
            assert heard[adas[0]] == heard[adas[1]] == ["2", "3", "7", "9"]
            assert heard[bob] == ["1", "2", "3", "6", "7", "8"]
            assert heard[seven] == ["1", "3", "4", "5", "6", "7", "8", "9"]
            events = parse(await stream.until(b"data: 7\n\n"))
            assert [event.data for event in events] == ["2", "3", "7"]
            for client in (*adas, bob, seven):
                await client.aclose()
            await stream.aclose()


NO_IDS: dict[str, Callable[[WebSocket[Any]], Any]] = {
    "the user": lambda ws: ws.user,
    "an object with an id": lambda ws: SimpleNamespace(id="ada"),
    "a connection": lambda ws: ws,
    "ids": lambda ws: ["ada"],
    "a set of ids": lambda ws: {"ada"},
    "bytes": lambda ws: b"ada",
}


@pytest.mark.parametrize("what", NO_IDS)
async def test_what_is_no_users_id(what: str, autojump_clock: Clock) -> None:
    """It would be nobody's, so who is to be left out would not be."""
    app = App(middleware=[as_somebody])

    @app.ws("/ws/:user")
    async def handler(ws: WebSocket, user: str) -> None:
        ws.join("hall")
        wrong = NO_IDS[what](ws)
        for room in (app.room("hall"), app.room("nobody is here"), ws.route, app.connections):
            for exclude in (None, ws, [ws]):
                with pytest.raises(TypeError, match="a user's id is text or a number"):
                    room.broadcast("x", exclude=exclude, exclude_user=wrong)
            with pytest.raises(TypeError, match="a user's id is text or a number"):
                room.kick(user=wrong)
        await ws.send(f"{len(ws.rooms)} {ws.closed}")

    async with serving(app) as service:
        client = await service.connect("/ws/ada")
        assert await client.get_message() == "1 None"
        await client.aclose()


BAD_KICKS: dict[str, tuple[Callable[[Any, Any], Any], type[Exception]]] = {
    "nobody": (lambda room, ws: room.kick(), TypeError),
    "None": (lambda room, ws: room.kick(None), TypeError),
    "a member and a user": (lambda room, ws: room.kick(ws, user="ada"), TypeError),
    "a number": (lambda room, ws: room.kick(5), TypeError),
    "bytes": (lambda room, ws: room.kick(b""), TypeError),
    "ids of users": (lambda room, ws: room.kick([ws, ws.id, 5]), TypeError),
    "a list with None": (lambda room, ws: room.kick([ws, None]), TypeError),
    "a generator": (lambda room, ws: room.kick(one for one in [ws]), TypeError),
    "a membership": (lambda room, ws: room.kick(ws.join("hall", exist_ok=True)), TypeError),
    "a room": (lambda room, ws: room.kick(room), TypeError),
    "a code that must not be sent": (lambda room, ws: room.kick(ws, code=1006), ValueError),
    "no code": (lambda room, ws: room.kick(ws, code=None), TypeError),
    "a reason that is too long": (lambda room, ws: room.kick(ws, reason="x" * 124), ValueError),
    "closing with a code that must not be sent": (lambda room, ws: room.close(1005), ValueError),
    "closing without a reason": (lambda room, ws: room.close(1000, None), TypeError),
}


@pytest.mark.parametrize("what", BAD_KICKS)
async def test_a_kick_that_can_not_be(what: str, autojump_clock: Clock) -> None:
    app = App(middleware=[as_somebody])
    call, error = BAD_KICKS[what]

    @app.ws("/ws/:user")
    async def handler(ws: WebSocket, user: str) -> None:
        ws.join("hall")
        for room in (app.room("hall"), app.room("nobody is here"), ws.route, app.connections):
            with pytest.raises(error):
                call(room, ws)
        await trio.testing.wait_all_tasks_blocked()
        assert (ws in app.room("hall"), ws in ws.route, ws in app.connections) == (True, True, True)
        await ws.send(f"{len(ws.rooms)} {ws.closed}")

    async with serving(app) as service:
        client = await service.connect("/ws/ada")
        assert await client.get_message() == "1 None"
        await client.aclose()


async def test_ids(autojump_clock: Clock) -> None:
    """Those of connections and of event streams, beside members and users."""
    app = App(middleware=[as_somebody])

    @app.ws("/ws/:user")
    async def handler(ws: WebSocket, user: str) -> None:
        ws.join("hall")
        await trio.sleep_forever()

    app.sse("/events/:room/:user", keep_alive=None)
    async with serving(app) as service:
        clients = {user: await service.connect(f"/ws/{user}") for user in ("ada", "bob")}
        stream = await Exchange(service.open_stream()).request("/events/hall/eve")
        await trio.testing.wait_all_tasks_blocked()
        hall, ids = app.room("hall"), {one.params["user"]: one.id for one in app.room("hall").here}
        assert all(one in hall for one in ids.values())
        assert hall.broadcast("1", exclude=ids["ada"]) == 2
        assert hall.broadcast("2", exclude=ids["ada"], exclude_user="bob") == 1
        assert hall.broadcast("3", exclude=[ids["ada"], ids["eve"], "nobody's"]) == 1
        assert hall.broadcast("4", exclude="ada") == 3, "a user's id is nobody's"
        assert hall.kick([ids["ada"], ids["eve"]]) == 2
        assert [one in hall for one in ids.values()] == [False, True, False]
        assert (hall.kick(ids["ada"]), hall.kick("nobody's")) == (0, 0)
        assert [await clients["bob"].get_message() for _ in range(3)] == ["1", "3", "4"]
        assert await clients["ada"].get_message() == "4"
        assert [event.data for event in parse(await stream.rest())][:3] == ["1", "2", "4"]
        assert app.connections.kick(ids["ada"], code=4001) == 1
        await trio.testing.wait_all_tasks_blocked()
        assert app.statistics().ended == {"kicked": 2}
        for client in clients.values():
            await client.aclose()


@pytest.mark.parametrize("exclude", [b"ada", 7, [7]])
async def test_what_names_no_member_excludes_nobody(exclude: Any, autojump_clock: Clock) -> None:
    app = App()

    @app.ws("/ws")
    async def handler(ws: WebSocket) -> None:
        ws.join("hall")
        for user in (None, "bob"):
            with pytest.raises(TypeError, match=r"for a user's id: `broadcast\(data, exclude_user="):
                app.room("hall").broadcast("x", exclude=exclude, exclude_user=user)
        await ws.send("checked")

    async with serving(app) as service:
        client = await service.connect()
        assert await client.get_message() == "checked"
        await client.aclose()


@pytest.mark.parametrize("room", ["route", "connections"])
@pytest.mark.parametrize("end", ["returned", "raised", "closed", "cancelled", "drained"])
async def test_a_kick_decides_how_a_connection_ends(room: str, end: str, autojump_clock: Clock) -> None:
    """Whatever else of the server's ends it before the kick has taken its course."""
    app, infos = App(), list[Any]()

    @app.ws("/ws")
    async def handler(ws: WebSocket) -> None:
        infos.append(ws)
        await ws.receive()
        everybody = ws.route if room == "route" else app.connections
        assert everybody.kick(ws, code=4001, reason="banned") == 1
        if end == "raised":
            raise ValueError("on purpose")
        if end == "closed":
            await ws.close(1000, "bye")
        elif end == "cancelled":
            ws.nursery.cancel_scope.cancel()
        elif end == "drained":
            ws._peer.end(DRAINED)

    async with serving(app) as service:
        client = await service.connect()
        await client.send_message("go")
        with pytest.raises(trio_websocket.ConnectionClosed) as closed:
            await client.get_message()
        told: Any = closed.value.reason
        assert (told.code, told.reason) == (4001, "banned")
        await trio.sleep(1)
        (ws,) = infos
        assert (ws.closed.cause, ws.closed.code, ws.closed.reason) == (Cause.KICKED, 4001, "banned")
        assert isinstance(ws.closed.exception, ValueError) == (end == "raised")
        infos.clear()
        del ws


async def test_a_kick_decides_how_an_event_stream_ends(autojump_clock: Clock) -> None:
    app = App()
    app.sse("/events/:room")
    async with serving(app) as service:
        stream = await Exchange(service.open_stream()).request("/events/hall")
        await trio.testing.wait_all_tasks_blocked()
        (listener,) = app.room("hall").here
        assert app.room("hall").kick(listener, code=4001, reason="banned") == 1
        listener.close_nowait(1000, "bye")
        assert listener.closed == CloseInfo(Cause.KICKED, 4001, "banned")
        del listener
        await trio.sleep(1)
        await trio.aclose_forcefully(stream.stream)


async def test_after_a_kick_the_leave_hook_is_the_connections_own(autojump_clock: Clock) -> None:
    """It sees the handler's context, and what it closes is closed by its own connection."""
    app, seen, tenant = App(), list[Any](), ContextVar[str]("tenant", default="nobody")

    async def left(room: Room, ws: WebSocket) -> None:
        seen.append(tenant.get())
        await ws.close(4001, "removed")

    class Handler:
        async def open(self, ws: WebSocket) -> None:
            tenant.set("mine")
            ws.join("hall", on_leave=left)

        async def close(self, ws: WebSocket, code: int, reason: str) -> None:
            assert ws.closed is not None
            seen.append(ws.closed.cause)

    app.ws("/ws")(Handler)
    async with serving(app) as service:
        client = await service.connect()
        await trio.testing.wait_all_tasks_blocked()
        assert app.room("hall").close() == 1
        with pytest.raises(trio_websocket.ConnectionClosed):
            await client.get_message()
        await trio.sleep(1)
    assert seen == ["mine", Cause.CLOSED]
