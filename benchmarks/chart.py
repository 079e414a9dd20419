"""Charts in SVG, drawn from a run's results: bars with the rounds' spread, legible on light and on dark pages."""

from __future__ import annotations

from html import escape
from typing import Any

from benchmarks import catalogue, report
from benchmarks.loads import Load

WIDTH = 760
LABEL = 268
BAR = 18
GAP = 8
TOP = 56
STYLE = """
  text { font: 13px system-ui, -apple-system, "Segoe UI", sans-serif; fill: #1f2328 }
  .title { font-weight: 600; font-size: 15px }
  .note { fill: #59636e; font-size: 12px }
  .own { fill: #1a7f64 }
  .other { fill: #8c959f }
  .limit { fill: none; stroke: #8c959f; stroke-dasharray: 3 3 }
  .spread { stroke: #1f2328; stroke-width: 1 }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 }
    .note { fill: #9198a1 }
    .own { fill: #3fb68b }
    .other { fill: #656c76 }
    .spread { stroke: #e6edf3 }
  }
"""


def bars(results: dict[str, Any], load: Load) -> str | None:
    """The load's chart; `None` where nothing was measured."""
    table = report.rows(results["cells"], load)
    if not table:
        return None
    metric = load.metrics[0]
    spreads = {row.server: _spread(results, load, row.server) for row in table}
    largest = max(high for _, high in spreads.values()) or 1.0
    room = WIDTH - LABEL - 110
    height = TOP + len(table) * (BAR + GAP) + 10
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        f'role="img" aria-label="{escape(load.title)}">',
        f"<style>{STYLE}</style>",
        f'<text class="title" x="0" y="18">{escape(report.title(load))}</text>',
        f'<text class="note" x="0" y="38">{escape(metric.title)}{escape(metric.unit)}, the median of the rounds and '
        f"their spread; {'more' if metric.more_is_better else 'less'} is better</text>",
    ]
    for index, row in enumerate(table):
        y = TOP + index * (BAR + GAP)
        value = row.values[metric.key]
        kind = "own" if row.server.startswith(catalogue.REFERENCE) else "limit" if row.server == "minimal" else "other"
        low, high = (LABEL + room * edge / largest for edge in spreads[row.server])
        width, middle = max(1.0, room * value / largest), y + BAR / 2
        parts += [
            f'<text x="{LABEL - 10}" y="{y + 14}" text-anchor="end">{escape(row.title)}</text>',
            f'<rect class="{kind}" x="{LABEL}" y="{y}" width="{width:.1f}" height="{BAR}" rx="2"/>',
            f'<line class="spread" x1="{low:.1f}" y1="{middle}" x2="{high:.1f}" y2="{middle}"/>',
            f'<text x="{max(high, LABEL + width) + 8:.1f}" y="{y + 14}">{report.number(value)}</text>',
        ]
    return "\n".join([*parts, "</svg>", ""])


def _spread(results: dict[str, Any], load: Load, server: str) -> tuple[float, float]:
    key = load.metrics[0].key
    values = [
        cell["values"][key]
        for cell in results["cells"]
        if cell["load"] == load.name and cell["server"] == server and "values" in cell
    ]
    return min(values), max(values)
