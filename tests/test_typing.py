"""The sample application whose types mypy and pyright check (`nox -s types`): it works, too.

At run time a `WebSocket` takes one type or two, whatever the version of Python.
"""

from __future__ import annotations

import inspect
import json
from typing import Any, get_args, get_origin

import pytest
import trio
from trio.abc import Clock

from tests.support.commands import serving_clients
from tests.support.http import Exchange
from tests.support.memory import serving
from tests.typed import sample_app
from tests.typed.sample_app import Claims, Say, app
from verbtrio import App, EventSubscriber, Member, WebSocket
from verbtrio.connection.handler_kinds import handler_kind

MEMBERS = [name for name, value in vars(Member).items() if not name.startswith("_") and name != "outlet"]


class TestWebSocketTypes:
    @pytest.mark.parametrize(
        ("annotation", "arguments"),
        [
            (WebSocket[Say], (Say,)),
            (WebSocket[Say, Claims], (Say, Claims)),
            (WebSocket[str | bytes, Any], (str | bytes, Any)),
        ],
    )
    def test_at_run_time(self, annotation: Any, arguments: Any) -> None:
        assert get_origin(annotation) is WebSocket
        assert get_args(annotation) == arguments

    @pytest.mark.parametrize("annotation", [WebSocket[Say], WebSocket[Say, Claims], WebSocket[Say, Any]])
    def test_the_first_is_the_messages(self, annotation: Any) -> None:
        async def handler(ws: Any) -> None: ...

        handler.__annotations__["ws"] = annotation
        assert handler_kind(handler, {}).decoder.kind is Say

    def test_a_third(self) -> None:
        async def handler(ws: Any) -> None: ...

        too_many: Any = WebSocket
        handler.__annotations__["ws"] = too_many[Say, Claims, int]
        with pytest.raises(TypeError, match="use `WebSocket`"):
            handler_kind(handler, {})

    def test_a_subclass(self) -> None:
        class Mine(WebSocket[Say, Claims]):
            pass

        assert issubclass(Mine, WebSocket)


@pytest.mark.parametrize("member", [WebSocket, EventSubscriber])
@pytest.mark.parametrize("name", MEMBERS)
def test_what_a_member_has(member: type, name: str) -> None:
    """Whatever the protocol promises is on both; methods take the same."""
    promised = getattr(Member, name)
    if inspect.isfunction(promised):
        wanted = inspect.signature(promised)
        given = inspect.signature(getattr(member, name))
        assert list(given.parameters.values()) == list(wanted.parameters.values())
    elif not hasattr(member, name):  # made with the instance
        assert f"        self.{name} = " in inspect.getsource(member)


def test_the_test_sees_something() -> None:
    assert {"send_nowait", "id", "user", "close_nowait"} <= set(MEMBERS)


async def test_walking_over_both(autojump_clock: Clock) -> None:
    """A room and a user's connections: `send_nowait` on each, and all else that a member has."""
    served = App(heartbeat=None, middleware=[sample_app.sign_in])

    @served.ws("/ws/:room")
    async def handler(ws: WebSocket[Any, Claims], room: str) -> None:
        async with ws.join(room):
            await trio.sleep_forever()

    served.sse("/events/:room", keep_alive=None)
    async with serving(served) as service:
        client = await service.connect("/ws/lobby")
        events = await Exchange(service.open_stream()).request("/events/lobby")
        await trio.testing.wait_all_tasks_blocked()
        for number in range(2):
            members = list(served.users.connections(1) if number else served.room("lobby").here)
            assert {type(member) for member in members} == {WebSocket, EventSubscriber}
            for member in members:
                assert member.user == {"id": 1, "name": "Ada"}
                assert member.params == {"room": "lobby"}
                assert (member.closed, member.dropped) == (None, 0)
                member.send_nowait({"to": number, "id": member.id})
                sample_app.welcome(member)
            ids = {type(member): member.id for member in members}
            assert json.loads(await client.get_message()) == {"to": number, "id": ids[WebSocket]}
            assert await client.get_message() == "we hear each other"
            heard = f'data: {{"to":{number},"id":"{ids[EventSubscriber]}"}}\n\ndata: you hear us\n\n'
            assert (await events.until(b"us\n\n")).decode() == heard
        for member in served.room("lobby").here:
            member.close_nowait(4000, "enough")
        del member, members
        assert b"event: close" in await events.rest()
        await events.aclose()
        await service.wait_ended(5)


class TestTheSample:
    async def test_answers(self, autojump_clock: Clock) -> None:
        async with serving(app) as service:
            client = await service.connect("/class")
            assert await client.get_message() == "we hear each other"
            await client.send_message('{"type":"Say","text":"hi","ref":"a"}')
            assert json.loads(await client.get_message()) == {"type": "Said", "by": "Ada", "text": "hi", "ref": "a"}
            await client.send_message('{"type":"Move","x":2,"ref":"b"}')
            assert json.loads(await client.get_message()) == {"x": 2, "ref": "b"}
            await client.aclose()

    async def test_hooks(self, autojump_clock: Clock) -> None:
        async with serving(app) as service:
            client = await service.connect("/hooks")
            assert json.loads(await client.get_message())["text"] == "welcome, Ada"
            await client.send_message('{"type":"Say","text":"hi"}')
            assert json.loads(await client.get_message())["text"] == "hi"
            await client.aclose()

    async def test_rooms(self, autojump_clock: Clock) -> None:
        async with serving(app) as service:
            client = await service.connect("/rooms/lobby")
            await client.send_message('{"type":"Move","x":2}')
            assert str(await client.get_message()).startswith('{"type":"presence_state","room":"lobby"')
            assert str(await client.get_message()).startswith("hello, ")
            assert await client.get_message() == "moved"
            assert sample_app.everywhere()["peer"] == 0
            assert await client.get_message() == "hello"
            await client.aclose()

    async def test_clients(self, autojump_clock: Clock) -> None:
        async with serving_clients(app) as served:
            client = await served.open()
            connected = await client.result(
                "connect", token=sample_app.auth.connection_token("1", claims={"name": "Ada"})
            )
            assert connected["data"] == {"welcome": connected["client"]}
            assert list(connected["subs"]) == ["#1"]
            assert await client.result("subscribe", channel="talk:a") == {"data": {"topic": "a"}}
            assert await client.refused("subscribe", channel="talk:secret") == 103
            for text in ("hi", "bye"):
                await client.result("publish", channel="talk:a", data={"type": "Say", "text": text})
            renamed = await client.result("rpc", method="rename", data={"name": "Ben"})
            assert renamed == {"data": {"type": "Said", "by": "the server", "text": "Ben", "ref": None}}
            assert await client.refused("rpc", method="rename", data={"name": ""}) == 422
            assert await client.result("rpc", method="follow") == {}
            await served.settle()
            assert client.of("subscribe", "news") == [{"data": {"since": "now"}}]
            assert client.of("unsubscribe", "talk:a") == [{"code": 2000, "reason": "bye"}]
            await client.say(client.command("rpc", method="leave"))
            assert await client.end() == (4000, "bye")

    def test_its_description(self) -> None:
        described = app.asyncapi_document(title="Sample", version="1.0.0")
        assert {"Say", "Move", "Said", "string"} <= set(described["components"]["messages"])

    async def test_fractions(self, autojump_clock: Clock) -> None:
        async with serving(app) as service:
            client = await service.connect("/fraction")
            await client.send_message('"1/3"')
            assert json.loads(await client.get_message()) == {"half": "1/6"}
            await client.aclose()
            exchange = await Exchange(service.open_stream()).request("/api/clock")
            assert b'data: {"half":"1/2"}' in await exchange.rest()
            await exchange.aclose()
