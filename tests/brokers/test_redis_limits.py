"""What may wait, and what happens when it is too much: on our side, in Redis, and while Redis is away."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from functools import partial

import pytest
import trio
import trio.testing

from tests.support.redis_processes import (
    GAP,
    HISTORY,
    Worker,
    check_clean,
    check_complete,
    check_offsets,
    check_senders,
    connected,
    eventually,
    processes,
    settled,
)
from tests.support.redis_server import RedisServer, redis_server
from verbtrio.base.errors import BrokerUnavailable
from verbtrio.messages.frame import Frame


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


async def away(*workers: Worker) -> None:
    """Have these processes lose Redis until `proxy.accept()`."""
    for worker in workers:
        worker.proxy.refuse()
        worker.proxy.cut()
    await eventually(lambda: not any(worker.session.health.is_connected for worker in workers))


async def publish_on(worker: Worker, room: str) -> None:
    """Publish again and again: Redis notices that it is full when it looks."""
    while True:
        await worker.session.publish(room, Frame(b"x:0", text=True), HISTORY)


def has_come_back(worker: Worker, accepted: int) -> bool:
    return worker.proxy.accepted > accepted


async def test_publish_while_away(server: RedisServer) -> None:
    """It raises at once, and says why."""
    async with processes(server, 1) as (one,):
        await away(one)
        with trio.fail_after(60), pytest.raises(BrokerUnavailable, match="can't be reached"):
            await one.session.publish("room", Frame(b"x", text=True), HISTORY)
        with pytest.raises(BrokerUnavailable, match="can't be reached"):
            await one.session.count("room")


async def test_what_is_said_while_away_waits(server: RedisServer) -> None:
    """Within its bound; then it goes out in its order. What does not fit is refused, or reported as missed."""
    async with processes(server, 2, buffer_bytes=4000) as (one, two):
        await two.subscribe("room", "other")
        await away(one)
        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(one.publish, "room", HISTORY)
                await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(BrokerUnavailable, match="can't be reached"):
                await one.session.publish("room", Frame(b"x" * 4000, text=True), HISTORY)
            one.session.broadcast("other", Frame(b"x" * 4000, text=True), (), None)
            assert one.accepted == {}
            one.proxy.accept()
        await two.until(lambda: len(two.process.delivered) == 10 and "other" in two.process.gaps)
        assert two.process.payloads("room") == [f"a:{number}".encode() for number in range(1, 11)]
        assert one.session.health.dropped == 1
        assert "room" not in two.process.gaps
    await check_clean(server)


async def test_what_waits_when_the_session_ends(server: RedisServer) -> None:
    """It is refused: nobody would send it any more."""
    async with trio.open_nursery() as nursery:
        async with processes(server, 1, buffer_bytes=4000) as (one,):
            await away(one)
            nursery.start_soon(one.publish, "room", HISTORY)
            await trio.testing.wait_all_tasks_blocked()
        with trio.fail_after(60):
            while not one.refused:
                await trio.sleep(0.01)


async def test_broadcasts_that_were_lost_on_their_way(server: RedisServer) -> None:
    """The others, whose own connections are well, are told of the gap."""
    async with processes(server, 2) as (one, two):
        await one.subscribe("room")
        await two.subscribe("room")
        one.proxy.stall("up")
        one.broadcast("room")
        await trio.testing.wait_all_tasks_blocked()
        one.proxy.cut()
        one.proxy.flow()
        await two.until(lambda: two.process.told("room") == [GAP])


async def test_redis_is_full(server: RedisServer, caplog: pytest.LogCaptureFixture) -> None:
    """`publish` raises with Redis's reason; the session neither ends nor connects again and again; then all is well."""
    async with processes(server, 2) as workers:
        one = workers[0]
        for worker in workers:
            await worker.subscribe("kept", "plain")
        server.ask("CONFIG", "SET", "maxmemory-policy", "noeviction")
        server.ask("CONFIG", "SET", "maxmemory", "1")
        with pytest.raises(BrokerUnavailable, match="OOM"):
            await publish_on(one, "kept")
        await eventually(lambda: not one.session.health.is_connected)
        assert "OOM" in one.session.health.detail
        begun = one.proxy.accepted
        await trio.sleep(3)
        assert one.proxy.accepted - begun < 20
        server.ask("CONFIG", "SET", "maxmemory", "0")
        await connected(*workers)
        await settled("plain", *workers)
        for worker in workers:
            check_offsets(worker, "kept")
            check_complete(worker, "kept", *workers)
            check_senders(worker, "plain")
    await check_clean(server)
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


async def test_a_process_that_is_too_slow(server: RedisServer) -> None:
    """Redis cuts it off, and it catches up, or is told of a gap; the others are not slowed down."""
    server.ask("CONFIG", "SET", "client-output-buffer-limit", "pubsub 2mb 1mb 1")
    async with processes(server, 2) as (one, two):
        for worker in (one, two):
            await worker.subscribe("kept", "plain")
        two.proxy.stall("down")
        payload = b"x" * 65536
        for number in range(1, 100):
            one.session.broadcast("plain", Frame(b"a:%d:" % number + payload, text=True), (), None)
            await one.publish("kept", HISTORY)
        two.proxy.flow()
        await connected(two)
        position = await one.publish("kept", HISTORY)
        await two.until(lambda: any(delivered.position == position for delivered in two.process.delivered))
        check_offsets(two, "kept")
        check_complete(two, "kept", one)
        assert two.process.told("plain").count(GAP) or len(two.process.relayed) == 99
    await check_clean(server)


async def test_a_connection_that_ends_while_it_is_used(server: RedisServer) -> None:
    """Whatever is asked meanwhile ends: with an answer, or with an error."""
    async with processes(server, 1) as (one,):
        await one.subscribe("plain")

        async def ask() -> None:
            while True:
                await trio.lowlevel.checkpoint()
                try:
                    with trio.fail_after(30):
                        await one.session.count("room")
                        await one.session.presence("room")
                except BrokerUnavailable:
                    pass

        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(ask)
            for number in range(4):
                one.session.enter("room", str(number), "user", None)
                one.session.exit("room", str(number), 0)
                accepted = one.proxy.accepted
                one.proxy.cut()
                await eventually(partial(has_come_back, one, accepted))
                one.session.send_user_nowait("user", Frame(b"x", text=True))
            nursery.cancel_scope.cancel()
        await settled("plain", one)
    await check_clean(server)


async def test_messages_for_users_that_are_too_many(server: RedisServer) -> None:
    """What would be more than may be on its way is refused, or dropped."""
    async with processes(server, 2, max_pending_bytes=100_000) as (one, two):
        frame = Frame(b"x" * 60_000, text=True)
        for _ in range(5):
            one.session.send_user_nowait("user", frame)
        with pytest.raises(BrokerUnavailable, match="max_pending_bytes"):
            await one.session.send_user("user", frame)
        await eventually(partial(has_sent, one, two))
        assert sum(user == "user" for user, _, _ in two.process.sent) == 1


def has_sent(sender: Worker, receiver: Worker) -> bool:
    sender.session.send_user_nowait("last", Frame(b"x", text=True))
    return any(user == "last" for user, _, _ in receiver.process.sent)
