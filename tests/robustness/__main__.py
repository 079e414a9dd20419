"""Runs the probes of this folder in full against verbtrio and stock hypercorn: `nox -s robustness`.

`python -m tests.robustness [PART OF A PROMISE...] [--target NAME] [--json FILE] [--write PAGE]`. What a probe can't
finish (its worker has died, it hangs, or it fails itself) is recorded as that, and the others are run all the same.
What has been measured is written after each probe, so that it is there however the run ends. Exits with 1 where
verbtrio has not kept a promise.
"""

from __future__ import annotations

import argparse
import importlib
import json
import platform
import signal
import sys
import traceback
from collections import defaultdict
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeAlias

import trio

from tests.robustness.probes import STOCK, VERBTRIO, Figures, Probe, Target, WorkerDied
from tests.support.pages import replace_part

MODULES = (
    "test_handshakes",
    "test_protocols",
    "test_fuzz",
    "test_frames",
    "test_closes",
    "test_sizes",
    "test_floods",
    "test_http2_floods",
    "test_stalls",
    "test_http2_streams",
    "test_slow_peers",
    "test_slow_clients",
    "test_leaving",
    "test_paces",
    "test_handlers",
    "test_descriptors",
    "test_worker",
    "test_logs",
)
"""Whose probes are run, in the table's order."""
PROBES: list[Probe] = [
    probe
    for module in MODULES
    for probe in getattr(importlib.import_module(f"tests.robustness.{module}"), "PROBES", [])
]


Results: TypeAlias = list[tuple[Probe, dict[str, Figures]]]
"""Probes, and their figures by the target's name."""


async def measure(probe: Probe, target: Target) -> Figures:
    """The probe's figures; with `seconds_all`, how long it took, and `ended`, where it could not be finished: what the
    server does to it is expected; anything else is a fault of the probe's, and shown with its traceback."""
    figures: Figures = {}
    begin = trio.current_time()
    with trio.CancelScope(deadline=begin + probe.limit) as scope:
        try:
            await probe.run(target, probe.n, figures)
        except* (OSError, AssertionError, WorkerDied, trio.BrokenResourceError, trio.TooSlowError) as group:
            late = f"not finished after {probe.limit:g} s, and " if trio.current_time() >= scope.deadline else ""
            figures["ended"] = late + first_line(group)
        except* Exception as group:
            traceback.print_exception(group)
            figures["ended"] = f"the probe failed: {first_line(group)}"
    if scope.cancelled_caught:
        figures["ended"] = f"not finished after {probe.limit:g} s"
    figures["seconds_all"] = trio.current_time() - begin
    return figures


def first_line(error: BaseException) -> str:
    """What ended a probe, in short."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return str(error).splitlines()[0][:100] if str(error) else type(error).__name__


def words(probe: Probe, figures: Figures) -> str:
    """The figures as a cell of the table."""
    found = {name for name in figures if name not in ("ended", "seconds_all")}
    text = probe.result.format_map(defaultdict(Unknown, figures)) if found else ""
    return "; ".join(filter(None, [figures.get("ended", ""), text]))


class Unknown:
    """A figure that a probe was ended before it had."""

    def __format__(self, spec: str) -> str:
        return "?"


def kept(probe: Probe, figures: Figures) -> bool:
    return "ended" not in figures and probe.kept(figures)


def table(results: Results) -> str:
    """The figures in Markdown."""
    lines = [f"| promise | {' | '.join(target.name for target in (VERBTRIO, STOCK))} |", "|---|---|---|"]
    for probe, figures in results:
        cells = [words(probe, figures[target.name]) if target.name in figures else "" for target in (VERBTRIO, STOCK)]
        lines.append(f"| {probe.promise.format(n=f'{probe.n:,}')} | {' | '.join(cells)} |")
    versions = ", ".join(f"{name} {version(name)}" for name in ("trio", "hypercorn", "websockets"))
    return "\n".join([*lines, "", f"Python {platform.python_version()}, {versions}."])


async def run(probes: list[Probe], targets: list[Target], results: Results, write: Callable[[], None]) -> None:
    """Run the probes one by one; put what is found into `results`, and `write` after each."""
    begin = trio.current_time()
    for number, probe in enumerate(probes, 1):
        elapsed = trio.current_time() - begin
        print(f"{number}/{len(probes)} [{elapsed:.0f} s] {probe.promise.format(n=f'{probe.n:,}')}", flush=True)
        found: dict[str, Figures] = {}
        results.append((probe, found))
        for target in targets:
            figures = found[target.name] = await measure(probe, target)
            verdict = "kept" if kept(probe, figures) else "NOT KEPT"
            print(f"    {target.name}: {verdict}: {words(probe, figures)} [{figures['seconds_all']:.0f} s]", flush=True)
            write()
    print(f"{trio.current_time() - begin:.0f} s in all", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", help="only probes whose promise has one of these in it")
    parser.add_argument("--target", choices=[VERBTRIO.name, STOCK.name], help="only this one")
    parser.add_argument("--json", type=Path, default=Path("build/robustness.json"))
    parser.add_argument("--write", type=Path, metavar="PAGE", help="put the table between the page's markers")
    options = parser.parse_args()
    # A shell starts what it runs in the background with SIGINT ignored, and the servers would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    probes = [p for p in PROBES if not options.parts or any(part in p.promise for part in options.parts)]
    targets = [t for t in (VERBTRIO, STOCK) if options.target in (None, t.name)]
    options.json.parent.mkdir(parents=True, exist_ok=True)
    results: Results = []

    def write() -> None:
        record: list[dict[str, Any]] = [{"promise": probe.promise, "n": probe.n, **found} for probe, found in results]
        options.json.write_text(json.dumps(record, indent=1))
        if options.write is not None:
            replace_part(options.write, "robustness", table(results))

    trio.run(run, probes, targets, results, write)
    broken = [probe.promise for probe, found in results if not kept(probe, found.get(VERBTRIO.name, {"ended": ""}))]
    if broken and options.target != STOCK.name:
        sys.exit("not kept:\n" + "\n".join(broken))


if __name__ == "__main__":
    main()
