"""What should not grow with the number of connections, members or rooms: each measurement gives its findings."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from benchmarks import generator
from benchmarks.catalogue import Place, Server
from benchmarks.loads import MESSAGE, Load
from benchmarks.process import Process, ServerError, free_port
from benchmarks.run import start
from benchmarks.verify import Client
from verbtrio.base.close import CloseInfo
from verbtrio.base.limits import Limits
from verbtrio.messages.frame import Frame, encode
from verbtrio.rooms.local import Rooms
from verbtrio.rooms.member import Member, Peer

ROOMS = (10, 100, 1000, 10_000)
FEW, MANY = 10, 10_000
"""Idle connections."""
HEARTBEAT = 30.0
"""Seconds between the pings of idle connections."""
FLAT = 1.5
"""The factor within which a thousandfold number leaves a time."""
O1 = 3.0
"""The same for joining and leaving: what is left of a dict's O(1) when it no longer fits into the processor's cache."""
WARM_UP = 3
"""Seconds before that: a system that has just made 20,000 sockets has work to do behind our backs."""
RATE = 2000
"""Echoes a second whose time is measured."""


@dataclass(frozen=True)
class Finding:
    """One line of the table."""

    what: str
    measured: str
    limit: str
    """A highest value, unless it says "at least"."""
    kept: bool | None
    """`None` where there is no limit: for comparison."""

    @property
    def verdict(self) -> str:
        return "" if self.kept is None else "kept" if self.kept else "**over**"


def deliveries(process: Process, prefix: str, seconds: float, rounds: int) -> Iterator[Finding]:
    """µs of CPU a delivery, by the room's members: as many connections in rooms of each size, and one room alone.

    With few connections a system has its sockets at hand, and a small room's server waits between two messages: what is
    compared is `MANY` connections, whatever the size of their rooms. One room alone is for comparison.
    """
    all_in_rooms: dict[int, list[float]] = {members: [] for members in ROOMS}
    alone: dict[int, list[float]] = {members: [] for members in ROOMS}
    for _ in range(rounds):
        for members in ROOMS:
            options: dict[str, str | int] = {"payload": MESSAGE, "warmup": 1}
            rooms = Load("rooms", "", "rooms", "/rooms", {**options, "clients": MANY, "members": members})
            room = Load("fanout", "", "fanout", "/room", {**options, "clients": members, "window": 2})
            for load, costs in ((rooms, all_in_rooms), (room, alone)):
                result = generator.run(load, process, prefix, seconds)
                process.settle()
                costs[members].append(1e6 * result["server_cpu"] / result["rate"])
    medians = {members: statistics.median(costs) for members, costs in all_in_rooms.items()}
    factor = spread(medians)
    what = f"µs of CPU a delivery, {MANY:,} connections in rooms of"
    yield Finding(what, f"{listed(medians)} (factor {factor:.2f})", f"{FLAT}", factor <= FLAT)
    yield Finding("the same, one room alone, of", listed({n: statistics.median(c) for n, c in alone.items()}), "", None)


def spread(costs: Mapping[int, float]) -> float:
    return max(costs.values()) / min(costs.values())


def listed(costs: Mapping[int, float]) -> str:
    return ", ".join(f"{number:,}: {cost:.2f}" for number, cost in costs.items())


def held_loop(process: Process, seconds: float) -> Iterator[Finding]:
    """How long broadcasts to 10,000 members hold the loop, by an instrument within the server."""
    options: dict[str, str | int] = {"clients": MANY, "window": 1, "payload": MESSAGE}
    load = Load("fanout", "", "fanout", "/room", options)
    with Client(process.port, "/held") as client:
        with generator.Generator(load, process.port, "", seconds) as run:
            run.expect("begin")
            client.send("")
            client.receive()  # begins anew: not the handshakes, the broadcasts
            run.expect("end")
            client.send("")
            held = json.loads(client.receive())
            client.graceful = False  # thousands are leaving: it would take a while
            run.answer()
    process.settle()
    for key, what in (("step", "one task's step"), ("turn", "one turn of the loop")):
        milliseconds = 1000 * held[key]
        yield Finding(f"broadcasts to {MANY:,}: longest {what}", f"{milliseconds:.1f} ms", "20 ms", milliseconds <= 20)


def latency_beside_idle(process: Process, prefix: str, seconds: float, rounds: int) -> Iterator[Finding]:
    """Echo's p99 beside few and beside many idle connections.

    That of a typical quarter of a second: a virtual machine's host, and whoever on the machine goes through the list of
    all its sockets, takes a core for milliseconds, together for about a hundredth of the time. The p99 of all then
    tells whether it was a little more or a little less than that.
    """
    what = "idle connections"
    yield from compare_p99(process, prefix, seconds, rounds, "quiet", FEW, MANY, what, FLAT, typical=True)


def compare_p99(
    process: Process,
    prefix: str,
    seconds: float,
    rounds: int,
    option: str,
    few: int,
    many: int,
    what: str,
    limit: float | None,
    *,
    typical: bool = False,
    dropped: int = 0,
    more: Mapping[str, str | int] = MappingProxyType({}),
) -> Iterator[Finding]:
    """Echo's p99 with the generator's `option` at `few` and at `many`, in turns. So many have to be `dropped`.

    It is judged as a whole, or by that of a `typical` quarter of a second; then the whole is given beside it.
    """
    results: dict[int, list[dict[str, float]]] = {few: [], many: []}
    for _ in range(rounds):
        for number, values in results.items():
            options: dict[str, str | int] = {
                "clients": 10,
                "rate": RATE,
                "payload": MESSAGE,
                "warmup": WARM_UP,
                option: number,
                **more,
            }
            load = Load("latency", "", "latency", "/echo", options)
            values.append(generator.run(load, process, prefix, seconds))
            process.settle()
            if number and values[-1]["dropped"] < dropped:
                raise ServerError(f"only {values[-1]['dropped']:.0f} clients were dropped, not {dropped}")

    def finding(title: str, key: str, limit: float | None) -> Finding:
        low, high = (statistics.median(value[key] for value in results[number]) for number in (few, many))
        measured = f"{low:.0f} and {high:.0f} µs (factor {high / low:.2f})"
        return Finding(
            title, measured, "" if limit is None else f"{limit:g}", None if limit is None else high / low <= limit
        )

    title = f"echo's p99 with {few:,} and {many:,} {what}"
    if typical:
        yield finding(f"{title}, in a typical quarter of a second", "typical_p99", limit)
        yield finding("the same, all of the time", "p99", None)
    else:
        yield finding(title, "p99", limit)


def idle(server: Server) -> Iterator[Finding]:
    """CPU and memory of 10,000 idle connections."""
    process = start(server, Place(free_port(), heartbeat=HEARTBEAT))
    try:
        load = Load("idle", "", "idle", "/echo", {"clients": MANY, "payload": MESSAGE}, seconds=HEARTBEAT)
        values = generator.run(load, process, server.prefix, HEARTBEAT)
    finally:
        process.stop()
    what = f"{MANY:,} idle, a ping each every {HEARTBEAT:.0f} s"
    yield Finding(f"{what}: CPU", f"{values['cpu']:.1f} % of a core", "3 %", values["cpu"] <= 3)
    yield Finding(f"{what}: memory", f"{values['kilobytes']:.1f} KB each", "12 KB", values["kilobytes"] <= 12)


def joins() -> Iterator[Finding]:
    """µs to join and leave, in rooms of all sizes, and with few and many rooms. Within this process."""
    sizes = {size: _join_and_leave(members=size, rooms=1) for size in ROOMS}
    numbers = {rooms: _join_and_leave(members=1, rooms=rooms) for rooms in ROOMS}
    for what, costs in (("by the room's members", sizes), ("by the number of rooms", numbers)):
        factor = spread(costs)
        measured = f"{listed(costs)} (factor {factor:.2f})"
        yield Finding(f"µs to join and leave, {what}", measured, f"{O1}", factor <= O1)


class _Peer:
    """Of a member that is sent nothing."""

    closed: CloseInfo | None = None
    dropped = 0
    limits = Limits()
    queued = 0

    def __init__(self) -> None:
        self.outlet = self
        self.held: list[Frame] = []

    def encode(self, data: object) -> Frame:
        return encode(data)

    def flush(self) -> None: ...
    def drop(self, messages: int) -> None: ...

    def put(self, frame: Frame) -> None: ...

    async def wait_below(self, size: int) -> None: ...

    def close(self, code: int, reason: str) -> None: ...

    def end(self, info: CloseInfo) -> None: ...

    def gap_in(self, key: Hashable) -> bool:
        return False

    def dismiss(self, key: Hashable, info: CloseInfo) -> Callable[[], object]:
        return self.flush


def _member() -> tuple[Member, Peer]:
    peer = _Peer()
    return Member({"type": "websocket", "headers": []}, peer), peer


def _join_and_leave(*, members: int, rooms: int, repeats: int = 20_000) -> float:
    registry = Rooms()
    for room in range(rooms):
        for _ in range(members):
            registry.join(room, *_member())
    newcomer, peer = _member()
    best = float("inf")
    for _ in range(5):  # the best of five: what else the machine does only adds
        begin = time.perf_counter()
        for number in range(repeats):
            registry.join(number % rooms, newcomer, peer)
            registry.leave(number % rooms, newcomer)
        best = min(best, time.perf_counter() - begin)
    return 1e6 * best / repeats


def table(findings: Sequence[Finding]) -> str:
    """As Markdown."""
    lines = ["| what | measured | at most | |", "|---|---|---|---|"]
    lines += [f"| {f.what} | {f.measured} | {f.limit} | {f.verdict} |" for f in findings]
    return "\n".join(lines)
