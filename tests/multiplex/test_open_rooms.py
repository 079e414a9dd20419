"""Rooms that are open as they are, without a handler: who may publish in them and ask about them, subscribed or not."""

from __future__ import annotations

from typing import Any

import pytest
from trio.abc import Clock

from tests.support.commands import KEY, serving_clients, token
from verbtrio import App, History, Member
from verbtrio.auth import JWTAuth

OPEN: dict[str, Any] = {"publish": True, "history": History(size=10, ttl=60), "presence": True}


def guard(member: Member, name: str) -> bool:
    return name == "yes"


async def handler(sub: Any) -> None:
    """Accepts everybody."""


@pytest.fixture
def app() -> App:
    app = App()
    app.centrifuge("/connection", auth=JWTAuth(key=KEY), anonymous=True)
    app.rooms("open:{name}", **OPEN)
    app.rooms("guarded:{name}", guard=guard, **OPEN)
    app.rooms("token:{name}", token=True, **OPEN)
    app.rooms("closed:{name}", history=OPEN["history"], presence=True)
    app.rooms("handled:{name}", history=OPEN["history"], presence=True)(handler)
    return app


async def test_who_is_not_in_the_room_may_ask(app: App, autojump_clock: Clock) -> None:
    async with serving_clients(app) as clients:
        ada, bob = await clients.client(), await clients.client()
        await ada.result("subscribe", channel="open:a")

        assert await bob.result("publish", channel="open:a", data="hello") == {}

        [remembered] = (await bob.result("history", channel="open:a", limit=-1))["publications"]
        assert remembered["data"] == "hello"
        assert await bob.result("presence_stats", channel="open:a") == {"num_clients": 1, "num_users": 1}
        assert len((await bob.result("presence", channel="open:a"))["presence"]) == 1


async def test_of_an_empty_room_everything_is_told(app: App, autojump_clock: Clock) -> None:
    """To the JavaScript SDK, what is left out is not empty, but undefined."""
    async with serving_clients(app) as clients:
        ada = await clients.client()

        assert await ada.result("presence_stats", channel="open:a") == {"num_clients": 0, "num_users": 0}
        assert await ada.result("presence", channel="open:a") == {"presence": {}}


async def test_a_subscription_on_its_way_takes_nothing_away(app: App, autojump_clock: Clock) -> None:
    """What stands behind a subscribe that has not been answered is handled as without it."""
    async with serving_clients(app) as clients:
        ada = await clients.client()
        subscribe = ada.command("subscribe", channel="open:a")
        others = [
            ada.command("publish", channel="open:a", data="hello"),
            ada.command("history", channel="open:a", limit=1),
            ada.command("presence", channel="open:a"),
        ]

        await ada.say(subscribe, *others)

        assert [list(await ada.reply(command)) for command in (subscribe, *others)] == [
            ["id", "subscribe"],
            ["id", "publish"],
            ["id", "history"],
            ["id", "presence"],
        ]


@pytest.mark.parametrize("room", ["guarded:no", "token:a", "closed:a", "handled:a"])
async def test_others_may_not(room: str, app: App, autojump_clock: Clock) -> None:
    """Not where the guard lets them not in, a token or a handler decides, or the room is not open."""
    async with serving_clients(app) as clients:
        ada = await clients.client()

        for method in ("history", "presence", "presence_stats"):
            assert await ada.refused(method, channel=room) == 103
        assert await ada.refused("publish", channel=room, data=1) == 103
        assert await ada.result("presence", channel="guarded:yes") == {"presence": {}}


async def test_a_subscription_on_its_way_gives_nothing(app: App, autojump_clock: Clock) -> None:
    """The guard has not been asked yet: it is."""
    async with serving_clients(app) as clients:
        ada = await clients.client()
        commands = [
            ada.command("subscribe", channel="guarded:no"),
            ada.command("publish", channel="guarded:no", data="hello"),
            ada.command("history", channel="guarded:no", limit=1),
            ada.command("presence", channel="guarded:no"),
        ]

        await ada.say(*commands)

        assert [(await ada.reply(command))["error"]["code"] for command in commands] == [103] * 4


@pytest.mark.parametrize("room", ["token:a", "handled:a"])
async def test_subscribers_may(room: str, app: App, autojump_clock: Clock) -> None:
    async with serving_clients(app) as clients:
        ada = await clients.client(token=token())
        await ada.result("subscribe", channel=room, token=token(channel=room))

        assert len((await ada.result("presence", channel=room))["presence"]) == 1
        assert "epoch" in await ada.result("history", channel=room)


async def test_a_users_own_room_is_nobody_elses(autojump_clock: Clock) -> None:
    """Although a pattern opens all rooms."""
    app = App()
    app.centrifuge("/connection", auth=JWTAuth(key=KEY), anonymous=True, personal="#{user}")
    app.rooms("{name:path}", **OPEN)
    async with serving_clients(app) as clients:
        ada, bob = await clients.client(token=token("ada")), await clients.client(token=token("bob"))
        assert len(app.room("#ada")) == 1
        assert await bob.refused("subscribe", channel="#ada") == 103
        assert await bob.refused("publish", channel="#ada", data="x") == 103
        for method in ("history", "presence", "presence_stats"):
            assert await bob.refused(method, channel="#ada") == 103
        assert await ada.result("publish", channel="#ada", data="x") == {}
        await ada.result("unsubscribe", channel="#ada")
        assert await ada.refused("subscribe", channel="#ada") == 103, "the server subscribes her when she connects"
        assert await bob.result("subscribe", channel="other")
