"""A client without a WebSocket, cut off at every step of its life: nothing is left of it.

The same scene is played again and again. In the nth run, what is to end ends after the nth step that any task of the
app's has made; the last run is the one in which that does not come any more.
"""

from __future__ import annotations

import json
from functools import partial
from typing import Any

import pytest
import trio
from starlette.types import Message, Scope
from trio.abc import Clock, Instrument

from tests.support.streamed import emulated
from verbtrio import App, Cause, Client, CloseInfo, Limits, Subscription
from verbtrio.base.close import DRAINED

OF_CLIENTS = ("Request.", "verbtrio.routes", "verbtrio.http", "subscription to", "call ")


CODES = {"kicked": 3503, "drained": 3001}
KICKED = CloseInfo(Cause.KICKED, 1008, "out")


class Cut(Instrument):
    """Calls a function after so many steps of the clients' tasks."""

    def __init__(self, steps: int, function: Any) -> None:
        self._left = steps
        self._function = function
        self.failure: BaseException | None = None

    @property
    def has_come(self) -> bool:
        return self._left <= 0

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        if any(name in task.name for name in OF_CLIENTS):
            self._left -= 1
            if self._left == 0:
                try:
                    self._function()
                except BaseException as error:
                    self.failure = error


class Request:
    """A request to the app itself, without a server."""

    def __init__(self, app: App, path: str, body: bytes) -> None:
        self.status = 0
        self.body = b""
        self.is_whole = False
        self.over = trio.Event()
        self.scope = trio.CancelScope()
        self.gone = trio.Event()
        self.news = trio.Event()
        self._app = app
        self._path = path
        self._messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def run(self) -> None:
        head = [(b"host", b"test"), (b"content-type", b"application/json")]
        scope: Scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "POST",
            "scheme": "http",
            "path": self._path,
            "raw_path": self._path.encode(),
            "root_path": "",
            "query_string": b"",
            "headers": head,
            "client": ("127.0.0.1", 1),
            "server": ("test", 80),
        }
        try:
            with self.scope:
                await self._app(scope, self._receive, self._send)
        finally:
            self.over.set()
            self.news.set()

    async def _receive(self) -> Message:
        await trio.lowlevel.checkpoint()
        if self._messages:
            return self._messages.pop()
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        await trio.lowlevel.checkpoint()
        if message["type"] == "http.response.start":
            self.status = message["status"]
        else:
            self.body += message["body"]
            self.is_whole = not message.get("more_body", False)
        self.news.set()
        self.news = trio.Event()

    @property
    def lines(self) -> list[Any]:
        return [json.loads(line) for line in self.body.splitlines()]

    async def until(self, number: int) -> Any:
        """Wait for a reply; `None` where the response has ended before."""
        while not (found := [line for line in self.lines if line.get("id") == number]):
            if self.over.is_set():
                return None
            await self.news.wait()
        return found[0]


class Scene:
    """An app, and what one of its clients does."""

    def __init__(self) -> None:
        self.running: list[str] = []
        app = self.app = App(limits=Limits(max_inbox_messages=3))

        class Slow:
            async def authenticate(self, token: str) -> dict[str, Any]:
                await trio.sleep(0.01)
                return {"sub": "ada"}

        app.centrifuge("/connection", auth=Slow(), personal="#{user}")
        app.rooms("#{user}")
        app.rooms("chat", presence=True)(self.chat)
        app.call("work")(self.work)

    async def chat(self, sub: Subscription) -> None:
        self.running.append("chat")
        try:
            async for said in sub:
                await sub.publish(said)
        finally:
            self.running.remove("chat")

    async def work(self, client: Client) -> int:
        self.running.append("work")
        try:
            await trio.sleep(0.01)
            return 1
        finally:
            self.running.remove("work")

    async def play(self, nursery: trio.Nursery, requests: list[Request]) -> None:
        main = requests[0]
        nursery.start_soon(main.run)
        if (reply := await main.until(1)) is None or "connect" not in reply:
            return
        result = reply["connect"]
        commands: list[Any] = [
            {"id": 2, "subscribe": {"channel": "chat"}},
            {"id": 3, "refresh": {"token": "x"}},
            {"id": 4, "rpc": {"method": "work"}},
            {"id": 5, "publish": {"channel": "chat", "data": 1}},
            {"id": 6, "refresh": {"token": "x"}},
        ]
        for command in commands:
            data = json.dumps(command).encode()
            request = Request(self.app, "/emulation", emulated("http_stream", result["session"], result["node"], data))
            requests.append(request)
            nursery.start_soon(request.run)
        with trio.move_on_after(0.2):
            await main.until(99)
        if not main.over.is_set():
            main.gone.set()


@pytest.mark.parametrize("how", ["cancelled", "gone", "kicked", "drained", "commands"])
async def test_a_client_is_cut_off(how: str, autojump_clock: Clock) -> None:
    scene = Scene()
    app = scene.app
    async with app.lifespan():
        hub = app._running_hub()
        told = 0
        for steps in range(1, 1000):
            main = Request(app, "/connection/http_stream", b'{"id":1,"connect":{"token":"x"}}')
            requests = [main]

            ways = {
                "cancelled": main.scope.cancel,
                "gone": main.gone.set,
                "kicked": partial(_end_all, hub._drain.streams, KICKED),
                "drained": partial(_end_all, hub._drain.streams, DRAINED),
                "commands": partial(_cancel_commands, requests),
            }
            cut = Cut(steps, ways[how])
            trio.lowlevel.add_instrument(cut)
            try:
                with trio.fail_after(5):
                    async with trio.open_nursery() as nursery:
                        await scene.play(nursery, requests)
            finally:
                trio.lowlevel.remove_instrument(cut)
            assert cut.failure is None
            assert scene.running == []
            statistics = app.statistics()
            assert (statistics.streams, statistics.rooms, statistics.memberships, statistics.users) == (0, 0, 0, 0)
            assert statistics.opened == sum(statistics.ended.values())
            assert len(hub.streamed_clients) == len(hub.client_news) == len(hub.quotas) == 0
            assert {request.status for request in requests[1:]} <= {0, 204, 404}
            if how in CODES and cut.has_come and not main.gone.is_set():
                assert main.is_whole
                assert main.lines[-1]["push"]["disconnect"]["code"] == CODES[how]
                told += 1
            if not cut.has_come:
                break
        assert told > 20 or how not in CODES, "their last words"
        assert steps > 50
        assert {line.get("id") for line in main.lines} >= {1, 2, 3, 4, 5, 6}, "the last run is whole"


def _end_all(streams: set[Any], info: CloseInfo) -> None:
    for stream in tuple(streams):
        stream.end(info)


def _cancel_commands(requests: list[Request]) -> None:
    for request in requests[1:]:
        request.scope.cancel()
