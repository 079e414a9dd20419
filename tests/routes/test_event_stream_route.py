"""Event streams of rooms: the same broadcasts, guards and endings as for WebSockets."""

from __future__ import annotations

import base64
import json
import time
from typing import Any

import httpx
import pytest
import trio
import trio.testing
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount
from trio.abc import Clock

from tests.support.http import Exchange
from tests.support.memory import Service, serving
from tests.support.sse import parse
from verbtrio import App, EventSubscriber, Limits, WebSocket
from verbtrio.auth import JWTAuth

KEY = "a key of more than thirty-two bytes"


def chat(**options: Any) -> App:
    """A chat whose rooms have event streams at /events/:room."""
    app = App()

    @app.ws("/ws/:room")
    async def handler(ws: WebSocket, room: str) -> None:
        async with ws.join(room) as members:
            async for message in ws:
                members.broadcast(message, exclude=ws)

    app.sse("/events/:room", **options)
    return app


async def listen(
    service: Service, path: str = "/events/lobby", *, slow: bool = False, headers: dict[str, str] | None = None
) -> Exchange:
    """A client that has subscribed."""
    pair = trio.testing.lockstep_stream_pair if slow else trio.testing.memory_stream_pair
    client = await Exchange(service.open_stream(pair)).request(path, headers=headers)
    await trio.testing.wait_all_tasks_blocked()
    return client


def ended(app: App) -> dict[str, int]:
    return app.statistics().ended


async def pass_through(request: Any, call_next: Any) -> Response:
    response: Response = await call_next(request)
    return response


class TestBroadcasts:
    async def test_it_hears_what_the_room_hears(self, autojump_clock: Clock) -> None:
        app = chat()
        async with serving(app) as service:
            subscriber, other = await listen(service), await listen(service, "/events/other")
            assert subscriber.headers["content-type"] == "text/event-stream; charset=utf-8"
            peer = await service.connect("/ws/lobby")
            await peer.send_message('{"text":"hi"}')
            await peer.send_message("two\nlines")
            await peer.send_message(b"\x00\xff")
            events = parse(await subscriber.until(base64.b64encode(b"\x00\xff") + b"\n\n"))
            assert [(event.event, event.data) for event in events] == [
                ("message", '{"text":"hi"}'),
                ("message", "two\nlines"),
                ("binary", base64.b64encode(b"\x00\xff").decode()),
            ]
            app.room("other").broadcast({"n": 1})
            assert await other.piece() == b'data: {"n":1}\n\n'
            for client in (subscriber, other, peer):
                await client.aclose()

    async def test_what_comes_together_goes_together(self, autojump_clock: Clock) -> None:
        app = chat()
        async with serving(app) as service:
            client = await listen(service)
            for number in range(3):
                app.room("lobby").broadcast(number)
            assert await client.piece() == b"data: 0\n\ndata: 1\n\ndata: 2\n\n"
            await client.aclose()

    async def test_it_counts(self, autojump_clock: Clock) -> None:
        app = chat()
        async with serving(app) as service:
            client = await listen(service)
            statistics = app.statistics()
            assert (statistics.streams, statistics.rooms, statistics.memberships) == (1, 1, 1)
            (member,) = app.room("lobby").here
            assert isinstance(member, EventSubscriber)
            assert member.params == {"room": "lobby"}
            assert member.closed is None
            assert repr(member).startswith("<EventSubscriber ")
            del member  # nothing may refer to it once it has left
            assert app.room("lobby").broadcast("x") == 1
            await client.aclose()

    @pytest.mark.parametrize("middleware", [[], [pass_through]])
    async def test_who_leaves_has_left_the_room(self, middleware: list[Any], autojump_clock: Clock) -> None:
        app = chat(middleware=middleware)
        async with serving(app) as service:
            client = await listen(service)
            assert len(app.room("lobby")) == 1
            begin = trio.current_time()
            await client.aclose()
            while len(app.room("lobby")):
                await trio.sleep(0.01)
            assert trio.current_time() - begin < 0.1
            await trio.sleep(1)
            assert ended(app) == {"gone": 1}

    async def test_silence_is_broken(self, autojump_clock: Clock) -> None:
        async with serving(chat(keep_alive=20, retry=1)) as service:
            client = await listen(service)
            begin = trio.current_time()
            assert await client.piece() == b"retry: 1000\n\n"
            assert await client.piece() == b": keep-alive\n\n"
            assert trio.current_time() - begin == pytest.approx(20)
            await client.aclose()

    async def test_head_joins_nothing(self, autojump_clock: Clock) -> None:
        app = chat()
        async with app.lifespan():
            async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://x") as client:
                response = await client.head("/events/lobby")
            assert response.headers["content-type"].startswith("text/event-stream")
            assert app.statistics().rooms == 0

    async def test_in_a_mounted_app(self, autojump_clock: Clock) -> None:
        app = chat()
        outer = Starlette(routes=[Mount("/chat", app=app)], lifespan=app.lifespan)
        async with serving(app, outer) as service:
            client = await listen(service, "/chat/events/lobby")
            app.room("lobby").broadcast("x")
            assert await client.piece() == b"data: x\n\n"
            await service.shut_down()
            assert parse(await client.rest())[0].event == "close"


class TestWhichRoom:
    async def test_by_a_template(self, autojump_clock: Clock) -> None:
        app = App()
        app.sse("/events/:team/:room", room="{team}.{room}")
        app.sse("/news", room="news")
        async with serving(app) as service:
            one, two = await listen(service, "/events/red/%7Broom%7D"), await listen(service, "/news")
            assert len(app.room("red.{room}")) == 1
            assert len(app.room("news")) == 1
            await one.aclose()
            await two.aclose()

    @pytest.mark.parametrize(
        ("path", "options", "problem"),
        [
            ("/news", {}, r"asks for 'room', which the path doesn't have \(its parameters: none\); .* room='news'"),
            ("/:a", {"room": "{a.b}"}, "asks for 'a.b'"),
            ("/:a", {"room": ":a"}, r"the room ':a': parameters have braces here: write room='\{a\}'"),
            (
                "/:a/:b",
                {"room": "{a}/:b"},
                r"the room '\{a\}/:b': parameters have braces here: write room='\{a\}/\{b\}'",
            ),
            (
                "/{a:path}",
                {"room": "x:{a:path}"},
                r"room names have no types: write room='x:\{a\}', and \{a:path\} in the path",
            ),
            ("/:room", {"guard": True}, r"guard is a function \(request, room\), not True"),
            ("/:room", {"guard": lambda request: True}, r"is called with \(request, room\): too many positional"),
            ("/:room", {"guard": dict}, r"guard is a function \(request, room\)"),
            ("/:room", {"limits": 5}, r"limits is a verbtrio\.Limits"),
        ],
    )
    def test_mistakes_show_when_the_route_is_made(self, path: str, options: Any, problem: str) -> None:
        with pytest.raises(TypeError, match=problem):
            App().sse(path, **options)


class TestWhoMayListen:
    @pytest.mark.parametrize(
        ("answer", "status", "body"),
        [(True, 200, None), (False, 403, "Forbidden"), (PlainTextResponse("later", 429), 429, "later")],
    )
    @pytest.mark.parametrize("plain", [False, True])
    async def test_the_guard_decides(
        self, answer: bool | Response, status: int, body: str | None, plain: bool, autojump_clock: Clock
    ) -> None:
        asked: list[Any] = []

        async def guard(request: Request, room: str) -> bool | Response:
            asked.append((request.path_params, room))
            return answer

        def plain_guard(request: Request, room: str) -> bool | Response:
            asked.append((request.path_params, room))
            return answer

        app = chat(guard=plain_guard if plain else guard)
        async with serving(app) as service:
            client = await listen(service)
            assert client.status == status
            assert asked == [({"room": "lobby"}, "lobby")]
            assert len(app.room("lobby")) == (status == 200)
            if body is not None:
                assert await client.rest() == body.encode()
            await client.aclose()

    async def test_a_guard_that_says_nothing(self, autojump_clock: Clock) -> None:
        """It has forgotten its `return`: no client gets in."""

        async def guard(request: Request, room: str) -> Any:
            return None

        async with serving(chat(guard=guard)) as service:
            assert (await listen(service)).status == 500

    async def test_middleware(self, autojump_clock: Clock) -> None:
        auth = JWTAuth(KEY)
        app = chat(middleware=[auth], guard=lambda request, room: room in request.user["rooms"])
        token = auth.issue({"id": 7, "rooms": ["lobby"]})
        async with serving(app) as service:
            bearer = {"authorization": f"Bearer {token}"}
            statuses = [
                (await listen(service, path, headers=headers)).status
                for path, headers in (
                    ("/events/lobby", {}),
                    ("/events/lobby", bearer),
                    ("/events/other", bearer),
                    (f"/events/lobby?token={token}", {}),
                )
            ]
            assert statuses == [401, 200, 403, 200]
            assert list(app.users) == ["7"]
            assert await app.users.send(7, "to you") == 2
            await service.shut_down()

    async def test_there_is_no_place_left(self, autojump_clock: Clock) -> None:
        """WebSockets and event streams are counted together."""
        app = App(limits=Limits(max_connections=2))
        app.sse("/events/:room")
        app.ws("/ws", open=lambda ws: None)
        async with serving(app) as service:
            one, peer = await listen(service), await service.connect()
            denied = await listen(service)
            assert denied.status == 503
            assert denied.headers["retry-after"] == "5"
            assert await denied.rest() == b"Too many connections"
            await one.aclose()
            await trio.testing.wait_all_tasks_blocked()
            again = await listen(service)
            assert again.status == 200
            for client in (denied, again, peer):
                await client.aclose()

    async def test_a_user_who_is_disconnected(self, autojump_clock: Clock) -> None:
        auth = JWTAuth(KEY)
        app = chat(middleware=[auth])
        async with serving(app) as service:
            client = await listen(service, f"/events/lobby?token={auth.issue({'id': 7})}")
            assert await app.users.disconnect(7, reason="revoked") == 1
            (event,) = parse(await client.rest())
            assert json.loads(event.data) == {"code": 1008, "reason": "revoked"}
            await client.aclose()

    async def test_outside_the_lifespan(self, caplog: pytest.LogCaptureFixture) -> None:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(chat()), base_url="http://x") as client:
            assert (await client.get("/events/lobby")).status_code == 500
        assert "not being served" in caplog.text


class TestTheEnd:
    async def test_the_token_expires(self, autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
        auth = JWTAuth(KEY)
        app = chat(middleware=[auth])
        token = auth.issue({"id": 7}, expires_in=100)
        monkeypatch.setattr(time, "time", lambda begin=time.time(): begin + 10)  # noqa: B008 -- a clock that stands
        async with serving(app) as service:
            client = await listen(service, f"/events/lobby?token={token}")
            begin = trio.current_time()
            with trio.fail_after(200):
                body = await client.rest()
            assert 89 < trio.current_time() - begin < 92
            (event,) = parse(body.replace(b": keep-alive\n\n", b""))
            assert (event.event, json.loads(event.data)) == ("close", {"code": 4401, "reason": "Token expired"})
            await trio.testing.wait_all_tasks_blocked()
            assert ended(app) == {"expired": 1}
            assert len(app.users) == 0
            await client.aclose()

    async def test_the_server_shuts_down(self, autojump_clock: Clock) -> None:
        app = chat()
        async with serving(app) as service:
            client = await listen(service)
            app.room("lobby").broadcast("last words")
            begin = trio.current_time()
            await service.shut_down()
            events = parse(await client.rest())
            assert trio.current_time() - begin < 0.1
            assert [event.event for event in events] == ["message", "close"]
            assert json.loads(events[1].data) == {"code": 1012, "reason": "The server is restarting"}
            await service.wait_ended(1.5)
            assert ended(app) == {"drain": 1}

    @pytest.mark.parametrize("middleware", [[], [pass_through]])
    async def test_a_client_that_does_not_read_delays_no_shutdown(
        self, middleware: list[Any], autojump_clock: Clock
    ) -> None:
        app = chat(middleware=middleware)
        async with serving(app) as service:
            await listen(service, slow=True)
            for _ in range(5):
                app.room("lobby").broadcast("x" * 100_000)
            await trio.sleep(1)
            await service.shut_down()
            await service.wait_ended(1.5)

    async def test_new_clients_get_a_503(self, autojump_clock: Clock) -> None:
        app = chat()
        async with serving(app) as service:
            app._running_hub()._drain.begun = True
            client = await listen(service)
            assert client.status == 503
            assert client.headers["retry-after"] == "1"
            await client.aclose()

    async def test_it_is_closed(self, autojump_clock: Clock) -> None:
        app = chat()
        async with serving(app) as service:
            client = await listen(service)
            (member,) = app.room("lobby").here
            app.room("lobby").broadcast("bye")
            member.close_nowait(4000, "off you go")
            member.close_nowait(4001, "twice")
            del member
            assert len(app.room("lobby")) == app.statistics().streams == 0, "at once"
            assert app.room("lobby").broadcast("too late") == 0
            events = parse(await client.rest())
            assert [event.data for event in events] == ["bye", '{"code":4000,"reason":"off you go"}']
            await trio.testing.wait_all_tasks_blocked()
            assert ended(app) == {"kicked": 1}
            await client.aclose()

    @pytest.mark.parametrize("middleware", [[], [pass_through]])
    async def test_a_client_that_does_not_read(self, middleware: list[Any], autojump_clock: Clock) -> None:
        """One write has 10 s. Other clients don't wait for it."""
        app = chat(middleware=middleware)
        async with serving(app) as service:
            slow, quick = await listen(service, slow=True), await listen(service)
            app.room("lobby").broadcast("x" * 200_000)
            begin = trio.current_time()
            await quick.until(b"x\n\n")
            assert trio.current_time() == begin
            await trio.sleep(9.9)
            assert len(app.room("lobby")) == 2
            await trio.sleep(0.2)
            assert len(app.room("lobby")) == 1
            await quick.aclose()
            await slow.aclose()

    @pytest.mark.parametrize(
        ("policy", "left"),
        [("drop_oldest", ["m6", "m7", "m8", "m9"]), ("drop_newest", ["m0", "m1", "m2", "m3"]), ("close", [])],
    )
    async def test_what_is_over_the_backlogs_limit(self, policy: Any, left: list[str], autojump_clock: Clock) -> None:
        """Messages of 2 bytes that count for 66: four of them are within 264."""
        app = chat(limits=Limits(max_backlog_bytes=264, high_water_bytes=264, backlog_policy=policy))
        async with serving(app) as service:
            client = await listen(service)
            (member,) = app.room("lobby").here
            for number in range(10):  # without a checkpoint: its task has no turn in between
                app.room("lobby").broadcast(f"m{number}")
            if policy == "close":
                (event,) = parse(await client.rest())
                assert json.loads(event.data) == {"code": 1008, "reason": "Too slow: over 264 bytes behind"}
                await trio.testing.wait_all_tasks_blocked()
                assert ended(app) == {"slow": 1}
            else:
                events = parse(await client.until(f"{left[-1]}\n\n".encode()))
                assert [event.data for event in events] == left
                assert member.dropped == 6
            del member
            await client.aclose()

    async def test_one_message_may_be_larger(self, autojump_clock: Clock) -> None:
        app = chat(limits=Limits(max_backlog_bytes=100, high_water_bytes=100))
        async with serving(app) as service:
            client = await listen(service)
            app.room("lobby").broadcast("x" * 1000)
            assert len(await client.until(b"\n\n")) == 1008
            await client.aclose()
