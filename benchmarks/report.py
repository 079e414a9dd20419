"""From cells to medians: tables for the terminal and for the documentation."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks import catalogue, loads
from benchmarks.loads import Load
from benchmarks.quiet import OTHERS_LIMIT

LOAD_LIMIT = 0.9
"""The share of its core from which on the generator may have been the bottleneck."""


@dataclass(frozen=True)
class Row:
    """One server under one load: medians over the rounds."""

    server: str
    title: str
    values: dict[str, float]
    """By the metric's key."""
    ratio: float
    """To verbtrio, of the load's first metric: the median of the rounds' ratios."""
    low: float
    high: float
    """The smallest and the largest ratio of a round."""
    notes: str = ""


def rows(cells: Sequence[dict[str, Any]], load: Load) -> list[Row]:
    """The load's table, best first. Servers that failed in every round are left out."""
    metric = load.metrics[0]
    mine = [cell for cell in cells if cell["load"] == load.name and "values" in cell]
    reference = {cell["round"]: cell["values"][metric.key] for cell in mine if cell["server"] == catalogue.REFERENCE}
    table = []
    for server in catalogue.SERVERS:
        own = [cell for cell in mine if cell["server"] == server.name]
        if not own:
            continue
        ratios = [
            cell["values"][metric.key] / reference[cell["round"]] for cell in own if reference.get(cell["round"])
        ] or [float("nan")]
        values = {each.key: statistics.median(cell["values"][each.key] for cell in own) for each in load.metrics}
        table.append(
            Row(server.name, server.title, values, statistics.median(ratios), min(ratios), max(ratios), _notes(own))
        )
    return sorted(table, key=lambda row: row.values[metric.key], reverse=metric.more_is_better)


def _notes(cells: Sequence[dict[str, Any]]) -> str:
    def median(key: str) -> float:
        return float(statistics.median(cell["values"].get(key, 0) for cell in cells))

    notes = []
    if median("load_cpu") > LOAD_LIMIT and cells[0]["load"] != "latency":  # that one watches the clock all the time
        notes.append("at the generator's limit")
    if median("missing"):
        notes.append(f"{median('missing'):.0f} {loads.BY_NAME[cells[0]['load']].lost}")
    if median("others_cpu") > OTHERS_LIMIT:
        notes.append(f"others used {median('others_cpu'):.0%} of a core")
    return ", ".join(notes)


def number(value: float) -> str:
    """With three digits that count."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def title(load: Load) -> str:
    """The load's title, as a heading."""
    return load.title[0].upper() + load.title[1:]


def markdown(results: dict[str, Any], load: Load) -> str:
    """A load's table, as Markdown."""
    heads = [f"{metric.title}{metric.unit}".replace("/s", " a second") for metric in load.metrics]
    lines = [f"| | {' | '.join(heads)} | to verbtrio | rounds' spread | |"]
    lines.append("|---|" + "---:|" * (len(heads) + 2) + "---|")
    for row in rows(results["cells"], load):
        figures = " | ".join(number(row.values[metric.key]) for metric in load.metrics)
        name = f"**{row.title}**" if row.server.startswith(catalogue.REFERENCE) else row.title
        lines.append(f"| {name} | {figures} | {row.ratio:.2f} | {row.low:.2f} to {row.high:.2f} | {row.notes} |")
    return "\n".join(lines)


def text(results: dict[str, Any]) -> str:
    """All loads' tables, for a terminal."""
    parts = []
    for load in loads.LOADS:
        table = rows(results["cells"], load)
        if not table:
            continue
        parts.append(f"\n{load.title}")
        for row in table:
            figures = "".join(f"{number(row.values[m.key]):>13}{m.unit}" for m in load.metrics)
            spread = f"{row.ratio:5.2f} ({row.low:.2f}-{row.high:.2f})"
            parts.append(f"  {row.title:<42}{figures}   {spread}  {row.notes}")
    failed = sorted({f"{c['load']}, {c['server']}: {c['error']}" for c in results["cells"] if "error" in c})
    parts += [f"\nfailed: {line}" for line in failed]
    parts += [f"skipped: {name}: {why}" for name, why in results["skipped"].items()]
    parts += [f"warning: {line}" for line in results["warnings"]]
    return "\n".join(parts)
