"""Event streams of rooms with history: ids, and `Last-Event-ID`."""

from __future__ import annotations

import json
from typing import Any

import pytest
import trio
import trio.testing
from trio.abc import Clock

from tests.support.http import Exchange
from tests.support.memory import Service, serving
from tests.support.sse import Received, parse
from verbtrio import App, Cause, Limits
from verbtrio.base.errors import BrokerUnavailable
from verbtrio.base.position import Position
from verbtrio.brokers import History, Present

ROOM = "news:a"


def news(**settings: Any) -> App:
    app = App(limits=settings.pop("limits", None))
    app.rooms("news:{name}", **{"history": History(size=10, ttl=60), **settings})
    app.sse("/events/{name}", room="news:{name}")
    return app


async def listen(service: Service, since: Position | str | None = None) -> Exchange:
    headers = {} if since is None else {"last-event-id": str(since)}
    client = await Exchange(service.open_stream()).request("/events/a", headers=headers)
    await trio.testing.wait_all_tasks_blocked()
    return client


async def heard(client: Exchange) -> bytes:
    """What has come so far."""
    body = b""
    with trio.move_on_after(1):
        while (piece := await client.piece()) is not None:
            body += piece
    return body


async def publish(service: Service, *messages: Any) -> Position:
    position = None
    for message in messages:
        position = await service.app.room(ROOM).publish(message)
    assert position is not None
    return position


async def test_ids(autojump_clock: Clock) -> None:
    async with serving(news()) as service:
        client = await listen(service)
        first = await publish(service, {"n": 1})
        await publish(service, "two\nlines", b"\x00")
        service.app.room(ROOM).broadcast("not remembered")
        body = await heard(client)
        epoch = first.epoch
        assert body.startswith(f"id: {epoch}:0\n\n".encode()), "a client that has heard nothing can come back, too"
        assert parse(body) == [
            Received("message", '{"n":1}', f"{epoch}:1"),
            Received("message", "two\nlines", f"{epoch}:2"),
            Received("binary", "AA==", f"{epoch}:3"),
            Received("message", "not remembered", f"{epoch}:3"),
        ]
        await client.aclose()


async def test_what_was_missed_then_live(autojump_clock: Clock) -> None:
    async with serving(news()) as service:
        first = await publish(service, "1")
        await publish(service, "2", "3")
        client = await listen(service, first)
        await publish(service, "4")
        assert [event.data for event in parse(await heard(client))] == ["2", "3", "4"]
        await client.aclose()


@pytest.mark.parametrize("since", ["nonsense", "other:1", "", "x" * 2000])
async def test_a_gap_is_told(since: str, autojump_clock: Clock) -> None:
    async with serving(news()) as service:
        last = await publish(service, "1", "2")
        client = await listen(service, since)
        await publish(service, "3")
        gap, message = parse(await heard(client))
        data = {"oldest": f"{last.epoch}:1", "last": str(last)}
        assert (gap.event, json.loads(gap.data), gap.id) == ("gap", data, str(last))
        assert (message.data, message.id) == ("3", f"{last.epoch}:3")
        await client.aclose()


@pytest.mark.parametrize("policy", ["drop_oldest", "drop_newest", "latest"])
async def test_no_policy_drops_a_gap(policy: Any, autojump_clock: Clock) -> None:
    """It is no message: it is neither dropped nor counted."""
    limits = Limits(max_backlog_bytes=1000, high_water_bytes=1000, backlog_policy=policy)
    async with serving(news(limits=limits)) as service:
        last = await publish(service, "1", "2")
        client = await Exchange(service.open_stream(trio.testing.lockstep_stream_pair)).request(
            "/events/a", headers={"last-event-id": "other:1"}
        )
        for number in range(20):  # the client takes none of it
            service.app.room(ROOM).broadcast(f"{number} {100 * 'x'}", key="k" if policy == "latest" else None)
        await trio.testing.wait_all_tasks_blocked()
        gap, *messages = parse(await heard(client))
        assert (gap.event, gap.id) == ("gap", str(last))
        statistics = service.app.statistics()
        assert (statistics.sent, statistics.dropped) == (20, 20 - len(messages))
        await client.aclose()


async def test_a_room_without_history_has_no_ids(autojump_clock: Clock) -> None:
    async with serving(news(history=None)) as service:
        client = await listen(service, "some:1")
        await service.app.room(ROOM).publish("1")
        assert await heard(client) == b"data: 1\n\n"
        await client.aclose()


async def test_a_slow_client_is_replayed_to_at_its_own_pace(autojump_clock: Clock) -> None:
    """More than its backlog may hold was missed."""
    limits = Limits(max_backlog_bytes=64 * 1024, high_water_bytes=16 * 1024)
    async with serving(news(limits=limits, history=History(size=1000))) as service:
        first = await publish(service, "0")
        await publish(service, *[str(number) + 4000 * "x" for number in range(1, 500)])
        client = await listen(service, first)
        numbers = [int(event.data.rstrip("x")) for event in parse(await heard(client))]
        assert numbers == list(range(1, 500))
        await client.aclose()
        await service.wait_ended(5)
        assert service.app.statistics().dropped == 0


async def test_a_guard_and_a_full_room(autojump_clock: Clock) -> None:
    async with serving(news(guard=lambda member, name: "key" in member.query_params, max_members=1)) as service:
        refused = await Exchange(service.open_stream()).request("/events/a")
        assert refused.status == 403
        client = await Exchange(service.open_stream()).request("/events/a?key")
        assert client.status == 200
        await trio.testing.wait_all_tasks_blocked()
        full = await Exchange(service.open_stream()).request("/events/a?key")
        assert (full.status, full.headers["retry-after"]) == (503, "1")
        for one in (refused, client, full):
            await one.aclose()


async def test_present_like_everybody(autojump_clock: Clock) -> None:
    async with serving(news(presence=True)) as service:
        client = await listen(service)
        (entry,) = (await service.app.room(ROOM).presence()).values()
        assert entry == Present(None, 1)
        await client.aclose()
        await trio.sleep(10)
        assert await service.app.room(ROOM).presence() == {}


async def test_a_task_that_fails_ends_the_stream(autojump_clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    async def broken(room: Any) -> None:
        await trio.sleep(1)
        raise ValueError("broken")

    app = App()
    app.room_task("news:{name}", restart=None)(broken)
    app.sse("/events/{name}", room="news:{name}")
    async with serving(app) as service:
        client = await listen(service)
        (event,) = parse(await client.rest())
        assert (event.event, json.loads(event.data)["code"]) == ("close", 1011)
        refused = await Exchange(service.open_stream()).request("/events/a")
        assert refused.status == 503
        for one in (client, refused):
            await one.aclose()
        await service.wait_ended(5)
        assert app.statistics().ended == {Cause.ERROR: 1}
    assert "broken" in caplog.text


async def test_a_broker_that_is_away_is_not_described_to_the_client(autojump_clock: Clock) -> None:
    """What it says of itself may have its address in it, and with that a password."""
    async with serving(news()) as service:

        async def away(*arguments: Any, **named: Any) -> None:
            raise BrokerUnavailable("redis://:secret@10.0.0.1 can't be reached")

        service.app._running_hub().host.session.history = away  # type: ignore[assignment, method-assign]  # this test's own
        client = await listen(service, "some:1")
        (event,) = parse(await client.rest())
        assert (event.event, json.loads(event.data)) == (
            "close",
            {"code": 1011, "reason": "The room is not available"},
        )
        await client.aclose()
