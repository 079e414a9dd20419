"""What should not grow with the number of connections, members or rooms: each measurement gives its findings."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from benchmarks import generator
from benchmarks.catalogue import Place, Server
from benchmarks.loads import MESSAGE, Load
from benchmarks.process import Process, free_port
from benchmarks.run import start
from benchmarks.verify import Client
from verbtrio.messages import Frame
from verbtrio.rooms import Rooms

ROOMS = (10, 100, 1000, 10_000)
FEW, MANY = 10, 10_000
"""Idle connections."""
HEARTBEAT = 30.0
"""Seconds between the pings of idle connections."""
FLAT = 1.5
"""The factor within which a thousandfold number leaves a time."""
O1 = 3.0
"""The same for joining and leaving: what is left of a dict's O(1) when it no longer fits into the processor's cache."""
RATE = 2000
"""Echoes a second whose time is measured."""


@dataclass(frozen=True)
class Finding:
    """One line of the table."""

    what: str
    measured: str
    limit: str
    kept: bool


def deliveries(process: Process, prefix: str, seconds: float) -> Iterator[Finding]:
    """µs of CPU a delivery, in rooms of all sizes."""
    costs = {}
    for members in ROOMS:
        load = Load("fanout", "", "fanout", "/room", {"clients": members, "window": 2, "payload": MESSAGE})
        values = generator.run(load, process, prefix, seconds)
        process.settle()
        costs[members] = 1e6 * values["server_cpu"] / values["rate"]
    spread = max(costs.values()) / min(costs.values())
    listed = ", ".join(f"{members:,}: {cost:.2f}" for members, cost in costs.items())
    yield Finding(
        "µs of CPU a delivery, by the room's members", f"{listed} (factor {spread:.2f})", "1.5", spread <= 1.5
    )


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
    limit: float,
) -> Iterator[Finding]:
    """Echo's p99 with `option` at `few` and at `many`, in turns."""
    times: dict[int, list[float]] = {few: [], many: []}
    for _ in range(rounds):
        for number, values in times.items():
            options: dict[str, str | int] = {"clients": 10, "rate": RATE, "payload": MESSAGE, option: number}
            load = Load("latency", "", "latency", "/echo", options)
            values.append(generator.run(load, process, prefix, seconds)["p99"])
            process.settle()
    low, high = (statistics.median(times[number]) for number in (few, many))
    measured = f"{low:.0f} and {high:.0f} µs (factor {high / low:.2f})"
    yield Finding(f"echo's p99 with {few:,} and {many:,} {what}", measured, f"{limit:g}", high / low <= limit)


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
        spread = max(costs.values()) / min(costs.values())
        listed = ", ".join(f"{number:,}: {cost:.2f}" for number, cost in costs.items())
        measured = f"{listed} (factor {spread:.2f})"
        yield Finding(f"µs to join and leave, {what}", measured, f"{O1}", spread <= O1)


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
    lines += [f"| {f.what} | {f.measured} | {f.limit} | {'kept' if f.kept else '**over**'} |" for f in findings]
    return "\n".join(lines)
