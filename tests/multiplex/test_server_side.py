"""Subscriptions that the server makes: a token's, a user's own room, and those of the application's code."""

from __future__ import annotations

import time
from typing import Any

import pytest
import trio
from trio.abc import Clock

from tests.support.commands import KEY, ClientService, serving_clients, token
from tests.support.tasks import Failure
from verbtrio import (
    App,
    CallError,
    Client,
    ConnectionClosed,
    Denied,
    LimitExceeded,
    Limits,
    Member,
    RoomUnavailable,
    Subscription,
)
from verbtrio.auth import JWTAuth
from verbtrio.brokers import History


def app_with(limits: Limits | None = None, **settings: Any) -> App:
    app = App(limits=limits)
    app.centrifuge("/connection", auth=JWTAuth(KEY), anonymous=True, **settings)
    return app


def client_of(clients: ClientService) -> Client:
    """The only client."""
    (client,) = clients.app.connections.here
    assert isinstance(client, Client)
    return client


class TestAToken:
    async def test_subscribes(self, autojump_clock: Clock) -> None:
        """To any room: it need not be open to clients."""
        app = app_with(personal="#{user}")
        app.rooms("history:{name}", history=History())
        async with serving_clients(app) as clients:
            position = await app.room("history:a").publish({"n": 1})
            assert position is not None
            channels = ["plain", "history:a", "plain", "", 5, "x" * 256]
            speaker = await clients.open()
            result = await speaker.result("connect", token=token(channels=channels))
            at = {"recoverable": True, "epoch": position.epoch, "offset": 1, "positioned": True}
            assert result["subs"] == {"plain": {}, "history:a": at, "#ada": {}}
            for room in ("plain", "#ada"):
                app.room(room).broadcast(room)
            await app.room("history:a").publish({"n": 2})
            await clients.settle()
            assert {push["channel"]: push["pub"]["data"] for push in speaker.pushes} == {
                "plain": "plain",
                "#ada": "#ada",
                "history:a": {"n": 2},
            }
            assert await speaker.refused("subscribe", channel="plain") == 105
            assert await speaker.result("unsubscribe", channel="plain") == {}
            assert len(app.room("plain")) == 0

    async def test_leaves_out_what_the_client_can_not_be_in(self, autojump_clock: Clock) -> None:
        def guard(member: Member, name: str) -> bool:
            return name == "yes"

        async def chat(sub: Subscription, name: str) -> None:
            if name == "denied":
                raise Denied
            if name == "late":
                await trio.sleep(60)
            assert sub.is_server_side
            await sub.accept(data=name)
            await trio.sleep_forever()

        app = app_with()
        app.rooms("guarded:{name}", guard=guard)
        app.rooms("chat:{name}")(chat)
        async with serving_clients(app) as clients:
            channels = ["guarded:no", "guarded:yes", "chat:denied", "chat:late", "chat:ok"]
            speaker, began = await clients.open(), trio.current_time()
            result = await speaker.result("connect", token=token(channels=channels))
            assert result["subs"] == {"guarded:yes": {}, "chat:ok": {"data": "ok"}}
            assert trio.current_time() - began == pytest.approx(10, abs=0.1)
            assert sorted(client_of(clients).subscriptions) == ["chat:ok", "guarded:yes"]
            assert app.statistics().memberships == 2
            assert speaker.pushes == []

    async def test_for_too_many_rooms_ends_the_client(self, autojump_clock: Clock) -> None:
        async with serving_clients(app_with(Limits(max_rooms=4))) as clients:
            speaker = await clients.open()
            await speaker.say(speaker.command("connect", token=token(channels=list("abcde"))))
            assert await speaker.end() == (3505, "channel limit")
            assert clients.app.statistics().memberships == 0

    async def test_goes_on_from_the_clients_positions(self, autojump_clock: Clock) -> None:
        app = app_with()
        app.rooms("history:{name}", history=History(size=2), token=True)
        async with serving_clients(app) as clients:
            for n in range(1, 5):
                position = await app.room("history:a").publish({"n": n})
                await app.room("history:b").publish({"n": n})
            assert position is not None
            wanted = {"recover": True, "epoch": "", "offset": 2, "token": "x", "flag": 2}
            speaker = await clients.open()
            result = await speaker.result(
                "connect",
                token=token(channels=["history:a", "history:b"]),
                subs={"history:a": wanted, "history:b": wanted | {"offset": 1}, "history:c": wanted},
            )
            assert result["subs"].keys() == {"history:a", "history:b"}
            assert [each["data"]["n"] for each in result["subs"]["history:a"]["publications"]] == [3, 4]
            assert "recovered" not in result["subs"]["history:b"]
            assert result["subs"]["history:b"]["was_recovering"] is True

    async def test_recovers_within_one_replys_bounds(self, autojump_clock: Clock) -> None:
        recovered: dict[str, bool] = {}

        async def chat(sub: Subscription, name: str) -> None:
            await sub.accept()
            recovered[f"history:{name}"] = sub.is_recovered

        app = app_with()
        app.rooms("history:{name}", history=History())(chat)
        async with serving_clients(app) as clients:
            for room in ("history:a", "history:b"):
                await app.room(room).publish("x" * 300_000)
            speaker = await clients.open()
            channels = ["history:a", "history:b"]
            subs = {room: {"recover": True, "offset": 0, "epoch": ""} for room in channels}
            result = await speaker.result("connect", token=token(channels=channels), subs=subs)
            told = {room: each.get("recovered", False) for room, each in result["subs"].items()}
            assert sorted(told.values()) == [False, True], "whichever comes first"
            assert recovered == told

    async def test_pushes_come_behind_the_reply(self, autojump_clock: Clock) -> None:
        app = app_with()
        app.rooms("here:{name}", presence=True, join_leave=True)
        app.rooms("slow:{name}")(slow)
        async with serving_clients(app) as clients:
            speaker = await clients.open()
            await speaker.say(
                speaker.command(
                    "connect",
                    token=token(channels=["plain", "slow:a", "here:a"]),
                    subs={"here:a": {"join_leave": True}},
                )
            )
            await clients.settle()
            app.room("plain").broadcast("early")
            assert speaker.lines == []
            await trio.sleep(10)
            assert "connect" in speaker.lines[0]
            assert speaker.published() == ["early"]
            assert [join["info"]["user"] for join in speaker.of("join", "here:a")] == ["ada"]

    async def test_what_ends_before_the_reply_is_not_in_it(self, autojump_clock: Clock) -> None:
        app = app_with()
        app.rooms("slow:{name}")(slow)
        async with serving_clients(app) as clients:
            speaker = await clients.open()
            await speaker.say(speaker.command("connect", token=token(channels=["plain", "slow:a"])))
            await clients.settle()
            assert app.room("plain").close() == 1
            await trio.sleep(10)
            assert [line.keys() for line in speaker.lines] == [{"id", "connect"}]
            assert speaker.lines[0]["connect"]["subs"] == {"slow:a": {}}

    @pytest.mark.parametrize("code", [True, False], ids=["by the server", "by the client"])
    async def test_ends_before_the_reply(self, code: bool, autojump_clock: Clock) -> None:
        app = app_with()
        app.rooms("slow:{name}")(slow)
        async with serving_clients(app) as clients:
            speaker = await clients.open()
            await speaker.say(speaker.command("connect", token=token(channels=["plain", "slow:a"])))
            await clients.settle()
            if code:
                await clients.service.shut_down()
                assert await speaker.end() == (3001, "shutdown")
            else:
                await speaker.hang_up()
            await trio.sleep(0.3)
            assert app.statistics().memberships == 0
            assert speaker.lines == []


async def slow(sub: Subscription) -> None:
    await trio.sleep(5)
    await sub.accept()
    await trio.sleep_forever()


class TestTheApplication:
    async def test_subscribes_a_client(self, autojump_clock: Clock) -> None:
        app = app_with()
        app.rooms("here:{name}", presence=True, history=History())
        async with serving_clients(app) as clients:
            speaker = await clients.client(token=token())
            position = await app.room("here:a").publish({"n": 1})
            assert position is not None
            sub = await client_of(clients).subscribe("here:a", data={"a": 1}, presence={"color": "red"})
            assert (sub.is_server_side, sub.is_accepted, sub.is_over, sub.name) == (True, True, False, "here:a")
            await app.room("here:a").publish({"n": 2})
            await clients.settle()
            assert speaker.pushes[0] == {
                "channel": "here:a",
                "subscribe": {
                    "recoverable": True,
                    "epoch": position.epoch,
                    "offset": 1,
                    "positioned": True,
                    "data": {"a": 1},
                },
            }
            assert speaker.published() == [{"n": 2}]
            (info,) = (await speaker.result("presence", channel="here:a"))["presence"].values()
            assert info["chan_info"] == {"color": "red"}
            with pytest.raises(RuntimeError, match="subscribed to 'here:a' already"):
                await client_of(clients).subscribe("here:a")
            assert client_of(clients).unsubscribe("here:a", code=2100, reason="bye") is True
            assert client_of(clients).unsubscribe("here:a") is False
            with pytest.raises(ValueError, match="2000 to 2999"):
                client_of(clients).unsubscribe("here:a", code=1000)
            await clients.settle()
            assert speaker.of("unsubscribe") == [{"code": 2100, "reason": "bye"}]
            del sub

    async def test_has_to_say_a_name(self, autojump_clock: Clock) -> None:
        async with serving_clients(app_with()) as clients:
            await clients.client()
            for name in ("", "x" * 256):
                with pytest.raises(ValueError, match="name"):
                    await client_of(clients).subscribe(name)
            with pytest.raises(TypeError, match="a room's name is text"):
                await client_of(clients).subscribe(5)  # type: ignore[arg-type]  # a mistake
            assert app_statistics(clients) == 0

    async def test_is_told_why_not(self, autojump_clock: Clock) -> None:
        async def chat(sub: Subscription, name: str) -> None:
            if name == "denied":
                raise Denied("no")
            if name == "own":
                raise CallError(1234, "mine", temporary=True)
            raise Failure

        app = app_with(Limits(max_rooms=1))
        app.rooms("chat:{name}")(chat)
        app.rooms("guarded:{name}", guard=lambda member: False)
        app.rooms("small:{name}", max_members=1)
        async with serving_clients(app) as clients:
            await clients.client()
            for name, error in {
                "chat:denied": Denied,
                "chat:failed": RoomUnavailable,
                "guarded:a": Denied,
            }.items():
                with pytest.raises(error):
                    await client_of(clients).subscribe(name)
            with pytest.raises(CallError, match=r"^1234 mine$", check=lambda error: error.temporary):
                await client_of(clients).subscribe("chat:own")
            await client_of(clients).subscribe("small:a")
            with pytest.raises(LimitExceeded):
                await client_of(clients).subscribe("b")
            with pytest.raises(TypeError):
                await client_of(clients).subscribe("chat:failed", data=object())
            assert app_statistics(clients) == 1

    @pytest.mark.parametrize("how", ["gone", "closed", "kicked", "unsubscribed", "shut down"])
    async def test_is_told_when_it_ends_meanwhile(self, how: str, autojump_clock: Clock) -> None:
        """In a task that is not the client's: nothing else would wake it."""
        app = app_with()
        app.rooms("slow:{name}")(slow)
        raised: list[str] = []

        async def subscribe(client: Client) -> None:
            try:
                await client.subscribe("slow:a")
            except (ConnectionClosed, Denied) as error:
                raised.append(type(error).__name__)

        async with serving_clients(app) as clients, trio.open_nursery() as nursery:
            speaker = await clients.client()
            nursery.start_soon(subscribe, client_of(clients))
            await clients.settle()
            with trio.fail_after(4):
                match how:
                    case "gone":
                        await speaker.hang_up()
                    case "closed":
                        await client_of(clients).disconnect()
                    case "kicked":
                        app.room("slow:a").close()
                    case "unsubscribed":
                        assert client_of(clients).unsubscribe("slow:a")
                    case "shut down":
                        await clients.service.shut_down()
                while not raised:
                    await trio.sleep(0.01)
            assert raised == ["Denied" if how in ("kicked", "unsubscribed") else "ConnectionClosed"]
            assert speaker.pushes == []

    async def test_may_be_cancelled(self, autojump_clock: Clock) -> None:
        app = app_with()
        app.rooms("slow:{name}")(slow)
        async with serving_clients(app) as clients:
            speaker = await clients.client()
            with trio.move_on_after(1):
                await client_of(clients).subscribe("slow:a")
            assert (app_statistics(clients), speaker.pushes) == (0, [])
            assert len(client_of(clients).subscriptions) == 0

    async def test_does_so_while_it_lasts(self, autojump_clock: Clock) -> None:
        async with serving_clients(app_with()) as clients:
            speaker = await clients.client()
            client = client_of(clients)
            await speaker.close()
            await trio.sleep(1)
            with pytest.raises(ConnectionClosed):
                await client.subscribe("a")
            assert client.unsubscribe("a") is False
            del client


def app_statistics(clients: ClientService) -> int:
    return clients.app.statistics().memberships


async def test_the_servers_subscription_that_expires_ends_the_client(autojump_clock: Clock) -> None:
    """There is no push that makes an SDK get another token for one."""
    app = app_with()
    app.rooms("chat:{name}")(accepting)
    async with serving_clients(app) as clients:
        speaker = await clients.client(token=token(channels=["chat:a"]))
        short = token(channel="chat:a", exp=int(time.time()) + 60)
        assert (await speaker.result("sub_refresh", channel="chat:a", token=short))["expires"] is True
        assert await speaker.end() == (3006, "subscription expired")


async def accepting(sub: Subscription) -> None:
    await sub.accept()
    await trio.sleep_forever()
