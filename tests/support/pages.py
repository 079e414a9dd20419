"""Parts of a documentation page that a tool writes, between two comments that name them."""

from __future__ import annotations

import re
from pathlib import Path


def replace_part(page: Path, name: str, text: str) -> None:
    """Put `text` between `<!-- name -->` and `<!-- /name -->`, each on a line of its own.

    Raises:
        ValueError: the page has no such part, or several.
    """
    begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    pattern = re.compile(rf"^{re.escape(begin)}\n.*?^{re.escape(end)}$", re.DOTALL | re.MULTILINE)
    before = page.read_text()
    if len(pattern.findall(before)) != 1:
        raise ValueError(f"{page} must have one part between the lines {begin} and {end}")
    page.write_text(pattern.sub(lambda _: f"{begin}\n{text}\n{end}", before))
