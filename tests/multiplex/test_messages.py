"""What goes out together, in which order, and what may be dropped: the messages of one client."""

from __future__ import annotations

import json
from typing import Any

import pytest
import trio
from trio.abc import Clock

from tests.support.commands import KEY, serving_clients, token
from tests.support.memory import socket_stream_pair
from verbtrio import App, Client, Limits, WebSocket
from verbtrio.auth import JWTAuth
from verbtrio.brokers import History
from verbtrio.multiplex.peer import MESSAGE_BYTES


def app_with(limits: Limits | None = None, **settings: Any) -> App:
    app = App(limits=limits)
    app.centrifuge("/connection", auth=JWTAuth(KEY), anonymous=True, **settings)
    app.rooms("open:{name}", subscribe=True)
    app.rooms("talk:{name}", publish=True)
    return app


class TestATick:
    async def test_is_one_message(self, autojump_clock: Clock) -> None:
        app = app_with()
        async with serving_clients(app) as clients:
            speaker = await clients.client()
            for room in ("talk:a", "open:a"):
                await speaker.result("subscribe", channel=room)
            heard = len(speaker.messages)
            commands = [speaker.command("publish", channel="talk:a", data=n) for n in range(10)]
            await speaker.say(*commands, speaker.command("ping"))
            await clients.settle()
            assert len(speaker.messages) == heard + 1
            ids = [line["id"] for line in speaker.lines if line.get("id", 0) >= commands[0]["id"]]
            assert ids == [*(command["id"] for command in commands), commands[-1]["id"] + 1]
            assert speaker.published() == list(range(10))
            for n in range(5):
                app.room("open:a").broadcast(n)
                app.room("talk:a").broadcast(n)
            next(iter(app.connections.here)).send_nowait("to it alone")
            await clients.settle()
            assert len(speaker.messages) == heard + 2
            assert speaker.published("open:a") == list(range(5))
            assert speaker.of("message") == [{"data": "to it alone"}]

    @pytest.mark.parametrize(("size", "count", "messages"), [(1000, 100, 2), (40_000, 10, 10), (70_000, 8, 8)])
    async def test_is_joined_within_a_bound(self, size: int, count: int, messages: int, autojump_clock: Clock) -> None:
        app = app_with()
        async with serving_clients(app) as clients:
            speaker = await clients.open(pair=socket_stream_pair)
            await speaker.result("connect")
            await speaker.result("subscribe", channel="open:a")
            heard = len(speaker.messages)
            for n in range(count):
                app.room("open:a").broadcast([n, "x" * size])
            await trio.sleep(1)
            assert [data[0] for data in speaker.published()] == list(range(count))
            assert all(len(message) <= MESSAGE_BYTES + 1000 or "\n" not in message for message in speaker.messages)
            assert len(speaker.messages) == heard + messages

    async def test_replies_are_joined_within_it_too(self, autojump_clock: Clock) -> None:
        app = app_with()

        @app.call("large")
        def large(client: Client) -> str:
            return "x" * 20_000

        async with serving_clients(app) as clients:
            speaker = await clients.open(pair=socket_stream_pair)
            await speaker.result("connect")
            commands = [speaker.command("rpc", method="large") for _ in range(6)]
            await speaker.say(*commands)
            await trio.sleep(1)
            assert len(speaker.lines) == 7
            assert all(len(message) <= MESSAGE_BYTES + 1000 for message in speaker.messages)
            assert len(speaker.messages) <= 5


class TestTheOrder:
    async def test_of_commands_is_that_of_their_replies(self, autojump_clock: Clock) -> None:
        """What has to wait for the broker is waited for; calls and subscribes with a handler run beside."""
        app = app_with()
        app.rooms("history:{name}", history=History(), publish=True)
        async with serving_clients(app) as clients:
            speaker = await clients.client()
            epoch = (await speaker.result("subscribe", channel="history:a"))["epoch"]
            commands = [
                speaker.command("publish", channel="history:a", data=1),
                speaker.command("subscribe", channel="open:a"),
                speaker.command("history", channel="history:a", limit=-1),
                speaker.command("publish", channel="history:a", data=2),
                speaker.command("unsubscribe", channel="open:a"),
                speaker.command("history", channel="history:a", limit=-1),
                speaker.command("presence", channel="open:a"),
                speaker.command("ping"),
            ]
            await speaker.say(*commands[:4])
            await speaker.say(*commands[4:])
            await clients.settle()
            ids = [line["id"] for line in speaker.lines if line.get("id", 0) >= commands[0]["id"]]
            assert ids == [command["id"] for command in commands]
            first, second = (speaker.replies(commands[at]["id"])[0]["history"] for at in (2, 5))
            assert [len(page["publications"]) for page in (first, second)] == [1, 2]
            assert first["epoch"] == epoch

    async def test_a_reply_comes_before_what_is_said_behind_it(self, autojump_clock: Clock) -> None:
        app = app_with()
        async with serving_clients(app) as clients:
            talker, speaker = await clients.client(), await clients.client()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_talk, app)
                for _ in range(20):
                    subscribe = speaker.command("subscribe", channel="open:a")
                    unsubscribe = speaker.command("unsubscribe", channel="open:a")
                    await speaker.say(subscribe)
                    await trio.sleep(0.1)
                    await speaker.say(unsubscribe)
                    await speaker.reply(unsubscribe)
                nursery.cancel_scope.cancel()
            is_in = False
            for line in speaker.lines[1:]:
                if "subscribe" in line:
                    is_in = True
                elif "unsubscribe" in line:
                    is_in = False
                elif "push" in line:
                    assert is_in, "nothing before the reply to a subscribe, and nothing behind that to an unsubscribe"
            assert len(speaker.pushes) > 50
            assert talker.pushes == []


async def _talk(app: App) -> None:
    while True:
        app.room("open:a").broadcast("x")
        await trio.sleep(0.01)


class TestBehindABacklog:
    @pytest.mark.parametrize("policy", ["drop_oldest", "drop_newest", "latest"])
    async def test_publications_are_dropped_and_replies_are_not(self, policy: Any, autojump_clock: Clock) -> None:
        limits = Limits(max_backlog_bytes=100_000, high_water_bytes=10_000, backlog_policy=policy, send_timeout=1e6)
        app = app_with(limits)
        async with serving_clients(app) as clients:
            speaker = await clients.open(pair=socket_stream_pair)
            await speaker.result("connect")
            await speaker.result("subscribe", channel="open:a")
            await speaker.result("subscribe", channel="open:b")
            go = speaker.stall()
            large, key = "x" * 9_000, "newest" if policy == "latest" else None
            n = 0
            (client,) = app.connections.here
            while not client.dropped:
                app.room("open:a").broadcast([n, large], key=key)
                n += 1
                await trio.lowlevel.checkpoint()
                assert n < 1000
            replies = [speaker.command("ping") for _ in range(20)]
            client._peer.carrier._peer.inbox.put_nowait(  # type: ignore[attr-defined]  # it is not read any more
                "\n".join(json.dumps(command) for command in replies)
            )
            for _ in range(100):
                app.room("open:a").broadcast([n, large], key=key)
                app.room("open:b").close()
                n += 1
                await trio.lowlevel.checkpoint()
            await clients.settle()
            assert client.closed is None
            assert client.dropped > 50
            dropped = client.dropped
            del client
            go.set()
            await trio.sleep(5)
            heard = [data[0] for data in speaker.published()]
            assert heard == sorted(heard)
            assert len(heard) == n - dropped
            assert [speaker.replies(command["id"])[0]["error"]["code"] for command in replies] == [108] * 20
            assert speaker.of("unsubscribe", "open:b"), "nor is what has become of a subscription"
            assert (n - 1 in heard) == (policy != "drop_newest")

    async def test_a_client_that_asks_for_more_than_it_takes_waits(self, autojump_clock: Clock) -> None:
        """It is not read any further; nobody else has to pay for that."""
        app = app_with(Limits(max_backlog_bytes=2_000_000, send_timeout=1e6))
        app.rooms("history:{name}", history=History(size=10), subscribe=True)
        async with serving_clients(app) as clients:
            for n in range(10):
                await app.room("history:a").publish([n, "x" * 50_000])
            speaker = await clients.open(pair=socket_stream_pair)
            await speaker.result("connect")
            await speaker.result("subscribe", channel="history:a")
            go = speaker.stall()
            commands = [speaker.command("history", channel="history:a", limit=-1) for _ in range(50)]
            await speaker.say(*commands)
            await trio.sleep(5)
            (client,) = app.connections.here
            assert client._peer.queued <= 1_100_000
            assert client.closed is None
            del client
            go.set()
            await trio.sleep(5)
            assert [line["id"] for line in speaker.lines[2:]] == [command["id"] for command in commands]


async def test_plain_members_and_subscribers_hear_the_same(autojump_clock: Clock) -> None:
    app = app_with()
    app.rooms("history:{name}", history=History(), subscribe=True)

    @app.ws("/ws")
    async def plain(ws: WebSocket) -> None:
        for room in ("open:a", "history:a"):
            await ws.join(room)
        await trio.sleep_forever()

    async with serving_clients(app) as clients:
        speaker, old = await clients.client(), await clients.service.connect("/ws")
        for room in ("open:a", "history:a"):
            await speaker.result("subscribe", channel=room)
        await clients.settle()
        for n in range(10):
            app.room("open:a").broadcast({"n": n})
            await app.room("history:a").publish({"n": -n})
        app.room("open:a").broadcast(
            "for others", exclude=next(m for m in app.room("open:a").here if isinstance(m, Client))
        )
        await clients.settle()
        plainly = [json.loads(await old.get_message()) for _ in range(20)]
        assert sorted(each["n"] for each in plainly) == sorted(each["n"] for each in speaker.published())
        assert [data["n"] for data in speaker.published("open:a")] == list(range(10))
        assert [data["n"] for data in speaker.published("history:a")] == [-n for n in range(10)]
        assert await old.get_message() == "for others"
        await old.aclose()


async def test_a_users_connections_of_all_kinds_are_sent_to(autojump_clock: Clock) -> None:
    app = app_with()

    @app.ws("/ws", middleware=[JWTAuth(KEY)])
    async def plain(ws: WebSocket) -> None:
        await trio.sleep_forever()

    async with serving_clients(app) as clients:
        speaker = await clients.client(token=token())
        old = await clients.service.connect(f"/ws?token={token()}")
        await clients.settle()
        assert await app.users.send("ada", {"n": 1}) == 2
        assert await app.users.send("bob", {"n": 2}) == 0
        app.connections.broadcast("all")
        await clients.settle()
        assert speaker.of("message") == [{"data": {"n": 1}}, {"data": "all"}]
        assert [await old.get_message() for _ in range(2)] == ['{"n":1}', "all"]
        await old.aclose()


async def test_what_one_sends_to_a_client(autojump_clock: Clock) -> None:
    app = app_with()
    async with serving_clients(app) as clients:
        speaker = await clients.client()
        (client,) = app.connections.here
        assert isinstance(client, Client)
        await client.send("a")
        client.send_nowait(b"b")
        await client.send({"c": [1]})
        await client.send(None)
        with pytest.raises(TypeError):
            await client.send(object())
        await clients.settle()
        assert [message["data"] for message in speaker.of("message")] == ["a", "Yg==", {"c": [1]}, None]
        del client


async def test_members_who_all_talk_get_one_message_each(autojump_clock: Clock) -> None:
    """The answers come first, then what has been said, in one order for all."""
    app = App()
    app.rooms("open:{name}", publish=True)
    app.centrifuge("/connection")
    async with serving_clients(app) as clients:
        speakers = [await clients.client() for _ in range(3)]
        for speaker in speakers:
            await speaker.result("subscribe", channel="open:a")
        for speaker in speakers:
            for n in range(3):
                await speaker.say(speaker.command("publish", channel="open:a", data=n))
        await clients.settle()
        said = [speaker.published("open:a") for speaker in speakers]
        assert said[0] == said[1] == said[2]
        assert sorted(said[0]) == [0, 0, 0, 1, 1, 1, 2, 2, 2]
        client = clients.app.room("open:a").here[0]
        assert isinstance(client, Client)
        rooms = client._peer._rooms
        del client
        assert rooms.kept == {}, "nothing is kept for the next tick"


@pytest.mark.parametrize("others", [True, False])
async def test_those_who_hold_the_same_share_what_it_becomes(others: bool, autojump_clock: Clock) -> None:
    """And those who hold something else do not get it."""
    app = App()
    app.rooms("open:{name}", publish=True)
    app.centrifuge("/connection")
    async with serving_clients(app) as clients:
        one, two, three = [await clients.client() for _ in range(3)]
        for speaker in (one, two, three):
            await speaker.result("subscribe", channel="open:a")
        await three.result("subscribe", channel="open:b")
        for n in range(2):
            app.room("open:a").broadcast(n)
            if others:
                app.room("open:b").broadcast(10 + n)
        await clients.settle()
        assert one.published() == two.published() == [0, 1]
        assert three.published() == ([0, 10, 1, 11] if others else [0, 1])


async def test_a_call_alone_is_answered_behind_the_publishes_before_it(autojump_clock: Clock) -> None:
    app = App()
    app.rooms("open:{name}", publish=True)
    app.centrifuge("/connection")

    @app.call("now")
    def now(client: Client) -> str:
        return "now"

    async with serving_clients(app) as clients:
        speaker = await clients.client()
        commands = [
            speaker.command("publish", channel="open:a", data=1),
            speaker.command("rpc", method="now"),
            speaker.command("publish", channel="open:a", data=2),
        ]
        for command in commands:
            await speaker.say(command)
        await clients.settle()
        assert [line["id"] for line in speaker.lines[1:] if "id" in line] == [command["id"] for command in commands]


@pytest.mark.parametrize("hears", [True, False])
async def test_a_publish_is_answered_whether_its_client_hears_it_or_not(hears: bool, autojump_clock: Clock) -> None:
    app = app_with()
    async with serving_clients(app) as clients:
        speaker = await clients.client()
        if hears:
            await speaker.result("subscribe", channel="talk:a")
        with trio.fail_after(1):  # and not with the next ping
            for n in range(3):
                assert await speaker.result("publish", channel="talk:a", data=n) == {}
        assert speaker.published() == ([0, 1, 2] if hears else [])


async def test_a_publish_is_answered_where_the_room_does_not_flush_the_client_any_more(autojump_clock: Clock) -> None:
    """It holds what was said there before it was removed, and publishes elsewhere."""
    app = app_with()

    @app.call("kick")
    def kick(client: Client) -> None:
        app.room("open:a").broadcast("the last")
        app.room("open:a").kick(client)

    async with serving_clients(app) as clients:
        speaker = await clients.client()
        await speaker.result("subscribe", channel="open:a")
        commands = [speaker.command("rpc", method="kick"), speaker.command("publish", channel="talk:b", data=1)]
        await speaker.say(*commands)
        await clients.settle()
        assert [len(speaker.replies(command["id"])) for command in commands] == [1, 1]
        assert speaker.published("open:a") == ["the last"]
        assert len(speaker.of("unsubscribe", "open:a")) == 1


async def test_answers_to_publishes_are_joined_within_the_bound(autojump_clock: Clock) -> None:
    """Also where something is held, with which they go out."""
    app = app_with()
    count = 2 * MESSAGE_BYTES // 25
    async with serving_clients(app) as clients:
        speaker = await clients.open(pair=socket_stream_pair)
        await speaker.result("connect")
        await speaker.result("subscribe", channel="open:a")
        client = app.connections.here[0]
        assert isinstance(client, Client)
        peer = client._peer
        app.room("open:a").broadcast("first")
        for number in range(1, count + 1):
            peer.answer_publish(number)
        await trio.sleep(1)
        answers = [line["id"] for line in speaker.lines if "publish" in line]
        assert answers == list(range(1, count + 1))
        assert speaker.published() == ["first"]
        assert all(len(message) <= MESSAGE_BYTES for message in speaker.messages)
        del client, peer
