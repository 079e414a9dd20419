"""What verbtrio's speed is held to: ratios to others, taken within a round of one run."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks import loads

PYTHON = ("uvicorn", "granian", "websockets", "aiohttp")


@dataclass(frozen=True)
class Target:
    """In `load`, `server` reaches `at_least` times what the fastest of `others` does."""

    load: str
    server: str
    others: tuple[str, ...]
    at_least: float


TARGETS = [
    Target("echo", "verbtrio", ("hypercorn",), 5),
    Target("echo", "verbtrio", ("uvicorn", "granian", "websockets"), 1.1),
    Target("echo", "verbtrio-hooks", ("aiohttp",), 0.9),
    Target("fanout", "verbtrio", PYTHON, 1.2),
    Target("chat", "verbtrio", PYTHON, 5),
    Target("chat-json", "verbtrio", ("bun-page",), 3),
    Target("echo", "verbtrio-full", ("verbtrio",), 0.75),
    Target("chat", "verbtrio-full", ("verbtrio",), 0.75),
    Target("chat", "verbtrio-history", ("verbtrio",), 0.7),
    Target("chat", "verbtrio-presence", ("verbtrio",), 0.95),
    Target("chat", "verbtrio-both", ("verbtrio",), 0.7),
    Target("fanout", "verbtrio-history", ("verbtrio",), 0.7),
    Target("fanout", "verbtrio-presence", ("verbtrio",), 0.95),
    Target("fanout", "verbtrio-both", ("verbtrio",), 0.7),
    Target("fanout", "verbtrio-clients", ("verbtrio",), 0.8),
    Target("chat", "verbtrio-clients", ("verbtrio",), 0.8),
    Target("chat", "verbtrio-clients-history", ("verbtrio-history",), 0.8),
    Target("echo", "verbtrio-clients", ("verbtrio",), 0.6),
    Target("fanout", "verbtrio-clients", ("socketio",), 1),
    Target("echo", "verbtrio-clients-plain", ("socketio",), 1),
    Target("tls-echo", "verbtrio", ("uvicorn",), 1),
    Target("tls-chat", "verbtrio", ("uvicorn",), 3),
    Target("connect", "verbtrio", ("hypercorn",), 1.1),
]
IDLE_KILOBYTES = 12.0
"""At most so many a connection, idle, with heartbeats on."""


@dataclass(frozen=True)
class Verdict:
    what: str
    measured: str
    wanted: str
    kept: bool


def verdicts(cells: Sequence[dict[str, Any]]) -> list[Verdict]:
    """How each target that was measured is met."""
    found = [verdict for target in TARGETS if (verdict := _verdict(cells, target)) is not None]
    kilobytes = list(_values(cells, "idle", "verbtrio", "kilobytes").values())
    if kilobytes:
        measured = statistics.median(kilobytes)
        limit = f"at most {IDLE_KILOBYTES:g}"
        found.append(Verdict("idle: KB a connection", f"{measured:.1f}", limit, measured <= IDLE_KILOBYTES))
    return found


def _verdict(cells: Sequence[dict[str, Any]], target: Target) -> Verdict | None:
    key = loads.BY_NAME[target.load].metrics[0].key
    own = _values(cells, target.load, target.server, key)
    others = [_values(cells, target.load, name, key) for name in target.others]
    ratios = []
    for number, value in own.items():
        rivals = [values[number] for values in others if number in values]
        # The fastest of those who are there might not be the fastest. And a round in which none got anything done, as
        # on a machine that is busy elsewhere, says nothing.
        if len(rivals) == len(others) and max(rivals) > 0:
            ratios.append(value / max(rivals))
    if not ratios:
        return None
    median = statistics.median(ratios)
    rival = " / ".join(target.others)
    measured = f"{median:.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
    what = f"{target.load}: {target.server} to {'the fastest of ' if len(target.others) > 1 else ''}{rival}"
    return Verdict(what, measured, f"at least {target.at_least:g}", median >= target.at_least)


def _values(cells: Sequence[dict[str, Any]], load: str, server: str, key: str) -> dict[int, float]:
    """A server's figures by round."""
    return {
        cell["round"]: cell["values"][key]
        for cell in cells
        if cell["load"] == load and cell["server"] == server and "values" in cell
    }


def markdown(cells: Sequence[dict[str, Any]]) -> str:
    """All verdicts, as a table."""
    lines = ["| what | measured | wanted | |", "|---|---|---|---|"]
    for verdict in verdicts(cells):
        word = "kept" if verdict.kept else "**missed**"
        lines.append(f"| {verdict.what} | {verdict.measured} | {verdict.wanted} | {word} |")
    return "\n".join(lines)


def text(cells: Sequence[dict[str, Any]]) -> str:
    """All verdicts, for a terminal."""
    lines = []
    for verdict in verdicts(cells):
        word = "kept  " if verdict.kept else "MISSED"
        lines.append(f"{word}  {verdict.what}: {verdict.measured}, wanted {verdict.wanted}")
    return "\n".join(lines)
