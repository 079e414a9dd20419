"""Whether the machine is quiet: with anything else running, all figures drop and even their order changes."""

from __future__ import annotations

import os
import time
from pathlib import Path

BUSY_LIMIT = 0.05
STEAL_LIMIT = 0.02
LOAD_LIMIT = 0.7
OTHERS_LIMIT = 0.10
"""The share of a core that others may use while a server is measured."""
TICKS = os.sysconf("SC_CLK_TCK")


def _ticks() -> tuple[int, int]:
    """Ticks of all cores together: busy, and stolen by the machine's host."""
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(
        int, Path("/proc/stat").read_text().splitlines()[0].split()[1:9]
    )
    return user + nice + system + irq + softirq, steal


def busy_seconds() -> float:
    """CPU time that all cores together have been busy since the start."""
    return _ticks()[0] / TICKS


def disturbances(*, first: bool) -> list[str]:
    """What disturbs, in sentences, while nothing of ours runs. Takes half a second."""
    found = []
    load = os.getloadavg()[0]
    if first and load > LOAD_LIMIT:  # later it is our own
        found.append(f"the load average is {load:.2f}")
    (busy, steal), begin = _ticks(), time.monotonic()
    time.sleep(0.5)
    (busy_after, steal_after), took = _ticks(), time.monotonic() - begin
    if (share := (busy_after - busy) / TICKS / took) > BUSY_LIMIT:
        found.append(f"other processes use {share:.0%} of a core")
    if (share := (steal_after - steal) / TICKS / took) > STEAL_LIMIT:
        found.append(f"the host takes {share:.0%} of a core away")
    if (os.cpu_count() or 1) < 2:
        found.append("there is one core only, for the server and its load")
    return found
