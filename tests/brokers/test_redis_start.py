"""A Redis that is not what the URL says: the session says so at its start, clearly, and never with a password."""

from __future__ import annotations

import logging
import ssl
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
import trio
from coredis.exceptions import AuthenticationError

from tests.support.redis_cluster import OPTIONS
from tests.support.redis_server import RedisServer, redis_server
from verbtrio.brokers.redis import RedisBroker
from verbtrio.testing.recording import RecordingProcess

SECRET = "op3n-sesame"


@pytest.fixture(scope="module")
def secured() -> Iterator[RedisServer]:
    with redis_server(tls=True, password=SECRET) as server:
        yield server


@pytest.fixture(scope="module")
def node() -> Iterator[RedisServer]:
    """A node of a cluster that is not whole yet."""
    with redis_server(*(word for option in OPTIONS.items() for word in option)) as server:
        yield server


async def refused(broker: RedisBroker) -> Exception:
    """Why a session of it can't begin."""
    with pytest.RaisesGroup(Exception, flatten_subgroups=True) as caught, trio.fail_after(10):
        async with broker.session(RecordingProcess()):
            pass
    error = caught.value.exceptions[0]
    assert isinstance(error, Exception)
    return error


async def trouble(broker: RedisBroker) -> str:
    """What is logged, and is in `health`, of a Redis that can't be used as yet."""
    with trio.fail_after(10):
        async with broker.session(RecordingProcess()) as session:
            assert not session.health.is_connected
            return session.health.detail


@pytest.mark.parametrize("password", ["", f":{SECRET}x@", f"somebody:{SECRET}@"])
async def test_a_wrong_password(secured: RedisServer, password: str, caplog: pytest.LogCaptureFixture) -> None:
    """It raises: nothing would get better by waiting."""
    broker = RedisBroker(f"rediss://{password}127.0.0.1:{secured.port}", ssl_context=secured.client_context)
    error = await refused(broker)
    assert isinstance(error, AuthenticationError)
    assert SECRET not in f"{error!r}{caplog.text}"


async def test_a_certificate_that_is_not_trusted(secured: RedisServer) -> None:
    """By the system's authorities, and another one's."""
    error = await refused(RedisBroker(f"rediss://:{SECRET}@127.0.0.1:{secured.port}"))
    assert isinstance(error, ValueError)
    assert f"the certificate of 127.0.0.1:{secured.port} is not trusted" in str(error)


async def test_no_tls_where_it_is_wanted(secured: RedisServer, caplog: pytest.LogCaptureFixture) -> None:
    """The server ends such a connection at once, as one would that is about to end: so it is tried again."""
    words = await trouble(RedisBroker(f"redis://:{SECRET}@127.0.0.1:{secured.port}"))
    assert "if it speaks TLS, the URL begins with rediss://" in words
    assert words in caplog.text
    assert SECRET not in caplog.text


async def test_tls_where_there_is_none(redis: RedisServer, caplog: pytest.LogCaptureFixture) -> None:
    """What the server makes of it is a matter of chance."""
    context = ssl.create_default_context()
    words = await trouble(RedisBroker(f"rediss://:{SECRET}@127.0.0.1:{redis.port}", ssl_context=context, timeout=0.5))
    assert "TLS" in words
    assert SECRET not in caplog.text


async def test_one_server_for_a_cluster(redis: RedisServer) -> None:
    error = await refused(RedisBroker(f"redis+cluster://127.0.0.1:{redis.port}"))
    assert isinstance(error, ValueError)
    assert f"127.0.0.1:{redis.port} is no node of a cluster" in str(error)


async def test_a_cluster_for_one_server(node: RedisServer) -> None:
    error = await refused(RedisBroker(f"redis://127.0.0.1:{node.port}"))
    assert isinstance(error, ValueError)
    assert "redis+cluster://" in str(error)


async def test_a_cluster_that_is_not_whole(node: RedisServer) -> None:
    """Slots that nobody serves."""
    assert "16384 slots of the cluster have no primary" in await trouble(
        RedisBroker(f"redis+cluster://127.0.0.1:{node.port}")
    )


async def test_one_server_for_sentinels(redis: RedisServer) -> None:
    error = await refused(RedisBroker(f"redis+sentinel://127.0.0.1:{redis.port}/main"))
    assert isinstance(error, ValueError)
    assert "is no sentinel" in str(error)


async def test_a_replica() -> None:
    """It takes no writes. It may become the primary."""
    with ExitStack() as stack:
        primary = stack.enter_context(redis_server())
        replica = stack.enter_context(redis_server("--replicaof", "127.0.0.1", str(primary.port)))
        broker = RedisBroker(replica.url)
        assert "is not, or not yet, a primary" in await trouble(broker)


async def test_a_redis_that_is_away_is_logged_once(
    redis: RedisServer, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not with each attempt, and without a traceback, by coredis, too: as long as nobody asks for its log."""
    monkeypatch.setattr(logging.getLogger("coredis"), "level", logging.NOTSET)
    with redis_server() as server:
        server.kill()
        async with RedisBroker(server.url).session(RecordingProcess()):
            await trio.sleep(0.5)
    told = [record for record in caplog.records if record.levelno >= logging.INFO]
    assert [record.name for record in told] == ["verbtrio.brokers.redis"]
    assert told[0].exc_info is None
    assert f"redis://127.0.0.1:{server.port}" in told[0].getMessage()


async def test_a_frozen_redis_is_logged_once(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel takes the connection, and nobody answers."""
    monkeypatch.setattr(logging.getLogger("coredis"), "level", logging.NOTSET)
    with redis_server() as server:
        server.freeze()
        async with RedisBroker(server.url, timeout=0.2).session(RecordingProcess()):
            await trio.sleep(1)
        server.thaw()
    told = [record for record in caplog.records if record.levelno >= logging.INFO]
    assert [record.name for record in told] == ["verbtrio.brokers.redis"]
    assert "has not answered as Redis does" in told[0].getMessage()
