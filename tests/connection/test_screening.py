"""The gate before the handler: how many messages pass, and the tokens that are none of the handler's."""

from __future__ import annotations

import json
from typing import Any

import pytest
import trio
import trio_websocket
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from trio.abc import Clock

from tests.auth.test_jwks import Server
from tests.conftest import Servers
from tests.support import wire
from tests.support.keys import document, signed_with
from tests.support.memory import Service, serving, shake_hands
from tests.support.peers import connect
from tests.test_app import http
from verbtrio import App, Cause, Heartbeat, Limits, WebSocket
from verbtrio.auth.jwt import MAX_TOKEN_CHARACTERS, JWTAuth
from verbtrio.connection.tokens import MAX_AUTH_CHARACTERS

LIMITS = Limits(max_messages_per_second=10, message_burst=5)
REFUSAL = {"type": "error", "message": "Too many messages: at most 10 a second"}


def echoing(**options: Any) -> App:
    app = App(**options)
    app.ws("/ws", message=lambda ws, message: ws.send_nowait(message))
    return app


async def answers(client: trio_websocket.WebSocketConnection) -> list[str]:
    """What the server has said so far."""
    said: list[Any] = []
    with trio.move_on_after(0.05):
        while True:
            said.append(await client.get_message())
    return said


async def test_the_burst_passes_and_the_next_is_answered(autojump_clock: Clock) -> None:
    async with serving(echoing(limits=LIMITS)) as service:
        client = await service.connect()
        for number in range(6):
            await client.send_message(str(number))
        *echoed, refusal = await answers(client)
        assert echoed == ["0", "1", "2", "3", "4"]
        assert json.loads(refusal) == REFUSAL
        await trio.sleep(0.2)
        await client.send_message("again")
        assert await answers(client) == ["again"]
        await client.aclose()


async def test_one_answer_for_all_that_are_refused(autojump_clock: Clock) -> None:
    async with serving(echoing(limits=LIMITS)) as service:
        client = await service.connect()
        for number in range(10):
            await client.send_message(str(number))
        assert len(await answers(client)) == 5 + 1
        await trio.sleep(1)
        for number in range(6):
            await client.send_message(str(number))
        assert len(await answers(client)) == 5 + 1, "after a pause it is told again"
        await client.aclose()


async def test_going_on_ends_with_1008(autojump_clock: Clock) -> None:
    app = App(limits=LIMITS)
    ended: list[Any] = []

    @app.ws("/ws")
    async def count(ws: WebSocket) -> None:
        try:
            async for _ in ws:
                pass
        finally:
            ended.append(ws.closed)

    async with serving(app) as service:
        client = await service.connect()
        for number in range(11):
            await client.send_message(str(number))
        await trio.sleep(1)
        assert client.closed is not None
        assert (client.closed.code, client.closed.reason) == (1008, "Too many messages")
    assert (ended[0].cause, ended[0].code) == (Cause.RATE, 1008)


async def test_exactly_the_rate_goes_on_for_ever(autojump_clock: Clock) -> None:
    async with serving(echoing(limits=LIMITS)) as service:
        client = await service.connect()
        for number in range(300):
            await client.send_message(str(number))
            assert await client.get_message() == str(number)
            await trio.sleep(0.1)
        await client.aclose()


async def flood(service: Service) -> int:
    """Send without reading until the server hangs up; how many bytes it took."""
    stream = service.open_stream()
    await shake_hands(stream)
    message = b"\x81\x82\0\0\0\0hi"
    sent = 0
    try:
        while sent < 100_000_000:
            await stream.send_all(message * 1000)
            sent += len(message) * 1000
            await trio.lowlevel.checkpoint()
    except trio.BrokenResourceError:
        pass
    await stream.aclose()
    return sent


async def test_a_flood_is_not_read_to_its_end(autojump_clock: Clock) -> None:
    """A peer that neither reads nor answers our Close: it is let go of, not decoded for the closing time-out's 5 s."""
    async with serving(echoing(limits=LIMITS)) as service:
        begin = trio.current_time()
        assert await flood(service) < 1_000_000
        assert trio.current_time() - begin < 5


async def test_pongs_count_and_are_no_way_around(autojump_clock: Clock) -> None:
    app = echoing(limits=LIMITS, heartbeat=Heartbeat(interval=30, timeout=90, json=True))
    async with serving(app) as service:
        client = await service.connect()
        for _ in range(6):
            await client.send_message('{"type":"pong"}')
        assert [json.loads(said) for said in await answers(client)] == [REFUSAL]
        await client.aclose()


@pytest.mark.parametrize(("where", "refused"), [("app", True), ("group", True), ("none", False), ("route", True)])
async def test_per_app_per_group_per_route(where: str, refused: bool, autojump_clock: Clock) -> None:
    """The nearest that names a limit counts; a group that names none has the app's."""
    app = App(limits=LIMITS)
    group = app.group("/group", limits=Limits(max_rooms=3))
    for routes, path in ((app, "/app"), (group, "/ws")):
        routes.ws(path, message=lambda ws, message: ws.send_nowait(message))
    none = Limits(max_messages_per_second=None)
    group.ws("/none", message=lambda ws, message: ws.send_nowait(message), limits=none)
    group.ws("/own", message=lambda ws, message: ws.send_nowait(message), limits=LIMITS)
    async with serving(app) as service:
        client = await service.connect(
            {"app": "/app", "group": "/group/ws", "none": "/group/none"}.get(where, "/group/own")
        )
        for number in range(6):
            await client.send_message(str(number))
        assert (json.loads((await answers(client))[-1]) == REFUSAL) is refused
        await client.aclose()


async def test_without_a_limit_there_is_no_gate(autojump_clock: Clock) -> None:
    async with serving(echoing()) as service:
        client = await service.connect()
        for number in range(2000):
            await client.send_message(str(number))
            assert await client.get_message() == str(number)
        await client.aclose()


KEY = "a secret of thirty-two bytes, or more"


def message_with(token: str) -> str:
    return json.dumps({"type": "auth", "token": token})


def door(auth: JWTAuth, **options: Any) -> tuple[App, list[Any]]:
    """An app behind `auth`, and what its handler has seen: users and messages."""
    app, seen = App(**options), []

    @app.ws("/ws", middleware=[auth])
    class Chat:
        def open(self, ws: WebSocket) -> None:
            seen.append(ws.user["id"])
            ws.send_nowait("welcome")

        def message(self, ws: WebSocket, message: str | bytes) -> None:
            seen.append(message)

        def close(self, ws: WebSocket, code: int, reason: str) -> None:
            assert ws.closed is not None
            seen.append(ws.closed.cause)

    return app, seen


class TestFirstMessage:
    auth = JWTAuth(KEY, first_message_timeout=10)

    async def test_is_the_token(self, autojump_clock: Clock) -> None:
        app, seen = door(self.auth)
        async with serving(app) as service:
            client = await service.connect()
            await trio.sleep(9.9)
            assert (seen, len(app.users), len(app.connections)) == ([], 0, 0), "nobody sees it, and it sees nobody"
            assert app.connections.broadcast("not for everybody") == 0
            await client.send_message(message_with(self.auth.issue({"id": 7})))
            assert [json.loads(await client.get_message()), await client.get_message()] == [
                {"type": "authenticated"},
                "welcome",
            ]
            assert (list(app.users), len(app.connections)) == (["7"], 1)
            await client.send_message("hello")
            await trio.sleep(60)
            await client.aclose()
        assert seen == [7, "hello", Cause.PEER]

    async def test_may_be_followed_at_once(self, autojump_clock: Clock) -> None:
        app, seen = door(self.auth)
        async with serving(app) as service:
            client = await service.connect()
            await client.send_message(message_with(self.auth.issue({"id": 7})))
            await client.send_message("hello")
            await client.send_message("again")
            await trio.sleep(1)
            assert seen == [7, "hello", "again"]
            await client.aclose()

    @pytest.mark.parametrize(
        "message",
        [
            "hello",
            b"binary",
            "{}",
            '{"type":"auth"}',
            '{"type":"auth","token":5}',
            '{"type":"login","token":"x"}',
            '["auth"]',
            message_with("forged"),
            message_with("A" * 500_000),
            message_with(JWTAuth("another secret of thirty-two bytes!").issue({"id": 7})),
            message_with(auth.issue({"id": 7}, expires_in=-1)),
        ],
    )
    async def test_is_no_token(self, message: str | bytes, autojump_clock: Clock) -> None:
        app, seen = door(self.auth)
        async with serving(app) as service:
            client = await service.connect()
            await client.send_message(message)
            await client.send_message("hello")
            await trio.sleep(1)
            assert client.closed is not None
            assert client.closed.code == 1008
            assert app.statistics().ended == {"unauthenticated": 1}
        assert seen == [Cause.UNAUTHENTICATED]

    async def test_does_not_come_in_time(self, autojump_clock: Clock) -> None:
        app, seen = door(self.auth)
        async with serving(app) as service:
            client = await service.connect()
            await trio.sleep(9.99)
            assert len(seen) == 0
            await trio.sleep(0.02)
            assert client.closed is not None
            assert (client.closed.code, client.closed.reason) == (1008, "No token came in time")
        assert seen == [Cause.UNAUTHENTICATED]

    async def test_is_not_needed_by_who_brings_a_token(self, autojump_clock: Clock) -> None:
        app, seen = door(self.auth)
        async with serving(app) as service:
            client = await service.connect(subprotocols=["bearer", self.auth.issue({"id": 7})])
            assert await client.get_message() == "welcome"
            await client.aclose()
            client = await service.connect()  # to be closed by the drain
        assert seen == [7, Cause.PEER, Cause.UNAUTHENTICATED]

    async def test_a_token_that_is_wrong_is_worse_than_none(self, autojump_clock: Clock) -> None:
        app, _ = door(self.auth)
        async with serving(app) as service:
            stream = service.open_stream()
            assert b" 401 " in await shake_hands(stream, "/ws?token=forged")
            await stream.aclose()

    async def test_http_has_no_messages(self) -> None:
        app = App()

        @app.get("/", middleware=[self.auth])
        async def page(request: Request) -> Response:
            raise AssertionError("not for everybody")

        async with http(app) as client:
            assert (await client.get("/")).status_code == 401

    async def test_a_role_that_is_missing(self, autojump_clock: Clock) -> None:
        app, seen = door(self.auth.requiring(roles=["admin"]))
        async with serving(app) as service:
            client = await service.connect()
            await client.send_message(message_with(self.auth.issue({"id": 7})))
            await trio.sleep(1)
            assert client.closed is not None
            assert (client.closed.code, client.closed.reason) == (1008, "Forbidden")
        assert seen == [Cause.UNAUTHENTICATED]

    async def test_another_middlewares_anonymous_user_is_none(self, autojump_clock: Clock) -> None:
        """Starlette's `AuthenticationMiddleware` puts one into every scope."""

        async def anonymous(request: HTTPConnection, call_next: Any) -> Response:
            request.scope["user"] = object()
            response: Response = await call_next(request)
            return response

        app, seen = door(self.auth, middleware=[anonymous])
        async with serving(app) as service:
            client = await service.connect()
            await client.send_message("hello")
            await trio.sleep(1)
            assert client.closed is not None
        assert seen == [Cause.UNAUTHENTICATED]

    async def test_keys_that_cant_be_had(self, autojump_clock: Clock) -> None:
        auth = JWTAuth(jwks_url="https://keys.example", first_message_timeout=10)
        keys = auth._key_set = Server()
        keys.answer = OSError("refused")
        app, _ = door(auth)
        async with serving(app) as service:
            client = await service.connect()
            await client.send_message(message_with(signed_with("a", {"id": 7})))
            await trio.sleep(5)
            assert client.closed is not None
            assert client.closed.code == 1013
            keys.answer = document("a")
            await trio.sleep(5)
            client = await service.connect()
            await client.send_message(message_with(signed_with("a", {"id": 7})))
            await trio.sleep(5)
            assert list(app.users) == ["7"]
            await client.aclose()

    async def test_one_connection_too_many_of_a_user(self, autojump_clock: Clock) -> None:
        app, seen = door(self.auth, limits=Limits(max_connections_per_user=2))
        async with serving(app) as service:
            clients = [await service.connect() for _ in range(3)]
            for client in clients:
                await client.send_message(message_with(self.auth.issue({"id": 7})))
                await trio.sleep(1)
            assert [client.closed and client.closed.code for client in clients] == [None, None, 1013]
            for client in clients:
                await client.aclose()
            await service.wait_ended(10)
            assert len(app._running_hub().quotas) == 0
        assert seen.count(7) == 2

    async def test_the_rate_counts_before_it(self, autojump_clock: Clock) -> None:
        app, _ = door(self.auth, limits=LIMITS)
        async with serving(app) as service:
            client = await service.connect()
            for _ in range(30):
                await client.send_message(message_with(self.auth.issue({"id": 7})))
            await service.wait_ended(20)
            assert app.statistics().ended == {"rate": 1}


class TestRenewal:
    auth = JWTAuth(KEY)

    def test_what_may_hold_a_token_is_longer_than_any(self) -> None:
        assert len(message_with("x" * MAX_TOKEN_CHARACTERS)) < MAX_AUTH_CHARACTERS

    async def connect(self, service: Service, seconds: float) -> trio_websocket.WebSocketConnection:
        client = await service.connect(subprotocols=["bearer", self.auth.issue({"id": 7, "n": 1}, expires_in=seconds)])
        assert await client.get_message() == "welcome"
        return client

    async def lives(self, client: trio_websocket.WebSocketConnection) -> float:
        """Seconds until it is closed for its token's end."""
        begin = trio.current_time()
        while client.closed is None:
            await trio.sleep(0.05)
        assert (client.closed.code, client.closed.reason) == (4401, "Token expired")
        return trio.current_time() - begin

    @pytest.mark.parametrize("heartbeat", [None, Heartbeat()])
    async def test_expires_within_a_second(self, heartbeat: Heartbeat | None, autojump_clock: Clock) -> None:
        app, seen = door(self.auth, heartbeat=heartbeat)
        async with serving(app) as service:
            client = await self.connect(service, 60)
            assert 59.5 < await self.lives(client) < 61.5
        assert seen[-1] is Cause.EXPIRED

    @pytest.mark.parametrize("heartbeat", [None, Heartbeat()])
    @pytest.mark.parametrize(("first", "second"), [(60, 600), (600, 60)])
    async def test_a_newer_token_moves_the_deadline(
        self, first: float, second: float, heartbeat: Heartbeat | None, autojump_clock: Clock
    ) -> None:
        app, seen = door(self.auth, heartbeat=heartbeat)
        async with serving(app) as service:
            client = await self.connect(service, first)
            await client.send_message(message_with(self.auth.issue({"id": 7, "n": 2}, expires_in=second)))
            assert json.loads(await client.get_message()) == {"type": "authenticated"}
            (ws,) = app.connections.here
            assert ws.user["n"] == 2
            del ws
            assert second - 0.5 < await self.lives(client) < second + 1.5
        assert seen == [7, Cause.EXPIRED], "the token is not the handler's"

    async def test_a_message_that_is_too_long_for_a_token_is_the_handlers(self, autojump_clock: Clock) -> None:
        app, seen = door(self.auth)
        async with serving(app) as service:
            client = await self.connect(service, 600)
            renewal = message_with(self.auth.issue({"id": 7, "n": 2}))
            await client.send_message(renewal.ljust(MAX_AUTH_CHARACTERS))
            assert json.loads(await client.get_message()) == {"type": "authenticated"}
            await client.send_message(renewal.ljust(MAX_AUTH_CHARACTERS + 1))
            await client.aclose()
            await service.wait_ended(10)
        assert seen == [7, renewal.ljust(MAX_AUTH_CHARACTERS + 1), Cause.PEER]

    @pytest.mark.parametrize(
        "token",
        [
            "forged",
            auth.issue({"id": 8}),
            auth.issue({}),
            auth.issue({"id": 7}, expires_in=-1),
            JWTAuth("another secret of thirty-two bytes!").issue({"id": 7}),
        ],
    )
    async def test_what_is_not_accepted_changes_nothing(self, token: str, autojump_clock: Clock) -> None:
        """Another user's neither: the rooms it is in, and who it is among, are the first one's."""
        app, _ = door(self.auth)
        async with serving(app) as service:
            client = await self.connect(service, 60)
            await client.send_message(message_with(token))
            answer = json.loads(await client.get_message())
            assert (answer["type"], answer["message"][:25]) == ("error", "The token is not accepted")
            assert list(app.users) == ["7"]
            assert 59 < await self.lives(client) < 61.5

    async def test_a_role_that_has_been_lost(self, autojump_clock: Clock) -> None:
        app, _ = door(self.auth.requiring(roles=["admin"]))
        async with serving(app) as service:
            token = self.auth.issue({"id": 7, "roles": ["admin"]}, expires_in=60)
            client = await service.connect(subprotocols=["bearer", token])
            assert await client.get_message() == "welcome"
            await client.send_message(message_with(self.auth.issue({"id": 7, "roles": []})))
            answer = json.loads(await client.get_message())
            assert answer == {"type": "error", "message": "The token is not accepted: Forbidden"}
            assert 59 < await self.lives(client) < 61.5

    async def test_one_at_a_time(self, autojump_clock: Clock) -> None:
        """A client can't have us check more than one token at once, whatever checking takes."""
        auth = JWTAuth(jwks_url="https://keys.example")
        keys = auth._key_set = Server("a")
        app, _ = door(auth)
        async with serving(app) as service:
            client = await service.connect(subprotocols=["bearer", signed_with("a", {"id": 7})])
            assert await client.get_message() == "welcome"
            keys._fresh_until = keys._next_request = 0
            for _ in range(3):
                await client.send_message(message_with(signed_with("a", {"id": 7})))
            answers = [json.loads(await client.get_message()) for _ in range(3)]
            assert [answer["type"] for answer in answers] == ["error", "error", "authenticated"]
            await client.aclose()

    async def test_messages_that_look_like_it_are_the_handlers(self, autojump_clock: Clock) -> None:
        app, seen = door(self.auth)
        messages: list[str | bytes] = [
            '"auth"',
            '{"type":"auth"}',
            '{"type":"auth","token":null}',
            b'{"type":"auth","token":"x"}',
        ]
        async with serving(app) as service:
            client = await self.connect(service, 60)
            for message in messages:
                await client.send_message(message)
            await trio.sleep(1)
            assert seen[1:] == messages
            await client.aclose()

    async def test_without_authentication_it_is_a_message_like_others(self, autojump_clock: Clock) -> None:
        async with serving(echoing()) as service:
            client = await service.connect()
            await client.send_message(message_with("x"))
            assert await client.get_message() == message_with("x")
            await client.aclose()


@pytest.mark.parametrize("path", ["/coroutine", "/function"])
async def test_a_flood_over_a_socket(path: str, servers: Servers) -> None:
    """The worker's poller reads it: told once, closed with 1008, and let go of; the others go on meanwhile."""
    server = servers.get("tests.apps.limited:app")
    frames = wire.text("flood") * 10_000
    async with connect(f"ws://127.0.0.1:{server.port}/free") as other, wire.websocket(server.port, path) as flood:
        sent = 0

        async def send() -> None:
            nonlocal sent
            while await flood.send(frames):
                sent += len(frames)

        with trio.fail_after(20):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(send)
                code, echoes, refusals = None, 0, 0
                while (received := await flood.frame()) is not None:
                    first, payload = received
                    echoes += payload == b"flood"
                    refusals += b"Too many messages: at most 100 a second" in payload
                    if first == wire.FIN | wire.CLOSE:
                        code = int.from_bytes(payload[:2])
                for number in range(100):
                    await other.send({"n": number})
                    assert await other.receive() == {"n": number}
        assert (refusals, code) == (1, 1008)
        assert echoes <= 110, "(a coroutine may not have had a turn before the end: all of it comes in one read)"
        assert sent < 100 * len(frames), "it was not read to its end"
    async with connect(f"ws://127.0.0.1:{server.port}/ended") as peer:
        assert (await peer.receive())["rate"] >= 1
