"""What one command may be answered: replies that a client can take, and the server can build."""

from __future__ import annotations

from trio.abc import Clock

from tests.support.commands import Speaker, serving_clients
from verbtrio import App, Limits
from verbtrio.brokers import History
from verbtrio.multiplex.recovery import RECOVERED_BYTES

ROOM = "chat:a"
PYTHON_SDK_BYTES = 1024 * 1024
"""A larger message ends the Python SDK's connection."""


async def test_a_history_is_told_in_parts(autojump_clock: Clock) -> None:
    """Otherwise a command of 60 bytes would be answered with `Limits.max_history_bytes`, 64 MiB by default."""
    app = App()
    app.centrifuge("/connection")
    app.rooms("chat:{name}", history=History(), subscribe=True)
    async with serving_clients(app) as clients:
        for number in range(8):
            await app.room(ROOM).publish(f"{number}" + "x" * 200_000)
        speaker = await clients.client()
        seen: list[int] = []
        page = await speaker.result("history", channel=ROOM, limit=-1)
        while publications := page.get("publications"):
            assert len(speaker.messages[-1]) < RECOVERED_BYTES + 1000
            seen += [publication["offset"] for publication in publications]
            since = {"offset": seen[-1], "epoch": page["epoch"]}
            assert page["offset"] == 8
            page = await speaker.result("history", channel=ROOM, limit=-1, since=since)
        assert seen == list(range(1, 9))
        await app.room(ROOM).publish("y" * (RECOVERED_BYTES + 1000))
        page = await speaker.result("history", channel=ROOM, limit=-1, reverse=True)
        assert [publication["offset"] for publication in page["publications"]] == [9], "one at least"


async def publish_short_ones(app: App, speaker: Speaker, count: int) -> str:
    for _ in range(count):
        await speaker.result("publish", channel=ROOM, data=1)
    return str((await speaker.result("history", channel=ROOM, limit=0))["epoch"])


async def test_who_has_published_counts_too(autojump_clock: Clock) -> None:
    app = App(limits=Limits(max_message_bytes=4 * PYTHON_SDK_BYTES))
    app.centrifuge("/connection", connect=lambda client: client.scope.update(user={"id": "u" * 20_000}))
    app.rooms("chat:{name}", history=History(), publish=True)
    async with serving_clients(app) as clients:
        speaker = await clients.client()
        epoch = await publish_short_ones(app, speaker, 60)
        page = await speaker.result("history", channel=ROOM, limit=-1)
        assert 20 < len(page["publications"]) < 30
        assert len(speaker.messages[-1]) < PYTHON_SDK_BYTES
        other = await clients.client()
        result = await other.result("subscribe", channel=ROOM, recover=True, epoch=epoch, offset=0)
        assert "recovered" not in result
        assert len(other.messages[-1]) < PYTHON_SDK_BYTES


async def test_a_presence_that_no_client_could_take(autojump_clock: Clock) -> None:
    app = App(limits=Limits(max_backlog_bytes=20_000, high_water_bytes=20_000))
    app.centrifuge("/connection")
    app.rooms("chat:{name}", presence=True, subscribe=True)
    async with serving_clients(app) as clients:
        speaker = await clients.client()
        await speaker.result("subscribe", channel=ROOM)
        enter = clients.hub.host.session.enter
        for number in range(50):
            enter(ROOM, f"c{number}", f"u{number}", {"n": number})
        assert len((await speaker.result("presence", channel=ROOM))["presence"]) == 51
        for number in range(50, 500):
            enter(ROOM, f"c{number}", f"u{number}", {"n": number})
        assert await speaker.refused("presence", channel=ROOM) == 106
        assert (await speaker.result("presence_stats", channel=ROOM))["num_clients"] == 501
        assert speaker.closed is None
