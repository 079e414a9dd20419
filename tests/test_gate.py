"""The gate before the handler: how many messages pass, what the next one is answered with, and when it is enough."""

from __future__ import annotations

import json
from typing import Any

import pytest
import trio
import trio_websocket
from trio.abc import Clock

from tests.support.memory import Service, serving, shake_hands
from verbtrio import App, Cause, Heartbeat, Limits, WebSocket

LIMITS = Limits(max_messages_per_second=10, message_burst=5)
REFUSAL = {"type": "error", "message": "Too many messages: at most 10 a second"}


def echoing(**options: Any) -> App:
    app = App(**options)
    app.ws("/ws", message=lambda ws, message: ws.send_nowait(message))
    return app


async def answers(client: trio_websocket.WebSocketConnection) -> list[str]:
    """What the server has said so far."""
    said: list[Any] = []
    with trio.move_on_after(0.05):
        while True:
            said.append(await client.get_message())
    return said


async def test_the_burst_passes_and_the_next_is_answered(autojump_clock: Clock) -> None:
    async with serving(echoing(limits=LIMITS)) as service:
        client = await service.connect()
        for number in range(6):
            await client.send_message(str(number))
        *echoed, refusal = await answers(client)
        assert echoed == ["0", "1", "2", "3", "4"]
        assert json.loads(refusal) == REFUSAL
        await trio.sleep(0.2)
        await client.send_message("again")
        assert await answers(client) == ["again"]
        await client.aclose()


async def test_one_answer_for_all_that_are_refused(autojump_clock: Clock) -> None:
    async with serving(echoing(limits=LIMITS)) as service:
        client = await service.connect()
        for number in range(10):
            await client.send_message(str(number))
        assert len(await answers(client)) == 5 + 1
        await trio.sleep(1)
        for number in range(6):
            await client.send_message(str(number))
        assert len(await answers(client)) == 5 + 1, "after a pause it is told again"
        await client.aclose()


async def test_going_on_ends_with_1008(autojump_clock: Clock) -> None:
    app = App(limits=LIMITS)
    ended: list[Any] = []

    @app.ws("/ws")
    async def count(ws: WebSocket) -> None:
        try:
            async for _ in ws:
                pass
        finally:
            ended.append(ws.closed)

    async with serving(app) as service:
        client = await service.connect()
        for number in range(11):
            await client.send_message(str(number))
        await trio.sleep(1)
        assert client.closed is not None
        assert (client.closed.code, client.closed.reason) == (1008, "Too many messages")
    assert (ended[0].cause, ended[0].code) == (Cause.RATE, 1008)


async def test_exactly_the_rate_goes_on_for_ever(autojump_clock: Clock) -> None:
    async with serving(echoing(limits=LIMITS)) as service:
        client = await service.connect()
        for number in range(300):
            await client.send_message(str(number))
            assert await client.get_message() == str(number)
            await trio.sleep(0.1)
        await client.aclose()


async def flood(service: Service) -> int:
    """Send without reading until the server hangs up; how many bytes it took."""
    stream = service.open_stream()
    await shake_hands(stream)
    message = b"\x81\x82\0\0\0\0hi"
    sent = 0
    try:
        while sent < 100_000_000:
            await stream.send_all(message * 1000)
            sent += len(message) * 1000
            await trio.lowlevel.checkpoint()
    except trio.BrokenResourceError:
        pass
    await stream.aclose()
    return sent


async def test_a_flood_is_not_read_to_its_end(autojump_clock: Clock) -> None:
    """A peer that neither reads nor answers our Close: it is let go of, not decoded for the closing time-out's 5 s."""
    async with serving(echoing(limits=LIMITS)) as service:
        begin = trio.current_time()
        assert await flood(service) < 1_000_000
        assert trio.current_time() - begin < 5


async def test_pongs_count_and_are_no_way_around(autojump_clock: Clock) -> None:
    app = echoing(limits=LIMITS, heartbeat=Heartbeat(interval=30, timeout=90, json=True))
    async with serving(app) as service:
        client = await service.connect()
        for _ in range(6):
            await client.send_message('{"type":"pong"}')
        assert [json.loads(said) for said in await answers(client)] == [REFUSAL]
        await client.aclose()


@pytest.mark.parametrize(("where", "refused"), [("app", True), ("group", False), ("route", True)])
async def test_per_app_per_group_per_route(where: str, refused: bool, autojump_clock: Clock) -> None:
    """The nearest limits count, as a whole: a group without a rate has none, whatever the app says."""
    app = App(limits=LIMITS)
    group = app.group("/group", limits=Limits())
    for routes, path in ((app, "/app"), (group, "/ws")):
        routes.ws(path, message=lambda ws, message: ws.send_nowait(message))
    group.ws("/own", message=lambda ws, message: ws.send_nowait(message), limits=LIMITS)
    async with serving(app) as service:
        client = await service.connect({"app": "/app", "group": "/group/ws", "route": "/group/own"}[where])
        for number in range(6):
            await client.send_message(str(number))
        assert (json.loads((await answers(client))[-1]) == REFUSAL) is refused
        await client.aclose()


async def test_without_a_limit_there_is_no_gate(autojump_clock: Clock) -> None:
    async with serving(echoing()) as service:
        client = await service.connect()
        for number in range(2000):
            await client.send_message(str(number))
            assert await client.get_message() == str(number)
        await client.aclose()
