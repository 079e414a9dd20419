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
from trio.abc import Clock, Instrument

from tests.support.streamed import ASGIRequest, emulated
from verbtrio import App, Cause, Client, CloseInfo, Limits, Subscription
from verbtrio.base.close import DRAINED

OF_CLIENTS = ("ASGIRequest.", "verbtrio.routes", "verbtrio.http", "subscription to", "call ")


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

    async def play(self, nursery: trio.Nursery, requests: list[ASGIRequest]) -> None:
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
            request = ASGIRequest(
                self.app, "/emulation", emulated("http_stream", result["session"], result["node"], data)
            )
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
            main = ASGIRequest(app, "/connection/http_stream", b'{"id":1,"connect":{"token":"x"}}')
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


def _cancel_commands(requests: list[ASGIRequest]) -> None:
    for request in requests[1:]:
        request.scope.cancel()
