"""Which Redis a URL names."""

from __future__ import annotations

import ssl
from typing import Any

import pytest

from verbtrio.brokers.redis import RedisBroker
from verbtrio.brokers.redis.servers import parse_url


@pytest.mark.parametrize(
    ("url", "kind", "locations", "db"),
    [
        ("redis://localhost", "single", (("localhost", 6379),), 0),
        ("redis://:secret@localhost:7000/3", "single", (("localhost", 7000),), 3),
        ("redis://localhost?db=4", "single", (("localhost", 6379),), 4),
        ("redis://[::1]:7000", "single", (("::1", 7000),), 0),
        ("redis+sentinel://a,b:7000/main", "sentinel", (("a", 26379), ("b", 7000)), 0),
        ("redis+sentinel://a/main/2", "sentinel", (("a", 26379),), 2),
        ("redis+cluster://a:1,b:2", "cluster", (("a", 1), ("b", 2)), 0),
        ("unix:///run/redis.sock?db=1", "single", (), 1),
    ],
)
def test_urls(url: str, kind: str, locations: tuple[tuple[str, int], ...], db: int) -> None:
    """Servers, sentinels, clusters and sockets."""
    servers = parse_url(url, None)
    assert (servers.kind, servers.locations, servers.access.db) == (kind, locations, db)
    assert servers.service == ("main" if kind == "sentinel" else "")
    assert servers.path == ("/run/redis.sock" if url.startswith("unix") else "")


@pytest.mark.parametrize("url", ["redis://us%40er:p%3Ass%2Fword@localhost", "redis+cluster://us%40er:p%3Ass%2Fword@a"])
def test_a_password_is_never_shown(url: str) -> None:
    """It may have any character, by percent-encoding."""
    servers = parse_url(url, None)
    assert (servers.access.username, servers.access.password) == ("us@er", "p:ss/word")
    for shown in (repr(servers), servers.shown, repr(RedisBroker(url))):
        assert "ss" not in shown.replace("class", "")
        assert "p%3A" not in shown


def test_tls_checks_the_certificate() -> None:
    """By default, by the system's authorities and with the name; another context may be given."""
    context = parse_url("rediss://localhost", None).access.ssl_context
    assert context is not None
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
    own = ssl.create_default_context()
    assert parse_url("rediss+cluster://localhost", own).access.ssl_context is own
    assert parse_url("redis://localhost", None).access.ssl_context is None


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("localhost:6379", "begins with one of redis://"),
        ("http://localhost", "begins with one of redis://"),
        ("redis://", "names a host"),
        ("redis://a,b", "sentinels or clusters"),
        ("redis://localhost:port", "a host and a port"),
        ("redis://localhost:99999", "a host and a port"),
        ("redis://localhost/name", "the number of a database"),
        ("redis://localhost/1/2", "the number of a database"),
        ("redis://localhost?ssl_cert_reqs=none", "no parameter ssl_cert_reqs"),
        ("redis+sentinel://a", "the name of what they watch"),
        ("redis+cluster://a/1", "only database 0"),
        ("unix://", "has its path"),
    ],
)
def test_what_names_no_redis(url: str, words: str) -> None:
    """It says what is wrong; and never a password."""
    with pytest.raises(ValueError, match=words):
        RedisBroker(url)


def test_a_context_without_tls() -> None:
    """It would not be used."""
    with pytest.raises(ValueError, match="rediss://"):
        RedisBroker("redis://localhost", ssl_context=ssl.create_default_context())


@pytest.mark.parametrize(
    "settings",
    [
        {"prefix": ""},
        {"prefix": "a{b"},
        {"timeout": 0},
        {"timeout": float("inf")},
        {"max_pending_bytes": 0},
        {"buffer_bytes": -1},
    ],
)
def test_bounds_that_make_no_sense(settings: dict[str, Any]) -> None:
    """They are refused, by their name."""
    name = next(iter(settings))
    with pytest.raises(ValueError, match=name):
        RedisBroker("redis://localhost", **settings)
