"""A client that speaks the Centrifuge protocol in JSON, as the SDKs do: commands, their replies by id, and pushes."""

from __future__ import annotations

import gc
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import jwt
import trio
import trio.testing
import trio_websocket

from tests.support.memory import Service, serving
from verbtrio import App
from verbtrio.multiplex.client import Client
from verbtrio.multiplex.clock import Clock
from verbtrio.multiplex.life import SubscriptionLife
from verbtrio.multiplex.peer import ClientPeer
from verbtrio.multiplex.session import ClientSession
from verbtrio.multiplex.tokens import TokenTimer

PATH = "/connection/websocket"
KEY = "a secret of thirty-two bytes, or more"


def token(user: str = "ada", *, key: str = KEY, algorithm: str = "HS256", **claims: Any) -> str:
    """A token of `user`'s; it expires in an hour, unless `exp` says otherwise."""
    return jwt.encode({"sub": user, "exp": int(time.time()) + 3600} | claims, key, algorithm=algorithm)


def message_of(*commands: dict[str, Any]) -> str:
    """Several commands as one message."""
    return "\n".join(json.dumps(command) for command in commands)


class Speaker:
    """A client's side of one connection.

    Attributes:
        messages: all that has come, as it came.
        lines: the replies and pushes in them, in order, pings (`{}`) among them.
        closed: the code and the reason of the end; `None` while it is open.
        answers_pings: whether it does.
    """

    def __init__(self, ws: trio_websocket.WebSocketConnection) -> None:
        self.messages: list[str] = []
        self.lines: list[dict[str, Any]] = []
        self.closed: tuple[int, str] | None = None
        self.answers_pings = True
        self._ws = ws
        self._id = 0
        self._news = trio.Event()

    async def read(self) -> None:
        """Take what comes, until the end."""
        try:
            while True:
                message = await self._ws.get_message()
                assert isinstance(message, str)
                self.messages.append(message)
                lines = [json.loads(line) for line in message.split("\n")]
                self.lines += lines
                self._tell()
                if self.answers_pings and {} in lines:
                    await self.raw("{}")
        except trio_websocket.ConnectionClosed as error:
            self.closed = (1006, "") if error.reason is None else (error.reason.code, error.reason.reason or "")
            self._tell()

    def _tell(self) -> None:
        self._news.set()
        self._news = trio.Event()

    # What it says

    def command(self, method: str, /, **request: Any) -> dict[str, Any]:
        """A command with the next id."""
        self._id += 1
        return {"id": self._id, method: request}

    async def raw(self, message: str | bytes) -> None:
        """Send a message as it is. Whether the server still takes it doesn't matter."""
        try:
            await self._ws.send_message(message)
        except trio_websocket.ConnectionClosed:
            pass

    async def say(self, *commands: dict[str, Any]) -> None:
        """Send commands as one message."""
        await self.raw(message_of(*commands))

    async def ask(self, method: str, /, **request: Any) -> dict[str, Any]:
        """Send a command; its reply."""
        command = self.command(method, **request)
        await self.say(command)
        return await self.reply(command)

    async def refused(self, method: str, /, **request: Any) -> int:
        """Send a command; the code of the error that answers it."""
        reply = await self.ask(method, **request)
        return int(reply["error"]["code"])

    async def result(self, method: str, /, **request: Any) -> Any:
        """Send a command; what its reply has under the command's name."""
        reply = await self.ask(method, **request)
        assert method in reply, reply
        return reply[method]

    # What it has heard

    def replies(self, number: int) -> list[dict[str, Any]]:
        """The replies to the command with this id."""
        return [line for line in self.lines if line.get("id") == number]

    @property
    def pushes(self) -> list[dict[str, Any]]:
        return [line["push"] for line in self.lines if "push" in line]

    def of(self, kind: str, channel: str | None = None) -> list[Any]:
        """What pushes of this kind have, in order."""
        return [push[kind] for push in self.pushes if kind in push and channel in (None, push.get("channel"))]

    def published(self, channel: str | None = None) -> list[Any]:
        """The data of publications that were pushed."""
        return [publication["data"] for publication in self.of("pub", channel)]

    async def reply(self, command: dict[str, Any]) -> dict[str, Any]:
        """Wait for the reply to a command."""
        with trio.fail_after(300):
            while not (replies := self.replies(command["id"])):
                assert self.closed is None, f"closed instead: {self.closed}, {self.lines}"
                await self._news.wait()
        assert len(replies) == 1, "a command is answered once"
        return replies[0]

    async def end(self) -> tuple[int, str]:
        """Wait until the server has closed the connection; its code and reason."""
        with trio.fail_after(300):
            while self.closed is None:
                await self._news.wait()
        return self.closed

    # Its end

    def stall(self) -> trio.Event:
        """Read nothing more from now on, until the event is set."""
        go, stream = trio.Event(), self._ws._stream
        receive = stream.receive_some

        async def receive_later(*args: Any) -> Any:
            await go.wait()
            return await receive(*args)

        stream.receive_some = receive_later  # type: ignore[method-assign, assignment]  # this client's own
        return go

    async def close(self, code: int = 1000) -> None:
        await self._ws.aclose(code)

    async def hang_up(self) -> None:
        """Be gone, without a Close frame."""
        await trio.aclose_forcefully(self._ws._stream)


class ClientService:
    """A served app, and its clients."""

    def __init__(self, service: Service, nursery: trio.Nursery) -> None:
        self.service = service
        self.app = service.app
        self.hub = service.app._running_hub()
        self.speakers: list[Speaker] = []
        self._nursery = nursery

    async def open(self, path: str = PATH, **how: Any) -> Speaker:
        """A client that has not connected yet."""
        speaker = Speaker(await self.service.connect(path, **how))
        self.speakers.append(speaker)
        self._nursery.start_soon(speaker.read)
        return speaker

    async def client(self, path: str = PATH, /, *, headers: Any = None, **request: Any) -> Speaker:
        """A client that is connected."""
        speaker = await self.open(path, headers=headers)
        await speaker.result("connect", **request)
        return speaker

    @property
    def timers(self) -> int:
        """How many timers clients have, and their subscriptions."""
        owners = [getattr(timer.call, "__self__", None) for _, _, timer in self.hub.timers._heap]
        return sum(type(owner) in (Clock, TokenTimer) for owner in owners)

    async def settle(self) -> None:
        """Let everybody do what there is to do now."""
        await trio.testing.wait_all_tasks_blocked()


@asynccontextmanager
async def serving_clients(app: App) -> AsyncIterator[ClientService]:
    """Serve `app`; at the end hang up what is open, and check that nothing is left of any client."""
    before = {id(thing) for thing in _of_clients()}  # what a test has left that failed
    async with trio.open_nursery() as nursery, serving(app) as service:
        clients = ClientService(service, nursery)
        hub = clients.hub
        yield clients
        for speaker in clients.speakers:
            await speaker.close()
        await service.wait_ended(30)
        assert len(hub.client_news) == 0
        assert clients.timers == 0
    gc.collect()
    left = [thing for thing in _of_clients() if id(thing) not in before]
    assert not left, f"still referred to: {left}"


def _of_clients() -> list[object]:
    kinds = (Client, ClientPeer, ClientSession, SubscriptionLife)
    return [thing for thing in gc.get_objects() if type(thing) in kinds]
