"""A Redis primary with two replicas, watched by three sentinels: tests kill the primary, and a replica takes over.

By their files the sentinels know each other, and the replicas, from the first moment: to find out takes them seconds.
"""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.support.redis_server import RedisServer, has_its_primary, start_together

NAME = "main"
"""What the sentinels call the primary, whichever it is."""
QUORUM = 2
DOWN_AFTER = 500
"""Milliseconds without an answer after which a sentinel takes a server for down."""
FAILOVER_TIMEOUT = 2000
"""Milliseconds after which a failover that has come to nothing is tried again."""
STORE = ["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--repl-diskless-sync-delay", "0"]


@dataclass
class SentinelGroup:
    """The servers, whatever their part is at the moment.

    Attributes:
        nodes: those with data. The first is the primary at the start.
        sentinels: those that watch.
    """

    nodes: list[RedisServer]
    sentinels: list[RedisServer]

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """Where the sentinels are: what a client is given, with `NAME`."""
        return [("127.0.0.1", sentinel.port) for sentinel in self.sentinels]

    def primary(self) -> RedisServer:
        """The primary, by the word of most sentinels; after a kill the dead one for some two seconds still."""
        ports = []
        for sentinel in self.sentinels:
            with suppress(OSError):
                ports.append(int(sentinel.ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", NAME)[1]))
        port = max(ports, key=ports.count)
        return next(node for node in self.nodes if node.port == port)

    def replicas(self) -> list[RedisServer]:
        """The nodes that run and are not the primary."""
        primary = self.primary()
        return [node for node in self.nodes if node is not primary and node.is_running]


@contextmanager
def redis_sentinel() -> Iterator[SentinelGroup]:
    """Six servers, ready for a failover when this begins; all of them are gone afterwards. See `redis_server` for where
    there is no Redis."""
    with tempfile.TemporaryDirectory() as root, ExitStack() as stack:
        primary, *replicas = nodes = [RedisServer(folder(root, f"node-{number}"), STORE) for number in range(3)]
        for replica in replicas:
            replica.add_arguments("--replicaof", "127.0.0.1", str(primary.port))
        sentinels = [sentinel(folder(root, f"sentinel-{number}")) for number in range(3)]
        ids = {sentinel.port: secrets.token_hex(20) for sentinel in sentinels}
        for each in sentinels:
            configuration = sentinel_configuration(each.port, ids, nodes)
            (each.folder / "sentinel.conf").write_text(configuration)
        for server in (*nodes, *sentinels):
            stack.callback(server.kill)
        start_together([*nodes, *sentinels])
        for replica in replicas:
            replica.wait_for(has_its_primary, "a replica that has its primary's data")
        for each in sentinels:
            each.wait_for(sees_all, "a sentinel that sees all of its group")
        yield SentinelGroup(nodes, sentinels)


def folder(root: str, name: str) -> Path:
    path = Path(root) / name
    path.mkdir()
    return path


def sentinel(folder: Path) -> RedisServer:
    """A sentinel is the server itself, in another mode; its file, which it writes to, comes first."""
    return RedisServer(folder, [str(folder / "sentinel.conf"), "--sentinel", "--bind", "127.0.0.1"])


def sentinel_configuration(port: int, ids: dict[int, str], nodes: list[RedisServer]) -> str:
    """The file of the sentinel at `port`. `ids` has the identifiers of all, by their ports."""
    primary, *replicas = nodes
    lines = [
        f"myid {ids[port]}",
        f"monitor {NAME} 127.0.0.1 {primary.port} {QUORUM}",
        f"down-after-milliseconds {NAME} {DOWN_AFTER}",
        f"failover-timeout {NAME} {FAILOVER_TIMEOUT}",
        *(f"known-replica {NAME} 127.0.0.1 {replica.port}" for replica in replicas),
        *(f"known-sentinel {NAME} 127.0.0.1 {other} {ids[other]}" for other in ids if other != port),
    ]
    return "".join(f"sentinel {line}\n" for line in lines)


def sees_all(sentinel: RedisServer) -> bool:
    """Whether a failover could begin now: a replica is chosen only if it has told of itself."""
    replicas = [dict(zip(*[iter(reply)] * 2, strict=True)) for reply in sentinel.ask("SENTINEL", "REPLICAS", NAME)]
    others = [dict(zip(*[iter(reply)] * 2, strict=True)) for reply in sentinel.ask("SENTINEL", "SENTINELS", NAME)]
    flags = [(each["flags"], each.get("master-link-status", "ok")) for each in (*replicas, *others)]
    return sorted(flags) == [("sentinel", "ok")] * 2 + [("slave", "ok")] * 2
