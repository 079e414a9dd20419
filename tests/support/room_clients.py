"""What a test of rooms has in its hands: a room's task, a delay of the history, and a client's side of a connection."""

from __future__ import annotations

import json
from typing import Any

import trio

from tests.support.room_model import ROOMS, Client, Join
from tests.support.tasks import Failure
from verbtrio import App, Room, WebSocket


class RoomTask:
    """The task of the rooms `game:...`, in one app."""

    def __init__(self) -> None:
        self.is_slow = False
        self.running = self.begun = 0
        self._may_start = self._told = trio.Event()

    async def run(self, room: Room, *, task_status: trio.TaskStatus[None]) -> None:
        self.begun += 1
        self.running += 1
        assert self.running == 1, "never two at once"
        try:
            self._may_start, self._told = trio.Event(), trio.Event()
            if self.is_slow:
                await self._may_start.wait()
            task_status.started()
            await self._told.wait()
            raise Failure
        finally:
            self.running -= 1

    def start(self) -> None:
        self.is_slow = False
        self._may_start.set()

    def crash(self) -> None:
        self._told.set()


class Gate:
    """Delays the answers to those who read a history."""

    def __init__(self) -> None:
        self.mode = ""
        self.waiting: list[trio.Event] = []

    def delay(self, app: App) -> None:
        session = app._running_hub().host.session
        history = session.history

        async def delayed(*arguments: Any, **named: Any) -> Any:
            mode = self.mode
            if mode == "before":
                await self._wait()
            page = await history(*arguments, **named)
            if mode == "after":
                await self._wait()
            return page

        session.history = delayed  # type: ignore[method-assign]  # this test's own delay

    async def _wait(self) -> None:
        self.waiting.append(trio.Event())
        await self.waiting[-1].wait()


class Connection:
    """A client's side: what has come, and what whoever waits for its joins has got.

    Attributes:
        heard: the numbers of the messages, by room.
        views: who is present, as the client has been told, by room.
    """

    def __init__(self, model: Client, stream: Any, ws: WebSocket, known: dict[str, dict[int, str]]) -> None:
        self.model = model
        self.stream = stream
        self.ws = ws
        self.known = known  # the positions of what it has got, by room and number: they outlive the connection
        self.heard: dict[str, list[int]] = {name: [] for name in ROOMS}
        self.views: dict[str, dict[str, Any]] = {}
        self.memberships: dict[str, Any] = {}
        self.outcomes: dict[Join, str] = {}
        self._data = bytearray()
        self._awake = trio.Event()
        self._awake.set()
        self._reading = trio.CancelScope()

    async def read(self) -> None:
        while True:
            await self._awake.wait()
            with trio.CancelScope() as self._reading:
                try:
                    data = await self.stream.receive_some(65536)
                except (trio.ClosedResourceError, trio.BrokenResourceError):
                    return
                if not data:
                    return
                self._data += data
                self._parse()

    def stall(self) -> None:
        self._awake = trio.Event()
        self._reading.cancel()

    def wake(self) -> None:
        self._awake.set()

    async def wait(self, join: Join, membership: Any) -> None:
        try:
            await membership
        except Exception as error:
            self.outcomes[join] = type(error).__name__
        else:
            self.outcomes[join] = "in"

    def _parse(self) -> None:
        while len(self._data) >= 4:
            size, start = self._data[1], 2
            if size == 126:
                size, start = int.from_bytes(self._data[2:4], "big"), 4
            if len(self._data) < start + size:
                return
            payload, is_text = bytes(self._data[start : start + size]), self._data[0] == 0x81
            del self._data[: start + size]
            if is_text:
                self._hear(json.loads(payload))

    def _hear(self, message: dict[str, Any]) -> None:
        room = message["room"]
        match message.get("type"):
            case "presence_state":
                self.views[room] = message["users"]
            case "presence_diff":
                view = self.views[room]  # nobody is told of changes before the state
                view.update(message["joins"])
                view.update(message["updates"])
                for user in message["leaves"]:
                    view.pop(user, None)
            case _:
                self.heard[room].append(message["n"])
                if "position" in message:
                    self.known[room][message["n"]] = message["position"]


async def shake_hands(stream: trio.abc.Stream, path: str) -> None:
    request = f"GET {path} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    request += "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    await stream.send_all(request.encode())
    answer = b""
    while not answer.endswith(b"\r\n\r\n"):
        answer += await stream.receive_some(1000)
