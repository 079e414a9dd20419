"""Which Redis a URL names, and how a connection to it is opened."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from coredis import Redis, Sentinel
from coredis.connection import BaseConnection, TCPLocation
from coredis.retry import NoRetryPolicy

SCHEMES = ("redis", "rediss", "unix", "redis+sentinel", "rediss+sentinel", "redis+cluster", "rediss+cluster")
DEFAULT_PORT, SENTINEL_PORT = 6379, 26379


@dataclass(frozen=True, slots=True)
class Servers:
    """Where Redis is.

    Attributes:
        kind: "single", "sentinel" or "cluster".
        locations: hosts and ports: of the server, of the sentinels, or of nodes of the cluster.
        service: what the sentinels call the primary.
        path: of a Unix socket.
        options: for each connection.
        shown: the URL without its password, for logs.
    """

    kind: str
    locations: tuple[tuple[str, int], ...]
    service: str
    path: str
    options: dict[str, Any] = field(repr=False)
    shown: str

    @asynccontextmanager
    async def connect(self, seconds: float) -> AsyncIterator[list[BaseConnection]]:
        """Open connections for as long as the block: one, or one to each primary of a cluster.

        Args:
            seconds: until each must be there.

        Raises:
            RedisError, OSError, TimeoutError: they can't be opened; alone, or in an `ExceptionGroup`.
        """
        options = {**self.options, "connect_timeout": seconds, "stream_timeout": seconds}
        if self.kind == "sentinel":
            locations = [TCPLocation(*location) for location in self.locations]
            asking = {key: options[key] for key in ("connect_timeout", "stream_timeout")}
            async with (
                Sentinel(locations, sentinel_kwargs=asking, retry_policy=NoRetryPolicy(), **options) as sentinel,
                sentinel.primary_for(self.service) as client,
                client.connection_pool.acquire() as connection,
            ):
                yield [connection]
        else:
            where: dict[str, Any] = {"unix_socket_path": self.path} if self.path else {}
            if self.locations:
                where["host"], where["port"] = self.locations[0]
            async with (
                Redis(**where, retry_policy=NoRetryPolicy(), **options) as client,
                client.connection_pool.acquire() as connection,
            ):
                yield [connection]


def parse_url(url: str, ssl_context: ssl.SSLContext | None) -> Servers:
    """The servers that a URL names: `redis://user:password@host:6379/0`, `rediss://` for TLS, `unix:///path?db=0`,
    `redis+sentinel://host1:26379,host2:26379/service/0`, `redis+cluster://host1:6379,host2:6379`.

    Raises:
        ValueError: it is none of these.
    """
    parts = urlsplit(url)
    scheme = parts.scheme
    if scheme not in SCHEMES:
        raise ValueError(f"a Redis URL begins with one of {', '.join(each + '://' for each in SCHEMES)}")
    kind = scheme.partition("+")[2] or "single"
    credentials, _, hosts = parts.netloc.rpartition("@")
    user, _, password = credentials.partition(":")
    options: dict[str, Any] = {"username": unquote(user) or None, "password": unquote(password) or None}
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    if unknown := query.keys() - {"db"}:
        raise ValueError(f"a Redis URL has no parameter {', '.join(sorted(unknown))}: only db")
    path = [unquote(each) for each in parts.path.split("/") if each] if scheme != "unix" else []
    service = path.pop(0) if kind == "sentinel" and path else ""
    if kind == "sentinel" and not service:
        raise ValueError("the URL of sentinels ends with the name of what they watch: redis+sentinel://host:26379/name")
    db = query.get("db", path.pop(0) if path else "0")
    if path or not db.isdecimal():
        raise ValueError("the path of a Redis URL is the number of a database, as in redis://host:6379/0")
    if kind == "cluster" and db != "0":
        raise ValueError("a Redis cluster has only database 0")
    options["db"] = int(db)
    if scheme.startswith("rediss"):
        options["ssl_context"] = ssl_context or ssl.create_default_context()
    elif ssl_context is not None:
        raise ValueError("ssl_context= is for rediss://")
    if scheme == "unix":
        if not parts.path:
            raise ValueError("the URL of a Unix socket has its path: unix:///run/redis.sock")
        return Servers(kind, (), "", unquote(parts.path), options, f"unix://{parts.path}")
    port = SENTINEL_PORT if kind == "sentinel" else DEFAULT_PORT
    locations = tuple(_location(each, port) for each in hosts.split(",") if each)
    if not locations or (kind == "single" and len(locations) > 1):
        raise ValueError("a Redis URL names a host" if not locations else "several hosts are for sentinels or clusters")
    shown = f"{scheme}://{','.join(f'{host}:{number}' for host, number in locations)}{parts.path}"
    return Servers(kind, locations, service, "", options, shown)


def _location(text: str, default: int) -> tuple[str, int]:
    parts = urlsplit(f"//{text}")
    try:
        port = parts.port
    except ValueError as error:
        raise ValueError(f"{text!r} is not a host and a port") from error
    if not parts.hostname:
        raise ValueError(f"{text!r} is not a host and a port")
    return parts.hostname, default if port is None else port
