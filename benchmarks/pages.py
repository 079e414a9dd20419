"""What the measurements put into the documentation: between markers, so that nobody edits figures by hand."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from benchmarks import chart, loads, report, targets
from benchmarks.process import ROOT

PAGE = ROOT / "docs" / "performance.md"
README = ROOT / "README.md"
IMAGES = ROOT / "docs" / "images"
README_LOADS = ("chat", "echo")
"""Whose charts the README shows."""


def put(page: Path, marker: str, content: str) -> None:
    """Replace what stands between `<!-- marker -->` and `<!-- /marker -->` in `page`.

    Raises:
        SystemExit: the page has no such markers.
    """
    text, found = replaced(page.read_text(), marker, content)
    if found != 1:
        raise SystemExit(f"{page} has no markers for {marker}")
    page.write_text(text)


def replaced(text: str, marker: str, content: str) -> tuple[str, int]:
    """`text` with `content` between the markers, and how many such places there are."""
    pattern = re.compile(rf"(<!-- {marker} -->\n).*?(<!-- /{marker} -->)", re.DOTALL)
    return pattern.subn(lambda match: f"{match[1]}{content.strip()}\n{match[2]}", text)


def charts(results: dict[str, Any], folder: Path) -> list[str]:
    """Draw a chart for each load that was measured into `folder`; return the loads' names."""
    folder.mkdir(parents=True, exist_ok=True)
    drawn = []
    for load in loads.LOADS:
        if (svg := chart.bars(results, load)) is not None:
            (folder / name(load.name)).write_text(svg)
            drawn.append(load.name)
    return drawn


def name(load: str) -> str:
    """A chart's file."""
    return f"bench-{load}.svg"


def write(results: dict[str, Any]) -> None:
    """Put a run's medians and charts into docs/performance.md, and two of the charts into the README."""
    drawn = charts(results, IMAGES)
    about = results["settings"]
    versions = ", ".join(f"{package} {number}" for package, number in about["versions"].items())
    intro = (
        f"{about['date']}, Python {about['python']}, {about['cores']} cores, {about['rounds']} rounds of "
        f"{about['seconds']:g} s. {versions}.\n"
    )
    sections = [intro]
    for load in loads.LOADS:
        if load.name in drawn:
            picture = f"![{load.title}](images/{name(load.name)})"
            sections += [f"### {report.title(load)}\n", picture, "", report.markdown(results, load), ""]
    put(PAGE, "targets", targets.markdown(results["cells"]))
    put(PAGE, "medians", "\n".join(sections))
    shown = [f"![{loads.BY_NAME[load].title}](docs/images/{name(load)})" for load in README_LOADS if load in drawn]
    put(README, "charts", "\n\n".join(shown))
