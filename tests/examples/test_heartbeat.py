"""The heartbeat example in virtual time: pings every 30 s, and code 1000 after 90 s without a pong."""

from __future__ import annotations

import json

import pytest
import trio
import trio_websocket
from trio.abc import Clock

from examples.heartbeat import app
from tests.support.memory import serving


async def test_pings_and_the_end_of_the_silent(autojump_clock: Clock) -> None:
    async with serving(app) as service:
        begin = trio.current_time()
        client = await service.connect()
        welcome = json.loads(await client.get_message())
        assert welcome == {"type": "welcome", "message": "Welcome to the WebSocket server!"}
        for beat in range(1, 11):
            assert json.loads(await client.get_message()) == {"type": "ping"}
            assert trio.current_time() - begin == pytest.approx(30 * beat)
            await client.send_message('{"type":"pong"}')
        answered = trio.current_time()
        await client.send_message('{"type":"message"}')  # only a pong counts
        assert json.loads(await client.get_message())["type"] == "echo"
        for _ in range(2):
            assert json.loads(await client.get_message()) == {"type": "ping"}
        with pytest.raises(trio_websocket.ConnectionClosed) as caught:
            await client.get_message()
        assert caught.value.reason is not None
        assert caught.value.reason.code == 1000
        assert caught.value.reason.reason == "Connection timeout due to inactivity"
        assert trio.current_time() - answered == pytest.approx(90)
