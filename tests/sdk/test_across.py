"""Two processes with Redis between them, and the SDK's commands come to the wrong one."""

from __future__ import annotations

import secrets

import pytest

from tests.sdk.driving import JS, Drivers, Way
from tests.support.redis_server import RedisServer
from tests.support.workers import workers


@pytest.mark.parametrize("transport", ["http_stream", "sse"])
def test_commands_reach_their_session(transport: str, drivers: Drivers, redis: RedisServer) -> None:
    way = Way(JS, transport)
    with workers("tests.apps.across:app", 2, REDIS_URL=redis.url, PREFIX=secrets.token_hex(4)) as (one, other):
        target = way.target(one.server.url, "/connection")
        client = drivers.client(
            way, one.server.url, transports=target["transports"], emulation=f"{other.server.url}/emulation"
        )
        client.connect()
        for number in range(10):
            assert client.rpc("reflect", number) == number
        drivers.forget_clients()
