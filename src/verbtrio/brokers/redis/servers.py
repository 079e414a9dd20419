"""Which Redis a URL names, and how its servers are found."""

from __future__ import annotations

import random
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import trio
from coredis.connection import BaseConnection
from coredis.exceptions import AuthenticationError, RedisError

from verbtrio.brokers.redis.dialing import Access, NotReached, Server, WrongServer, ask, dial, name_of
from verbtrio.brokers.redis.slots import SLOTS

SCHEMES = ("redis", "rediss", "unix", "redis+sentinel", "rediss+sentinel", "redis+cluster", "rediss+cluster")
DEFAULT_PORT, SENTINEL_PORT = 6379, 26379
OLDEST_CLUSTER = (7, 0)
"""The oldest version of a cluster's nodes: they have sharded publish and subscribe since then."""


@dataclass(frozen=True, slots=True)
class Nodes:
    """Open connections.

    Attributes:
        connections: one, or one to each primary of a cluster.
        slots: which of them serves each slot of a cluster; `None` where there is no cluster.
    """

    connections: Sequence[BaseConnection]
    slots: Sequence[int] | None = None


@dataclass(frozen=True, slots=True)
class Servers:
    """Where Redis is.

    Attributes:
        kind: "single", "sentinel" or "cluster".
        locations: hosts and ports: of the server, of the sentinels, or of nodes of the cluster.
        service: what the sentinels call the primary.
        path: of a Unix socket.
        access: how one gets in.
        shown: the URL without its password, for logs.
        found: the primaries of the cluster, as of the last time: those of the URL may be gone.
    """

    kind: str
    locations: tuple[tuple[str, int], ...]
    service: str
    path: str
    access: Access = field(repr=False)
    shown: str
    found: list[tuple[str, int]] = field(default_factory=list, compare=False)

    @asynccontextmanager
    async def connect(self, seconds: float) -> AsyncIterator[Nodes]:
        """Open connections for as long as the block: one, or one to each primary of a cluster.

        Args:
            seconds: until each must be there.

        Raises:
            NotReached, AuthenticationError, WrongServer, RedisError, TimeoutError: they can't be opened; alone, or in
                an `ExceptionGroup`.
        """
        async with trio.open_nursery() as nursery:
            if self.kind == "sentinel":
                nodes = await self._connect_primary(nursery, seconds)
            elif self.kind == "cluster":
                nodes = await self._connect_cluster(nursery, seconds)
            else:
                where = self.path or self.locations[0]
                server = await dial(nursery, where, self.access, seconds)
                _check_single(server, name_of(where))
                nodes = Nodes([server.connection])
            yield nodes
            nursery.cancel_scope.cancel()

    # Sentinels

    async def _connect_primary(self, nursery: trio.Nursery, seconds: float) -> Nodes:
        where = await self._ask_sentinels(seconds)
        server = await dial(nursery, where, self.access, seconds)
        _check_primary(server, name_of(where))
        return Nodes([server.connection])

    async def _ask_sentinels(self, seconds: float) -> tuple[str, int]:
        """Where the primary is, by the word of the first sentinel that knows."""
        question = (b"SENTINEL", b"GET-MASTER-ADDR-BY-NAME", self.service.encode())
        error: Exception = NotReached("the URL names no sentinel")
        for location in self.locations:
            try:
                try:
                    found = await ask(location, self.access.without_user, seconds, _check_sentinel, *question)
                except AuthenticationError:
                    found = await ask(location, self.access.on_database(0), seconds, _check_sentinel, *question)
            except (NotReached, RedisError, TimeoutError) as failed:
                error = NotReached(f"no sentinel can be asked; the last one: {failed}")
                continue
            if found is not None:
                return found[0].decode(), int(found[1])
            error = WrongServer(f"the sentinels watch nothing of the name {self.service!r}")
        raise error

    # Clusters

    async def _connect_cluster(self, nursery: trio.Nursery, seconds: float) -> Nodes:
        primaries, slots = await self._ask_nodes(seconds)
        servers: dict[tuple[str, int], Server] = {}

        async def reach(where: tuple[str, int]) -> None:
            server = servers[where] = await dial(nursery, where, self.access, seconds)
            _check_primary(server, name_of(where))
            # One that has just started, or sees too few of the others, publishes, but takes no commands.
            state: Any = await server.connection.create_request(b"CLUSTER INFO", decode=False)
            if b"cluster_state:ok" not in state:
                raise NotReached(f"{name_of(where)} says that the cluster is down")

        async with trio.open_nursery() as reaching:
            for where in primaries:
                reaching.start_soon(reach, where)
        self.found[:] = primaries
        return Nodes([servers[where].connection for where in primaries], slots)

    async def _ask_nodes(self, seconds: float) -> tuple[list[tuple[str, int]], list[int]]:
        """The primaries, and which of them serves each slot, by the word of the first node that can tell."""
        error: Exception | None = None
        # In any order: one may be out of date, and must not be the first each time.
        for location in dict.fromkeys((*random.sample(self.found, len(self.found)), *self.locations)):
            try:
                answer = await ask(location, self.access, seconds, _check_node, b"CLUSTER SLOTS")
                return layout_of(answer, location)
            except AuthenticationError:
                raise
            except (NotReached, RedisError, TimeoutError) as failed:
                error = failed
        raise NotReached(f"no node of the cluster can be asked; the last one: {error}")


def layout_of(answer: Sequence[Any], asked: tuple[str, int]) -> tuple[list[tuple[str, int]], list[int]]:
    """The primaries of a cluster, and the place of each slot's among them, by what `CLUSTER SLOTS` has answered.

    Args:
        asked: where the one is that has answered: it may not know its own address.

    Raises:
        NotReached: some slots have no primary.
    """
    places: dict[tuple[str, int], int] = {}
    slots = [-1] * SLOTS
    for first, last, primary, *_ in answer:
        where = (primary[0].decode() if primary[0] else asked[0], int(primary[1]))
        place = places.setdefault(where, len(places))
        slots[first : last + 1] = [place] * (last + 1 - first)
    if missing := slots.count(-1):
        raise NotReached(f"{missing} slots of the cluster have no primary")
    return list(places), slots


def _check_primary(server: Server, name: str) -> None:
    if server.role != "master":
        raise NotReached(f"{name} is not, or not yet, a primary")


def _check_single(server: Server, name: str) -> None:
    if server.mode == "cluster":
        raise WrongServer(f"{name} is a node of a cluster: the URL begins with redis+cluster:// or rediss+cluster://")
    if server.mode == "sentinel":
        raise WrongServer(f"{name} is a sentinel: the URL is redis+sentinel://host:26379/name")
    _check_primary(server, name)


def _check_sentinel(server: Server, name: str) -> None:
    if server.mode != "sentinel":
        raise WrongServer(f"{name} is no sentinel: without sentinels the URL begins with redis:// or rediss://")


def _check_node(server: Server, name: str) -> None:
    if server.mode != "cluster":
        raise WrongServer(f"{name} is no node of a cluster: the URL of one server begins with redis:// or rediss://")
    if server.version < OLDEST_CLUSTER:
        major, minor = server.version
        raise WrongServer(f"{name} is Redis {major}.{minor}: a cluster needs 7.0 or newer, for its sharded publish")


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
    if scheme.startswith("rediss"):
        ssl_context = ssl_context or ssl.create_default_context()
    elif ssl_context is not None:
        raise ValueError("ssl_context= is for rediss://")
    access = Access(unquote(user) or None, unquote(password) or None, ssl_context, int(db))
    if scheme == "unix":
        if not parts.path:
            raise ValueError("the URL of a Unix socket has its path: unix:///run/redis.sock")
        return Servers(kind, (), "", unquote(parts.path), access, f"unix://{parts.path}")
    port = SENTINEL_PORT if kind == "sentinel" else DEFAULT_PORT
    locations = tuple(_location(each, port) for each in hosts.split(",") if each)
    if not locations or (kind == "single" and len(locations) > 1):
        raise ValueError("a Redis URL names a host" if not locations else "several hosts are for sentinels or clusters")
    shown = f"{scheme}://{','.join(f'{host}:{number}' for host, number in locations)}{parts.path}"
    return Servers(kind, locations, service, "", access, shown)


def _location(text: str, default: int) -> tuple[str, int]:
    parts = urlsplit(f"//{text}")
    try:
        port = parts.port
    except ValueError as error:
        raise ValueError(f"{text!r} is not a host and a port") from error
    if not parts.hostname:
        raise ValueError(f"{text!r} is not a host and a port")
    return parts.hostname, default if port is None else port
