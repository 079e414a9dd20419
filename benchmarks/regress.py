"""`nox -s regress`: has a message, or a connection, become more expensive? A check that does not depend on the machine.

The server runs under valgrind's callgrind, which counts the instructions that it executes: Python's, Trio's, the
libraries' and ours. They are counted for some hundred messages and for many more; the difference is what the messages
cost, without starting, connecting and closing. (In the load "connect" it is connections that are counted.) What is
judged is the ratio to stock hypercorn with a bare ASGI application, counted in the same way in the same environment:
neither the machine's speed nor how Python was built moves it much, and what Trio or Python gain, both gain. (System
calls count for nothing here: `bench` measures times.) Subscriptions and calls are compared with plain rooms and with a
plain echo instead.
"""

from __future__ import annotations

import argparse
import math
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import build, catalogue, generator
from benchmarks.catalogue import Place, Server
from benchmarks.loads import MESSAGE, Load
from benchmarks.process import Process, ServerError, free_port

PEER = "hypercorn"
CLIENTS = 16
CROWD = 32
"""Members of a room, where subscriptions are compared with plain rooms."""
MEMBERS = 100
"""The same for a broadcast of one sender."""
MESSAGES = {
    "echo": (300, 1500),
    "join": (300, 1500),
    "chat": (200, 2200),
    "crowd": (200, 2200),
    "fanout": (50, 250),
    "connect": (100, 500),
}
"""Messages sent (or connections made) in the two runs whose difference counts, by load."""
PEER_MESSAGES = {"echo": (100, 500), "chat": (32, 160), "connect": (50, 250)}
"""The same for the peer, which takes ten times as long for one."""
STEADY = {"PYTHONHASHSEED": "0", "BENCH_GC": "off"}
"""A full garbage collection takes as much as 300 messages. It may come in one of the two runs, and not in the other."""
WARM_UP = 64
"""Messages sent before: what is imported, made or specialised once is not a message's cost."""
PATIENCE = 120.0
"""Seconds one run may take: under valgrind everything takes fifty times as long."""
TOLERANCE = 0.1
"""How much worse than its mark a ratio may be."""


@dataclass(frozen=True)
class Mark:
    """What a message of one server costs, or a connection, in instructions, as a share of what it costs the peer.

    A room's message counts for each member that it goes to.
    """

    server: str
    load: str
    ratio: float
    peer: str = PEER
    at_most: float = math.inf
    """What has been promised of the ratio, which no gain of the peer's excuses."""


MARKS = [
    Mark("verbtrio", "echo", 0.154),
    Mark("verbtrio-hooks", "echo", 0.090),
    Mark("verbtrio", "chat", 0.030),
    Mark("verbtrio-hooks", "chat", 0.020),
    Mark("verbtrio-history", "chat", 0.041),
    Mark("verbtrio-presence", "chat", 0.031),
    Mark("verbtrio-both", "chat", 0.041),
    Mark("verbtrio", "join", 0.337),
    # 0.425 with the packages of the day it was set; the same commit costs as much as this with those of November 2026.
    Mark("verbtrio", "connect", 0.46),
    # What is promised of the others is promised of their times (benchmarks/targets.py), which system calls share.
    Mark("verbtrio-clients", "fanout", 1.13, "verbtrio", at_most=1 / 0.8),
    Mark("verbtrio-clients", "crowd", 1.00, "verbtrio", at_most=1 / 0.8),
    Mark("verbtrio-clients-history", "crowd", 1.07, "verbtrio-history", at_most=1 / 0.8),
    Mark("verbtrio-clients", "echo", 1.37, "verbtrio"),
    Mark("verbtrio-clients-plain", "echo", 0.81, "verbtrio", at_most=1),
    # With a subscription in each.
    Mark("verbtrio-clients", "connect", 1.47, "verbtrio"),
]
PATHS = {"echo": "/echo", "join": "/join", "connect": "/echo"}
MODES = {"join": "echo", "crowd": "chat"}
"""The generator's mode, and the load of the peer's to compare with, where that is not the load's name."""


def instructions(server: Server, names: Sequence[str], folder: Path) -> dict[str, float]:
    """How many instructions a message, or a connection, costs `server`, by load.

    Raises:
        ServerError: it did not come to an end.
    """
    dump = folder / f"{server.name}.out"
    place = Place(free_port())
    # `-w 0`: hypercorn in this very process, instead of a child of it.
    command = [*server.command(place), "-w", "0"]
    valgrind = ["valgrind", "--tool=callgrind", "--instr-atstart=no", f"--callgrind-out-file={dump}"]
    process = Process([*valgrind, *command], place.port, {**place.environment, **STEADY})
    try:
        process.wait_until_ready(PATIENCE)
        control(process, "--instr=on")
        costs = {}
        number = 0
        for name in names:
            few, many = (PEER_MESSAGES if server.name == PEER else MESSAGES)[name]
            counts = []
            for messages in (WARM_UP, few, many):
                options: dict[str, str | int] = {"clients": clients(name), "payload": MESSAGE, "messages": messages}
                options["patience"] = int(PATIENCE)
                load = Load(name, name, MODES.get(name, name), PATHS.get(name, "/room"), options)
                if server.dialect is not None:
                    load = server.dialect.translate(load)
                with generator.Generator(load, place.port, server.prefix, PATIENCE, own=server.own) as run:
                    run.answer()
                process.settle()
                control(process, "--dump")
                number += 1
                counts.append(total(dump.with_name(f"{dump.name}.{number}")))
            costs[name] = (counts[2] - counts[1]) / (many - few)
        return costs
    finally:
        process.stop()


def control(process: Process, what: str) -> None:
    """Tell callgrind to do something: to count, or to write down what it has counted, and begin anew."""
    command = ["callgrind_control", what, str(process.pid)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    if result.returncode or "OK" not in result.stdout:
        raise ServerError(f"{' '.join(command)} failed: {result.stdout}{result.stderr}")


def total(dump: Path) -> int:
    """The instructions in a dump."""
    line = next(line for line in dump.read_text().splitlines() if line.startswith("totals:"))
    return int(line.split()[1])


def main(argv: Sequence[str] | None = None) -> int:
    description = "Count the instructions that a message costs, and a connection."
    parser = argparse.ArgumentParser(prog="nox -s regress --", description=description)
    parser.parse_args(argv)
    absent = [tool for tool in ("valgrind", "callgrind_control") if shutil.which(tool) is None]
    if absent or build.load() is None:
        print(f"can't count: {', '.join(absent) or 'a C compiler'} is missing", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as folder:
        servers = [PEER, *dict.fromkeys(mark.server for mark in MARKS)]
        costs = {name: instructions(catalogue.BY_NAME[name], loads_of(name), Path(folder)) for name in servers}
    for name in PEER_MESSAGES:
        what = "connection" if name == "connect" else "message"
        print(f"{name}: {PEER} needs {costs[PEER][name]:,.0f} instructions a {what}")
    verdicts = [judge(mark, costs[mark.server][mark.load], peer_cost(mark, costs)) for mark in MARKS]
    return 0 if all(verdicts) else 1


def clients(load: str) -> int:
    """How many there are in a load."""
    return {"fanout": MEMBERS, "crowd": CROWD}.get(load, CLIENTS)


def loads_of(server: str) -> list[str]:
    """What there is to be counted with `server`."""
    if server == PEER:
        return list(PEER_MESSAGES)
    return list(dict.fromkeys(mark.load for mark in MARKS if server in (mark.server, mark.peer)))


def peer_cost(mark: Mark, costs: Mapping[str, Mapping[str, float]]) -> float:
    """What the peer's message costs, for as many deliveries as one of `mark.server` has."""
    if mark.peer == PEER:
        return costs[PEER][MODES.get(mark.load, mark.load)]
    return costs[mark.peer][mark.load] * deliveries(mark.server, mark.load) / deliveries(mark.peer, mark.load)


def deliveries(server: str, load: str) -> int:
    """How many clients a message goes to."""
    others = {"fanout": MEMBERS, "crowd": CROWD - 1}.get(load)
    return 1 if others is None else others + catalogue.BY_NAME[server].own


def judge(mark: Mark, cost: float, peer: float) -> bool:
    """Print how `mark` was met; return whether it was."""
    ratio = cost / peer
    worse = ratio > min(mark.ratio * (1 + TOLERANCE), mark.at_most)
    better = ratio < mark.ratio * (1 - TOLERANCE)
    verdict = "WORSE" if worse else "better: lower the mark in benchmarks/regress.py" if better else "fine"
    promise = "" if mark.at_most == math.inf else f" (at most {mark.at_most:.3f} of {mark.peer})"
    print(
        f"{mark.load}: {mark.server:<24} {cost:>10,.0f}  ratio {ratio:.3f}, mark {mark.ratio:.3f}{promise}  {verdict}"
    )
    return not worse


if __name__ == "__main__":
    sys.exit(main())
