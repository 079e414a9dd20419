"""What verbtrio exports: each public name once, as `X as X`, and nothing public forgotten."""

from __future__ import annotations

import ast
import inspect
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import verbtrio
from verbtrio.base import errors

SOURCE = ast.parse(Path(verbtrio.__file__).read_text())
IMPORTS = [
    (node.module, alias)
    for node in SOURCE.body
    if isinstance(node, ast.ImportFrom)
    for alias in node.names
    if alias.name != "needed"
]
EXPORTED = [alias.asname for _, alias in IMPORTS if alias.asname is not None]

# Seen in the signature of something public, and yet nothing that an application names.
INTERNAL = {
    "Frame": "rooms hand one to their members; applications send data",
    "Peer": "the framework's record behind a `Member`",
    "WebSocketPeer": "the same behind a `WebSocket`",
    "SubscriberPeer": "the same behind an `EventSubscriber`",
    "ClientPeer": "the same behind a `Client`",
    "Life": "the same behind a `Subscription`",
    "Rooms": "behind `Room`",
    "RoomHost": "behind `Room`, too",
    "Broker": "from `verbtrio.brokers`",
    "Session": "a broker's, from `verbtrio.brokers`; and a client's, behind a `Client`",
    "UserTable": "behind `Users`",
    "Memberships": "made with a `WebSocket`; applications have each `Membership`",
}


def test_each_name_once() -> None:
    assert len(EXPORTED) == len(set(EXPORTED))
    assert len(EXPORTED) == len(IMPORTS)


def test_as_itself() -> None:
    """`X as X` is what tells type checkers that it is exported."""
    assert [(alias.name, alias.asname) for _, alias in IMPORTS] == [(name, name) for name in EXPORTED]


def test_in_order() -> None:
    assert [module for module, _ in IMPORTS] == sorted(str(module) for module, _ in IMPORTS)


def test_from_where_it_is_defined() -> None:
    for module, alias in IMPORTS:
        assert module is not None
        thing = getattr(verbtrio, alias.name)
        if inspect.isclass(thing) and thing is not Any:  # `JSON` is `Any`
            assert thing.__module__ == module


def test_nothing_else_is_public() -> None:
    public = {
        name for name, value in vars(verbtrio).items() if not name.startswith("_") and not inspect.ismodule(value)
    }
    assert public == set(EXPORTED)


def test_only_imports_and_the_version() -> None:
    docstring, *rest = SOURCE.body
    assert isinstance(docstring, ast.Expr)
    others = [node for node in rest if not isinstance(node, ast.ImportFrom)]
    assert [ast.unparse(node) for node in others] == [f"__version__ = {verbtrio.__version__!r}"]


def test_every_error() -> None:
    """Whatever an application may have to catch."""
    raised = {
        name for name, value in vars(errors).items() if inspect.isclass(value) and value.__module__ == errors.__name__
    }
    assert raised <= set(EXPORTED)


def test_whatever_a_public_signature_names() -> None:
    """A class that a public method takes or gives is one that applications write in their annotations."""
    named = {
        thing.__name__
        for name in EXPORTED
        if inspect.isclass(public := getattr(verbtrio, name))
        for function in public_functions(public)
        for hint in inspect.get_annotations(function, eval_str=True).values()
        for thing in classes_in(hint)
        if thing.__module__.startswith("verbtrio.")
    }
    assert {"Room", "Limits", "CloseInfo", "Membership"} <= named, "the test itself sees something"
    assert named - set(INTERNAL) <= set(EXPORTED)
    assert not set(INTERNAL) & set(EXPORTED)


def public_functions(public: type) -> Iterator[Any]:
    for name, member in vars(public).items():
        function = member.fget if isinstance(member, property) else getattr(member, "__wrapped__", member)
        if inspect.isfunction(function) and (name == "__init__" or not name.startswith("_")):
            yield function


def classes_in(hint: Any) -> Iterator[type]:
    """The classes in an annotation: `Collection[Member] | None` names three."""
    if inspect.isclass(hint):
        yield hint
    for part in typing.get_args(hint):
        for piece in part if isinstance(part, list) else [part]:
            yield from classes_in(piece)
