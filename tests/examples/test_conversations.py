"""Every message of every sample, to the letter, over each way a client may come in."""

from __future__ import annotations

import re
import ssl
from contextlib import AbstractAsyncContextManager
from typing import Any

import httpx
import pytest

from examples.ticker import SYMBOLS
from tests.conftest import Servers
from tests.support.peers import Peer, Refused, connect

TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
WAYS = ["take-over", "plain", "tls", "http2"]


class Sample:
    """One sample, served in one way."""

    def __init__(self, name: str, way: str, servers: Servers) -> None:
        app = {"plain": "tests.apps.plain:app", "http2": "tests.apps.http2:app", "tls": "examples.demo:app"}
        alone = way == "take-over"  # by itself, as the example's file says; the other ways have all of them mounted
        server = servers.get(f"examples.{name}:app" if alone else app[way], tls=way == "tls")
        self.url = server.url + ("" if alone else f"/{name}")
        self.way = way
        self.tls: ssl.SSLContext | None = None
        if way == "tls":
            self.tls = ssl.create_default_context()
            servers.authority.configure_trust(self.tls)

    def connect(self, path: str = "/ws", **options: Any) -> AbstractAsyncContextManager[Peer]:
        url = self.url.replace("http", "ws", 1) + path
        return connect(url, tls=self.tls, http2=self.way == "http2", **options)

    async def post(self, path: str, **options: Any) -> httpx.Response:
        async with httpx.AsyncClient(verify=self.tls or True) as client:
            return await client.post(self.url + path, **options)


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def sample(way: str, servers: Servers, request: pytest.FixtureRequest) -> Sample:
    """The sample the test's class is named after."""
    assert request.cls is not None
    return Sample(request.cls.__name__.removeprefix("Test").lower(), way, servers)


ERROR = {"type": "error", "message": "Invalid JSON format"}


class TestEcho:
    async def test_welcome_echo_and_error(self, sample: Sample) -> None:
        async with sample.connect() as peer:
            assert await peer.receive() == {"type": "welcome", "message": "Welcome to the WebSocket server!"}
            for data in [{"type": "message", "text": "hi"}, [1, 2.5, None], "text", 7, None, {"ü": "€"}]:
                await peer.send(data if not isinstance(data, str) else f'"{data}"')
                assert await peer.receive() == {"type": "echo", "data": data}
            for text in ["hello", "{", "", "{'a': 1}", "[" * 5000, '{"a": NaN}', '"\\ud800"']:
                await peer.send(text)
                assert await peer.receive() == ERROR
            await peer.send({"still": "open"})
            assert await peer.receive() == {"type": "echo", "data": {"still": "open"}}


class TestBroadcast:
    async def test_a_chat(self, sample: Sample) -> None:
        async with sample.connect() as ana:
            assert await ana.receive() == {"type": "welcome", "message": "Welcome to the chat!", "userCount": 1}
            async with sample.connect() as ben:
                assert await ben.receive() == {"type": "welcome", "message": "Welcome to the chat!", "userCount": 2}
                joined = {"type": "system", "message": "A user has joined the chat", "userCount": 2}
                assert await ana.receive() == joined

                await ben.send({"type": "message", "username": "Ben", "text": "hello"})
                said = await ana.receive()
                assert TIMESTAMP.fullmatch(said.pop("timestamp"))
                assert said == {"type": "message", "sender": "Ben", "text": "hello"}

                for nameless in [{"text": "?"}, {"username": "", "text": "?"}, {"username": None, "text": "?"}]:
                    await ana.send(nameless)
                    said = await ben.receive()  # and not what it said itself
                    assert (said["sender"], said["text"]) == ("Anonymous", "?")

                await ana.send({"username": "Ana"})
                assert set(await ben.receive()) == {"type", "sender", "timestamp"}

                for text in ["no json", "[]", "5", "null", '"text"']:
                    await ana.send(text)
                    assert await ana.receive() == ERROR
            left = {"type": "system", "message": "A user has left the chat", "userCount": 1}
            assert await ana.receive() == left


class TestRooms:
    async def test_rooms_are_apart(self, sample: Sample) -> None:
        async with sample.connect("/ws/red") as ana, sample.connect("/ws/blue%20sky") as cy:
            assert await ana.receive() == {"type": "welcome", "room": "red", "userCount": 1}
            assert await cy.receive() == {"type": "welcome", "room": "blue sky", "userCount": 1}
            async with sample.connect("/ws/red") as ben:
                assert await ben.receive() == {"type": "welcome", "room": "red", "userCount": 2}
                joined = {"type": "system", "message": "A user has joined the room", "userCount": 2}
                assert await ana.receive() == joined
                await ana.send({"username": "Ana", "text": "hello"})
                said = await ben.receive()
                assert TIMESTAMP.fullmatch(said.pop("timestamp"))
                assert said == {"type": "message", "sender": "Ana", "text": "hello"}
                await cy.send("no json")
                assert await cy.receive() == ERROR  # the first thing that reaches the other room
            left = {"type": "system", "message": "A user has left the room", "userCount": 1}
            assert await ana.receive() == left
        async with sample.connect("/ws/red") as dee:  # the room was gone, and begins anew
            assert await dee.receive() == {"type": "welcome", "room": "red", "userCount": 1}


class TestAuth:
    async def login(self, sample: Sample, name: str) -> str:
        answer = await sample.post("/login", json={"username": name, "password": "password"})
        assert answer.status_code == 200
        assert set(answer.json()) == {"token"}
        return str(answer.json()["token"])

    async def test_login(self, sample: Sample) -> None:
        await self.login(sample, "admin")
        for wrong in [{"username": "admin", "password": "x"}, {"username": "x"}, {}, {"username": 5, "password": []}]:
            answer = await sample.post("/login", json=wrong)
            assert (answer.status_code, answer.json()) == (401, {"error": "Invalid credentials"})
        for body in [b"", b"{", b"[]", b"5", b"null", b"\xff", b"[" * 10_000]:
            answer = await sample.post("/login", content=body)
            assert answer.status_code == 400
            assert "Traceback" not in answer.text

    async def test_unauthorized(self, sample: Sample) -> None:
        token = await self.login(sample, "admin")
        for query in ["", "?token=", "?token=nonsense", f"?token={token[:-2]}", f"?token={token}x"]:
            with pytest.raises(Refused) as caught:
                async with sample.connect(f"/ws{query}"):
                    raise AssertionError("the upgrade was granted")
            assert (caught.value.status, caught.value.body) == (401, b"Unauthorized")

    async def test_direct_messages(self, sample: Sample) -> None:
        admin, guest = await self.login(sample, "admin"), await self.login(sample, "guest")
        async with sample.connect(f"/ws?token={admin}") as ana:
            welcome = await ana.receive()
            assert welcome["message"] == "Welcome, admin!"
            assert {key: welcome["user"][key] for key in ("id", "username")} == {"id": 1, "username": "admin"}
            await ana.send({"type": "direct", "to": 2, "text": "anybody?"})
            missing = {"type": "error", "message": "Recipient not found or not connected"}
            assert await ana.receive() == missing

            async with sample.connect(f"/ws?token={guest}") as ben:
                await ben.receive()
                async with sample.connect(f"/ws?token={guest}") as phone:  # one user, two connections
                    await phone.receive()
                    await ana.send({"type": "direct", "to": 2, "text": "hi"})
                    for peer in (ben, phone):
                        got = await peer.receive()
                        assert TIMESTAMP.fullmatch(got.pop("timestamp"))
                        assert got == {"type": "direct", "from": 1, "fromUsername": "admin", "text": "hi"}
                    sent = await ana.receive()
                    assert TIMESTAMP.fullmatch(sent.pop("timestamp"))
                    assert sent == {"type": "sent", "to": 2, "text": "hi"}
                await ana.send({"type": "direct", "to": "2", "text": "still there?"})
                assert (await ben.receive())["text"] == "still there?"
                assert (await ana.receive())["type"] == "sent"

                await ben.send({"text": "to all"})
                said = await ana.receive()
                assert TIMESTAMP.fullmatch(said.pop("timestamp"))
                assert said == {"type": "message", "from": 2, "fromUsername": "guest", "text": "to all"}
                await ben.send("no json")
                assert await ben.receive() == ERROR


class TestHeartbeat:
    async def test_welcome_and_pong(self, sample: Sample) -> None:
        async with sample.connect() as peer:
            assert await peer.receive() == {"type": "welcome", "message": "Welcome to the WebSocket server!"}
            await peer.send({"type": "pong"})  # consumed
            await peer.send({"type": "other"})
            assert await peer.receive() == {"type": "echo", "data": {"type": "other"}}


class TestTicker:
    async def test_prices(self, sample: Sample) -> None:
        async with sample.connect() as peer:
            await peer.send("what a client says does not matter")
            quotes = [await peer.receive() for _ in range(3 * len(SYMBOLS))]
            for place, quote in enumerate(quotes, quotes[0]["number"] * len(SYMBOLS)):
                price = quote.pop("price")
                assert price == round(price, 2) > 0
                assert quote == {"symbol": SYMBOLS[place % len(SYMBOLS)], "number": place // len(SYMBOLS)}
