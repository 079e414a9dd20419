"""What clients say in rooms, and ask about them: publish, presence, history."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
import trio
from trio.abc import Clock

from tests.support.commands import KEY, serving_clients, token
from tests.support.tasks import Failure, errors
from verbtrio import App, BrokerUnavailable, Limits, Member, Subscription, WebSocket
from verbtrio.auth import JWTAuth
from verbtrio.brokers import History


class Say(msgspec.Struct):
    text: str


def app_with(limits: Limits | None = None, **settings: Any) -> App:
    app = App(limits=limits)
    app.centrifuge("/connection", auth=JWTAuth(KEY), anonymous=True, **settings)
    app.rooms("open:{name}", subscribe=True)
    app.rooms("talk:{name}", publish=True)
    return app


class TestPublishToAHandler:
    async def test_is_typed(self, autojump_clock: Clock) -> None:
        said: list[Say] = []

        async def chat(sub: Subscription[Say]) -> None:
            async for each in sub:
                said.append(each)
                assert await sub.publish({"text": each.text.upper()}) is None

        app = app_with()
        app.rooms("chat:{name}")(chat)
        async with serving_clients(app) as clients:
            speaker = await clients.client(token=token(info={"name": "Ada"}))
            await speaker.result("subscribe", channel="chat:a")
            reply = await speaker.ask("publish", channel="chat:a", data={"txt": 1})
            assert reply["error"]["code"] == 107
            assert "text" in reply["error"]["message"]
            await speaker.raw('{"id": 70, "publish": {"channel": "chat:a"}}')
            assert await speaker.result("publish", channel="chat:a", data={"text": "hello"}) == {}
            await clients.settle()
            assert speaker.replies(70)[0]["error"]["code"] == 107
            assert said == [Say("hello")]
            (publication,) = speaker.of("pub")
            assert publication["data"] == {"text": "HELLO"}
            assert publication["info"].pop("client") == speaker.lines[0]["connect"]["client"]
            assert publication["info"] == {"user": "ada", "conn_info": {"name": "Ada"}}
            assert app.statistics().invalid == 1

    @pytest.mark.parametrize("kind", ["messages", "bytes"])
    async def test_waits_within_a_bound(self, kind: str, autojump_clock: Clock) -> None:
        said: list[Any] = []
        go = trio.Event()

        async def chat(sub: Subscription) -> None:
            await sub.accept()
            await go.wait()
            async for each in sub:
                said.append(each)

        limits = Limits(max_inbox_messages=3) if kind == "messages" else Limits(max_inbox_bytes=3 * 102)
        app = app_with(limits)
        app.rooms("chat:{name}")(chat)
        async with serving_clients(app) as clients:
            speaker = await clients.client()
            await speaker.result("subscribe", channel="chat:a")
            replies = [await speaker.ask("publish", channel="chat:a", data=str(n) * 100) for n in range(5)]
            assert [reply.get("error", {}).get("code") for reply in replies] == [None, None, None, 111, 111]
            go.set()
            await clients.settle()
            assert [each[0] for each in said] == ["0", "1", "2"]
            await speaker.result("publish", channel="chat:a", data="more")

    async def test_that_has_returned_is_refused(self, autojump_clock: Clock) -> None:
        async def chat(sub: Subscription) -> None:
            await sub.receive()

        app = app_with()
        app.rooms("chat:{name}")(chat)
        async with serving_clients(app) as clients:
            speaker = await clients.client()
            await speaker.result("subscribe", channel="chat:a")
            await speaker.result("publish", channel="chat:a", data=1)
            await clients.settle()
            assert await speaker.refused("publish", channel="chat:a", data=2) == 103
            assert await speaker.refused("publish", channel="chat:b", data=2) == 103

    async def test_has_one_task_that_receives(self, autojump_clock: Clock) -> None:
        raised: list[str] = []

        async def chat(sub: Subscription) -> None:
            sub.nursery.start_soon(sub.receive)
            await trio.sleep(1)
            with pytest.raises(trio.BusyResourceError, match="another task receives") as caught:
                await sub.receive()
            raised.append(str(caught.value))
            sub.nursery.cancel_scope.cancel()

        app = app_with()
        app.rooms("chat:{name}")(chat)
        async with serving_clients(app) as clients:
            speaker = await clients.client()
            await speaker.result("subscribe", channel="chat:a")
            await trio.sleep(2)
            assert len(raised) == 1


class TestPublishAsItIs:
    async def test_is_for_rooms_that_say_so(self, autojump_clock: Clock) -> None:
        def guard(member: Member, name: str) -> bool:
            if name == "broken":
                raise Failure("a secret")
            return name == "yes"

        app = app_with()
        app.rooms("plain:{name}")
        app.rooms("guarded:{name}", publish=True, guard=guard)
        app.rooms("token:{name}", publish=True, token=True)
        async with serving_clients(app) as clients:
            speaker = await clients.client(token=token())
            await speaker.result("subscribe", channel="open:a")
            channels = {
                "nobody's": 102,
                "plain:a": 103,
                "open:a": 103,
                "guarded:no": 103,
                "guarded:broken": 100,
                "token:a": 103,
                "x" * 256: 107,
            }
            refused = {channel: await speaker.refused("publish", channel=channel, data=1) for channel in channels}
            assert refused == channels
            assert "secret" not in str(speaker.messages)
            for channel in ("guarded:yes", "talk:a"):
                assert await speaker.result("publish", channel=channel, data=1) == {}
            await speaker.result("subscribe", channel="token:a", token=token(channel="token:a"))
            assert await speaker.result("publish", channel="token:a", data=1) == {}

    async def test_a_guard_that_fails_is_logged(self, autojump_clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
        def guard(member: Member) -> bool:
            raise Failure

        app = app_with()
        app.rooms("guarded:{name}", publish=True, guard=guard)
        async with serving_clients(app) as clients:
            speaker = await clients.client()
            assert await speaker.refused("publish", channel="guarded:a", data=1) == 100
            assert await speaker.refused("subscribe", channel="guarded:a") == 100
            assert [type(error) for error in errors(caplog)] == [Failure, Failure]

    async def test_goes_to_all_and_says_who_it_is_from(self, autojump_clock: Clock) -> None:
        app = app_with()

        @app.ws("/ws")
        async def plain(ws: WebSocket) -> None:
            await ws.join("talk:a")
            await trio.sleep_forever()

        async with serving_clients(app) as clients:
            ada = await clients.client(token=token(info={"n": 1}))
            bob = await clients.client()
            old = await clients.service.connect("/ws")
            for speaker in (ada, bob):
                await speaker.result("subscribe", channel="talk:a")
            data: list[Any] = [{"a": [1, None]}, "text", 5, None, "ü"]
            for each in data:
                await ada.result("publish", channel="talk:a", data=each)
            await clients.settle()
            assert ada.published() == bob.published() == data
            assert [msgspec.json.decode(await old.get_message()) for _ in data] == data
            info = {"user": "ada", "client": ada.lines[0]["connect"]["client"], "conn_info": {"n": 1}}
            assert [publication["info"] for publication in bob.of("pub")] == [info] * len(data)
            await old.aclose()

    async def test_in_a_history_has_its_stamp_for_plain_members(self, autojump_clock: Clock) -> None:
        app = app_with()
        app.rooms("stamped:{name}", publish=True, history=History(stamp="at"))

        @app.ws("/ws")
        async def plain(ws: WebSocket) -> None:
            await ws.join("stamped:a")
            await trio.sleep_forever()

        async with serving_clients(app) as clients:
            speaker, old = await clients.client(token=token()), await clients.service.connect("/ws")
            await speaker.result("subscribe", channel="stamped:a")
            assert await speaker.result("publish", channel="stamped:a", data={"n": 1}) == {}
            assert await speaker.refused("publish", channel="stamped:a", data=[1]) == 107
            await clients.settle()
            (publication,) = speaker.of("pub")
            assert (publication["data"], publication["offset"], publication["info"]["user"]) == ({"n": 1}, 1, "ada")
            assert msgspec.json.decode(await old.get_message()).keys() == {"n", "at"}
            page = await speaker.result("history", channel="stamped:a", limit=-1)
            assert page["publications"] == [publication]
            await old.aclose()

    @pytest.mark.parametrize("waits", [False, True])
    async def test_with_a_history_waits_only_for_a_broker_that_has_to(
        self, waits: bool, autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        app, waited = app_with(), list[str]()
        app.rooms("history:{name}", publish=True, history=History())
        async with serving_clients(app) as clients:
            host = clients.hub.host
            publish = host.publish

            async def counted(key: str, frame: Any) -> Any:
                waited.append(key)
                return await publish(key, frame)

            def would_block(*args: Any) -> Any:
                raise trio.WouldBlock

            monkeypatch.setattr(host, "publish", counted)
            if waits:
                monkeypatch.setattr(host, "publish_nowait", would_block)  # as a service's
            speaker = await clients.client()
            await speaker.result("subscribe", channel="history:a")
            for number in range(3):
                assert await speaker.result("publish", channel="history:a", data=number) == {}
            await clients.settle()
            assert [publication["offset"] for publication in speaker.of("pub")] == [1, 2, 3]
            assert waited == (["history:a"] * 3 if waits else [])

    async def test_when_the_broker_is_away(self, autojump_clock: Clock) -> None:
        app = app_with()
        app.rooms("history:{name}", publish=True, history=History())

        async def away(*args: Any, **named: Any) -> Any:
            raise BrokerUnavailable("redis://a-secret")

        def waits(*args: Any) -> Any:
            raise trio.WouldBlock

        async with serving_clients(app) as clients:
            speaker = await clients.client()
            clients.hub.host.session.publish_nowait = waits  # type: ignore[method-assign, assignment]  # as a service's
            clients.hub.host.session.publish = away  # type: ignore[method-assign]  # this test's own failure
            reply = await speaker.ask("publish", channel="history:a", data=1)
            assert reply["error"] == {"code": 100, "message": "not available now", "temporary": True}


class TestPresence:
    async def test_is_for_subscribers(self, autojump_clock: Clock) -> None:
        app = app_with()
        app.rooms("here:{name}", presence=True, subscribe=True)
        async with serving_clients(app) as clients:
            speaker = await clients.client(token=token(info={"n": 1}))
            await speaker.result("subscribe", channel="open:a")
            for method in ("presence", "presence_stats"):
                assert await speaker.refused(method, channel="open:a") == 108
            other, anonymous = await clients.client(token=token()), await clients.client()
            channel = {"channel": "here:a", "token": token(channel="here:a", info={"m": 2})}
            await speaker.result("subscribe", **channel)
            await other.result("subscribe", channel="here:a")
            await anonymous.result("subscribe", channel="here:a")
            ids = [each.lines[0]["connect"]["client"] for each in (speaker, other, anonymous)]
            expected = [
                {"user": "ada", "client": ids[0], "conn_info": {"n": 1}, "chan_info": {"m": 2}},
                {"user": "ada", "client": ids[1]},
                {"client": ids[2]},
            ]
            present = (await speaker.result("presence", channel="here:a"))["presence"]
            assert present == dict(zip(ids, expected, strict=True))
            stats = await speaker.result("presence_stats", channel="here:a")
            assert stats == {"num_clients": 3, "num_users": 2}
            await other.result("unsubscribe", channel="here:a")
            await anonymous.close()
            await trio.sleep(30)
            assert await speaker.result("presence_stats", channel="here:a") == {"num_clients": 1, "num_users": 1}

    @pytest.mark.parametrize("forced", [False, True])
    async def test_joins_and_leaves(self, forced: bool, autojump_clock: Clock) -> None:
        app = app_with(force_join_leave=forced)
        app.rooms("here:{name}", presence=True, join_leave=True, subscribe=True)
        app.rooms("quiet:{name}", presence=True, subscribe=True)
        async with serving_clients(app) as clients:
            asks, silent, comes = [await clients.client(token=token(user)) for user in ("a", "b", "c")]
            command = asks.command("subscribe", channel="here:x", join_leave=True)
            await asks.say(command)
            await silent.result("subscribe", channel="here:x")
            await asks.result("subscribe", channel="quiet:x", join_leave=True)
            await comes.result("subscribe", channel="here:x", join_leave=True)
            await comes.result("subscribe", channel="quiet:x")
            await comes.result("unsubscribe", channel="here:x")
            await silent.close()
            await trio.sleep(30)
            assert [join["info"]["user"] for join in asks.of("join")] == ["a", "b", "c"]
            assert [leave["info"]["user"] for leave in asks.of("leave")] == ["c", "b"]
            assert {push["channel"] for push in asks.pushes} == {"here:x"}
            assert [join["info"]["user"] for join in silent.of("join")] == (["b", "c"] if forced else [])
            assert [leave["info"]["user"] for leave in silent.of("leave")] == (["c"] if forced else [])
            assert [join["info"]["user"] for join in comes.of("join")] == ["c"]
            assert comes.of("leave") == [], "its own leave is not told"
            assert asks.lines.index(asks.replies(command["id"])[0]) < asks.lines.index(
                next(line for line in asks.lines if "push" in line)
            )
            await asks.close()
            await comes.close()
            assert len(clients.hub.client_news) == 0

    async def test_is_the_same_for_plain_members(self, autojump_clock: Clock) -> None:
        app = app_with()
        app.rooms("here:{name}", presence=True, join_leave=True, subscribe=True)

        @app.ws("/ws")
        async def plain(ws: WebSocket) -> None:
            await ws.join("here:x", presence={"n": 1})
            await trio.sleep_forever()

        async with serving_clients(app) as clients:
            speaker = await clients.client(token=token())
            await speaker.result("subscribe", channel="here:x", join_leave=True)
            old = await clients.service.connect("/ws")
            await clients.settle()
            own, other = speaker.of("join")
            assert own["info"]["user"] == "ada"
            assert other["info"].keys() == {"client", "chan_info"}
            assert other["info"]["chan_info"] == {"n": 1}
            state = msgspec.json.decode(await old.get_message())
            assert sorted(state["users"]) == sorted(["ada", other["info"]["client"]])
            assert speaker.of("pub") == [], "what plain members are told of presence, clients are not"
            await old.aclose()
            await trio.sleep(30)
            assert len(speaker.of("leave")) == 1


class TestHistory:
    async def test_is_for_subscribers(self, autojump_clock: Clock) -> None:
        app = app_with()
        app.rooms("history:{name}", history=History(size=5), subscribe=True)
        async with serving_clients(app) as clients:
            speaker = await clients.client()
            await speaker.result("subscribe", channel="open:a")
            assert await speaker.refused("history", channel="open:a") == 108
            epoch = (await speaker.result("subscribe", channel="history:a"))["epoch"]
            assert await speaker.result("history", channel="history:a", limit=-1) == {"epoch": epoch}
            for n in range(1, 9):
                await app.room("history:a").publish({"n": n})

            async def ask(**request: Any) -> list[int]:
                page = await speaker.result("history", channel="history:a", **request)
                assert (page["epoch"], page["offset"]) == (epoch, 8)
                publications = page.get("publications", [])
                assert [each["offset"] for each in publications] == [each["data"]["n"] for each in publications]
                return [each["offset"] for each in publications]

            def since(offset: int, epoch: str = epoch) -> dict[str, Any]:
                return {"offset": offset, "epoch": epoch}

            assert await ask() == []
            assert await ask(limit=-1) == [4, 5, 6, 7, 8]
            assert await ask(limit=2) == [4, 5]
            assert await ask(limit=100) == [4, 5, 6, 7, 8]
            assert await ask(limit=2, reverse=True) == [8, 7]
            assert await ask(limit=-1, reverse=True) == [8, 7, 6, 5, 4]
            assert await ask(limit=-1, since=since(6)) == [7, 8]
            assert await ask(limit=-1, since=since(6, "")) == [7, 8]
            assert await ask(limit=1, since=since(6)) == [7]
            assert await ask(limit=-1, since=since(1)) == [4, 5, 6, 7, 8]
            assert await ask(limit=-1, since=since(8)) == []
            assert await ask(limit=-1, since=since(100)) == []
            assert await ask(limit=2, since=since(7), reverse=True) == [6, 5]
            assert await speaker.refused("history", channel="history:a", since=since(6, "other")) == 112
            assert await speaker.refused("history", channel="history:a", since=since(0), reverse=True) == 107

    @pytest.mark.parametrize("limit", [-(2**31), -1, 0, 1, 2**31 - 1])
    @pytest.mark.parametrize("reverse", [False, True])
    async def test_large_numbers_do_no_harm(self, limit: int, reverse: bool, autojump_clock: Clock) -> None:
        app = app_with()
        app.rooms("history:{name}", history=History(size=5), subscribe=True)
        async with serving_clients(app) as clients:
            speaker = await clients.client()
            await speaker.result("subscribe", channel="history:a")
            await app.room("history:a").publish({"n": 1})
            since = {"offset": 2**63 - 1, "epoch": ""}
            page = await speaker.result("history", channel="history:a", limit=limit, since=since, reverse=reverse)
            assert len(page.get("publications", [])) == (reverse and limit != 0)


async def test_what_is_not_there_is_not_available(autojump_clock: Clock) -> None:
    async with serving_clients(app_with()) as clients:
        speaker = await clients.client()
        assert await speaker.refused("ping") == 108
        assert await speaker.refused("rpc", method="x") == 108
        for method in ("subscribe", "unsubscribe", "publish", "presence", "presence_stats", "history", "sub_refresh"):
            other = await clients.client()
            await other.say(other.command(method, data=1, token="x"))
            assert await other.end() == (3501, "bad request")
