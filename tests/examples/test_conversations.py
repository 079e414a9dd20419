"""Every message of every sample, to the letter, over each way a client may come in."""

from __future__ import annotations

import re
import ssl
from contextlib import AbstractAsyncContextManager
from itertools import count
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


class TestTeamchat:
    ADA, BOB = {"name": "Ada"}, {"name": "Bob"}
    TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{6})?Z")

    async def login(self, sample: Sample, name: str) -> str:
        answer = await sample.post("/login", json={"username": name, "password": "password"})
        assert answer.status_code == 200
        return str(answer.json()["token"])

    async def hear(self, peer: Peer, *, joins: bool = False) -> Any:
        """The next message, without its time. `joins`: also one that tells who has come. In how many messages that is
        told, and whether somebody who has just come is told of it again, depends on the time between."""
        heard = await peer.receive()
        while heard["type"] == "presence_diff" and heard["joins"] and not joins:
            heard = await peer.receive()
        for message in [heard, *heard.get("messages", ())]:
            assert "at" not in message or self.TIME.fullmatch(message.pop("at"))
        return heard

    async def join(self, peer: Peer, since: str | None = None) -> list[Any]:
        """Join the room "random"; give what comes before the answer."""
        await peer.send({"type": "join", "room": "random", "since": since, "ref": "join"})
        heard = [await self.hear(peer)]
        while heard[-1]["type"] not in ("done", "error"):
            heard.append(await self.hear(peer))
        assert heard.pop() == {"type": "done", "ref": "join"}
        return heard

    def state(self, **users: Any) -> Any:
        return {"type": "presence_state", "room": "random", "users": users}

    def diff(self, **changes: Any) -> Any:
        return {"type": "presence_diff", "room": "random", "joins": {}, "updates": {}, "leaves": {}} | changes

    def said(self, by: str, text: str, **position: str) -> Any:
        return {"type": "said", "room": "random", "text": text, "by": by, "name": by.title(), **position}

    async def test_login(self, sample: Sample) -> None:
        for wrong in [{"username": "ada", "password": "x"}, {"username": "x", "password": "password"}]:
            answer = await sample.post("/login", json=wrong)
            assert (answer.status_code, answer.json()) == (401, {"error": "Invalid credentials"})
        for body in [b"{", b"[]", b"[" * 10_000]:
            assert (await sample.post("/login", content=body)).status_code == 400
        with pytest.raises(Refused) as caught:
            async with sample.connect("/ws"):
                raise AssertionError("the upgrade was granted")
        assert (caught.value.status, caught.value.body) == (401, b"Unauthorized")

    async def test_a_team(self, sample: Sample) -> None:
        tokens = {name: await self.login(sample, name) for name in ("ada", "bob")}
        path = "/rooms/random/messages"
        async with (
            sample.connect(f"/ws?token={tokens['ada']}") as ada,
            sample.connect(f"/ws?token={tokens['bob']}") as bob,
        ):
            rooms = ["general", "random", "leads"]
            assert await self.hear(ada) == {"type": "welcome", "id": "ada", "name": "Ada", "rooms": rooms}
            assert await self.hear(bob) == {"type": "welcome", "id": "bob", "name": "Bob", "rooms": rooms[:2]}
            history, state = await self.join(ada)
            epoch, _, offset = history.pop("position").partition(":")
            assert (history, offset) == ({"type": "history", "room": "random", "messages": []}, "0")
            assert state == self.state(ada=self.ADA)
            assert (await self.join(bob))[1] == self.state(ada=self.ADA, bob=self.BOB)
            come: dict[str, Any] = {}
            while "bob" not in come:
                news = await self.hear(ada, joins=True)
                come |= news["joins"]
                assert news == self.diff(joins=news["joins"])
            assert come.items() <= {"ada": self.ADA, "bob": self.BOB}.items()

            await ada.send({"type": "say", "room": "random", "text": "hello", "ref": 1})
            first = {"position": f"{epoch}:1"}
            assert await self.hear(ada) == await self.hear(bob) == self.said("ada", "hello", **first)
            assert await self.hear(ada) == {"type": "done", **first, "ref": 1}

            await bob.send({"type": "typing", "room": "random"})  # without a ref: no answer
            typing = {"type": "typing", "room": "random", "by": "bob", "name": "Bob"}
            assert await self.hear(ada) == typing

            await bob.send({"type": "direct", "to": "ada", "text": "psst", "ref": 2})
            direct = {"type": "direct", "to": "ada", "text": "psst", "by": "bob", "name": "Bob"}
            assert await self.hear(ada) == await self.hear(bob) == direct
            assert await self.hear(bob) == {"type": "done", "ref": 2}
            await ada.send({"type": "direct", "to": "ada", "text": "a note", "ref": 3})  # once, to herself
            assert (await self.hear(ada))["text"] == "a note"
            assert await self.hear(ada) == {"type": "done", "ref": 3}
            for to, name in (("cy", "Cy"), ("dee", "dee")):
                await ada.send({"type": "direct", "to": to, "text": "psst", "ref": 4})
                assert await self.hear(ada) == {"type": "error", "message": f"{name} is not connected", "ref": 4}

            bearer = {"Authorization": f"Bearer {tokens['bob']}"}
            answer = await sample.post(path, json={"text": "by HTTP"}, headers=bearer)
            assert (answer.status_code, answer.json()) == (201, {"position": f"{epoch}:2"})
            second = self.said("bob", "by HTTP", position=f"{epoch}:2")
            assert await self.hear(ada) == await self.hear(bob) == second
            assert (await sample.post(path, json={"text": "?"})).status_code == 401
            for room in ("leads", "none"):
                answer = await sample.post(f"/rooms/{room}/messages", json={"text": "?"}, headers=bearer)
                assert answer.status_code == 403
            for body in [b"{}", b'{"text": ""}', b'{"text": "' + b"x" * 2001 + b'"}']:
                assert (await sample.post(path, content=body, headers=bearer)).status_code == 400

            for no in [
                {"type": "join", "room": "leads"},
                {"type": "join", "room": "a:b"},
                {"type": "join", "room": ""},
                {"type": "say", "room": "general", "text": "from outside"},
                {"type": "typing", "room": "general"},
            ]:
                await bob.send({**no, "ref": 5})
                why = "You may not enter this room, or are not in it"
                assert await self.hear(bob) == {"type": "error", "message": why, "ref": 5}
            await bob.send({"type": "say", "room": "random", "text": "", "ref": 6})
            why = "Expected `str` of length >= 1 - at `$.text`"
            assert await self.hear(bob) == {"type": "error", "message": why, "ref": 6}

            await bob.send({"type": "leave", "room": "random", "ref": 7})
            assert await self.hear(bob) == {"type": "done", "ref": 7}
            assert await self.hear(ada) == self.diff(leaves={"bob": self.BOB})
            await bob.send({"type": "leave", "room": "random", "ref": 8})  # again
            assert await self.hear(bob) == {"type": "done", "ref": 8}

            # He comes back: to what he has missed; from nowhere one can come from; and as somebody new.
            state = self.state(ada=self.ADA, bob=self.BOB)
            assert await self.join(bob, f"{epoch}:1") == [second, state]
            assert await self.join(bob, f"{epoch}:1") == []  # he is there already
            history = {"type": "history", "room": "random", "position": f"{epoch}:2"}
            history["messages"] = [self.said("ada", "hello"), self.said("bob", "by HTTP")]
            await bob.send({"type": "leave", "room": "random"})
            gap = {"type": "gap", "room": "random"}
            for since, expected in (("nonsense", [gap, history, state]), (None, [history, state])):
                assert await self.join(bob, since) == expected
                await bob.send({"type": "leave", "room": "random"})


class TestCentrifuge:
    """In the protocol's commands. (What is published is in tests/examples/test_centrifuge.py.)"""

    async def test_a_client(self, sample: Sample) -> None:
        numbers = count(1)
        login = await sample.post("/login", json={"username": "ada", "password": "password"})
        async with sample.connect("/connection/websocket") as ada:

            async def ask(**command: Any) -> Any:
                number = next(numbers)
                await ada.send({"id": number, **command})
                reply = await ada.receive()
                assert reply.pop("id") == number
                return reply

            connected = await ask(connect=login.json())
            me = connected["connect"].pop("client")
            assert 3590 <= connected["connect"].pop("ttl") <= 3600
            rooms = {"user": "ada", "name": "Ada", "rooms": ["general", "random", "leads"]}
            assert connected["connect"] == {
                "version": "verbtrio",
                "expires": True,
                "data": rooms,
                "ping": 25,
                "pong": True,
            }

            subscribed = await ask(subscribe={"channel": "chat:leads"})
            assert subscribed["subscribe"].pop("epoch")
            topic = {"topic": "Who does what"}
            assert subscribed == {"subscribe": {"recoverable": True, "positioned": True, "data": topic}}
            present = {me: {"user": "ada", "client": me, "conn_info": {"name": "Ada"}}}
            assert await ask(presence={"channel": "chat:leads"}) == {"presence": {"presence": present}}
            assert await ask(unsubscribe={"channel": "chat:leads"}) == {"unsubscribe": {}}

            refused = {"code": 1001, "message": "You are not in this room"}
            assert await ask(rpc={"method": "roll", "data": {"room": "leads"}}) == {"error": refused}
            await ada.send({"id": next(numbers), "rpc": {"method": "cut"}})
            assert await ada.closed() == (4000, "you cut the line")


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
