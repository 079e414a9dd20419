"""The docs leave out no name, no setting with its default, no end of a connection, and no module."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

import verbtrio
from docs import layers
from tests.support.process import ROOT
from tests.test_exports import EXPORTED
from verbtrio import App, Cause, Heartbeat, History, Limits, Presence, Restart
from verbtrio.auth import JWTAuth
from verbtrio.base import close
from verbtrio.base.habits import Habit
from verbtrio.routes.centrifuge import ClientRoutes
from verbtrio.routes.http_routes import HTTPRoutes
from verbtrio.routes.rooms import RoomDeclarations
from verbtrio.routes.routing import Routes

PAGE = (ROOT / "docs" / "reference.md").read_text()
SECTIONS = dict(re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", PAGE, re.DOTALL | re.MULTILINE))


def rows(section: str) -> list[list[str]]:
    """The cells of a section's tables."""
    lines = [line for line in SECTIONS[section].splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def settings(of: Any) -> dict[str, Any]:
    """The arguments of a class, with their defaults, as one would write them."""
    parameters = inspect.signature(of).parameters.values()
    return {parameter.name: parameter.default for parameter in parameters}


def written(section: str) -> dict[str, str]:
    """The arguments that a section's table has, with their defaults."""
    return {cells[0].strip("`"): cells[1].strip("`") for cells in rows(section)[2:]}


def test_each_name() -> None:
    table = SECTIONS["Names"].partition("From other modules:")[0]
    named = [
        name for line in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE) for name in re.findall(r"`(\w+)`", line)
    ]
    assert sorted(named) == sorted(EXPORTED)


@pytest.mark.parametrize("door", ["auth", "brokers", "security", "environment", "metrics", "middleware"])
def test_each_name_of_a_door(door: str) -> None:
    module = importlib.import_module(f"verbtrio.{door}")
    (cells,) = [cells for cells in rows("Names") if cells[0] == f"`{module.__name__}`"]
    source = ast.parse(Path(module.__file__ or "").read_text())
    public = {node.name for node in source.body if isinstance(node, ast.ClassDef | ast.FunctionDef)}
    for node in source.body:
        if isinstance(node, ast.ImportFrom):
            public |= {alias.asname for alias in node.names if alias.asname is not None}
    assert set(re.findall(r"`(\w+)`", cells[1])) == {name for name in public if not name.startswith("_")}


def test_what_an_app_has() -> None:
    (cells,) = [cells for cells in rows("Names") if cells[0] == "`App`"]
    kinds = (App, Routes, HTTPRoutes, ClientRoutes, RoomDeclarations)
    own = [name for of in kinds for name in vars(of) if not name.startswith("_")]
    assert {"ws", "group", "users"} <= set(own), "the test itself sees something"
    assert not [name for name in own if not re.search(rf"`{name}\b", cells[1])]


@pytest.mark.parametrize("name", ["WebSocket", "Room", "Membership", "Users", "Client", "Subscription"])
def test_what_a_handler_holds_has(name: str) -> None:
    (cells,) = [cells for cells in rows("Names") if cells[0] == f"`{name}`"]
    of = getattr(verbtrio, name)
    own = [
        part
        for part, thing in vars(of).items()
        if not part.startswith("_") and part != "outlet" and not isinstance(thing, Habit)
    ]
    assert own
    assert not [part for part in own if not re.search(rf"`{part}\b", cells[1])]


def test_each_setting_of_an_app() -> None:
    told = written("App")
    defaults = settings(App)
    assert list(told) == list(defaults), "in the order of the signature"
    made_by_the_app = {"limits": "Limits()", "heartbeat": "Heartbeat()"}
    assert told == {name: made_by_the_app.get(name, repr(value)) for name, value in defaults.items()}


def test_each_argument_of_a_route() -> None:
    told = written("Routes")
    defaults = {name: value for name, value in settings(App.ws).items() if name not in ("self", "path")}
    assert list(told) == list(defaults), "in the order of the signature"
    inherited = ("limits", "heartbeat", "compression", "allowed_origins", "require_origin")
    assert told == {name: "the group's" if name in inherited else repr(value) for name, value in defaults.items()}


def test_each_argument_of_an_endpoint_for_clients() -> None:
    told = written("Clients of the Centrifuge protocol")
    defaults = {name: value for name, value in settings(App.centrifuge).items() if name not in ("self", "path")}
    assert list(told) == list(defaults), "in the order of the signature"
    inherited = ("limits", "compression", "allowed_origins", "require_origin")
    assert told == {
        name: "the app's" if name in inherited else repr(value).replace("'", '"') for name, value in defaults.items()
    }


def arguments(of: Any) -> dict[str, Any]:
    """The settings of a method that takes a pattern."""
    return {name: value for name, value in settings(of).items() if name not in ("self", "pattern")}


def test_each_setting_of_rooms() -> None:
    told = written("Rooms")
    defaults = arguments(App.rooms)
    assert list(told) == list(defaults), "in the order of the signature"
    assert told == {name: repr(value) for name, value in defaults.items()}
    for setting in (History(), Presence()):
        assert f"`{setting!r}`" in SECTIONS["Rooms"]


def test_each_setting_of_a_room_task() -> None:
    told = written("Room tasks")
    defaults = arguments(App.room_task)
    assert list(told) == list(defaults), "in the order of the signature"
    assert {name: eval(value, {"Restart": Restart}) for name, value in told.items()} == defaults


def test_each_argument_of_jwt_auth() -> None:
    told = written("JWTAuth")
    assert list(told) == list(settings(JWTAuth)), "in the order of the signature"
    assert told == {name: repr(value) for name, value in settings(JWTAuth).items()}


def test_each_setting_of_a_heartbeat() -> None:
    told = written("Heartbeat")
    assert told == {name: repr(value).replace("'", '"') for name, value in settings(Heartbeat).items()}
    assert list(told) == [field.name for field in dataclasses.fields(Heartbeat)]


def default_of(name: str, value: Any) -> str:
    """As the tables write it."""
    if value is None:
        return "none"
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, float):
        return f"{value:g} s"
    if not name.endswith("_bytes"):
        return f"{value:,}"
    return f"{value // 1024} KiB" if value < 1024**2 else f"{value // 1024**2} MiB"


@pytest.mark.parametrize(("page", "names", "told"), [("security", 0, 1), ("threat-model", 2, 3)])
def test_the_default_of_each_limit(page: str, names: int, told: int) -> None:
    text = (ROOT / "docs" / f"{page}.md").read_text()
    tables = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("|")]
    for field in dataclasses.fields(Limits):
        cells = [row for row in tables if len(row) > told and re.search(rf"\b{field.name}\b", row[names])]
        assert cells, f"{field.name} is in no table"
        default = default_of(field.name, field.default)
        assert any(default in row[told] for row in cells), f"{field.name} has the default {default}"


def test_each_end() -> None:
    """Each cause, and each code that is sent."""
    causes = [cause for cells in rows("Close codes")[2:] for cause in re.findall(r"`(\w+)`:", cells[1])]
    assert set(causes) == {cause.value for cause in Cause}
    told = "\n".join(cells[0] + cells[1] for cells in rows("Close codes")[2:])
    codes = {int(code) for code in re.findall(r"(?<!RFC )\b\d{4}\b", told)}
    ours = {
        value
        for name, value in vars(close).items()
        if name.isupper() and isinstance(value, int) and 1000 <= value <= 4999
    }
    assert codes == ours - {close.GOING_AWAY, close.UNSUPPORTED_DATA}, "those two nothing here sends"


class TestThePictureOfThePackages:
    def test_it_is_up_to_date(self) -> None:
        """If not: `python docs/layers.py`."""
        assert layers.main(["--check"]) == 0

    def test_it_has_every_module(self) -> None:
        words = ElementTree.fromstring(layers.PICTURE.read_text()).itertext()
        assert {path.stem for path in layers.SOURCE.rglob("*.py")} <= set(words)

    def test_it_is_small_enough_for_a_page(self) -> None:
        assert len(layers.PICTURE.read_bytes()) < 80_000

    def test_imports_go_down(self) -> None:
        packages = layers.read()
        names = [package.name for package in packages]
        assert names[0] == "verbtrio"
        assert names[-1] == "base"
        for number, package in enumerate(packages):
            assert package.imports.keys() <= set(names[number + 1 :])

    def test_a_circle_is_an_error(self, tmp_path: Path) -> None:
        for package, imported in (("one", "two"), ("two", "one")):
            (tmp_path / package).mkdir()
            (tmp_path / package / "__init__.py").write_text('"""A package."""')
            (tmp_path / package / "module.py").write_text(f"from verbtrio.{imported} import module")
        with pytest.raises(ValueError, match="one, two"):
            layers.read(tmp_path)


def test_architecture_has_every_package() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text()
    table = page[page.index("## The packages") : page.index("## The way of a message")]
    told = re.findall(r"^\| `([\w.]+)` \|", table, re.MULTILINE)
    assert sorted(told) == sorted(package.name for package in layers.read())
