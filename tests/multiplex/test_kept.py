"""What a connection keeps of what its client has sent: bounded for all of its subscriptions and calls together."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.abc import Clock

from tests.support.commands import KEY, serving_clients, token
from verbtrio import App, Client, Limits, Subscription
from verbtrio.auth import JWTAuth
from verbtrio.multiplex.admission import MAX_SAID_CHARACTERS
from verbtrio.multiplex.subscriptions import MAX_EPOCH_CHARACTERS

LIMITS = Limits(max_inbox_bytes=10_000, max_message_bytes=100_000)
KIB = "x" * 1000


def app_with(**settings: Any) -> App:
    app = App(limits=LIMITS)
    app.centrifuge("/connection", **settings)
    app.rooms("open:{name}", subscribe=True)
    return app


def only_client(app: App) -> Client:
    (client,) = app.connections.here
    assert isinstance(client, Client)
    return client


async def test_data_of_subscribes(autojump_clock: Clock) -> None:
    """A client may have 1000 subscriptions, and each keeps what its subscribe has said."""
    app = app_with()
    seen: dict[str, int] = {}

    @app.rooms("chat:{name}")
    async def chat(sub: Subscription) -> None:
        seen[sub.name] = len(sub.data)
        async for _ in sub:
            pass

    async with serving_clients(app) as clients:
        speaker = await clients.client()
        for number in range(9):
            await speaker.result("subscribe", channel=f"chat:{number}", data=KIB)
        assert set(seen.values()) == {len(KIB) + 2}
        assert await speaker.refused("subscribe", channel="chat:9", data=KIB) == 106
        await speaker.result("subscribe", channel="chat:9")
        await speaker.result("unsubscribe", channel="chat:3")
        await speaker.result("subscribe", channel="chat:3", data=KIB)


async def test_nobody_reads_the_data_of_a_subscribe_to_an_open_room(autojump_clock: Clock) -> None:
    app = app_with()
    async with serving_clients(app) as clients:
        speaker = await clients.client()
        for number in range(20):
            await speaker.result("subscribe", channel=f"open:{number}", data=KIB)
        assert {sub.data for sub in only_client(app).subscriptions.values()} == {b""}


async def test_epochs(autojump_clock: Clock) -> None:
    app = app_with(auth=JWTAuth(KEY), anonymous=True)
    long = "e" * (MAX_EPOCH_CHARACTERS + 1)
    async with serving_clients(app) as clients:
        speaker = await clients.client()
        await speaker.result("subscribe", channel="open:a", epoch=long[1:])
        assert await speaker.refused("subscribe", channel="open:b", epoch=long) == 107
        other = await clients.open()
        how = {"token": token(channels=["open:a"]), "subs": {"open:a": {"recover": True, "epoch": long}}}
        assert await other.refused("connect", **how) == 107


async def test_a_subscription_of_the_server_keeps_no_data_of_the_client(autojump_clock: Clock) -> None:
    """It is a view of the whole message."""
    app = app_with(auth=JWTAuth(KEY))
    async with serving_clients(app) as clients:
        await clients.client(token=token(channels=["open:a"]), subs={"open:a": {"data": KIB}})
        assert only_client(app).subscriptions["open:a"].data == b""


@pytest.mark.parametrize("what", ["name", "version", "headers"])
async def test_what_a_client_says_of_itself(what: str, autojump_clock: Clock) -> None:
    app = app_with()
    async with serving_clients(app) as clients:
        for size, is_taken in ((MAX_SAID_CHARACTERS, True), (MAX_SAID_CHARACTERS + 1, False)):
            said = "x" * size
            speaker = await clients.open()
            reply = await speaker.ask("connect", **{what: {"h": said[1:]} if what == "headers" else said})
            assert ("connect" in reply) is is_taken
            assert is_taken or reply["error"]["code"] == 107


async def test_what_waits_for_handlers(autojump_clock: Clock) -> None:
    app = app_with()
    go = trio.Event()
    received: list[str] = []

    @app.rooms("chat:{name}")
    async def chat(sub: Subscription[str]) -> None:
        await sub.accept()
        await go.wait()
        async for said in sub:
            received.append(said)

    async with serving_clients(app) as clients:
        speaker = await clients.client()
        taken = 0
        for number in range(30):
            await speaker.result("subscribe", channel=f"chat:{number}")
            for _ in range(11):
                reply = await speaker.ask("publish", channel=f"chat:{number}", data=KIB)
                taken += "publish" in reply
                assert reply.get("error", {}).get("code") in (None, 111)
        assert 90 < taken < 110, "max_message_bytes, of all together"
        await speaker.result("unsubscribe", channel="chat:0")
        await trio.sleep(1)
        assert "publish" in await speaker.ask("publish", channel="chat:29", data=KIB), "there is room again"
        go.set()
        await clients.settle()
        assert len(received) == taken + 1 - 10
        assert only_client(app)._peer.published_bytes == 0


async def test_data_of_calls(autojump_clock: Clock) -> None:
    app = app_with()
    go = trio.Event()

    @app.call("slow")
    async def slow(client: Client, data: str) -> int:
        await go.wait()
        return len(data)

    async with serving_clients(app) as clients:
        speaker = await clients.client()
        commands = [speaker.command("rpc", method="slow", data="x" * 40_000) for _ in range(3)]
        for command in commands:
            await speaker.say(command)
        assert (await speaker.reply(commands[2]))["error"]["code"] == 111
        go.set()
        assert [(await speaker.reply(command))["rpc"]["data"] for command in commands[:2]] == [40_000] * 2
        assert (await speaker.result("rpc", method="slow", data="x" * 99_900)) == {"data": 99_900}
