"""Draws docs/images/layers.svg, the map of the packages, from the imports in src/verbtrio: `python docs/layers.py`.

A package stands above everything it imports. Its row has its modules on the left, and on the right how many imports its
modules have from each package below. `--check` compares the picture with the imports and writes nothing.
"""

from __future__ import annotations

import ast
import colorsys
import sys
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "verbtrio"
PICTURE = ROOT / "docs" / "images" / "layers.svg"
TOP = "verbtrio"
"""The row of what applications import: the modules that are in no package of their own."""

# Pixels.
MARGIN = 28
HEADER = 132
BOX_WIDTH = 800
PADDING = 14
TITLE_HEIGHT = 34
CHIP_HEIGHT = 22
GAP = 6
CELL_WIDTH = 36
MATRIX_LEFT = MARGIN + BOX_WIDTH + 22
# Of the fonts' characters, on average; generous, since every system has its own fonts.
MONO_WIDTH = 6.65
TITLE_WIDTH = 9.6
TEXT_WIDTH = 6.15


@dataclass
class Package:
    """A row of the picture."""

    name: str
    summary: str
    modules: list[str] = field(default_factory=list)
    imports: Counter[str] = field(default_factory=Counter)
    """How many imports its modules have from the modules of each other package."""


def read(source: Path = SOURCE) -> list[Package]:
    """The packages, each above those it imports.

    Raises:
        ValueError: the packages import each other in a circle.
    """
    modules = {_name(path, source): path for path in sorted(source.rglob("*.py"))}
    found: dict[str, Package] = {}
    for module, path in modules.items():
        package = _package(module)
        if package not in found:
            found[package] = Package(package, _summary(path.parent, source))
        if not module.endswith("__init__") or package == TOP:
            found[package].modules.append(module.rpartition(".")[2])
        for name in set(_imports(path, modules)):
            if (other := _package(name)) != package:
                found[package].imports[other] += 1
    return _in_order(found)


def _name(path: Path, source: Path) -> str:
    """A module's name, without `verbtrio`: "wire.codec", "wire.__init__", "app"."""
    return ".".join(path.relative_to(source).with_suffix("").parts)


def _package(module: str) -> str:
    return module.rpartition(".")[0] or TOP


def _summary(folder: Path, source: Path) -> str:
    """What a package's docstring says first."""
    if folder == source:
        return "The doors: what applications import."
    docstring = ast.get_docstring(ast.parse((folder / "__init__.py").read_text())) or ""
    return " ".join(docstring.partition("\n\n")[0].split())


def _imports(path: Path, modules: Collection[str]) -> Iterator[str]:
    """The modules of ours that a module imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            first, _, rest = name.partition(".")
            if first == "verbtrio":
                steps = rest.split(".")
                heads = [".".join(steps[:count]) for count in range(len(steps), 0, -1)]
                # A name is a module's, or a module itself, or a package's (its `__init__` has it).
                ways = [way for head in heads for way in (head, f"{head}.__init__")]
                yield next((way for way in ways if way in modules), "__init__")


def _in_order(packages: dict[str, Package]) -> list[Package]:
    """Each above all that it imports, as low as it can be; on one level, those that fewer packages import are above."""
    importers = Counter(name for package in packages.values() for name in package.imports)
    levels: dict[str, int] = {}
    while len(levels) < len(packages):
        level = [
            one.name for one in packages.values() if one.name not in levels and one.imports.keys() <= levels.keys()
        ]
        if not level:
            raise ValueError(
                f"packages import each other in a circle: {', '.join(sorted(packages.keys() - levels.keys()))}"
            )
        levels |= dict.fromkeys(level, len(set(levels.values())))
    return sorted(packages.values(), key=lambda one: (-levels[one.name], importers[one.name], one.name))


def draw(packages: list[Package]) -> str:
    """The picture."""
    rows = [_chips(package.modules) for package in packages]
    heights = [TITLE_HEIGHT + len(lines) * CHIP_HEIGHT + (len(lines) - 1) * GAP + PADDING for lines in rows]
    tops = [HEADER + sum(heights[:index]) + index * GAP for index in range(len(rows))]
    width = MATRIX_LEFT + len(packages) * (CELL_WIDTH + GAP) - GAP + MARGIN
    height = tops[-1] + heights[-1] + MARGIN
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}">',
        STYLE,
        f'<rect width="{width}" height="{height}" rx="14" fill="#fdfcf9"/>',
        f'<rect x=".5" y=".5" width="{width - 1}" height="{height - 1}" rx="13.5" fill="none" stroke="#d9d5cb"/>',
        f'<text x="{MARGIN}" y="58" class="head">The packages of verbtrio</text>',
        f'<text x="{MARGIN}" y="84" class="sub">'
        "Imports go down only: a package stands above everything it imports.</text>",
        f'<text x="{MARGIN}" y="104" class="sub">'
        "A number says how many imports the modules of the row have from those of the column.</text>",
    ]
    for index, (package, lines) in enumerate(zip(packages, rows, strict=True)):
        colours = _Colours(index / max(1, len(packages) - 1))
        parts += _box(package, lines, colours, tops[index], heights[index])
        parts += _cells(packages, index, colours, tops[index], heights[index])
    return "\n".join([*parts, "</svg>", ""])


STYLE = """<style>
text { font-family: system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; fill: #2b2a28; }
.head { font-size: 25px; font-weight: 700; }
.sub { font-size: 13px; fill: #6a675f; }
.name { font-size: 14.5px; font-weight: 700; }
.what { font-size: 11.5px; font-weight: 400; fill: #6a675f; }
.module { font: 11px ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace; }
.column { font-size: 12px; font-weight: 600; }
.count { font-size: 12.5px; font-weight: 600; text-anchor: middle; dominant-baseline: central; }
</style>"""


class _Colours:
    """A row's colours, from warm at the top to cool at the bottom. `at` is 0 to 1."""

    def __init__(self, at: float) -> None:
        self._hue = (14 + 236 * at) / 360
        self.box = self.tint(0.965, 0.55)
        self.edge = self.tint(0.80, 0.40)
        self.strong = self.tint(0.36, 0.50)

    def tint(self, lightness: float, saturation: float) -> str:
        return "#" + "".join(
            f"{round(part * 255):02x}" for part in colorsys.hls_to_rgb(self._hue, lightness, saturation)
        )


def _chips(modules: list[str]) -> list[list[tuple[str, float, float]]]:
    """Lines of modules that fit into a box: each with its left edge and its width."""
    lines: list[list[tuple[str, float, float]]] = [[]]
    left = float(PADDING)
    for module in modules:
        width = round(len(module) * MONO_WIDTH + 14, 1)
        if left + width > BOX_WIDTH - PADDING and lines[-1]:
            lines.append([])
            left = float(PADDING)
        lines[-1].append((module, round(left, 1), width))
        left += width + GAP
    return lines


def _box(
    package: Package, lines: list[list[tuple[str, float, float]]], colours: _Colours, top: int, height: int
) -> Iterator[str]:
    yield (
        f'<rect x="{MARGIN}" y="{top}" width="{BOX_WIDTH}" height="{height}" rx="9" fill="{colours.box}" '
        f'stroke="{colours.edge}"/>'
    )
    room = int((BOX_WIDTH - 2 * PADDING - len(package.name) * TITLE_WIDTH - GAP) / TEXT_WIDTH)
    yield (
        f'<text x="{MARGIN + PADDING}" y="{top + 23}" class="name" style="fill:{colours.strong}">{package.name}'
        f'<tspan dx="{2 * GAP}" class="what">{escape(_shortened(package.summary, room))}</tspan></text>'
    )
    for number, line in enumerate(lines):
        y = top + TITLE_HEIGHT + number * (CHIP_HEIGHT + GAP)
        for module, left, width in line:
            yield (
                f'<rect x="{MARGIN + left:g}" y="{y}" width="{width:g}" height="{CHIP_HEIGHT}" rx="5" fill="#fff" '
                f'stroke="{colours.edge}" stroke-width=".8"/>'
                f'<text x="{MARGIN + left + 7:g}" y="{y + 15}" class="module">{escape(module)}</text>'
            )


def _cells(packages: list[Package], row: int, colours: _Colours, top: int, height: int) -> Iterator[str]:
    package = packages[row]
    most = max(max(one.imports.values(), default=1) for one in packages)
    for column, other in enumerate(packages[row:], row):
        x = MATRIX_LEFT + column * (CELL_WIDTH + GAP)
        middle = f'x="{x + CELL_WIDTH / 2:g}" y="{top + height / 2:g}"'
        shape = f'<rect x="{x}" y="{top}" width="{CELL_WIDTH}" height="{height}" rx="6"'
        if column == row:
            yield f'{shape} fill="{colours.strong}"/>'
            yield (
                f'<text class="column" style="fill:{colours.strong}" '
                f'transform="translate({x + CELL_WIDTH / 2 + 4:g} {HEADER - 10}) rotate(-42)">{package.name}</text>'
            )
        elif count := package.imports[other.name]:
            depth = (count / most) ** 0.5
            yield (
                f"<g><title>{package.name} imports {other.name}: {count}</title>{shape} "
                f'fill="{colours.tint(0.95 - 0.25 * depth, 0.55)}"/><text {middle} class="count">{count}</text></g>'
            )
        else:
            yield f'{shape} fill="none" stroke="#ebe8e0"/>'


def _shortened(text: str, room: int) -> str:
    """`text` without its code marks, in at most `room` characters."""
    text = text.replace("`", "")
    return text if len(text) <= room else text[: room - 1].rsplit(" ", 1)[0].rstrip(".,:;") + " …"


def main(arguments: list[str]) -> int:
    """Write the picture, or with `--check` tell whether it is up to date."""
    picture = draw(read())
    if arguments == ["--check"]:
        if PICTURE.exists() and PICTURE.read_text() == picture:
            return 0
        print("docs/images/layers.svg is out of date: run `python docs/layers.py`", file=sys.stderr)
        return 1
    if arguments:
        print("usage: python docs/layers.py [--check]", file=sys.stderr)
        return 2
    PICTURE.write_text(picture)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
