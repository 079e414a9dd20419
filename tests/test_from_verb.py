"""The page "From Verb to verbtrio": its programs run, each of its items has an example, and each example a test."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.support.process import ROOT
from verbtrio import App

PAGE = (ROOT / "docs" / "from-verb.md").read_text()
ITEMS = dict(re.findall(r"^### (.*?)\n(.*?)(?=^##|\Z)", PAGE, re.DOTALL | re.MULTILINE))
BEST_PRACTICES = [title for title in ITEMS if title[0].isdigit()]
NEXT_STEPS = ["Streaming", "Security", "Middleware"]


def test_it_is_complete() -> None:
    assert [title.partition(".")[0] for title in BEST_PRACTICES] == [str(number) for number in range(1, 11)]
    assert set(NEXT_STEPS) <= set(ITEMS)


@pytest.mark.parametrize("title", ITEMS)
def test_each_item_has_both_sides_and_an_example(title: str) -> None:
    item = ITEMS[title]
    assert re.findall(r"^```(\w+)$", item, re.MULTILINE) == ["ts", "python"]
    examples = re.findall(r"\]\(\.\./examples/([\w/]+\.(?:py|js))\)", item)
    assert examples
    tests = "".join(path.read_text() for path in (ROOT / "tests" / "examples").glob("*.py"))
    for example in examples:
        assert (ROOT / "examples" / example).exists()
        name = example.removesuffix(".py").removesuffix(".js").rpartition("/")[2]
        if example.endswith(".py"):
            assert re.search(rf"examples[./]{name}\b|\"{name}\"", tests), f"{example} has no test"


def test_its_programs_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_KEY", "a secret of thirty-two bytes, or more")
    names: dict[str, Any] = {"__name__": "page"}
    for number, program in enumerate(re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)):
        exec(compile(program, f"program {number} of docs/from-verb.md", "exec"), names)
    app = names["app"]
    assert isinstance(app, App)
    described = app.asyncapi_document(title="x", version="1")
    addresses = {channel["address"] for channel in described["channels"].values()}
    assert {"/echo", "/rooms/{room}", "/rooms/{room}/events", "/members", "/calm/ws", "/typed"} <= addresses
