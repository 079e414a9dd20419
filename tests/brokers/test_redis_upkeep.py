"""A mistake within a link ends the link, and not the server: it goes to the log, and the next link is made."""

from __future__ import annotations

import logging

import anyio
import pytest
import trio
from coredis.connection import BaseConnection

from tests.support.redis_processes import HISTORY, connected, eventually, processes
from tests.support.redis_server import RedisServer
from verbtrio.base.errors import BrokerUnavailable
from verbtrio.brokers.redis import liveness, upkeep
from verbtrio.brokers.redis.link import Link, LinkLost
from verbtrio.brokers.redis.liveness import Liveness
from verbtrio.messages.frame import Frame


async def test_a_mistake_within_a_link(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A task that fails."""
    monkeypatch.setattr(liveness, "HEARTBEAT_SECONDS", 0.02)
    beat, beats = Liveness.beat, 0

    async def beat_wrongly(self: Liveness, link: Link, me: str, *, is_new: bool = False) -> None:
        nonlocal beats
        beats += 1
        if beats == 2:
            raise ZeroDivisionError("a bug")
        await beat(self, link, me, is_new=is_new)

    async with processes(redis, 1) as (one,):
        monkeypatch.setattr(Liveness, "beat", beat_wrongly)
        beats = 1
        with trio.fail_after(30):
            while one.session.health.is_connected:
                await trio.sleep(0.001)
        assert one.session.health.detail == "ZeroDivisionError: a bug"
        await connected(one)
        assert await one.session.publish("room", Frame(b"hello", text=True), HISTORY) is not None
    (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert record.exc_info is not None
    assert upkeep.logger.name == record.name


@pytest.mark.parametrize("error", [anyio.ClosedResourceError(), anyio.BrokenResourceError()])
async def test_a_connection_that_is_just_being_closed(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """It is as lost as one that is closed, for commands and for subscriptions."""

    def closed(self: BaseConnection, *args: object, **options: object) -> object:
        raise error

    async with processes(redis, 1) as (one,):
        with monkeypatch.context() as context:
            context.setattr(BaseConnection, "create_request", closed)
            with pytest.raises(BrokerUnavailable), trio.fail_after(30):
                await one.session.publish("room", Frame(b"hello", text=True), None)
        await connected(one)
        with monkeypatch.context() as context:
            context.setattr(BaseConnection, "send_command", closed)
            one.session.subscribe("room")
            with pytest.raises(BrokerUnavailable), trio.fail_after(30):
                await one.session.wait_subscribed("room")
        await connected(one)
        with trio.fail_after(30):
            await one.session.wait_subscribed("room")


async def test_a_link_that_is_lost_before_it_is_answered(redis: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Redis has its name then, and nobody has heard so. The next link gives it up."""
    monkeypatch.setattr(liveness, "DEATH_SECONDS", 1000.0)
    beat = Liveness.beat
    names: list[str] = []

    async def beat_and_lose(self: Liveness, link: Link, me: str, *, is_new: bool = False) -> None:
        await beat(self, link, me, is_new=is_new)
        if is_new:
            names.append(me)
            if len(names) in (2, 3):
                raise LinkLost("just now")

    async with processes(redis, 1) as (one,):
        names.append("the first")
        monkeypatch.setattr(Liveness, "beat", beat_and_lose)
        one.proxy.cut()
        await eventually(lambda: len(names) == 4 and one.session.health.is_connected)
        begun = names[1:3]
        await eventually(lambda: not set(begun) & set(redis.ask("ZRANGE", "verbtrio:{processes}:p", "0", "-1")))
