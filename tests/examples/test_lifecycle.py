"""The example lifecycle: an error ends only its own connection, seats are given back, figures can be watched."""

from __future__ import annotations

import json
from typing import Any

import pytest
import trio
import trio.testing
import trio_websocket
from trio.abc import Clock

from examples.lifecycle import app, seats
from tests.support.memory import Service, serving


async def receive(client: trio_websocket.WebSocketConnection) -> Any:
    return json.loads(await client.get_message())


async def close_of(client: trio_websocket.WebSocketConnection) -> tuple[int, str | None]:
    try:
        while True:
            await client.get_message()
    except trio_websocket.ConnectionClosed as closed:
        reason = closed.reason
    assert reason is not None
    return reason.code, reason.reason


async def sit_down(service: Service) -> trio_websocket.WebSocketConnection:
    client = await service.connect()
    assert (await receive(client))["type"] == "welcome"
    return client


async def test_errors_that_are_expected(autojump_clock: Clock) -> None:
    async with serving(app) as service:
        client = await sit_down(service)
        for message, answer in (
            ({"divisor": 0}, "that can't be computed: ZeroDivisionError('division by zero')"),
            ({}, "that can't be computed: KeyError('divisor')"),
        ):
            await client.send_message(json.dumps(message))
            assert await receive(client) == {"type": "error", "message": answer}
        await client.send_message('{"divisor": 4}')
        assert await receive(client) == {"type": "result", "value": 25}
        await client.aclose()


async def test_seats_are_given_back(autojump_clock: Clock) -> None:
    async with serving(app) as service:
        clients = [await sit_down(service) for _ in range(4)]
        assert seats.free == 0
        refused = await service.connect()
        assert await close_of(refused) == (1013, "No seat is free")
        await trio.aclose_forcefully(clients[0]._stream)  # gone without a Close frame
        await clients[1].aclose()
        await trio.sleep(1)
        assert seats.free == 2
        await service.shut_down()
        assert (await close_of(clients[2]))[0] == 1012
        await service.wait_ended(10)
        assert seats.free == 4


async def test_errors_that_are_not(autojump_clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    """One connection ends. The watcher is told, and all others go on."""
    async with serving(app) as service:
        watcher = await service.connect("/watch")
        other, failing = await service.connect("/hooks"), await service.connect("/hooks")
        await failing.send_message('{"divisor": 0}')
        assert await close_of(failing) == (1011, "Internal server error")
        told = [message for message in [await receive(watcher) for _ in range(3)] if message["type"] != "statistics"]
        assert told == [
            {"type": "failed", "error": "ZeroDivisionError('division by zero')"},
            {"type": "closed", "cause": "error", "code": 1011},
        ]
        await other.send_message('{"divisor": 5}')
        assert await receive(other) == {"type": "result", "value": 20}
        statistics = await receive(watcher)
        assert statistics["connections"] == 2
        assert statistics["ended"] == {"error": 1}
        await other.aclose()
        await watcher.aclose()
    assert "ZeroDivisionError" in caplog.text
