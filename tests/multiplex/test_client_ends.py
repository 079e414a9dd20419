"""How clients' connections end: the code and the reason that go out for each cause, and that nothing is left then."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.abc import Clock

from tests.support.commands import KEY, PATH, ClientService, Speaker, serving_clients, token
from tests.support.memory import shake_hands, socket_stream_pair
from tests.support.tasks import Failure, errors
from verbtrio import App, Cause, Client, CloseInfo, Limits, Subscription, WebSocket
from verbtrio.auth import JWTAuth
from verbtrio.base.close import DRAINED, PEERS_ENDS, RETURNED
from verbtrio.protocols import codes

CODES = {
    Cause.RETURNED: 3000,
    Cause.ERROR: 3004,
    Cause.HEARTBEAT: 3012,
    Cause.EXPIRED: 3005,
    Cause.SLOW: 3008,
    Cause.RATE: 3013,
    Cause.UNAUTHENTICATED: 3500,
    Cause.SIZE: 1009,
    Cause.DENIED: 3507,
    Cause.INVALID: 3509,
    Cause.PROTOCOL: 1002,
    Cause.CLOSED: 3000,
    Cause.KICKED: 3503,
    Cause.DRAIN: 3001,
}
PLAIN = {Cause.SIZE: 1009, Cause.PROTOCOL: 1002, Cause.DRAIN: 1012, Cause.ERROR: 1011, Cause.RETURNED: 1000}
"""The codes that plain WebSockets have for these causes; for the others 1008."""


class TestClosing:
    @pytest.mark.parametrize("cause", [cause for cause in Cause if cause not in PEERS_ENDS])
    def test_each_cause_has_its_code(self, cause: Cause) -> None:
        info = codes.closing(CloseInfo(cause, PLAIN.get(cause, 1008), "", None))
        assert (info.cause, info.code) == (cause, CODES[cause])
        assert info.reason

    @pytest.mark.parametrize("cause", PEERS_ENDS)
    def test_what_the_peer_has_said_stays(self, cause: Cause) -> None:
        info = CloseInfo(cause, 1006)
        assert codes.closing(info) is info

    def test_known_ends(self) -> None:
        assert codes.closing(DRAINED) == CloseInfo(Cause.DRAIN, 3001, "shutdown")
        assert codes.closing(RETURNED) == CloseInfo(Cause.RETURNED, 3000, "connection closed")
        full = codes.closing(CloseInfo(Cause.RATE, 1013, "Too many connections"))
        assert full == CloseInfo(Cause.RATE, 3504, "connection limit")
        given = codes.closing(CloseInfo(Cause.KICKED, 1008, "You are banned"))
        assert given == CloseInfo(Cause.KICKED, 3503, "You are banned")
        own = codes.closing(CloseInfo(Cause.CLOSED, 4004, "gone"))
        assert own == CloseInfo(Cause.CLOSED, 4004, "gone")

    @given(
        st.sampled_from([cause for cause in Cause if cause not in PEERS_ENDS]),
        st.sampled_from([1000, 1008, 1011, 1013, 3000, 3503, 4000, 4999]),
        st.text(max_size=30) | st.sampled_from(["12", " 1 ", "null", "[]", '"x"', "1e999", "-0", "NaN", "{}"]),
    )  # fmt: skip
    def test_a_reason_is_never_empty_and_never_json(self, cause: Cause, code: int, reason: str) -> None:
        said = codes.closing(CloseInfo(cause, code, reason)).reason
        assert said.strip()
        assert len(said.encode(errors="replace")) <= 123
        with pytest.raises(json.JSONDecodeError):
            json.loads(said)

    @given(st.integers(0, 123))
    def test_a_reason_fits(self, size: int) -> None:
        said = codes.closing(CloseInfo(Cause.CLOSED, 4000, "1" * size)).reason
        assert 0 < len(said) <= 123


def app_with(limits: Limits | None = None, **settings: Any) -> App:
    app = App(limits=limits)
    app.centrifuge("/connection", auth=JWTAuth(KEY), anonymous=True, **settings)
    app.rooms("open:{name}", subscribe=True)
    return app


class Life:
    """A busy client: it is in rooms, one of them with a handler, and calls a function. It knows what still runs."""

    def __init__(self, app: App) -> None:
        self.running = 0
        self.ended: list[str] = []
        self.heard: list[Any] = []

        @app.rooms("chat:{name}", presence=True, join_leave=True)
        async def chat(sub: Subscription) -> None:
            sub.nursery.start_soon(self.run, "child", 100)
            sub.client.nursery.start_soon(self.run, "client's", 100)
            try:
                async for said in sub:
                    self.heard.append(said)
                await self.run("handler", 0.05)
            finally:
                self.ended.append("chat")

        @app.call("work")
        async def work(client: Client) -> None:
            await self.run("call", 100)

    async def run(self, what: str, seconds: float) -> None:
        self.running += 1
        try:
            await trio.sleep(seconds)
            self.ended.append(f"{what} done")
        finally:
            self.running -= 1

    async def begin(self, clients: ClientService) -> Speaker:
        speaker = await clients.client(token=token(channels=["plain"]))
        await speaker.result("subscribe", channel="open:a")
        await speaker.result("subscribe", channel="chat:a", join_leave=True)
        await speaker.say(speaker.command("rpc", method="work"))
        await clients.settle()
        assert self.running == 3
        return speaker


def _only(clients: ClientService) -> Client:
    (client,) = clients.app.connections.here
    assert isinstance(client, Client)
    return client


async def _disconnect(clients: ClientService) -> None:
    await _only(clients).disconnect()


async def _disconnect_4004(clients: ClientService) -> None:
    await _only(clients).disconnect(4004, "no more")


async def _close_nowait(clients: ClientService) -> None:
    _only(clients).close_nowait(1000, "bye")


async def _disconnect_user(clients: ClientService) -> None:
    assert await clients.app.users.disconnect("ada", reason="banned") == 1


async def _disconnect_user_nowait(clients: ClientService) -> None:
    assert clients.app.users.disconnect_nowait("ada", code=4100) == 1


async def _close_all(clients: ClientService) -> None:
    assert clients.app.connections.close() == 1


async def _kick_all(clients: ClientService) -> None:
    assert clients.app.connections.kick(_only(clients), code=3005, reason="12") == 1


async def _kick_user(clients: ClientService) -> None:
    assert clients.app.connections.kick(user="ada") == 1


async def _drain(clients: ClientService) -> None:
    await clients.service.shut_down()


async def _cancel(clients: ClientService) -> None:
    _only(clients).nursery.cancel_scope.cancel()


async def _bad(clients: ClientService) -> None:
    await clients.speakers[0].raw("x")


ENDS: dict[str, tuple[Callable[[ClientService], Any], int, str, Cause]] = {
    "disconnect": (_disconnect, 3503, "force disconnect", Cause.KICKED),
    "disconnect with a code": (_disconnect_4004, 4004, "no more", Cause.KICKED),
    "close_nowait": (_close_nowait, 3503, "bye", Cause.KICKED),
    "users.disconnect": (_disconnect_user, 3503, "banned", Cause.KICKED),
    "users.disconnect_nowait": (_disconnect_user_nowait, 4100, "disconnected", Cause.KICKED),
    "connections.close": (_close_all, 3503, "force disconnect", Cause.KICKED),
    "connections.kick": (_kick_all, 3005, "closed: 12", Cause.KICKED),
    "connections.kick of a user": (_kick_user, 3503, "force disconnect", Cause.KICKED),
    "drain": (_drain, 3001, "shutdown", Cause.DRAIN),
    "its nursery cancelled": (_cancel, 3000, "connection closed", Cause.RETURNED),
    "a message that can't be read": (_bad, 3501, "bad request", Cause.PROTOCOL),
}


@pytest.mark.parametrize("name", ENDS)
async def test_an_end_of_the_servers(name: str, autojump_clock: Clock) -> None:
    end, code, reason, cause = ENDS[name]
    app = app_with()
    life = Life(app)
    async with serving_clients(app) as clients:
        speaker = await life.begin(clients)
        app.room("plain").broadcast("last words")
        await end(clients)
        assert await speaker.end() == (code, reason)
        assert speaker.published("plain") == ["last words"]
        assert speaker.of("unsubscribe") == [], "all of it ends by one code"
        statistics = app.statistics()
        assert (statistics.connections, statistics.memberships, statistics.users) == (0, 0, 0)
        assert (len(clients.hub.client_news), clients.timers) == (0, 0)
        await clients.service.wait_ended(10)
        assert life.running == 0
        assert "chat" in life.ended
        assert app.statistics().ended == {cause: 1}


@pytest.mark.parametrize("end", [Speaker.close, Speaker.hang_up], ids=["a Close frame", "without one"])
async def test_an_end_of_the_clients(end: Any, autojump_clock: Clock) -> None:
    app = app_with()
    life = Life(app)
    async with serving_clients(app) as clients:
        speaker = await life.begin(clients)
        await speaker.say(*[speaker.command("publish", channel="chat:a", data=n) for n in range(60)])
        await end(speaker)
        await clients.settle()
        statistics = app.statistics()
        assert (statistics.connections, statistics.memberships, statistics.users) == (0, 0, 0)
        assert (len(clients.hub.client_news), clients.timers) == (0, 0)
        assert life.heard == list(range(60)), "what came before is handled, more than a turn's commands, too"
        await clients.service.wait_ended(1)
        assert life.running == 0
        assert life.ended == ["handler done", "chat"], "it has its grace"


async def test_what_was_published_behind_a_command_that_waits(autojump_clock: Clock) -> None:
    """It is still in the inbox when the client has gone: it was sent before."""

    class Slow(JWTAuth):
        async def authenticate(self, token: str) -> dict[str, Any]:
            await trio.sleep(0.03)
            return await super().authenticate(token)

    app = App()
    app.centrifuge("/connection", auth=Slow(KEY))
    life = Life(app)
    app.rooms("talk:{name}", publish=True)
    heard: list[Any] = []

    @app.ws("/ws")
    async def plain(ws: WebSocket) -> None:
        await ws.join("talk:a")
        await trio.sleep_forever()

    async with serving_clients(app) as clients:
        speaker, old = await clients.client(token=token()), await clients.service.connect("/ws")
        for channel in ("chat:a", "talk:a"):
            await speaker.result("subscribe", channel=channel)
        await speaker.say(speaker.command("refresh", token=token()))
        await speaker.say(*[speaker.command("publish", channel="chat:a", data=n) for n in range(3)])
        await speaker.say(speaker.command("publish", channel="talk:a", data=5), speaker.command("rpc", method="work"))
        await speaker.close()
        await trio.sleep(1)
        assert life.heard == [0, 1, 2]
        heard.append(await old.get_message())
        assert heard == ["5"]
        assert life.running == 0
        await old.aclose()


async def test_a_room_of_its_route(autojump_clock: Clock) -> None:
    app = app_with()
    async with serving_clients(app) as clients:
        speaker = await clients.client()
        client = _only(clients)
        route = app.connections.here and client.scope["verbtrio.route"]
        del client
        assert clients.hub.rooms.dismiss(route, None, CloseInfo(Cause.KICKED, 1008, "out")) == 1
        assert await speaker.end() == (3503, "out")


async def test_a_client_closes_itself(autojump_clock: Clock) -> None:
    """By a task of its own: the cause is another, the codes are the same."""
    app = app_with()

    @app.call("bye")
    async def bye(client: Client, data: list[Any]) -> None:
        await client.disconnect(*data)
        await trio.sleep_forever()

    async with serving_clients(app) as clients:
        for data, end in (
            ([], (3503, "force disconnect")),
            ([4500, "x"], (4500, "x")),
            ([1000], (3000, "connection closed")),
        ):
            speaker = await clients.client()
            await speaker.say(speaker.command("rpc", method="bye", data=data))
            assert await speaker.end() == end
        assert app.statistics().ended == {Cause.CLOSED: 3}


async def test_a_code_that_must_not_be_sent(autojump_clock: Clock) -> None:
    async with serving_clients(app_with()) as clients:
        await clients.client()
        for code in (1005, 2999, 5000):
            with pytest.raises(ValueError, match="must not be sent"):
                await _only(clients).disconnect(code)
        with pytest.raises(TypeError):
            await _only(clients).disconnect("3000")  # type: ignore[arg-type]  # a mistake
        assert _only(clients).closed is None


async def test_a_bug_of_ours_ends_the_client_alone(
    autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken:
        async def authenticate(self, token: str) -> dict[str, Any]:
            raise Failure("a secret")

    app = App()
    app.centrifuge("/connection", auth=Broken(), anonymous=True)
    async with serving_clients(app) as clients:
        other = await clients.client()
        speaker = await clients.open()
        await speaker.say(speaker.command("connect", token="x"))
        assert await speaker.end() == (3004, "internal server error")
        assert [type(error) for error in errors(caplog)] == [Failure]
        assert other.closed is None


class TestTheWire:
    @pytest.mark.parametrize(
        ("sent", "code"),
        [(b"\x81\x02hi", 1002), (b"\x81\x81\0\0\0\0\xff", 1007), (b"\x81\xfe\x08\x00" + bytes(2052), 1009)],
        ids=["not masked", "not UTF-8", "too large"],
    )
    async def test_keeps_its_codes(self, sent: bytes, code: int, autojump_clock: Clock) -> None:
        async with serving_clients(app_with(Limits(max_message_bytes=2000))) as clients:
            stream = clients.service.open_stream()
            await shake_hands(stream, PATH)
            await stream.send_all(sent)
            received = b""
            with trio.fail_after(30):
                while data := await stream.receive_some():
                    received += data
            assert received[0] == 0x88
            assert int.from_bytes(received[2:4], "big") == code

    async def test_a_client_that_does_not_read(self, autojump_clock: Clock) -> None:
        app = app_with(Limits(max_backlog_bytes=100_000))
        async with serving_clients(app) as clients:
            speaker = await clients.open(pair=socket_stream_pair)
            await speaker.result("connect", token=token(channels=["plain"]))
            statistics = None
            stream = speaker.stall()
            for _ in range(400):
                app.room("plain").broadcast("x" * 10_000)
                await trio.lowlevel.checkpoint()
                if not app.connections.here:
                    statistics = app.statistics()
                    break
            assert statistics is not None
            assert (statistics.memberships, statistics.ended) == (0, {Cause.SLOW: 1})
            stream.set()
            assert await speaker.end() == (3008, "slow")
