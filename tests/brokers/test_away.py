"""What an application, and its clients, see of a broker that is away: at once, or when it was to answer."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio_websocket
from trio.abc import Clock

from tests.rooms.test_event_stream_resume import heard
from tests.rooms.test_presence import by_name
from tests.support.commands import KEY, serving_clients, token
from tests.support.http import Exchange
from tests.support.memory import serving
from tests.support.switched_broker import SwitchedBroker
from verbtrio import App, BrokerUnavailable, Client, Room, Subscription, WebSocket
from verbtrio.auth import JWTAuth
from verbtrio.brokers import History

SECRETS = ("password", "10.0.0.1", "redis")


@pytest.fixture(params=["at once", "without an answer", "done, without an answer"])
def broker(request: pytest.FixtureRequest) -> SwitchedBroker:
    broker = SwitchedBroker()
    broker.delay = 0.0 if request.param == "at once" else 0.3
    broker.is_late = request.param == "done, without an answer"
    return broker


def is_discreet(text: object) -> bool:
    return not any(secret in str(text).lower() for secret in SECRETS)


async def until_closed(client: trio_websocket.WebSocketConnection) -> None:
    while True:
        await client.get_message()


class TestPlainRoutes:
    @pytest.mark.parametrize("since", [None, "0.1"])
    async def test_joins(self, broker: SwitchedBroker, since: str | None, autojump_clock: Clock) -> None:
        app = App(broker=broker, heartbeat=None)
        app.rooms("chat:{name}", history=History(), presence=True, join_leave=True)

        @app.ws("/ws/:room")
        async def handler(ws: WebSocket[str, str], room: str) -> None:
            async with ws.join(room, since=since if room == "chat:a" else None):
                await ws.send("in")
                async for text in ws:
                    app.room(room).broadcast(text)

        async with serving(app) as service:
            broker.is_away = True
            refused = await service.connect("/ws/chat:a")
            with pytest.raises(trio_websocket.ConnectionClosed) as closed:
                await refused.get_message()
            reason = closed.value.reason
            assert reason is not None
            assert (reason.code, reason.reason) == (1013, "Not available")
            a, b = await service.connect("/ws/plain"), await service.connect("/ws/plain")
            for client in (a, b):
                assert await client.get_message() == "in"
            await a.send_message("hello")
            assert [await client.get_message() for client in (a, b)] == ["hello"] * 2, "plain rooms go on"
            assert len(app.room("chat:a")) == 0
            broker.come_back()
            await service.hang_up()

    async def test_what_is_asked(self, broker: SwitchedBroker, autojump_clock: Clock) -> None:
        app = App(broker=broker)
        app.rooms("chat:{name}", history=History(), presence=True)
        async with serving(app):
            room = app.room("chat:a")
            broker.is_away = True
            for ask in (
                lambda: room.publish("x"),
                lambda: app.room("plain").publish("x"),
                lambda: room.history(),
                lambda: room.presence(),
                lambda: room.count(),
                lambda: app.users.send("ann", "x"),
                lambda: app.users.disconnect("ann"),
            ):
                with pytest.raises(BrokerUnavailable), trio.fail_after(10):
                    await ask()
            with pytest.raises(BrokerUnavailable):
                async with room.watch():
                    raise AssertionError("not reached")
            assert room.broadcast("x") == 0
            assert not broker.sessions[0].rooms, "nothing is left of the watch"
            broker.is_away = False
            page = await room.history()
            assert len(page.messages) == broker.is_late, "whether it was done is open"

    async def test_a_room_task_lives_on(self, broker: SwitchedBroker, autojump_clock: Clock) -> None:
        app = App(broker=broker, heartbeat=None)
        runs = 0

        @app.room_task("game:{name}")
        async def game(room: Room, *, task_status: trio.TaskStatus[None]) -> None:
            nonlocal runs
            runs += 1
            task_status.started()
            while True:
                await trio.sleep(1)
                room.broadcast("tick")

        @app.ws("/ws")
        async def handler(ws: WebSocket[str, str]) -> None:
            async with ws.join("game:a"):
                async for _ in ws:
                    pass

        async with serving(app) as service:
            client = await service.connect("/ws")
            assert await client.get_message() == "tick"
            broker.is_away = True
            for _ in range(3):
                assert await client.get_message() == "tick"
            late = await service.connect("/ws")
            assert await late.get_message() == "tick"
            assert runs == 1
            await service.hang_up()

    async def test_a_shutdown(self, broker: SwitchedBroker, autojump_clock: Clock) -> None:
        app = App(broker=broker, heartbeat=None, middleware=[by_name])
        app.rooms("chat:{name}", history=History(), presence=True, join_leave=True)
        left: list[str] = []

        @app.ws("/ws")
        async def handler(ws: WebSocket[str, str]) -> None:
            try:
                async with ws.join("chat:a"):
                    async for _ in ws:
                        pass
            finally:
                left.append("chat:a")

        async with serving(app) as service:
            client = await service.connect("/ws?user=ann")
            await client.get_message()
            broker.is_away = True
            await service.shut_down()
            with pytest.raises(trio_websocket.ConnectionClosed) as closed:
                await until_closed(client)
            assert closed.value.reason is not None
            assert closed.value.reason.code == 1012
            assert left == ["chat:a"]
        assert not broker.memory.sessions


class TestEventStreams:
    async def test_one_that_comes(self, broker: SwitchedBroker, autojump_clock: Clock) -> None:
        app = App(broker=broker)
        app.rooms("news:{name}", history=History())
        app.sse("/events/{name}", room="news:{name}")
        app.sse("/plain/{name}", room="{name}")
        async with serving(app) as service:
            broker.is_away = True
            refused = await Exchange(service.open_stream()).request("/events/a")
            body = await heard(refused)
            assert b"event: close" in body
            assert is_discreet(body)
            plain = await Exchange(service.open_stream()).request("/plain/a")
            await trio.sleep(1)
            app.room("a").broadcast("hello")
            assert await heard(plain) == b"data: hello\n\n"
            await service.hang_up()


class TestClients:
    def an_app(self, broker: SwitchedBroker) -> App:
        app = App(broker=broker)

        async def connect(client: Client, data: dict[str, str] | None) -> None:
            if data is not None:
                await client.subscribe(data["room"])

        app.centrifuge("/connection", auth=JWTAuth(KEY), anonymous=True, connect=connect)
        settings: dict[str, Any] = {"history": History(), "presence": True}
        app.rooms("chat:{name}", subscribe=True, publish=True, **settings)
        app.rooms("plain:{name}", subscribe=True, publish=True)

        @app.rooms("handled:{name}", history=History())
        async def handled(sub: Subscription[Any]) -> None:
            async for said in sub:
                await sub.publish(said)

        @app.call("say")
        async def say(client: Client) -> None:
            await app.room("chat:a").publish({"x": 1})

        return app

    async def test_commands(self, broker: SwitchedBroker, autojump_clock: Clock) -> None:
        app = self.an_app(broker)
        async with serving_clients(app) as clients:
            speaker = await clients.client()
            broker.is_away = True
            for method, request in (
                ("subscribe", {"channel": "chat:a"}),
                ("subscribe", {"channel": "chat:b", "recover": True, "epoch": "x", "offset": 1}),
                ("subscribe", {"channel": "handled:a"}),
                ("publish", {"channel": "chat:a", "data": {}}),
                ("presence", {"channel": "chat:a"}),
                ("presence_stats", {"channel": "chat:a"}),
                ("history", {"channel": "chat:a", "limit": 1}),
                ("rpc", {"method": "say"}),
            ):
                reply = await speaker.ask(method, **request)
                assert reply["error"] == {"code": 100, "message": "not available now", "temporary": True}, method
            assert "subscribe" in await speaker.ask("subscribe", channel="plain:a")
            assert "publish" in await speaker.ask("publish", channel="plain:a", data={"hello": 1})
            await clients.settle()
            assert speaker.published("plain:a") == [{"hello": 1}], "plain rooms go on"
            assert [len(app.room(name)) for name in ("chat:a", "chat:b", "handled:a")] == [0, 0, 0]
            assert speaker.closed is None
            broker.come_back()
            broker.delay = 0
            assert "subscribe" in await speaker.ask("subscribe", channel="chat:a")

    async def test_a_handler_that_publishes(self, broker: SwitchedBroker, autojump_clock: Clock) -> None:
        app = self.an_app(broker)
        async with serving_clients(app) as clients:
            speaker = await clients.client()
            await speaker.result("subscribe", channel="handled:a")
            broker.is_away = True
            await speaker.ask("publish", channel="handled:a", data={"x": 1})
            await trio.sleep(1)
            await clients.settle()
            assert speaker.of("unsubscribe") == [{"code": 2500, "reason": "insufficient state"}]
            broker.is_away = False

    @pytest.mark.parametrize("how", ["by the application", "by its token"])
    async def test_one_that_the_server_subscribes(
        self, broker: SwitchedBroker, how: str, autojump_clock: Clock
    ) -> None:
        """It would be connected, and not be told what it is there for: so it comes again."""
        app = self.an_app(broker)

        def connecting(room: str) -> dict[str, Any]:
            return {"data": {"room": room}} if how == "by the application" else {"token": token(channels=[room])}

        async with serving_clients(app) as clients:
            broker.is_away = True
            speaker = await clients.open()
            reply = await speaker.ask("connect", **connecting("chat:a"))
            assert reply["error"] == {"code": 100, "message": "not available now", "temporary": True}
            assert len(app.room("chat:a")) == 0
            plain = await clients.open()
            assert (await plain.result("connect", **connecting("plain:a")))["subs"].keys() == {"plain:a"}
            broker.come_back()
            again = await clients.open()
            assert (await again.result("connect", **connecting("chat:a")))["subs"].keys() == {"chat:a"}
