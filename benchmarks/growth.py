"""What should not grow with the number of connections, members or rooms: each measurement gives its findings."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from benchmarks import generator
from benchmarks.catalogue import Place, Server
from benchmarks.loads import MESSAGE, Load
from benchmarks.process import Process, ServerError, free_port
from benchmarks.run import start
from benchmarks.verify import Client
from verbtrio.messages import Frame
from verbtrio.rooms import Rooms

ROOMS = (10, 100, 1000, 10_000)
FEWEST = 2
"""Members of a room in which a message's own cost shows."""
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
    kept: bool | None
    """`None` where there is no limit: for comparison."""

    @property
    def verdict(self) -> str:
        return "" if self.kept is None else "kept" if self.kept else "**over**"


def deliveries(process: Process, prefix: str, seconds: float, rounds: int) -> Iterator[Finding]:
    """µs of CPU a delivery, in rooms of all sizes: what each further member adds, and with the message's own cost.

    A message has to be received, and its handler run, for two members as for ten thousand. In a room of ten that is
    two fifths of the whole, and says nothing about the room.
    """
    costs: dict[int, list[float]] = {members: [] for members in (FEWEST, *ROOMS)}  # µs a message
    for _ in range(rounds):
        for members, values in costs.items():
            load = Load("fanout", "", "fanout", "/room", {"clients": members, "window": 2, "payload": MESSAGE})
            result = generator.run(load, process, prefix, seconds)
            process.settle()
            values.append(1e6 * result["server_cpu"] / result["rate"] * (members - 1))
    least = statistics.median(costs[FEWEST])
    whole = {members: statistics.median(costs[members]) / (members - 1) for members in ROOMS}
    added = {members: (statistics.median(costs[members]) - least) / (members - FEWEST) for members in ROOMS}
    factor = spread(added)
    what = "µs of CPU that a delivery adds, by the room's members"
    yield Finding(what, f"{listed(added)} (factor {factor:.2f})", f"{FLAT}", factor <= FLAT)
    yield Finding("the same, with the message's own share", listed(whole), "", None)


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
    """Echo's p99 beside few and beside many idle connections."""
    yield from compare_p99(process, prefix, seconds, rounds, "quiet", FEW, MANY, "idle connections", FLAT)


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
    dropped: int = 0,
    more: Mapping[str, str | int] = MappingProxyType({}),
) -> Iterator[Finding]:
    """Echo's p99 with the generator's `option` at `few` and at `many`, in turns. So many have to be `dropped`."""
    times: dict[int, list[float]] = {few: [], many: []}
    for _ in range(rounds):
        for number, values in times.items():
            options: dict[str, str | int] = {
                "clients": 10,
                "rate": RATE,
                "payload": MESSAGE,
                "warmup": WARM_UP,
                option: number,
                **more,
            }
            load = Load("latency", "", "latency", "/echo", options)
            result = generator.run(load, process, prefix, seconds)
            process.settle()
            if number and result["dropped"] < dropped:
                raise ServerError(f"only {result['dropped']:.0f} clients were dropped, not {dropped}")
            values.append(result["p99"])
    low, high = (statistics.median(times[number]) for number in (few, many))
    measured = f"{low:.0f} and {high:.0f} µs (factor {high / low:.2f})"
    title = f"echo's p99 with {few:,} and {many:,} {what}"
    if limit is None:
        yield Finding(title, measured, "", None)
    else:
        yield Finding(title, measured, f"{limit:g}", high / low <= limit)


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


class _Member:
    """One that nothing is said to."""

    def __init__(self) -> None:
        self.outlet = self
        self.held: list[Frame] = []

    def flush(self) -> None: ...


def _join_and_leave(*, members: int, rooms: int, repeats: int = 20_000) -> float:
    registry = Rooms()
    for room in range(rooms):
        for _ in range(members):
            registry.join(room, _Member())
    newcomer = _Member()
    best = float("inf")
    for _ in range(5):  # the best of five: what else the machine does only adds
        begin = time.perf_counter()
        for number in range(repeats):
            registry.join(number % rooms, newcomer)
            registry.leave(number % rooms, newcomer)
        best = min(best, time.perf_counter() - begin)
    return 1e6 * best / repeats


def table(findings: Sequence[Finding]) -> str:
    """As Markdown."""
    lines = ["| what | measured | at most | |", "|---|---|---|---|"]
    lines += [f"| {f.what} | {f.measured} | {f.limit} | {f.verdict} |" for f in findings]
    return "\n".join(lines)
