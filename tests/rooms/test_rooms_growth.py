"""Rooms that come and go leave nothing, however many there have been.

`ROOMS=100000` takes so many; the gate takes a few thousand, of which one leak in ten rooms would be seen as well.
"""

from __future__ import annotations

import gc
import os
import sys

import trio
import trio.testing
from trio.abc import Clock

from tests.support.memory import serving, shake_hands
from tests.support.room_stage import assert_forgotten
from verbtrio import App, History, Room, WebSocket
from verbtrio.brokers import MemoryBroker
from verbtrio.rooms.settings import Presence

ROOMS = int(os.environ.get("ROOMS", "2000"))
AT_ONCE = 50
TTL = 20.0


async def test_rooms_come_and_go_without_growth(autojump_clock: Clock) -> None:
    broker = MemoryBroker()
    app, measured, most = App(broker=broker, heartbeat=None), list[int](), 0
    app.rooms("game:{number}", history=History(size=5, ttl=TTL), presence=Presence(grace=2), join_leave=True)

    @app.room_task("game:{number}", linger=0.5)
    async def play(room: Room, *, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        await trio.sleep_forever()

    @app.ws("/ws")
    async def handler(ws: WebSocket[str]) -> None:
        """In many rooms, of which each is left at once, and then empty."""
        nonlocal most
        for first in (0, ROOMS // 2):
            for number in range(first, first + ROOMS // 2, AT_ONCE):
                names = [f"game:{one}" for one in range(number, number + AT_ONCE)]
                for name in names:
                    membership = await ws.join(name, presence={"name": name})
                    await membership.publish({"n": name})
                await trio.sleep(0.1)
                for name in names:
                    await ws.leave(name)
                most = max(most, len(app._running_hub().room_tasks.tasks()))
            await trio.sleep(TTL + 5)
            gc.collect()
            measured.append(sys.getallocatedblocks())
        await ws.send("done")

    async with serving(app) as service:
        stream = service.open_stream()
        await shake_hands(stream)
        heard = await count_until_done(stream)
        await trio.aclose_forcefully(stream)
        await service.wait_ended(5)
        assert_forgotten([app], broker)
    assert heard == [ROOMS, ROOMS, ROOMS]
    assert most < 10 * AT_ONCE, "tasks linger, and end"
    grown = measured[1] - measured[0]
    assert grown < ROOMS // 20, f"{grown} objects for {ROOMS // 2} rooms"


async def count_until_done(stream: trio.abc.ReceiveStream) -> list[int]:
    """How many messages of each kind came."""
    kinds = [b"presence_state", b"presence_diff", b'"n":']
    counts, rest = [0] * len(kinds), b""
    while b"done" not in rest:
        received = await stream.receive_some(65536)
        assert received
        data = rest + received
        whole = data.rfind(b"}") + 1
        data, rest = data[:whole], data[whole:]
        counts = [count + data.count(kind) for count, kind in zip(counts, kinds, strict=True)]
    return counts
