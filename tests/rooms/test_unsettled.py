"""Members whose joins are not complete: what ends them at the worst moment, and what is left then."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest
import trio
import trio.testing
from trio.abc import Clock

from tests.rooms.test_presence import by_name
from tests.rooms.test_resume import SlowHistory
from tests.support.http import Exchange
from tests.support.memory import Service, serving, shake_hands
from tests.support.sse import parse
from verbtrio import App, Cause, Limits, Room, WebSocket
from verbtrio.base.position import Position
from verbtrio.brokers import History, Present
from verbtrio.connection.peer import WebSocketPeer

ROOM = "chat:a"
KINDS = ["WebSocket", "SSE"]


def chat(*, limits: Limits | None = None, **settings: Any) -> App:
    """An app whose clients join one room where they say they were, on WebSockets and on event streams."""
    app = App(heartbeat=None, limits=limits, middleware=[by_name])
    app.rooms("chat:{room}", **settings)
    app.sse("/sse", room=ROOM)

    @app.ws("/ws")
    async def handler(ws: WebSocket[str, str]) -> None:
        async with ws.join(ROOM, since=ws.query_params.get("since")):
            await trio.sleep_forever()

    return app


async def connect(service: Service, kind: str, since: Position | None = None) -> trio.abc.Stream:
    """A client that reads nothing more than the head of the answer."""
    stream: trio.abc.HalfCloseableStream = service.open_stream(trio.testing.lockstep_stream_pair)
    if kind == "SSE":
        await Exchange(stream).request("/sse", headers={} if since is None else {"last-event-id": str(since)})
    else:
        await shake_hands(stream, "/ws" if since is None else f"/ws?since={since}", b"Origin: http://x\r\n")
    return stream


async def publish(service: Service, *messages: Any) -> Position:
    position = None
    for message in messages:
        position = await service.app.room(ROOM).publish(message)
    assert position is not None
    return position


@pytest.mark.parametrize("others", [False, True])
@pytest.mark.parametrize("kind", KINDS)
async def test_what_waited_is_too_much_for_the_client(
    kind: str, others: bool, autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """It ends while it is handed what has waited: it is not put back into the room that it has left."""
    limits = Limits(max_backlog_bytes=10_000, high_water_bytes=10_000)
    async with serving(chat(limits=limits, history=History(), presence=True)) as service:
        first = await publish(service, "1")
        await publish(service, *(3 * [2500 * "x"]))
        slow = SlowHistory(service.app)
        client = await connect(service, kind, first)
        await slow.reading.wait()
        other = await service.connect("/ws") if others else None
        service.app.room(ROOM).broadcast(9000 * "y")
        slow.go.set()
        await trio.testing.wait_all_tasks_blocked()
        assert service.app.statistics().ended == {Cause.SLOW: 1}
        assert len(service.app.room(ROOM)) == others
        await trio.aclose_forcefully(client)
        if other is not None:
            await other.aclose()
        await trio.sleep(10)
        assert await service.app.room(ROOM).presence() == {}
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


@pytest.mark.parametrize("others", [False, True])
async def test_an_event_stream_that_is_kicked_while_it_is_told_what_it_has_missed(
    others: bool, autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """The kick and the end of the replay come in the same tick."""
    async with serving(chat(history=History(), presence=True)) as service:
        first = await publish(service, "1")
        await publish(service, "2")
        slow = SlowHistory(service.app)
        client = await Exchange(service.open_stream()).request("/sse", headers={"last-event-id": str(first)})
        await slow.reading.wait()
        (member,) = service.app.room(ROOM).here
        other = await service.connect("/ws") if others else None
        slow.go.set()
        assert service.app.room(ROOM).kick(member, reason="out") == 1
        del member
        await trio.testing.wait_all_tasks_blocked()
        assert len(service.app.room(ROOM)) == others
        assert len(await service.app.room(ROOM).presence()) == others
        (event,) = [event for event in parse(await client.rest()) if event.event == "close"]
        assert json.loads(event.data) == {"code": 1008, "reason": "out"}
        if other is not None:
            await other.aclose()
        await client.aclose()
        await trio.sleep(10)
        assert await service.app.room(ROOM).presence() == {}
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


async def test_event_streams_that_are_kicked_while_the_task_starts(
    autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They end some ticks after the kick, and are not present from the kick on."""
    monkeypatch.setattr("verbtrio.hub.flusher.FLUSH_MEMBERS", 1)  # one a tick, as if there were hundreds
    go = trio.Event()

    async def task(this: Room, *, task_status: trio.TaskStatus[None]) -> None:
        await go.wait()
        task_status.started()
        assert this.close() == 3
        await trio.sleep_forever()

    async with serving(chat(task=task, presence=True)) as service:
        clients = [await Exchange(service.open_stream()).request("/sse") for _ in range(3)]
        await trio.testing.wait_all_tasks_blocked()
        go.set()
        await trio.testing.wait_all_tasks_blocked()
        assert await service.app.room(ROOM).presence() == {}
        for client in clients:
            await client.aclose()


async def test_info_that_is_updated_before_the_join_is_complete(autojump_clock: Clock) -> None:
    app = App()
    app.rooms("chat:{room}", presence=True, join_leave=True)

    @app.ws("/ws")
    async def handler(ws: WebSocket[str]) -> None:
        membership = ws.join(ROOM, presence="first")
        assert membership.update("second")
        await membership
        assert [*(await membership.presence()).values()] == [Present("second", 1)]
        await membership.leave()
        again = ws.join(ROOM, presence="third")
        assert ws.join(ROOM, presence="fourth", exist_ok=True) is again
        await again
        assert membership.update("by the one that was left") is False
        assert [*(await again.presence()).values()] == [Present("fourth", 1)]
        await ws.send("done")

    async with serving(app) as service:
        client = await service.connect()
        with trio.fail_after(5):
            while await client.get_message() != "done":
                pass
        await client.aclose()


@pytest.mark.parametrize("moment", ["the history has been read", "there is room again"])
async def test_left_in_the_tick_in_which_the_replay_goes_on(
    moment: str, autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it waited for has come already, so its cancellation finds it at no checkpoint: it is told nothing more."""
    app, ended = App(), trio.Event()
    app.rooms("chat:{room}", history=History())

    @app.ws("/ws")
    async def handler(ws: WebSocket[str]) -> None:
        ws.join(ROOM, since=ws.query_params["since"])
        await ended.wait()
        await ws.send("done")

    async with serving(app) as service:
        first = await publish(service, *"123")
        session = app._running_hub().host.session
        read = session.history

        async def wait(peer: Any, size: int) -> None:
            await trio.lowlevel.checkpoint()
            peer.ws.leave_nowait(ROOM)
            ended.set()

        async def read_and_leave(*arguments: Any, **named: Any) -> Any:
            page = await read(*arguments, **named)
            app.room(ROOM).here[0].leave_nowait(ROOM)  # type: ignore[attr-defined]  # it is a WebSocket
            ended.set()
            return page

        if moment == "there is room again":
            monkeypatch.setattr(WebSocketPeer, "queued", 10**9)
            monkeypatch.setattr(WebSocketPeer, "wait_below", wait)
        else:
            monkeypatch.setattr(session, "history", read_and_leave)
        client = await service.connect(f"/ws?since={Position(first.epoch, 1)}")
        assert await client.get_message() == "done"
        await client.aclose()


@pytest.mark.parametrize("kind", KINDS)
async def test_what_waits_for_the_end_of_a_replay_waits_as_for_a_slow_client(kind: str, autojump_clock: Clock) -> None:
    """The newest of each key is kept, and what is late is dropped."""
    limits = Limits(max_backlog_bytes=10_000, high_water_bytes=10_000, backlog_policy="latest")
    async with serving(chat(limits=limits, history=History())) as service:
        first = await publish(service, "1")
        await publish(service, "2")
        room, slow = service.app.room(ROOM), SlowHistory(service.app)
        stream = service.open_stream()
        if kind == "SSE":
            exchange = await Exchange(stream).request("/sse", headers={"last-event-id": str(first)})
        else:
            await shake_hands(stream, f"/ws?since={first}", b"Origin: http://x\r\n")
        await slow.reading.wait()
        (member,) = room.here
        for number in range(20):
            room.broadcast(f"{number}{1000 * 'x'}", key="price")
        room.broadcast("not for long", ttl=1)
        await trio.sleep(2)
        slow.go.set()
        await trio.testing.wait_all_tasks_blocked()
        assert member.dropped == service.app.statistics().dropped == 19 + 1
        del member
        if kind == "SSE":
            body = await exchange.until(b"x\n\n")
            assert [event.data for event in parse(body)] == ["2", f"19{1000 * 'x'}"]
        else:
            assert (await stream.receive_some()).startswith(b"\x81\x012\x81\x7e\x03\xea19xxx")
        await trio.aclose_forcefully(stream)
