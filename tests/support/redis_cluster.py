"""A Redis Cluster of three primaries for tests: a slot moves from one to another, and a node is killed.

Each node finds the whole cluster in its file when it starts, so nothing has to meet and to agree. What is left is two
seconds: a node that has just started takes no writes for as long.
"""

from __future__ import annotations

import secrets
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.redis_server import RedisServer, has_its_primary, start_together

SLOTS = 16_384
PRIMARIES = 3
NODE_TIMEOUT = 1000
"""Milliseconds without an answer after which a node takes another for down."""
OPTIONS = {
    "--bind": "127.0.0.1",
    "--save": "",
    "--appendonly": "no",
    "--cluster-enabled": "yes",
    "--cluster-config-file": "nodes.conf",
    "--cluster-node-timeout": str(NODE_TIMEOUT),
    "--cluster-require-full-coverage": "no",  # while a node is away, the others serve their slots
    "--cluster-replica-validity-factor": "0",  # a replica takes over, however long it has heard nothing
    "--repl-diskless-sync-delay": "0",
}


@dataclass
class ClusterNode:
    """A node, as it starts.

    Attributes:
        id: its name in the cluster, which it keeps.
        slots: those it has at the start; a replica has none.
        replica_of: the primary at the start, of a replica.
    """

    server: RedisServer
    slots: range = range(0)
    replica_of: ClusterNode | None = None
    id: str = field(default_factory=lambda: secrets.token_hex(20))


@dataclass
class RedisCluster:
    """The nodes, whatever their part is at the moment: first those that start as primaries, then their replicas."""

    nodes: list[ClusterNode]

    @property
    def servers(self) -> list[RedisServer]:
        return [node.server for node in self.nodes]

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """Where the nodes are: any of them is enough for a client to begin with."""
        return [("127.0.0.1", server.port) for server in self.servers]

    def slot(self, key: str) -> int:
        """The slot of a key, or of a shard channel."""
        running = next(server for server in self.servers if server.is_running)
        return int(running.ask("CLUSTER", "KEYSLOT", key))

    def owner(self, slot: int) -> RedisServer:
        """Who serves a slot, as most of the running nodes see it. A dead one keeps it, unless a replica takes over."""
        seen = Counter(port for server in self.servers if server.is_running for port in owners(server, slot))
        ((port, _),) = seen.most_common(1)
        return next(server for server in self.servers if server.port == port)

    def move_slot(self, slot: int, to: RedisServer) -> None:
        """Move a slot and its keys to another primary, as `redis-cli --cluster reshard` does: no key is ever away."""
        with self.moving_slot(slot, to):
            pass

    @contextmanager
    def moving_slot(self, slot: int, to: RedisServer) -> Iterator[None]:
        """Move it, but stay for the block in the state in which it has not moved, and what is new goes to `to`."""
        source = self.owner(slot)
        assert source is not to, f"port {to.port} serves slot {slot} already"
        to.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", self._id(source))
        source.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", self._id(to))
        yield
        while keys := source.ask("CLUSTER", "GETKEYSINSLOT", slot, 100):
            source.ask("MIGRATE", "127.0.0.1", to.port, "", 0, 5000, "KEYS", *keys)
        # The new owner first: it makes an epoch of its own, by which the others believe it.
        for server in (to, source):
            server.ask("CLUSTER", "SETSLOT", slot, "NODE", self._id(to))

    def _id(self, server: RedisServer) -> str:
        return next(node.id for node in self.nodes if node.server is server)


@contextmanager
def redis_cluster(*, replicas: int = 0) -> Iterator[RedisCluster]:
    """Three primaries, each with `replicas`, that serve all slots; all of them are gone afterwards. See `redis_server`
    for where there is no Redis."""
    with tempfile.TemporaryDirectory() as root, ExitStack() as stack:
        bounds = [SLOTS * number // PRIMARIES for number in range(PRIMARIES + 1)]
        primaries = [ClusterNode(server(root, port), range(*bounds[port : port + 2])) for port in range(PRIMARIES)]
        followers = [
            ClusterNode(server(root, PRIMARIES + number * PRIMARIES + of), replica_of=primary)
            for number in range(replicas)
            for of, primary in enumerate(primaries)
        ]
        nodes = [*primaries, *followers]
        for node in nodes:
            (node.server.folder / "nodes.conf").write_text(cluster_file(node, nodes))
            stack.callback(node.server.kill)
        cluster = RedisCluster(nodes)
        start_together(cluster.servers)
        for each in cluster.servers:
            each.wait_for(serves, "a node of a whole cluster")
        yield cluster


def server(root: str, number: int) -> RedisServer:
    folder = Path(root) / f"node-{number}"
    folder.mkdir()
    return RedisServer(folder, [word for option in OPTIONS.items() for word in option])


def cluster_file(myself: ClusterNode, nodes: list[ClusterNode]) -> str:
    """What `myself` would have written about the cluster, had it been there for long: a line a node, of its id,
    address, part, primary, last ping and pong, epoch, link and slots."""
    lines = []
    for node in nodes:
        part = "slave" if node.replica_of else "master"
        flags = f"myself,{part}" if node is myself else part
        primary = node.replica_of or node
        address = f"127.0.0.1:{node.server.port}@{node.server.port + 10_000}"
        slots = f" {node.slots[0]}-{node.slots[-1]}" if node.slots else ""
        of = primary.id if node.replica_of else "-"
        lines.append(f"{node.id} {address} {flags} {of} 0 0 {nodes.index(primary) + 1} connected{slots}")
    return "\n".join([*lines, f"vars currentEpoch {len(nodes)} lastVoteEpoch 0", ""])


def owners(server: RedisServer, slot: int) -> list[int]:
    """The port of who serves a slot, as a node sees it; none, where nobody does."""
    return [port for first, last, (_, port, *_), *_ in server.ask("CLUSTER", "SLOTS") if first <= slot <= last]


def serves(server: RedisServer) -> bool:
    """Whether it takes part with all the others; a replica, whether it has its primary's data."""
    info = dict(line.split(":") for line in server.ask("CLUSTER", "INFO").splitlines())
    lines = [line.split() for line in server.ask("CLUSTER", "NODES").splitlines()]
    linked = all(line[7] == "connected" and "fail" not in line[2] for line in lines)
    ready = has_its_primary(server) or server.info("replication")["role"] == "master"
    return linked and ready and (info["cluster_state"], info["cluster_slots_ok"]) == ("ok", str(SLOTS))
