"""How clients come in: tokens, the application's own function, what is too late, too early or too much, and how long a
token counts."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
import trio
from starlette.requests import HTTPConnection
from starlette.responses import Response
from trio.abc import Clock

from tests.support.commands import KEY, Speaker, serving_clients, token
from tests.support.tasks import Failure, errors
from verbtrio import App, AuthenticationError, CallError, Client, Denied, LimitExceeded, Limits, Subscription
from verbtrio.auth import JWTAuth
from verbtrio.middleware import CallNext

EXPIRED = int(time.time()) - 3600


def app_with(limits: Limits | None = None, **settings: Any) -> App:
    app = App(limits=limits)
    app.rooms("open:{name}", subscribe=True)
    app.centrifuge("/connection", **settings)
    return app


class TestAToken:
    async def test_is_not_needed_without_auth(self, autojump_clock: Clock) -> None:
        async with serving_clients(app_with()) as clients:
            speaker = await clients.open()
            result = await speaker.result("connect")
            assert result.keys() == {"client", "version", "ping", "pong"}
            assert (result["ping"], result["pong"]) == (25, True)

    async def test_is_needed_with_it(self, autojump_clock: Clock) -> None:
        async with serving_clients(app_with(auth=JWTAuth(KEY))) as clients:
            assert await (await clients.open()).refused("connect") == 101

    async def test_may_be_missing_where_anonymous_clients_are_let_in(self, autojump_clock: Clock) -> None:
        app = app_with(auth=JWTAuth(KEY), anonymous=True)
        async with serving_clients(app) as clients:
            await clients.client()
            await clients.client(token=token())
            assert len(app.users) == 1
            (client,) = app.users.connections("ada")
            assert client.user["sub"] == "ada"
            del client

    async def test_of_nobody_is_an_anonymous_clients(self, autojump_clock: Clock) -> None:
        app = app_with(auth=JWTAuth(KEY), personal="#{user}")
        async with serving_clients(app) as clients:
            speaker = await clients.open()
            assert "subs" not in await speaker.result("connect", token=token(""))
            assert len(app.users) == 0

    async def test_that_has_expired_is_told_apart(self, autojump_clock: Clock) -> None:
        async with serving_clients(app_with(auth=JWTAuth(KEY))) as clients:
            assert await (await clients.open()).refused("connect", token=token(exp=EXPIRED)) == 109

    @pytest.mark.parametrize(
        "wrong",
        [
            "x",
            token(key="another secret of thirty-two bytes"),
            token(algorithm="HS384", key=KEY + "of forty-eight bytes"),
            token(channel="open:a"),
            token(key="another secret of thirty-two bytes", exp=EXPIRED),
        ],
        ids=["garbage", "another key", "another algorithm", "a subscription's", "expired, and another key"],
    )
    async def test_that_is_invalid_ends_the_client(self, wrong: str, autojump_clock: Clock) -> None:
        async with serving_clients(app_with(auth=JWTAuth(KEY), anonymous=True)) as clients:
            speaker = await clients.open()
            await speaker.say(speaker.command("connect", token=wrong))
            assert await speaker.end() == (3500, "invalid token")
            assert speaker.lines == []

    async def test_means_nothing_without_auth(self, autojump_clock: Clock) -> None:
        async with serving_clients(app_with()) as clients:
            speaker = await clients.open()
            await speaker.say(speaker.command("connect", token=token()))
            assert await speaker.end() == (3500, "invalid token")

    @pytest.mark.parametrize(("status", "code"), [(503, 100), (403, 103)])
    async def test_that_can_not_be_checked(self, status: int, code: int, autojump_clock: Clock) -> None:
        class Keys:
            async def authenticate(self, token: str) -> dict[str, Any]:
                raise AuthenticationError(status, "a secret text")

        async with serving_clients(app_with(auth=Keys())) as clients:
            speaker = await clients.open()
            assert await speaker.refused("connect", token="x") == code
            assert "secret" not in str(speaker.messages)


async def middleware_with_a_user(request: HTTPConnection, call_next: CallNext) -> Response:
    request.scope["user"] = {"id": "ada"}
    return await call_next(request)


async def test_a_user_from_middleware_needs_no_token(autojump_clock: Clock) -> None:
    app = app_with(auth=JWTAuth(KEY), middleware=[middleware_with_a_user])
    async with serving_clients(app) as clients:
        await clients.client()
        assert [client.user for client in app.users.connections("ada")] == [{"id": "ada"}]


class TestTheApplicationsFunction:
    async def test_gets_the_data_and_answers(self, autojump_clock: Clock) -> None:
        seen: list[Any] = []

        async def connect(client: Client, data: dict[str, int]) -> dict[str, Any]:
            seen.append((client.name, client.version, client.sent_headers, client.transport, client.encoding, data))
            return {"b": [client.user["sub"]]}

        async with serving_clients(app_with(auth=JWTAuth(KEY), connect=connect)) as clients:
            speaker = await clients.open()
            how = {"name": "js", "version": "5", "headers": {"x": "y"}, "data": {"a": 1}}
            assert (await speaker.result("connect", token=token(), **how))["data"] == {"b": ["ada"]}
            assert seen == [("js", "5", {"x": "y"}, "websocket", "json", {"a": 1})]

    async def test_may_be_plain_and_return_nothing(self, autojump_clock: Clock) -> None:
        def connect(client: Client) -> None:
            pass

        async with serving_clients(app_with(connect=connect)) as clients:
            assert "data" not in await (await clients.open()).result("connect", data={"a": 1})

    @pytest.mark.parametrize(
        ("make", "error"),
        [
            (lambda: Denied("not you"), {"code": 103, "message": "not you"}),
            (lambda: CallError(1000, "full", temporary=True), {"code": 1000, "message": "full", "temporary": True}),
            (lambda: LimitExceeded("too much"), {"code": 106, "message": "too much"}),
            (lambda: Failure("a secret"), {"code": 100, "message": "internal server error", "temporary": True}),
            (lambda: ExceptionGroup("", [Denied("no")]), {"code": 103, "message": "no"}),
        ],
        ids=["Denied", "CallError", "LimitExceeded", "a failure", "a group"],
    )
    async def test_refuses(
        self,
        make: Callable[[], Exception],
        error: dict[str, Any],
        autojump_clock: Clock,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        async def connect(client: Client) -> None:
            raise make()

        app = app_with(connect=connect)
        async with serving_clients(app) as clients:
            speaker = await clients.open()
            assert (await speaker.ask("connect"))["error"] == error
            assert [type(logged) for logged in errors(caplog)] == [Failure] * isinstance(make(), Failure)
            assert (len(app.connections), app.statistics().connections) == (0, 1)

    async def test_refuses_data_of_another_type(self, autojump_clock: Clock) -> None:
        async def connect(client: Client, data: int) -> None:
            raise AssertionError

        async with serving_clients(app_with(connect=connect)) as clients:
            assert await (await clients.open()).refused("connect", data="x") == 107

    async def test_may_take_its_time(self, autojump_clock: Clock) -> None:
        """The client has said who it is: it must not be told that it is stale, and stay away for ever."""

        async def connect(client: Client) -> None:
            await trio.sleep(25)

        async with serving_clients(app_with(connect=connect)) as clients:
            await clients.client()

    async def test_that_never_ends_is_cancelled(self, autojump_clock: Clock) -> None:
        began = trio.current_time()

        async def connect(client: Client) -> None:
            await trio.sleep_forever()

        async with serving_clients(app_with(Limits(call_timeout=12), connect=connect)) as clients:
            speaker = await clients.open()
            reply = await speaker.ask("connect")
            assert reply["error"] == {"code": 100, "message": "timeout", "temporary": True}
            assert trio.current_time() - began == pytest.approx(12, abs=0.1)
            assert await speaker.end() == (3502, "stale")

    @pytest.mark.parametrize("gone", [Speaker.close, Speaker.hang_up])
    async def test_of_a_client_that_goes_meanwhile(self, gone: Any, autojump_clock: Clock) -> None:
        ended: list[float] = []

        async def connect(client: Client) -> None:
            try:
                await trio.sleep(100)
            finally:
                ended.append(trio.current_time())

        app = app_with(auth=JWTAuth(KEY), connect=connect)
        async with serving_clients(app) as clients:
            speaker = await clients.open()
            await speaker.say(speaker.command("connect", token=token(channels=["open:a"])))
            await clients.settle()
            left = trio.current_time()
            await gone(speaker)
            await clients.service.wait_ended(5)
            assert ended[0] - left <= 0.2
            assert speaker.lines == []


class TestTheOrder:
    async def test_nothing_comes_before_it(self, autojump_clock: Clock) -> None:
        methods = ["subscribe", "unsubscribe", "publish", "presence", "presence_stats", "history", "ping", "rpc"]
        async with serving_clients(app_with()) as clients:
            for method in [*methods, "refresh", "sub_refresh", "send"]:
                speaker = await clients.open()
                await speaker.say(speaker.command(method, channel="open:a", data=1))
                assert await speaker.end() == (3501, "bad request")
                assert speaker.lines == []

    async def test_it_comes_once(self, autojump_clock: Clock) -> None:
        async with serving_clients(app_with()) as clients:
            speaker = await clients.client()
            await speaker.say(speaker.command("connect"))
            assert await speaker.end() == (3501, "bad request")

    async def test_what_stands_behind_it_is_handled_once_it_is_answered(self, autojump_clock: Clock) -> None:
        async def connect(client: Client) -> None:
            await trio.sleep(1)

        async with serving_clients(app_with(connect=connect)) as clients:
            speaker = await clients.open()
            await speaker.say(speaker.command("connect"), *(speaker.command("subscribe", channel="open:a"),) * 2)
            await trio.sleep(2)
            assert [line["id"] for line in speaker.lines] == [1, 2, 2]
            assert speaker.lines[2]["error"]["code"] == 105

    async def test_what_stands_behind_a_refused_one_is_not_answered(self, autojump_clock: Clock) -> None:
        async with serving_clients(app_with(auth=JWTAuth(KEY))) as clients:
            speaker = await clients.open()
            await speaker.say(speaker.command("connect"), speaker.command("subscribe", channel="open:a"))
            await trio.sleep(1)
            assert [line["id"] for line in speaker.lines] == [1]
            await speaker.say(speaker.command("subscribe", channel="open:a"))
            assert await speaker.end() == (3501, "bad request")

    async def test_it_comes_in_time(self, autojump_clock: Clock) -> None:
        async with serving_clients(app_with()) as clients:
            began = trio.current_time()
            assert await (await clients.open()).end() == (3502, "stale")
            assert trio.current_time() - began == pytest.approx(10, abs=0.2)

    async def test_one_that_is_refused_goes(self, autojump_clock: Clock) -> None:
        async with serving_clients(app_with(auth=JWTAuth(KEY))) as clients:
            speaker = await clients.open()
            assert await speaker.refused("connect") == 101
            assert await speaker.end() == (3502, "stale")


async def test_a_user_has_as_many_connections_as_it_may(autojump_clock: Clock) -> None:
    app = app_with(Limits(max_connections_per_user=1), auth=JWTAuth(KEY))
    async with serving_clients(app) as clients:
        first = await clients.client(token=token())
        second = await clients.open()
        await second.say(second.command("connect", token=token(channels=["open:a"])))
        code, reason = await second.end()
        assert code == 3504
        assert reason
        assert second.lines == []
        assert len(app.room("open:a")) == 0
        await clients.client(token=token("bob"))
        await first.close()
        await trio.sleep(1)
        await clients.client(token=token())


class TestExpiry:
    """The virtual clock runs by itself; an `exp` is a wall-clock time, which stands still meanwhile."""

    async def test_the_client_is_told_and_then_closed(self, autojump_clock: Clock) -> None:
        async with serving_clients(app_with(auth=JWTAuth(KEY), token_slack=5)) as clients:
            speaker, began = await clients.open(), trio.current_time()
            result = await speaker.result("connect", token=token(exp=int(time.time()) + 100))
            assert result["expires"] is True
            assert 95 <= result["ttl"] <= 100
            assert await speaker.end() == (3005, "connection expired")
            assert trio.current_time() - began == pytest.approx(result["ttl"] + 5.5, abs=1)

    async def test_a_token_for_centuries(self, autojump_clock: Clock) -> None:
        """Protobuf has 32 bits for the seconds until then."""
        async with serving_clients(app_with(auth=JWTAuth(KEY))) as clients:
            for at in (9_999_999_999, 1e30):
                speaker = await clients.open()
                result = await speaker.result("connect", token=token(exp=at))
                assert (result["expires"], result["ttl"]) == (True, 2**31 - 1)
                await trio.sleep(100)
                assert speaker.closed is None

    async def test_but_not_if_it_brings_another_token(self, autojump_clock: Clock) -> None:
        async with serving_clients(app_with(auth=JWTAuth(KEY))) as clients:
            speaker = await clients.client(token=token(exp=int(time.time()) + 100))
            client_id = speaker.lines[0]["connect"]["client"]
            await trio.sleep(90)
            result = await speaker.result("refresh", token=token(exp=int(time.time()) + 1000))
            assert (result["client"], result["expires"]) == (client_id, True)
            assert 990 <= result["ttl"] <= 1000
            await trio.sleep(900)
            assert speaker.closed is None
            assert await speaker.end() == (3005, "connection expired")

    @pytest.mark.parametrize(
        ("brought", "end"),
        [
            (token("bob"), (3500, "invalid token")),
            (token(""), (3500, "invalid token")),
            ("x", (3500, "invalid token")),
            ("", (3500, "invalid token")),
            (token(channel="open:a"), (3500, "invalid token")),
            (token(exp=EXPIRED), (3005, "connection expired")),
        ],
        ids=["another user's", "nobody's", "garbage", "empty", "a subscription's", "expired"],
    )
    async def test_another_token_has_to_be_right(
        self, brought: str, end: tuple[int, str], autojump_clock: Clock
    ) -> None:
        async with serving_clients(app_with(auth=JWTAuth(KEY))) as clients:
            speaker = await clients.client(token=token())
            await speaker.say(speaker.command("refresh", token=brought))
            assert await speaker.end() == end

    async def test_there_is_nothing_to_refresh_without_auth(self, autojump_clock: Clock) -> None:
        async with serving_clients(app_with()) as clients:
            assert await (await clients.client()).refused("refresh", token="x") == 108

    async def test_others_are_told_of_the_new_info(self, autojump_clock: Clock) -> None:
        app = app_with(auth=JWTAuth(KEY))
        app.rooms("talk:{name}", publish=True)
        async with serving_clients(app) as clients:
            speaker = await clients.client(token=token(info={"n": 1}))
            await speaker.ask("refresh", token=token(info={"n": 2}))
            await speaker.ask("subscribe", channel="talk:a")
            await speaker.ask("publish", channel="talk:a", data=1)
            await clients.settle()
            assert speaker.of("pub")[0]["info"]["conn_info"] == {"n": 2}


async def test_a_client_can_be_used_while_it_connects(autojump_clock: Clock) -> None:
    async def connect(client: Client) -> str:
        assert client.nursery is not None
        return client.id

    async with serving_clients(app_with(connect=connect)) as clients:
        speaker = await clients.client()
        connected = speaker.lines[0]["connect"]
        assert connected["client"] == connected["data"]


async def test_how_clients_and_subscriptions_are_called(autojump_clock: Clock) -> None:
    """In the log."""
    names: list[str] = []

    async def chat(sub: Subscription) -> None:
        names.append(repr(sub))
        await sub.accept()
        names.append(repr(sub))
        await sub.unsubscribe()
        names.append(repr(sub))

    app = app_with()
    app.rooms("chat:{name}")(chat)
    async with serving_clients(app) as clients:
        speaker = await clients.client()
        await speaker.result("subscribe", channel="chat:a")
        await clients.settle()
        client = f"<Client {speaker.lines[0]['connect']['client'][:8]} '/connection/websocket' (websocket)>"
        assert names == [
            f"<Subscription 'chat:a' of {client} ({state})>" for state in ("not accepted yet", "accepted", "ended")
        ]


class TestTextThatIsNone:
    """A token's JSON may have half of a character (a lone surrogate), which no message can have."""

    @pytest.mark.parametrize("claims", [{"sub": "\ud800"}, {"info": {"name": "\udc00"}}], ids=["user", "info"])
    async def test_lets_nobody_in(self, claims: dict[str, Any], autojump_clock: Clock) -> None:
        app = app_with(auth=JWTAuth(KEY))
        app.rooms("here:{name}", presence=True, join_leave=True, subscribe=True)
        async with serving_clients(app) as clients:
            other = await clients.client(token=token())
            await other.result("subscribe", channel="here:a", join_leave=True)
            speaker = await clients.open()
            await speaker.say(
                speaker.command("connect", token=token(**claims)), speaker.command("subscribe", channel="here:a")
            )
            assert await speaker.end() == (3500, "invalid token")
            assert len((await other.result("presence", channel="here:a"))["presence"]) == 1

    async def test_is_no_info_of_a_subscription(self, autojump_clock: Clock) -> None:
        app = app_with(auth=JWTAuth(KEY))
        app.rooms("private:{name}", token=True)
        async with serving_clients(app) as clients:
            speaker = await clients.client(token=token())
            half = token(channel="private:a", info="\udc00")
            assert await speaker.refused("subscribe", channel="private:a", token=half) == 103
            await speaker.result("subscribe", channel="private:a", token=token(channel="private:a"))
            assert await speaker.refused("sub_refresh", channel="private:a", token=half) == 103
