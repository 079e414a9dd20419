"""What a room remembers, and who comes back to it: in order, without gap or duplicate, or a `HistoryGap`."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import trio
import trio.testing
import trio_websocket
from trio.abc import Clock

from tests.support.memory import Service, serving
from verbtrio import App, Cause, ConnectionClosed, Denied, Limits, WebSocket
from verbtrio.base.errors import HistoryGap
from verbtrio.base.position import Position
from verbtrio.brokers import History

ROOM = "chat:a"


def chat(history: History | None = None, **settings: Any) -> App:
    """An app whose clients join one room with `?since=`, and publish what they send."""
    app = App(**settings)
    app.rooms("chat:{room}", history=history or History(size=10, ttl=60, stamp="position"))

    @app.ws("/ws")
    async def talk(ws: WebSocket[str]) -> None:
        try:
            async with ws.join(ROOM, since=ws.query_params.get("since")) as room:
                async for text in ws:
                    await room.publish({"text": text})
        except HistoryGap as gap:
            await ws.send({"oldest": None if gap.oldest is None else str(gap.oldest), "last": str(gap.last)})

    return app


async def read(client: trio_websocket.WebSocketConnection, count: int) -> list[dict[str, Any]]:
    with trio.fail_after(5):
        return [json.loads(await client.get_message()) for _ in range(count)]


async def texts(client: trio_websocket.WebSocketConnection, count: int) -> list[str]:
    return [message["text"] for message in await read(client, count)]


async def is_silent(client: trio_websocket.WebSocketConnection) -> bool:
    with trio.move_on_after(1):
        await client.get_message()
        return False
    return True


async def publish(service: Service, *messages: str) -> Position:
    position = None
    for text in messages:
        position = await service.app.room(ROOM).publish({"text": text})
    assert position is not None
    return position


async def test_what_was_missed_then_live(autojump_clock: Clock) -> None:
    async with serving(chat()) as service:
        first = await publish(service, "1")
        await publish(service, "2", "3")
        client = await service.connect(f"/ws?since={first}")
        assert await texts(client, 2) == ["2", "3"]
        await publish(service, "4")
        assert await read(client, 1) == [{"text": "4", "position": f"{first.epoch}:4"}]
        assert await is_silent(client)
        await client.aclose()


async def test_a_gap_that_nobody_catches(autojump_clock: Clock) -> None:
    app = chat(History(size=2, ttl=60, stamp="position"))

    @app.ws("/plain")
    async def plain(ws: WebSocket[str]) -> None:
        await ws.join(ROOM, since=ws.query_params["since"])

    async with serving(app) as service:
        for there_is in ("it has no messages", "its oldest message is {oldest}"):
            client = await service.connect("/plain?since=elsewhere:1")
            with pytest.raises(trio_websocket.ConnectionClosed):
                await client.get_message()
            oldest = (await service.app.room(ROOM).history()).oldest
            reason = "The room's history does not reach back so far: " + there_is.format(oldest=oldest)
            assert client.closed is not None
            assert (client.closed.code, client.closed.reason) == (1008, reason)
            await publish(service, "1", "2", "3")


async def test_nothing_was_missed(autojump_clock: Clock) -> None:
    async with serving(chat()) as service:
        last = await publish(service, "1", "2")
        client = await service.connect(f"/ws?since={last}")
        assert await is_silent(client)
        await publish(service, "3")
        assert await texts(client, 1) == ["3"]
        await client.aclose()


@pytest.mark.parametrize("since", ["", "7", "nonsense", "other:1", "%C3%A9:1", ":1", "x:-1", "x:1:2", "x:" + 30 * "9"])
async def test_what_is_no_position_of_the_room(since: str, autojump_clock: Clock) -> None:
    async with serving(chat()) as service:
        last = await publish(service, "1", "2")
        client = await service.connect(f"/ws?since={since}")
        assert await read(client, 1) == [{"oldest": f"{last.epoch}:1", "last": str(last)}]
        await client.aclose()


async def test_too_many_were_missed(autojump_clock: Clock) -> None:
    async with serving(chat(History(size=3, ttl=60, stamp="position"))) as service:
        first = await publish(service, "1")
        await publish(service, "2", "3", "4")
        client = await service.connect(f"/ws?since={first}")
        assert await texts(client, 3) == ["2", "3", "4"]  # just what there is
        await publish(service, "5")
        late = await service.connect(f"/ws?since={first}")
        assert await read(late, 1) == [{"oldest": f"{first.epoch}:3", "last": f"{first.epoch}:5"}]
        for one in (client, late):
            await one.aclose()


async def test_a_position_beyond_the_last_message_is_a_gap(autojump_clock: Clock) -> None:
    async with serving(chat()) as service:
        last = await publish(service, "1")
        client = await service.connect(f"/ws?since={Position(last.epoch, 2)}")
        assert await read(client, 1) == [{"oldest": str(last), "last": str(last)}]
        await client.aclose()


async def test_forgotten_after_the_ttl_with_its_epoch(autojump_clock: Clock) -> None:
    async with serving(chat(History(ttl=60, stamp="position"))) as service:
        last = await publish(service, "1")
        await trio.sleep(59)
        client = await service.connect(f"/ws?since={last}")
        assert await is_silent(client)  # still remembered: nothing was missed
        await client.aclose()
        await trio.sleep(61)
        late = await service.connect(f"/ws?since={last}")
        (gap,) = await read(late, 1)
        assert gap["oldest"] is None
        assert not gap["last"].startswith(last.epoch)
        await late.aclose()


async def test_a_room_with_members_keeps_its_epoch(autojump_clock: Clock) -> None:
    async with serving(chat(History(ttl=60, stamp="position"), heartbeat=None)) as service:
        last = await publish(service, "1")
        client = await service.connect(f"/ws?since={last}")
        await trio.sleep(1000)
        assert await publish(service, "2") == Position(last.epoch, 2)
        assert await texts(client, 1) == ["2"]
        await client.aclose()


async def test_whoever_handles_no_gap_ends_as_denied(autojump_clock: Clock) -> None:
    app = App()
    app.rooms("chat:{room}", history=History())

    @app.ws("/ws")
    async def careless(ws: WebSocket[str]) -> None:
        async with ws.join(ROOM, since="no:1"):
            raise AssertionError("the block must not begin")

    async with serving(app) as service:
        client = await service.connect("/ws")
        with pytest.raises(trio_websocket.ConnectionClosed):
            await client.get_message()
        assert client.closed is not None
        assert client.closed.code == 1008
        await service.wait_ended(5)
        assert app.statistics().ended == {Cause.DENIED: 1}


async def test_the_leave_hook_is_not_called_where_nobody_was_in(autojump_clock: Clock) -> None:
    app, left = App(), list[str]()
    app.rooms("chat:{room}", history=History())

    @app.ws("/ws")
    async def handler(ws: WebSocket[str]) -> None:
        with pytest.raises(HistoryGap):
            await ws.join(ROOM, since="no:1", on_leave=lambda room, ws: left.append(room.name))
        assert (ws.rooms, len(app.room(ROOM))) == (frozenset(), 0)
        membership = await ws.join(ROOM, on_leave=lambda room, ws: left.append("once"))
        await membership.leave()
        await ws.send("done")

    async with serving(app) as service:
        client = await service.connect("/ws")
        assert await client.get_message() == "done"
    assert left == ["once"]


async def test_a_refusal_that_nobody_waits_for(autojump_clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    app = App()
    app.rooms("chat:{room}", history=History())

    @app.ws("/ws")
    async def handler(ws: WebSocket[str]) -> None:
        membership = ws.join(ROOM, since="no:1")
        await trio.sleep(1)
        assert (membership.kicked is not None, ws.rooms) == (True, frozenset())
        await ws.send("done")

    caplog.set_level("INFO", "verbtrio.connection")
    async with serving(app) as service:
        client = await service.connect()
        assert await client.get_message() == "done"
    assert [record.message for record in caplog.records if "is not in the room 'chat:a'" in record.message]


async def test_a_page_and_on_from_there(autojump_clock: Clock) -> None:
    """A late joiner: the last messages, then all that follow."""
    app = chat()

    @app.ws("/late")
    async def late(ws: WebSocket[str]) -> None:
        page = await app.room(ROOM).history(limit=2, reverse=True)
        await ws.send({"text": [message.json()["text"] for message in page.messages]})
        await publish(service, "between")
        await ws.join(ROOM, since=page.position)
        await publish(service, "after")
        async for _ in ws:
            pass

    async with serving(app) as service:
        await publish(service, "1", "2", "3")
        client = await service.connect("/late")
        assert await texts(client, 3) == [["3", "2"], "between", "after"]
        await client.aclose()


async def test_a_page_of_an_empty_room(autojump_clock: Clock) -> None:
    async with serving(chat()) as service:
        room = service.app.room(ROOM)
        page = await room.history()
        assert (page.messages, page.oldest, page.position.offset) == ((), None, 0)
        assert await publish(service, "1") == Position(page.position.epoch, 1)
        assert [message.data for message in (await room.history(since=page.position)).messages] == ['{"text":"1"}']
        with pytest.raises(HistoryGap):
            await room.history(since="no:7")


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ({"limit": -1}, ValueError, "limit must be 0 at least"),
        ({"limit": "3"}, TypeError, "limit is a whole number"),
        ({"since": 5}, TypeError, "since is a Position, or its text"),
    ],
)
async def test_bad_arguments(arguments: dict[str, Any], error: type[Exception], says: str) -> None:
    async with serving(chat()) as service:
        with pytest.raises(error, match=says):
            await service.app.room(ROOM).history(**arguments)


async def test_what_the_room_does_not_have() -> None:
    async with serving(chat()) as service:
        plain = service.app.room("plain")
        with pytest.raises(RuntimeError, match=r"the room 'plain' has no history: app\.rooms"):
            await plain.history()
        with pytest.raises(RuntimeError, match=r"the room 'chat:a' has no presence: app\.rooms"):
            await service.app.room(ROOM).presence()
        with pytest.raises(RuntimeError, match="no presence"):
            service.app.room(ROOM).watch()
        assert await plain.publish("to nobody") is None


async def test_a_broadcast_is_not_remembered(autojump_clock: Clock) -> None:
    async with serving(chat()) as service:
        first = await publish(service, "1")
        service.app.room(ROOM).broadcast({"text": "not this"})
        await publish(service, "2")
        client = await service.connect(f"/ws?since={first}")
        assert await texts(client, 1) == ["2"]
        service.app.room(ROOM).broadcast({"text": "live"})
        assert await read(client, 1) == [{"text": "live"}]
        await client.aclose()


@pytest.mark.parametrize("data", ["text", "{}x", b"bytes", ["a", "list"], 5, None])
async def test_what_a_stamp_can_t_be_put_on(data: Any) -> None:
    async with serving(chat()) as service:
        with pytest.raises(TypeError, match=r"History\.stamp.*JSON object"):
            await service.app.room(ROOM).publish(data)
        assert (await service.app.room(ROOM).history()).messages == ()


@pytest.mark.parametrize(
    ("data", "sent"),
    [({}, {}), ("{ }", {}), ("{\n\t}", {}), ('{"a":1}', {"a": 1}), ('{"a":1 }', {"a": 1}), ({"ä": [{}]}, {"ä": [{}]})],
)
async def test_a_stamp(data: Any, sent: Any, autojump_clock: Clock) -> None:
    async with serving(chat(History(stamp='at "ö"'))) as service:
        client = await service.connect()
        position = await service.app.room(ROOM).publish(data)
        assert await read(client, 1) == [{**sent, 'at "ö"': str(position)}]
        await client.aclose()


async def test_without_a_stamp_messages_are_as_they_are(autojump_clock: Clock) -> None:
    async with serving(chat(History())) as service:
        client = await service.connect()
        for data in ("text", b"bytes", {"a": 1}):
            await service.app.room(ROOM).publish(data)
        assert [await client.get_message() for _ in range(3)] == ["text", b"bytes", '{"a":1}']
        await client.aclose()


async def test_publishers_side_by_side(autojump_clock: Clock) -> None:
    """Everybody sees one order, that of the positions."""
    async with serving(chat(History(size=1000, stamp="position"))) as service:
        clients = [await service.connect() for _ in range(3)]

        async def talk(name: str) -> None:
            for number in range(50):
                await publish(service, f"{name}{number}")

        async with trio.open_nursery() as nursery:
            for name in "abc":
                nursery.start_soon(talk, name)
        seen = [await read(client, 150) for client in clients]
        assert seen[0] == seen[1] == seen[2]
        offsets = [int(message["position"].partition(":")[2]) for message in seen[0]]
        assert offsets == list(range(1, 151))
        for client in clients:
            await client.aclose()


class SlowHistory:
    """Makes each reading of the history last, so that things happen meanwhile."""

    def __init__(self, app: App) -> None:
        self.reading = trio.Event()
        self.go = trio.Event()
        session = app._running_hub().host.session
        self._history = session.history
        session.history = self._wait  # type: ignore[method-assign]  # this test's own delay

    async def _wait(self, *arguments: Any, **named: Any) -> Any:
        page = await self._history(*arguments, **named)
        self.reading.set()
        await self.go.wait()
        return page


async def test_live_messages_wait_for_what_was_missed(autojump_clock: Clock) -> None:
    async with serving(chat()) as service:
        first = await publish(service, "1")
        await publish(service, "2")
        slow = SlowHistory(service.app)
        client = await service.connect(f"/ws?since={first}")
        await slow.reading.wait()
        await publish(service, "3")
        service.app.room(ROOM).broadcast({"text": "typing"})
        await publish(service, "4")
        assert await is_silent(client)
        slow.go.set()
        assert await texts(client, 4) == ["2", "3", "typing", "4"]
        assert await is_silent(client)
        await client.aclose()


async def test_a_message_that_is_in_both_comes_once(autojump_clock: Clock) -> None:
    """It was published after the join, and before the history was read."""
    async with serving(chat()) as service:
        first = await publish(service, "1")
        session = service.app._running_hub().host.session
        subscribed, go = session.wait_subscribed, trio.Event()
        joined = trio.Event()

        async def wait(room: str) -> None:
            joined.set()
            await go.wait()
            await subscribed(room)

        session.wait_subscribed = wait  # type: ignore[method-assign]  # this test's own delay
        client = await service.connect(f"/ws?since={first}")
        await joined.wait()
        await publish(service, "2", "3")
        go.set()
        assert await texts(client, 2) == ["2", "3"]
        assert await is_silent(client)
        await client.aclose()


async def test_too_much_is_said_meanwhile(autojump_clock: Clock) -> None:
    limits = Limits(max_backlog_bytes=10_000, high_water_bytes=1000)
    async with serving(chat(limits=limits)) as service:
        first = await publish(service, "1")
        slow = SlowHistory(service.app)
        client = await service.connect(f"/ws?since={first}")
        await slow.reading.wait()
        for _ in range(12):
            service.app.room(ROOM).broadcast({"text": 1000 * "x"})
            await trio.sleep(0.1)
        with pytest.raises(trio_websocket.ConnectionClosed):
            await client.get_message()
        assert client.closed is not None
        assert (client.closed.code, client.closed.reason) == (1008, "Too slow: over 10000 bytes behind")
        slow.go.set()
        await service.wait_ended(5)
        assert service.app.statistics().ended == {Cause.SLOW: 1}


END: dict[str, Callable[[Service, WebSocket[Any]], Any]] = {
    "leave": lambda service, ws: ws.leave_nowait(ROOM),
    "kick": lambda service, ws: service.app.room(ROOM).kick(ws, reason="out"),
    "close the room": lambda service, ws: service.app.room(ROOM).close(),
    "close the connection": lambda service, ws: ws.close_nowait(),
    "cancel its nursery": lambda service, ws: ws.nursery.cancel_scope.cancel(),
}


@pytest.mark.parametrize("end", [*END, "gap"])
@pytest.mark.parametrize("waits", [True, False])
async def test_leave_hooks_of_a_join_that_is_not_complete(end: str, waits: bool, autojump_clock: Clock) -> None:
    """Who waits for the join has not been in before; who doesn't, has been in from the call on."""
    app, calls = App(), list[str]()
    app.rooms("chat:{room}", history=History())
    here: list[WebSocket[Any]] = []

    @app.ws("/ws")
    async def handler(ws: WebSocket[str]) -> None:
        here.append(ws)
        since = "no:1" if end == "gap" else ws.query_params["since"]
        membership = ws.join(ROOM, since=since, on_leave=lambda room, ws: calls.append("left"))
        if waits:
            try:
                await membership
            except (ConnectionClosed, Denied, HistoryGap):
                await trio.sleep_forever()
            calls.append("in")
        await trio.sleep_forever()

    async with serving(app) as service:
        first = await publish(service, "1")
        slow = SlowHistory(app)
        client = await service.connect(f"/ws?since={first}")
        await slow.reading.wait()
        if end != "gap":
            END[end](service, here[0])
        slow.go.set()
        await trio.sleep(1)
        here.clear()
        await client.aclose()
        await service.wait_ended(10)
    assert calls == ([] if waits else ["left"])


@pytest.mark.parametrize("end", END)
@pytest.mark.parametrize("form", ["block", "await", "neither"])
async def test_ended_while_it_is_told_what_it_has_missed(end: str, form: str, autojump_clock: Clock) -> None:
    """Whatever ends it, nothing is left of the join, and nothing more of the room is heard."""
    app, seen = App(), list[str]()
    app.rooms("chat:{room}", history=History())
    here: list[WebSocket[Any]] = []

    @app.ws("/ws")
    async def handler(ws: WebSocket[str]) -> None:
        here.append(ws)
        membership = ws.join(ROOM, since=ws.query_params["since"])
        try:
            if form == "block":
                async with membership:
                    seen.append("in")
                    await trio.sleep_forever()
            elif form == "await":
                await membership
                seen.append("in")
        except Exception as error:
            seen.append(type(error).__name__)
        await trio.sleep_forever()

    async with serving(app) as service:
        first = await publish(service, "1")
        await publish(service, "2")
        slow = SlowHistory(app)
        client = await service.connect(f"/ws?since={first}")
        await slow.reading.wait()
        END[end](service, here[0])
        slow.go.set()
        await trio.sleep(1)
        assert len(app.room(ROOM)) == 0
        assert ROOM not in app._running_hub().rooms
        await publish(service, "3")
        if client.closed is None:
            assert await is_silent(client)
        if form == "neither" or "nursery" in end:
            assert seen == []
        elif end == "close the connection":
            assert seen == ["ConnectionClosed"]
        else:
            assert seen == ["Denied"]
        here.clear()
        await client.aclose()
