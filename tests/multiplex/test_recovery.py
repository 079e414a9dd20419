"""What a client gets that comes back: all that it has missed, in order, once; or the word that it can't."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.abc import Clock

from tests.support.commands import ClientService, Speaker, serving_clients
from verbtrio import App, BrokerUnavailable, Limits, Subscription
from verbtrio.brokers import History
from verbtrio.multiplex.recovery import ENTRY_BYTES, RECOVERED_BYTES

ROOM = "chat:a"


def app_with(*, handler: bool = False, size: int = 10, limits: Limits | None = None) -> App:
    app = App(limits=limits)
    app.centrifuge("/connection")
    rooms = app.rooms("chat:{name}", history=History(size=size), subscribe=not handler)
    if handler:
        rooms(accept)
    return app


async def accept(sub: Subscription) -> None:
    await trio.sleep(0.5)
    async for _ in sub:
        pass


async def publish(app: App, *numbers: int) -> str:
    """Publish numbers in the room; the epoch."""
    positions = [await app.room(ROOM).publish({"n": number}) for number in numbers]
    assert positions[-1] is not None
    return positions[-1].epoch


def numbers(publications: list[Any]) -> list[int]:
    assert [publication["offset"] for publication in publications] == [p["data"]["n"] for p in publications]
    return [publication["data"]["n"] for publication in publications]


async def test_a_new_subscriber_is_told_where_it_is(autojump_clock: Clock) -> None:
    app = app_with()
    async with serving_clients(app) as clients:
        speaker = await clients.client()
        result = await speaker.result("subscribe", channel=ROOM)
        assert result.keys() == {"recoverable", "epoch", "positioned"}, "offset 0 is left out"
        epoch = await publish(app, 1, 2)
        await clients.settle()
        assert numbers(speaker.of("pub")) == [1, 2]
        other = await clients.client()
        assert await other.result("subscribe", channel=ROOM) == {
            "recoverable": True,
            "epoch": epoch,
            "offset": 2,
            "positioned": True,
        }
        assert epoch == result["epoch"]


@pytest.mark.parametrize("handler", [False, True], ids=["", "with a handler"])
@pytest.mark.parametrize(
    ("offset", "epoch", "missed"),
    [
        (20, "this", []),
        (17, "this", [18, 19, 20]),
        (17, "", [18, 19, 20]),
        (10, "this", list(range(11, 21))),
        (10, "", list(range(11, 21))),
        (9, "this", None),
        (9, "", None),
        (0, "", None),
        (21, "this", None),
        (21, "", None),
        (2**63 - 1, "this", None),
        (17, "another", None),
    ],
)
async def test_what_was_missed(
    offset: int, epoch: str, missed: list[int] | None, handler: bool, autojump_clock: Clock
) -> None:
    app = app_with(handler=handler)
    async with serving_clients(app) as clients:
        stayer = await clients.client()
        await stayer.result("subscribe", channel=ROOM)
        now = await publish(app, *range(1, 21))
        request = {
            "channel": ROOM,
            "recover": True,
            "offset": offset,
            "epoch": now if epoch == "this" else epoch,
        }
        speaker = await clients.client()
        result = await speaker.result("subscribe", **request)
        assert result["was_recovering"] is True
        assert (result["epoch"], result["offset"]) == (now, 20)
        assert result.get("recovered", False) is (missed is not None)
        assert numbers(result.get("publications", [])) == (missed or [])
        strict = await clients.client()
        reply = await strict.ask("subscribe", flag=2, **request)
        assert reply.get("error", {}).get("code") == (112 if missed is None else None)
        assert app.statistics().memberships == (2 if missed is None else 3)
        await publish(app, 21)
        await clients.settle()
        assert numbers(speaker.of("pub")) == [21]


async def test_nothing_was_published_yet(autojump_clock: Clock) -> None:
    app = app_with()
    async with serving_clients(app) as clients:
        speaker = await clients.client()
        result = await speaker.result("subscribe", channel=ROOM, recover=True, offset=0, epoch="")
        assert (result["recovered"], "publications" in result) == (True, False)


async def test_too_much_for_a_reply_is_not_recovered(autojump_clock: Clock) -> None:
    app = app_with()
    async with serving_clients(app) as clients:
        speaker = await clients.client()
        epoch = (await speaker.result("subscribe", channel=ROOM))["epoch"]
        for _ in range(2):
            await app.room(ROOM).publish("x" * (RECOVERED_BYTES // 2 - ENTRY_BYTES - len('""')))
        whole, not_whole = await clients.client(), await clients.client()
        request = {"channel": ROOM, "recover": True, "epoch": epoch}
        assert (await whole.result("subscribe", **request, offset=0))["recovered"] is True
        await app.room(ROOM).publish("x")
        result = await not_whole.result("subscribe", **request, offset=0)
        assert (result.get("recovered"), result["was_recovering"], result["offset"]) == (None, True, 3)


class Slow:
    """Delays the reading of histories: before it, and after it."""

    def __init__(self, clients: ClientService) -> None:
        session = clients.hub.host.session
        history = session.history

        async def slowly(*args: Any, **named: Any) -> Any:
            await trio.sleep(1)
            page = await history(*args, **named)
            await trio.sleep(1)
            return page

        session.history = slowly  # type: ignore[method-assign]  # this test's own delay


@pytest.mark.parametrize("offset", [None, 5, 0, 2])
async def test_what_is_published_while_the_history_is_read(offset: int | None, autojump_clock: Clock) -> None:
    """It comes behind the reply, without a gap and without what the reply has. (A position that is read must not be
    used after a checkpoint, unless what has come meanwhile waits.)"""
    app = app_with()
    async with serving_clients(app) as clients:
        epoch = await publish(app, *range(1, 6))
        Slow(clients)
        speaker = await clients.client()
        how = {} if offset is None else {"recover": True, "offset": offset, "epoch": epoch}
        command = speaker.command("subscribe", channel=ROOM, **how)
        await speaker.say(command)
        for number in range(6, 10):
            await trio.sleep(0.5)
            await publish(app, number)
            app.room(ROOM).broadcast({"after": number})
            assert len(speaker.lines) == 1, "nothing before the reply"
        await trio.sleep(5)
        await publish(app, 10)
        await clients.settle()
        assert [line.get("id") for line in speaker.lines[:2]] == [1, command["id"]]
        result = speaker.lines[1]["subscribe"]
        caught_up = numbers(result.get("publications", []))
        live = numbers([publication for publication in speaker.of("pub") if "offset" in publication])
        after = result["offset"] if offset is None else offset
        assert [*caught_up, *live] == list(range(after + 1, 11))
        assert caught_up == ([] if offset is None else list(range(offset + 1, result["offset"] + 1)))
        broadcasts = [publication["data"]["after"] for publication in speaker.of("pub") if "offset" not in publication]
        assert broadcasts == [6, 7, 8, 9], "what has no position was said while it was in the room"


@pytest.mark.parametrize("policy", ["close", "drop_oldest", "drop_newest"])
async def test_more_than_can_wait_meanwhile(policy: Any, autojump_clock: Clock) -> None:
    limits = Limits(max_backlog_bytes=10_000, high_water_bytes=1000, backlog_policy=policy)
    app = app_with(limits=limits)
    async with serving_clients(app) as clients:
        Slow(clients)
        speaker = await clients.client()
        await speaker.say(speaker.command("subscribe", channel=ROOM))
        await clients.settle()
        for number in range(20):
            app.room(ROOM).broadcast(f"{number:03}" + "x" * 1000)
            await clients.settle()
        if policy == "close":
            assert await speaker.end() == (3008, "slow")
            assert len(speaker.lines) == 1
            return
        await trio.sleep(5)
        assert "subscribe" in speaker.lines[1], "the reply is never dropped"
        kept = [int(data[:3]) for data in speaker.published()]
        assert kept == list(range(20 - len(kept), 20) if policy == "drop_oldest" else range(len(kept)))
        assert 5 <= len(kept) < 12


@pytest.mark.parametrize("stage", ["subscribe", "history", "wait"])
async def test_a_broker_that_is_away(stage: str, autojump_clock: Clock) -> None:
    app = app_with()
    async with serving_clients(app) as clients:
        speaker = await clients.client()
        session = clients.hub.host.session

        async def away(*args: Any, **named: Any) -> Any:
            raise BrokerUnavailable("redis://a-secret:6379 is away")

        error = {"code": 100, "message": "not available now", "temporary": True}
        if stage == "history":
            await speaker.result("subscribe", channel=ROOM)
        name = "wait_subscribed" if stage == "wait" else "history"
        setattr(session, name, away)
        method = "history" if stage == "history" else "subscribe"
        assert (await speaker.ask(method, channel=ROOM))["error"] == error
        assert "secret" not in str(speaker.messages)
        assert app.statistics().memberships == (stage == "history")
        delattr(session, name)
        assert "error" not in await speaker.ask(method, channel=ROOM)


async def test_history_that_is_published_to_by_subscribers(autojump_clock: Clock) -> None:
    """Each has all of it, in the order of the offsets, its own among them."""
    app = App()
    app.centrifuge("/connection")
    app.rooms("chat:{name}", history=History(), publish=True)
    async with serving_clients(app) as clients:
        speakers: list[Speaker] = [await clients.client() for _ in range(3)]
        for speaker in speakers:
            await speaker.result("subscribe", channel=ROOM)
        for n in range(10):
            for i, speaker in enumerate(speakers):
                await speaker.say(speaker.command("publish", channel=ROOM, data=[i, n]))
        await clients.settle()
        offsets = [[publication["offset"] for publication in speaker.of("pub")] for speaker in speakers]
        assert offsets == [list(range(1, 31))] * 3
        assert speakers[0].published() == speakers[1].published() == speakers[2].published()


@pytest.mark.parametrize("handler", [False, True], ids=["", "with a handler"])
async def test_many_rooms_at_once_are_not_too_much_for_one_that_reads(handler: bool, autojump_clock: Clock) -> None:
    """Each reply waits until the client has taken those before it. Otherwise it would be closed as too slow, come back,
    and be closed again, for ever."""
    app = app_with(handler=handler)
    rooms = [f"chat:{number}" for number in range(12)]
    async with serving_clients(app) as clients:
        for room in rooms:
            for _ in range(3):
                await app.room(room).publish("x" * 100_000)
        speaker = await clients.client()
        commands = [speaker.command("subscribe", channel=room, recover=True, offset=0) for room in rooms]
        await speaker.say(*commands)
        for command in commands:
            result = (await speaker.reply(command))["subscribe"]
            assert (result["recovered"], len(result["publications"])) == (True, 3)
        await app.room(rooms[0]).publish("live")
        await clients.settle()
        assert speaker.published() == ["live"]
        assert speaker.closed is None


async def test_one_that_waits_to_be_sent_what_it_has_missed_can_leave(autojump_clock: Clock) -> None:
    app = app_with()
    rooms = [f"chat:{number}" for number in range(6)]
    async with serving_clients(app) as clients:
        for room in rooms:
            await app.room(room).publish("x" * 400_000)
        speaker = await clients.client()
        go = speaker.stall()
        commands = [speaker.command("subscribe", channel=room, recover=True, offset=0) for room in rooms]
        await speaker.say(*commands, speaker.command("unsubscribe", channel=rooms[-1]))
        await clients.settle()
        go.set()
        replies = [await speaker.reply(command) for command in commands]
        assert ["subscribe" in reply for reply in replies] == [True] * 5 + [False]
        assert app.statistics().memberships == 5
