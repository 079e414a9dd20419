"""What rooms cost that have settings, beside those that have none: in time, and in memory."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator

from benchmarks import catalogue, generator, loads, report, targets
from benchmarks.growth import Finding
from benchmarks.loads import MESSAGE, Load
from benchmarks.process import Process, ServerError
from benchmarks.run import Results, Run

PLAIN = "verbtrio"
SERVERS = (PLAIN, "verbtrio-history", "verbtrio-presence", "verbtrio-both")
LOADS = ("chat", "fanout")
REMEMBERED = 100_000
"""Messages whose memory is measured, in a room's history."""
REMEMBERED_BYTES = 200
"""What each of them may cost beside its own bytes."""
COME_AND_GO = 100_000
"""Rooms that are made, and end."""
LEFT_BYTES = 1_000_000
"""What may be left of all of them: the allocator gives memory back by the page."""
FORGET_SECONDS = 2.0
"""After which servers/verbtrio_rooms.py has forgotten what was said in rooms that came and went."""
PATIENCE = 300.0
"""Seconds that so many messages may take."""


def published(seconds: float, rounds: int) -> Iterator[Finding]:
    """Messages that are published and remembered, and broadcasts in rooms with presence, to those in plain rooms: all
    servers in turns, as in `nox -s bench`.

    Raises:
        ServerError: one of them failed.
    """
    results = Results(settings={})
    chosen = [loads.BY_NAME[name] for name in LOADS]
    Run([catalogue.BY_NAME[name] for name in SERVERS], chosen, rounds, seconds, results).all_rounds()
    if failed := [cell for cell in results.cells if "error" in cell]:
        raise ServerError(f"{failed[0]['load']}, {failed[0]['server']}: {failed[0]['error']}")
    for load in chosen:
        rates = {
            name: statistics.median(
                cell["values"]["rate"] for cell in results.cells if (cell["load"], cell["server"]) == (load.name, name)
            )
            for name in SERVERS
        }
        measured = ", ".join(f"{name} {report.number(rate)}" for name, rate in rates.items())
        yield Finding(f"{load.name}: deliveries a second", measured, "", None)
    for verdict in targets.verdicts(results.cells):
        yield Finding(verdict.what, verdict.measured, verdict.wanted, verdict.kept)


def remembered(process: Process) -> Iterator[Finding]:
    """Bytes of memory a message that a room's history remembers, beside its own."""
    for size in (len(MESSAGE), 1000):
        _say(process, "/remembered", 1000, "x" * size)
        before = process.memory_bytes()
        _say(process, "/remembered", REMEMBERED, "x" * size)
        each = (process.memory_bytes() - before) / REMEMBERED - size
        what = f"a remembered message of {size:,} bytes: memory beside these"
        yield Finding(what, f"{each:.0f} bytes", f"{REMEMBERED_BYTES} bytes", each <= REMEMBERED_BYTES)


def come_and_go(process: Process) -> Iterator[Finding]:
    """What is left in memory of rooms that came and went."""
    for kind, title in (("plain", "without settings"), ("full", "with a history, presence and a task")):
        path = f"/come-and-go/{kind}"
        _say(process, path, COME_AND_GO // 5, MESSAGE)  # Python keeps some of the memory that it had to take once
        before = process.memory_bytes()
        _say(process, path, COME_AND_GO, MESSAGE)
        left = process.memory_bytes() - before
        what = f"{COME_AND_GO:,} rooms {title} come and go: memory"
        yield Finding(what, f"{left / 1e6:+.1f} MB", f"{LEFT_BYTES / 1e6:.0f} MB", left <= LEFT_BYTES)


def _say(process: Process, path: str, messages: int, payload: str) -> None:
    """One client comes, sends so many messages, each of which comes back to it, and goes."""
    options: dict[str, str | int] = {"clients": 1, "window": 16, "payload": payload, "messages": messages}
    with generator.Generator(Load("echo", "", "echo", path, options), process.port, "", PATIENCE) as run:
        run.answer()
    time.sleep(FORGET_SECONDS)
    process.settle()
