"""One subscription: how a client comes into a room, what runs for it there, and every way in which that ends."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

import pytest
import trio
from trio.abc import Clock

from tests.support.commands import KEY, Speaker, message_of, serving_clients, token
from tests.support.tasks import Failure, errors
from verbtrio import (
    App,
    BrokerUnavailable,
    CallError,
    Client,
    Denied,
    LimitExceeded,
    Limits,
    Member,
    MessageError,
    Room,
    RoomUnavailable,
    Subscription,
)
from verbtrio.auth import JWTAuth
from verbtrio.brokers import History

EXPIRED = int(time.time()) - 3600
LEFT = {"code": 2000, "reason": "unsubscribed"}
FAILED = {"code": 2503, "reason": "internal server error"}
ENDED = {"code": 100, "message": "the subscription has ended", "temporary": True}


def app_with(limits: Limits | None = None, **settings: Any) -> App:
    app = App(limits=limits)
    app.centrifuge("/connection", **settings)
    app.rooms("open:{name}", subscribe=True)
    return app


def handled(function: Any, app: App | None = None, **settings: Any) -> App:
    app = app_with() if app is None else app
    app.rooms("chat:{name}", **settings)(function)
    return app


class TestARoomWithoutAHandler:
    async def test_lets_in_at_once(self, autojump_clock: Clock) -> None:
        app = app_with()
        async with serving_clients(app) as clients:
            speaker = await clients.client()
            await speaker.say(speaker.command("subscribe", channel="open:a"), speaker.command("ping"))
            await clients.settle()
            assert speaker.lines[1:] == [
                {"id": 2, "subscribe": {}},
                {"id": 3, "error": {"code": 108, "message": "not available"}},
            ]
            app.room("open:a").broadcast({"n": 1})
            app.room("open:a").broadcast("text")
            app.room("open:a").broadcast(b"bytes")
            await clients.settle()
            assert speaker.published("open:a") == [{"n": 1}, "text", "Ynl0ZXM="]
            assert await speaker.result("unsubscribe", channel="open:a") == {}
            app.room("open:a").broadcast("more")
            await clients.settle()
            assert len(speaker.pushes) == 3

    async def test_refuses_what_is_not_open(self, autojump_clock: Clock) -> None:
        def guard(member: Member, name: str) -> bool:
            if name == "why":
                raise Denied("because")
            if name == "broken":
                raise Failure("a secret")
            return name == "yes"

        app = app_with(Limits(max_rooms=3))
        app.rooms("plain:{name}")
        app.rooms("token:{name}", token=True)
        app.rooms("small:{name}", subscribe=True, max_members=1)
        app.rooms("guarded:{name}", subscribe=True, guard=guard)
        async with serving_clients(app) as clients:
            speaker, other = await clients.client(), await clients.client()
            await other.result("subscribe", channel="small:a")
            channels = {
                "nobody's": 102,
                "plain:a": 103,
                "token:a": 103,
                "small:a": 106,
                "guarded:no": 103,
                "guarded:why": 103,
                "guarded:broken": 100,
                "open:" + "x" * 251: 107,
                "open:" + "ü" * 126: 107,
            }
            assert {channel: await speaker.refused("subscribe", channel=channel) for channel in channels} == channels
            assert "because" in str(speaker.lines)
            assert "secret" not in str(speaker.lines)
            assert app.statistics().memberships == 1, "the other's"
            for channel in ("open:" + "x" * 250, "open:" + "ü" * 125, "guarded:yes"):
                await speaker.result("subscribe", channel=channel)
            assert await speaker.refused("subscribe", channel="guarded:yes") == 105
            assert await speaker.refused("subscribe", channel="open:a") == 106

    async def test_has_a_name_of_text(self, autojump_clock: Clock) -> None:
        async with serving_clients(app_with()) as clients:
            for channel in ('""', '"\\ud800"', "5", "null"):
                speaker = await clients.client()
                await speaker.raw('{"id": 9, "subscribe": {"channel": ' + channel + "}}")
                assert await speaker.end() == (3501, "bad request")

    async def test_what_one_is_not_in_can_be_left(self, autojump_clock: Clock) -> None:
        async with serving_clients(app_with()) as clients:
            assert await (await clients.client()).result("unsubscribe", channel="open:a") == {}


class TestAHandler:
    async def test_accepts_with_data(self, autojump_clock: Clock) -> None:
        async def chat(sub: Subscription, name: str) -> None:
            assert (sub.name, name, sub.is_accepted, sub.is_server_side, sub.data) == (
                "chat:a", "a", False, False, b'{"n": 1}'
            )  # fmt: skip
            await trio.sleep(3)
            await sub.accept(data={"topic": name})
            assert (sub.is_accepted, sub.is_recovered, sub.is_over) == (True, False, False)
            with pytest.raises(RuntimeError, match="accepted already"):
                await sub.accept()

        async with serving_clients(handled(chat)) as clients:
            speaker = await clients.client()
            assert await speaker.result("subscribe", channel="chat:a", data={"n": 1}) == {"data": {"topic": "a"}}

    @pytest.mark.parametrize("kind", ["receives", "returns", "children"])
    async def test_accepts_by_what_it_does(self, kind: str, autojump_clock: Clock) -> None:
        async def chat(sub: Subscription) -> None:
            if kind == "receives":
                await sub.receive()
            if kind == "children":
                sub.nursery.start_soon(trio.sleep_forever)

        app = handled(chat)
        async with serving_clients(app) as clients:
            speaker = await clients.client()
            assert await speaker.result("subscribe", channel="chat:a") == {}
            app.room("chat:a").broadcast(1)
            await clients.settle()
            assert speaker.published() == [1], "it stays, although its handler has returned"
            (client,) = app.room("chat:a").here
            assert isinstance(client, Client)
            assert list(client.subscriptions) == ["chat:a"]
            del client

    @pytest.mark.parametrize("history", [None, History()], ids=["", "with a history"])
    @pytest.mark.parametrize("explicit", [False, True])
    async def test_may_leave_it_to_a_child(
        self, explicit: bool, history: History | None, autojump_clock: Clock, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Both accept: the one that comes second finds it done, or about to be."""
        said: list[Any] = []

        async def read(sub: Subscription) -> None:
            async for each in sub:
                said.append(each)

        async def chat(sub: Subscription) -> None:
            sub.nursery.start_soon(read, sub)
            if explicit:
                await sub.accept(data=1)

        async with serving_clients(handled(chat, history=history)) as clients:
            speaker = await clients.client()
            result = await speaker.result("subscribe", channel="chat:a")
            await clients.settle()
            await speaker.result("publish", channel="chat:a", data="hello")
            await clients.settle()
            assert said == ["hello"]
            assert result.get("data") == (1 if explicit else None)
            assert errors(caplog) == []

    async def test_that_never_accepts_tells_nothing_of_the_room(self, autojump_clock: Clock) -> None:
        async def chat(sub: Subscription) -> None:
            await trio.sleep_forever()

        app = handled(chat)
        async with serving_clients(app) as clients:
            speaker = await clients.client()
            command = speaker.command("subscribe", channel="chat:a")
            await speaker.say(command)
            await clients.settle()
            app.room("chat:a").broadcast(1)
            assert await speaker.refused("publish", channel="chat:a", data=1) == 103
            assert await speaker.refused("presence", channel="chat:a") == 103
            assert await speaker.refused("subscribe", channel="chat:a") == 105
            assert await speaker.result("unsubscribe", channel="chat:a") == {}
            assert [reply["error"] for reply in speaker.replies(command["id"])] == [ENDED]
            assert speaker.pushes == []
            await clients.settle()
            assert app.statistics().memberships == 0

    @pytest.mark.parametrize(
        ("make", "error", "end"),
        [
            (lambda: Denied("no"), {"code": 103, "message": "no"}, {"code": 2000, "reason": "no"}),
            (lambda: Denied(""), {"code": 103, "message": "permission denied"}, LEFT),
            (lambda: CallError(400, "why"), {"code": 400, "message": "why"}, {"code": 2000, "reason": "why"}),
            (
                lambda: CallError(400, "soon", temporary=True),
                {"code": 400, "message": "soon", "temporary": True},
                {"code": 2503, "reason": "soon"},
            ),
            (lambda: LimitExceeded("full"), {"code": 106, "message": "full"}, {"code": 2000, "reason": "full"}),
            (
                lambda: RoomUnavailable("later"),
                {"code": 100, "message": "later", "temporary": True},
                {"code": 2500, "reason": "insufficient state"},
            ),
            (
                lambda: BrokerUnavailable("a secret address"),
                {"code": 100, "message": "not available now", "temporary": True},
                {"code": 2500, "reason": "insufficient state"},
            ),
            (lambda: MessageError("what?"), {"code": 107, "message": "what?"}, FAILED),
            (
                lambda: Failure("a secret"),
                {"code": 100, "message": "internal server error", "temporary": True},
                FAILED,
            ),
            (
                lambda: ExceptionGroup("", [ExceptionGroup("", [Denied("no")])]),
                {"code": 103, "message": "no"},
                {"code": 2000, "reason": "no"},
            ),
        ],
    )  # fmt: skip
    async def test_raises(
        self,
        make: Callable[[], Exception],
        error: dict[str, Any],
        end: dict[str, Any],
        autojump_clock: Clock,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        async def chat(sub: Subscription, name: str) -> None:
            if name == "after":
                await sub.accept()
                await trio.sleep(1)
            raise make()

        app = handled(chat)
        async with serving_clients(app) as clients:
            speaker = await clients.client()
            await speaker.result("subscribe", channel="open:a")
            assert (await speaker.ask("subscribe", channel="chat:before"))["error"] == error
            before = len(errors(caplog))
            await speaker.result("subscribe", channel="chat:after")
            await trio.sleep(2)
            assert speaker.of("unsubscribe", "chat:after") == [end]
            assert (before, len(errors(caplog))) == (isinstance(make(), Failure), 2 * isinstance(make(), Failure)) or (
                before,
                len(errors(caplog)),
                type(make()),
            ) == (0, 1, MessageError)
            assert "secret" not in str(speaker.messages)
            assert app.statistics().memberships == 1
            assert await speaker.result("subscribe", channel="chat:after") == {}, "it may come again at once"

    async def test_whose_child_fails_ends_too(self, autojump_clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
        async def fail() -> None:
            await trio.sleep(1)
            raise Failure

        async def chat(sub: Subscription) -> None:
            sub.nursery.start_soon(fail)
            async for _ in sub:
                pass

        async with serving_clients(handled(chat)) as clients:
            speaker = await clients.client()
            await speaker.result("subscribe", channel="chat:a")
            await trio.sleep(2)
            assert speaker.of("unsubscribe") == [FAILED]
            assert [type(error) for error in errors(caplog)] == [Failure]

    @pytest.mark.parametrize(("code", "error"), [(2000, 103), (2499, 103), (2500, 100), (2999, 100)])
    async def test_that_is_ended_before_it_accepts(self, code: int, error: int, autojump_clock: Clock) -> None:
        """The code says whether the client may try again."""

        async def chat(sub: Subscription) -> None:
            await sub.unsubscribe(code, "because")

        async with serving_clients(handled(chat)) as clients:
            speaker = await clients.client()
            reply = await speaker.ask("subscribe", channel="chat:a")
            assert (reply["error"]["code"], reply["error"]["message"]) == (error, "because")
            assert reply["error"].get("temporary", False) is (error == 100)

    async def test_unsubscribes(self, autojump_clock: Clock) -> None:
        ended: list[str] = []

        async def chat(sub: Subscription, name: str) -> None:
            if name != "not accepted":
                await sub.accept()
            with pytest.raises(ValueError, match="2000 to 2999"):
                await sub.unsubscribe(1000)
            await sub.unsubscribe(*{"coded": (2600, "go")}.get(name, ()))
            await sub.unsubscribe()
            with pytest.raises(Denied, match="has ended"):
                await sub.receive() if sub.is_accepted else await sub.accept()
            ended.append(repr(sub).rpartition("(")[2])

        async with serving_clients(handled(chat)) as clients:
            speaker = await clients.client()
            await speaker.result("subscribe", channel="chat:a")
            await speaker.result("subscribe", channel="chat:coded")
            assert await speaker.refused("subscribe", channel="chat:not accepted") == 103
            await clients.settle()
            assert speaker.of("unsubscribe", "chat:a") == [LEFT]
            assert speaker.of("unsubscribe", "chat:coded") == [{"code": 2600, "reason": "go"}]
            assert speaker.of("unsubscribe", "chat:not accepted") == []
            assert ended == ["ended)>"] * 3

    async def test_has_a_moment_to_finish(self, autojump_clock: Clock) -> None:
        times: list[float] = []

        async def chat(sub: Subscription) -> None:
            try:
                await sub.accept()
                await trio.sleep_forever()
            finally:
                times.append(trio.current_time())

        async with serving_clients(handled(chat)) as clients:
            speaker = await clients.client()
            await speaker.result("subscribe", channel="chat:a")
            await speaker.result("unsubscribe", channel="chat:a")
            left = trio.current_time()
            await trio.sleep(1)
            assert times == [pytest.approx(left + 0.1, abs=0.05)]


class TestAClientThatLeaves:
    @pytest.mark.parametrize("again", [False, True], ids=["", "and comes again at once"])
    @pytest.mark.parametrize("stage", ["token", "task", "handler", "accepting", "accepted"])
    async def test_at_any_stage_is_gone(self, stage: str, again: bool, autojump_clock: Clock) -> None:
        """Whatever it waited for comes, but for the time of the grace."""

        class Slow(JWTAuth):
            async def authenticate(self, token: str) -> dict[str, Any]:
                await trio.sleep(0.05 if stage == "token" else 0)
                return await super().authenticate(token)

        async def task(room: Room, *, task_status: trio.TaskStatus[None]) -> None:
            await trio.sleep(0.05 if stage == "task" else 0)
            task_status.started()
            await trio.sleep_forever()

        handlers = 0

        async def chat(sub: Subscription) -> None:
            nonlocal handlers
            handlers += 1
            try:
                if stage == "handler":
                    await trio.sleep(0.05)
                await sub.accept()
                await trio.sleep_forever()
            finally:
                handlers -= 1

        app = handled(chat, app_with(auth=Slow(KEY), anonymous=True), task=task, token=True, history=History())
        async with serving_clients(app) as clients:
            session = clients.hub.host.session
            history = session.history

            async def slowly(*args: Any, **named: Any) -> Any:
                await trio.sleep(0.05)
                return await history(*args, **named)

            if stage == "accepting":
                session.history = slowly  # type: ignore[method-assign]  # this test's own delay
            speaker = await clients.client()
            how = {"channel": "chat:a", "token": token("", channel="chat:a")}
            first, leave = speaker.command("subscribe", **how), speaker.command("unsubscribe", channel="chat:a")
            await speaker.say(first)
            await trio.sleep(0.02 if stage != "accepted" else 0.2)
            second = speaker.command("subscribe", **how)
            await speaker.say(leave, second) if again else await speaker.say(leave)
            await speaker.reply(leave)
            await trio.sleep(1)
            (reply,) = speaker.replies(first["id"])
            assert ("subscribe" in reply) == (stage == "accepted")
            assert again or handlers == 0
            assert len(app.room("chat:a")) == again
            assert clients.timers == 1 + again, "the client's, and that of the token of its subscription"
            if again:
                assert "subscribe" in await speaker.reply(second)
                await app.room("chat:a").publish({"n": 1})
                await clients.settle()
                assert speaker.published() == [{"n": 1}]
                assert handlers == 1
                assert await speaker.result("unsubscribe", channel="chat:a") == {}
                await trio.sleep(1)
                assert handlers == 0
            await speaker.close()
            await trio.sleep(60)
            assert len(app.room("chat:a")) == 0

    async def test_may_have_been_removed_just_before(self, autojump_clock: Clock) -> None:
        """It is told once that it is out: by the reply. A push that came later would end its new subscription."""
        app = app_with()
        async with serving_clients(app) as clients:
            speaker = await clients.client()
            await speaker.result("subscribe", channel="open:a")
            commands = speaker.command("unsubscribe", channel="open:a"), speaker.command("subscribe", channel="open:a")
            (client,) = app.room("open:a").here
            app.room("open:a").kick(client)
            client._peer.carrier._peer.inbox.put_nowait(message_of(*commands))  # type: ignore[attr-defined]  # at once
            del client
            await clients.settle()
            assert speaker.of("unsubscribe") == []
            assert [speaker.replies(command["id"])[0].keys() for command in commands] == [
                {"id", "unsubscribe"},
                {"id", "subscribe"},
            ]
            app.room("open:a").broadcast(1)
            await clients.settle()
            assert speaker.published() == [1]


async def idle(sub: Subscription) -> None:
    async for _ in sub:
        pass


class TestARoom:
    @pytest.mark.parametrize("room", ["open:a", "chat:a"])
    async def test_removes_a_subscriber(self, room: str, autojump_clock: Clock) -> None:
        app = handled(idle)
        async with serving_clients(app) as clients:
            speaker, other = await clients.client(), await clients.client()
            for each in (speaker, other):
                await each.result("subscribe", channel=room)
            first = next(iter(app.room(room).here))
            app.room(room).broadcast("before")
            app.room(room).kick(first)
            app.room(room).broadcast("after")
            del first
            await clients.settle()
            assert speaker.published() == ["before"]
            assert speaker.pushes[-1] == {"channel": room, "unsubscribe": LEFT}
            assert other.published() == ["before", "after"]
            app.room(room).close(code=4001, reason="over")
            await clients.settle()
            assert other.of("unsubscribe") == [{"code": 2000, "reason": "over"}]
            assert (speaker.closed, other.closed) == (None, None)
            assert await speaker.result("subscribe", channel=room) == {}

    async def test_removes_one_that_is_not_accepted_yet(self, autojump_clock: Clock) -> None:
        async def chat(sub: Subscription) -> None:
            await trio.sleep_forever()

        app = handled(chat)
        async with serving_clients(app) as clients:
            speaker = await clients.client()
            command = speaker.command("subscribe", channel="chat:a")
            await speaker.say(command)
            await clients.settle()
            app.room("chat:a").kick(next(iter(app.room("chat:a").here)), reason="out")
            assert (await speaker.reply(command))["error"] == {"code": 103, "message": "out"}
            assert speaker.pushes == []

    async def test_whose_task_fails_may_be_tried_again(self, autojump_clock: Clock) -> None:
        fails = trio.Event()

        async def task(room: Room) -> None:
            await fails.wait()
            raise Failure

        app = app_with()
        app.rooms("task:{name}", subscribe=True)
        app.room_task("task:{name}", restart=None)(task)
        async with serving_clients(app) as clients:
            speaker = await clients.client()
            await speaker.result("subscribe", channel="task:a")
            fails.set()
            await clients.settle()
            assert speaker.of("unsubscribe")[0]["code"] == 2503
            assert (await speaker.ask("subscribe", channel="task:a"))["error"]["code"] == 100

    @pytest.mark.parametrize("waits", ["for the task", "for the handler"])
    async def test_whose_task_fails_before_the_client_is_let_in(self, waits: str, autojump_clock: Clock) -> None:
        """The client may try again: nobody has said that it may not come in."""

        async def task(room: Room, *, task_status: trio.TaskStatus[None]) -> None:
            if waits == "for the handler":
                task_status.started()
            await trio.sleep(1)
            raise Failure

        async def chat(sub: Subscription) -> None:
            await trio.sleep(5)

        app = handled(chat)
        app.room_task("chat:{name}", restart=None)(task)
        async with serving_clients(app) as clients:
            speaker = await clients.client()
            reply = await speaker.ask("subscribe", channel="chat:a")
            assert (reply["error"]["code"], reply["error"]["temporary"]) == (100, True)
            assert speaker.pushes == []

    async def test_whose_task_takes_its_time(self, autojump_clock: Clock) -> None:
        async def task(room: Room, *, task_status: trio.TaskStatus[None]) -> None:
            await trio.sleep(3)
            task_status.started()
            await trio.sleep_forever()

        app = app_with()
        app.rooms("task:{name}", subscribe=True, task=task)
        async with serving_clients(app) as clients:
            speaker, began = await clients.client(), trio.current_time()
            await speaker.result("subscribe", channel="task:a")
            assert trio.current_time() - began == pytest.approx(3, abs=0.1)


class TestAToken:
    async def test_opens_a_room(self, autojump_clock: Clock) -> None:
        claims: list[Any] = []

        async def chat(sub: Subscription) -> None:
            claims.append((sub.claims["channel"], sub.user["sub"]))

        auth = JWTAuth(KEY)
        app = handled(chat, app_with(auth=auth), token=True)
        app.rooms("token:{name}", token=True)
        async with serving_clients(app) as clients:
            speaker = await clients.client(token=token())
            wrong = {
                "": 103,
                "x": 103,
                token(): 103,
                token(channel="token:b"): 103,
                token("bob", channel="token:a"): 103,
                token(channel="token:a", exp=EXPIRED): 109,
                token(channel="token:a", key="another secret of thirty-two bytes"): 103,
            }
            refused = {one: await speaker.refused("subscribe", channel="token:a", token=one) for one in wrong}
            assert list(refused.values()) == list(wrong.values())
            result = await speaker.result("subscribe", channel="token:a", token=token(channel="token:a"))
            assert result["expires"] is True
            assert 3590 <= result["ttl"] <= 3600
            await speaker.result("subscribe", channel="chat:a", token=token(channel="chat:a"))
            assert claims == [("chat:a", "ada")]

    async def test_is_refused_without_auth(self, autojump_clock: Clock) -> None:
        async with serving_clients(app_with()) as clients:
            assert await (await clients.client()).refused("subscribe", channel="open:a", token="x") == 103

    async def test_is_over_some_time(self, autojump_clock: Clock) -> None:
        app = handled(idle, app_with(auth=JWTAuth(KEY), token_slack=5), token=True)
        async with serving_clients(app) as clients:
            speaker = await clients.client(token=token(exp=int(time.time()) + 100_000))
            soon, later = int(time.time()) + 100, int(time.time()) + 1000
            for room in ("a", "b"):
                short = token(channel=f"chat:{room}", exp=soon)
                result = await speaker.result("subscribe", channel=f"chat:{room}", token=short)
                assert 95 <= result["ttl"] <= 100
            await trio.sleep(90)
            assert speaker.pushes == []
            result = await speaker.result("sub_refresh", channel="chat:b", token=token(channel="chat:b", exp=later))
            assert result["expires"] is True
            assert 990 <= result["ttl"] <= 1000
            await trio.sleep(20)
            over = {"code": 2501, "reason": "subscription expired"}
            assert [(push["channel"], push["unsubscribe"]) for push in speaker.pushes] == [("chat:a", over)]
            await trio.sleep(1000)
            assert speaker.of("unsubscribe") == [over, over]

    async def test_that_is_over_before_the_client_is_let_in(self, autojump_clock: Clock) -> None:
        """Its SDK gets another one, and tries again."""

        async def chat(sub: Subscription) -> None:
            await trio.sleep(1000)

        app = handled(chat, app_with(auth=JWTAuth(KEY), token_slack=5), token=True)
        async with serving_clients(app) as clients:
            speaker = await clients.client(token=token(exp=int(time.time()) + 100_000))
            short = token(channel="chat:a", exp=int(time.time()) + 100)
            assert await speaker.refused("subscribe", channel="chat:a", token=short) == 109

    async def test_may_be_replaced_by_the_right_one_only(self, autojump_clock: Clock) -> None:
        app = handled(idle, app_with(auth=JWTAuth(KEY)), token=True)
        async with serving_clients(app) as clients:
            speaker = await clients.client(token=token())
            right = token(channel="chat:a")
            assert await speaker.refused("sub_refresh", channel="chat:a", token=right) == 103
            await speaker.result("subscribe", channel="chat:a", token=right)
            wrong = {"": 103, "x": 103, token("bob", channel="chat:a"): 103, token(channel="chat:a", exp=EXPIRED): 109}
            assert {one: await speaker.refused("sub_refresh", channel="chat:a", token=one) for one in wrong} == wrong
            assert speaker.closed is None


class TestTooMany:
    async def test_subscriptions_that_have_not_ended(self, autojump_clock: Clock) -> None:
        """Each one that is left runs on for its grace: what a client can have running is bounded all the same."""
        running = most = 0

        async def chat(sub: Subscription) -> None:
            nonlocal running, most
            running += 1
            most = max(most, running)
            try:
                await sub.accept()
                await trio.sleep_forever()
            finally:
                running -= 1

        app = handled(chat, app_with(Limits(max_rooms=5)))
        async with serving_clients(app) as clients:
            speaker = await clients.client()
            codes = set()
            for _ in range(100):
                reply = await speaker.ask("subscribe", channel="chat:a")
                codes.add(reply.get("error", {}).get("code", 0))
                await speaker.ask("unsubscribe", channel="chat:a")
            assert codes == {0, 111}
            assert most <= 10
            await trio.sleep(1)
            assert running == 0
            assert await speaker.result("subscribe", channel="chat:a") == {}

    async def test_floods_leave_nothing(self, autojump_clock: Clock) -> None:
        app = app_with()
        async with serving_clients(app) as clients:
            speaker = await clients.client()
            for _ in range(10):
                commands = []
                for n in range(50):
                    commands.append(speaker.command("subscribe", channel=f"open:{n}"))
                    commands.append(speaker.command("unsubscribe", channel=f"open:{n}"))
                await speaker.say(*commands)
                await speaker.reply(commands[-1])
            await clients.settle()
            assert (app.statistics().rooms, app.statistics().memberships, clients.timers) == (0, 0, 1)
            assert len(clients.hub.rooms._soon) == 0


async def test_end_and_the_log_names_the_cause(autojump_clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    async def chat(sub: Subscription) -> None:
        raise Failure

    caplog.set_level(logging.INFO)
    async with serving_clients(handled(chat)) as clients:
        speaker = await clients.client()
        assert await speaker.refused("subscribe", channel="chat:a") == 100
        (record,) = [record for record in caplog.records if record.exc_info]
        assert record.name == "verbtrio.subscriptions"
        assert record.getMessage().startswith("the handler of <Subscription 'chat:a' of <Client ")


@pytest.mark.parametrize("gone", [Speaker.close, Speaker.hang_up], ids=["by a Close frame", "without one"])
async def test_a_client_that_goes_leaves_its_rooms_at_once(gone: Any, autojump_clock: Clock) -> None:
    received: list[Any] = []

    async def chat(sub: Subscription) -> None:
        async for said in sub:
            await trio.sleep(0.01)
            received.append(said)
        received.append("end")

    app = handled(chat)
    async with serving_clients(app) as clients:
        speaker = await clients.client()
        await speaker.result("subscribe", channel="chat:a")
        await speaker.say(*[speaker.command("publish", channel="chat:a", data=n) for n in range(5)])
        await gone(speaker)
        await clients.settle()
        assert (len(app.room("chat:a")), app.statistics().memberships) == (0, 0)
        await trio.sleep(1)
        assert received == [0, 1, 2, 3, 4, "end"], "what it has said before is still handled, within the grace"
