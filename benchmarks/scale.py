"""`nox -s scale`: verbtrio, by growth.py, fairness.py, remembering.py and subscribing.py: limits, and tables."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmarks import build, catalogue, fairness, growth, pages, remembering, subscribing
from benchmarks.__main__ import make_certificate
from benchmarks.catalogue import BARE, BY_NAME, PACKAGE, Place, Server, hypercorn
from benchmarks.growth import Finding
from benchmarks.process import LOAD_CORE, Process, free_port, pin
from benchmarks.quiet import disturbances
from benchmarks.run import log, start

TABLES = {
    "scale": ("deliveries", "joins", "held", "latency", "pipelining", "limited", "slow", "idle"),
    "rooms": ("published", "remembered", "come-and-go"),
    "clients": ("subscribed", "subscriptions-idle"),
}
"""The tables in the documentation, by their markers, and which parts each is made of."""
PARTS = tuple(part for parts in TABLES.values() for part in parts)
WATCHED = Server("verbtrio-watched", "verbtrio, watched", hypercorn(f"{PACKAGE}.verbtrio_watched:app"))
TASKS = Server("verbtrio-tasks", "verbtrio, reader tasks", hypercorn(f"{PACKAGE}.verbtrio_tasks:app"))


@contextmanager
def running(server: Server, place: Place | None = None) -> Iterator[Process]:
    process = start(server, place or Place(free_port()))
    try:
        yield process
    finally:
        process.stop()


def findings(parts: Sequence[str], server: Server, seconds: float, rounds: int) -> Iterator[Finding]:
    """All findings of `parts`, as they come."""
    prefix = server.prefix
    if "joins" in parts:
        yield from growth.joins()
    if "held" in parts:
        with running(WATCHED) as process:
            yield from growth.held_loop(process, 2 * seconds)
    if {"deliveries", "latency", "pipelining", "limited", "slow"} & set(parts):
        with running(server) as process:
            if "deliveries" in parts:
                yield from growth.deliveries(process, prefix, seconds, max(1, rounds // 3))
            if "latency" in parts:
                yield from growth.latency_beside_idle(process, prefix, seconds, rounds)
            if "pipelining" in parts:
                yield from fairness.pipelining(process, prefix, seconds, rounds)
            if "limited" in parts:
                yield from fairness.limited(process, prefix, seconds, rounds)
            if "slow" in parts:
                yield from fairness.slow_reader(process, prefix, "the poller")
    if "slow" in parts:
        with running(TASKS) as process:
            yield from fairness.slow_reader(process, prefix, "a reader task")
        with tempfile.TemporaryDirectory() as folder:
            cert, key = make_certificate(Path(folder))
            with running(server, Place(free_port(), cert=cert, key=key)) as process:
                yield from fairness.slow_reader(process, prefix, "TLS", tls=True)
    if "idle" in parts:
        yield from growth.idle(server)
    if "published" in parts:
        yield from remembering.published(seconds, rounds)
    if "subscribed" in parts:
        yield from subscribing.compared(seconds, rounds)
    if "subscriptions-idle" in parts:
        yield from subscribing.idle()
    for part, measure in (("remembered", remembering.remembered), ("come-and-go", remembering.come_and_go)):
        if part in parts:
            with running(BY_NAME["verbtrio-history"]) as process:
                yield from measure(process)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="nox -s scale --", description=__doc__)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], default=[], help="all, where none is named")
    parser.add_argument("--server", default="verbtrio", help="verbtrio or verbtrio-hooks")
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--rounds", type=int, default=9, help="for the p99s; a third for deliveries")
    parser.add_argument("--docs", action="store_true", help=f"put the tables into {pages.PAGE.name}")
    options = parser.parse_args(argv)
    server = catalogue.BY_NAME[options.server]
    if server.command is not BARE:
        parser.error("--server is verbtrio or verbtrio-hooks")
    chosen = options.parts or PARTS
    tables = {marker: parts for marker, all_of in TABLES.items() if (parts := [p for p in all_of if p in chosen])}
    if options.docs and any(len(parts) < len(TABLES[marker]) for marker, parts in tables.items()):
        parser.error("--docs replaces a whole table: name all of its parts, or none of them")
    if build.load() is None:
        log("skipped: the load generator is written in C, and there is no compiler (Debian: gcc, libc6-dev)")
        return 0
    pin(LOAD_CORE)
    for text in disturbances(first=True):
        log(f"warning: {text}")
    is_kept = True
    for marker, parts in tables.items():
        found = []
        for finding in findings(parts, server, options.seconds, options.rounds):
            log(f"{finding.verdict or 'beside':<8}  {finding.what}: {finding.measured} ({finding.limit or 'no limit'})")
            found.append(finding)
            is_kept = is_kept and finding.kept is not False
        if options.docs:
            pages.put(pages.PAGE, marker, growth.table(found))
    return 0 if is_kept else 1


if __name__ == "__main__":
    sys.exit(main())
