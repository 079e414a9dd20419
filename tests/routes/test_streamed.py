"""Clients without a WebSocket: their responses, their commands, and their ends."""

from __future__ import annotations

import json
from typing import Any

import pytest
import trio
from trio.abc import Clock

from tests.support.streamed import KINDS, Streamed, StreamedService, encode, serving_streams
from verbtrio import App, Client, Limits, Subscription

every_kind = pytest.mark.parametrize("kind", KINDS)


def chat(*, limits: Limits | None = None, **options: Any) -> App:
    app = App(limits=limits) if limits is not None else App()
    app.centrifuge("/connection", **options)
    app.rooms("open:{room}", subscribe=True, publish=True)

    @app.rooms("chat:{room}")
    async def room(sub: Subscription[Any], room: str) -> None:
        async for said in sub:
            await sub.publish({"said": said})

    @app.call("double")
    async def double(client: Client, data: int) -> int:
        return 2 * data

    return app


class TestWhatItCanDo:
    @every_kind
    async def test_all_of_it(self, kind: str, autojump_clock: Clock) -> None:
        async with serving_streams(chat()) as service:
            client, other = await service.client(kind), await service.client("http_stream")
            assert client.replies(1)[0]["connect"]["ping"] == 25
            assert client.session != other.session
            assert client.node == other.node
            for one in (client, other):
                assert "error" not in await one.ask("subscribe", channel="open:lobby")
            assert "error" not in await client.ask("publish", channel="open:lobby", data={"text": "Grüße\u2028\r\n"})
            await service.settle()
            assert client.published() == other.published() == [{"text": "Grüße\u2028\r\n"}]
            assert (await client.ask("rpc", method="double", data=21))["rpc"]["data"] == 42
            await client.ask("subscribe", channel="chat:lobby")
            await client.ask("publish", channel="chat:lobby", data="hi")
            await service.settle()
            assert client.published("chat:lobby") == [{"said": "hi"}]
            statistics = service.app.statistics()
            assert (statistics.streams, statistics.opened) == (2, 2)
            await client.leave()
            await trio.sleep(1)
            statistics = service.app.statistics()
            assert (statistics.streams, statistics.ended) == (1, {"gone": 1})
