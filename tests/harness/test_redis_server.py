"""The servers that the tests start are what these take them for."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import coredis
import pytest
import trio

from tests.support import resp
from tests.support.redis_server import RedisServer, redis_server, require_redis


@pytest.fixture(scope="module")
def own() -> Iterator[RedisServer]:
    """One for the tests that harm it; it runs when each of them begins."""
    with redis_server() as server:
        yield server


@pytest.fixture
def guarded() -> Iterator[RedisServer]:
    """One with TLS and a password."""
    with redis_server(tls=True, password="secret") as server:
        yield server


async def test_coredis_speaks_to_it(redis: RedisServer) -> None:
    async with coredis.Redis.from_url(redis.url) as client:
        await client.set("harness", "1")
        assert await client.get("harness") == b"1"
    assert redis.ask("GETDEL", "harness") == "1"


def test_it_is_asked_by_hand(redis: RedisServer) -> None:
    assert redis.ask("RPUSH", "list", "a", "", "ä\r\n") == 3
    assert redis.ask("LRANGE", "list", 0, -1) == ["a", "", "ä\r\n"]
    assert redis.ask("GET", "nothing") is None
    with pytest.raises(resp.ReplyError, match="WRONGTYPE"):
        redis.ask("GET", "list")
    assert redis.ask("EVAL", "return {1, {redis.error_reply('ERR x')}}", 0)[0] == 1
    redis.ask("DEL", "list")


def test_a_killed_one_comes_back_without_its_data(own: RedisServer) -> None:
    own.ask("SET", "key", "value")
    first = own.pid
    own.kill()
    own.kill()
    assert not own.is_running
    with pytest.raises(ConnectionRefusedError):
        own.ask("PING")
    own.start()
    assert own.pid != first
    assert own.ask("GET", "key") is None


def test_a_persistent_one_forgets_nothing_it_has_answered() -> None:
    with redis_server(persistent=True) as server:
        for number in range(100):
            server.ask("SET", "key", number)
        server.restart()
        assert server.ask("GET", "key") == "99"


def test_a_frozen_one_takes_connections_and_does_not_answer(own: RedisServer) -> None:
    own.freeze()
    with socket.create_connection(("127.0.0.1", own.port), 5) as sock:
        sock.sendall(resp.encode("SET", "key", "late"))
        with pytest.raises(TimeoutError):
            resp.ask(own.port, "PING", patience=0.1)
        own.thaw()
        assert sock.recv(100) == b"+OK\r\n"


def test_a_frozen_one_can_be_killed() -> None:
    with redis_server() as server:
        server.freeze()
    assert not server.is_running


def test_it_is_emptied(own: RedisServer) -> None:
    own.ask("SET", "key", "value")
    script = own.ask("SCRIPT", "LOAD", "return 1")
    own.flush()
    assert own.ask("DBSIZE") == 0
    assert own.ask("SCRIPT", "EXISTS", script) == [0]


async def test_its_connections_are_told(own: RedisServer) -> None:
    assert own.connections() == []
    async with coredis.Redis.from_url(own.url, client_name="tested") as client:
        await client.ping()
        assert [connection["name"] for connection in own.connections()] == ["tested"]
    with trio.fail_after(5):
        while own.connections():
            await trio.sleep(0.01)


async def test_tls_with_a_password(guarded: RedisServer) -> None:
    assert guarded.url == f"rediss://:secret@127.0.0.1:{guarded.port}"
    assert guarded.ask("PING") == "PONG"
    async with coredis.Redis.from_url(f"{guarded.url}?ssl_ca_certs={guarded.ca_file}") as client:
        assert await client.ping() == b"PONG"
    with pytest.raises(resp.ReplyError, match="NOAUTH"):
        resp.ask(guarded.port, "PING", context=guarded.client_context)
    with pytest.raises(ssl.SSLCertVerificationError):
        resp.ask(guarded.port, "PING", context=ssl.create_default_context())


def test_its_files_go_with_it() -> None:
    with redis_server("--maxclients", "7", persistent=True) as server:
        assert server.ask("CONFIG", "GET", "maxclients") == ["maxclients", "7"]
        folder = server.folder
        assert any(folder.iterdir())
    assert not folder.exists()


def test_options_it_does_not_know_are_told() -> None:
    with pytest.raises(AssertionError, match="Bad directive"), redis_server("--no-such-option", "1"):
        pass


def test_the_command_can_be_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    command = tmp_path / "some-server"
    command.symlink_to(require_redis())
    monkeypatch.setenv("REDIS_SERVER", str(command))
    with redis_server() as server:
        assert server.command == str(command)


def test_where_there_is_none_it_is_skipped_or_fails(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("REDIS_SERVER", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    outcomes = []
    for promised in ("false", "true"):
        monkeypatch.setenv("CI", promised)
        # A skip that nobody has expected would skip this test.
        with pytest.raises(
            (pytest.skip.Exception, pytest.fail.Exception), match="DID NOT RUN: redis-server not"
        ) as told:
            require_redis()
        outcomes.append(told.type)
    assert outcomes == [pytest.skip.Exception, pytest.fail.Exception]
