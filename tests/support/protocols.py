"""The client protocol's commands and replies at random, and as plain values that different readers can agree on."""

from __future__ import annotations

import json
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import msgspec
from hypothesis import strategies as st
from msgspec import Meta, Raw, Struct

from verbtrio.protocols.commands import Command
from verbtrio.protocols.replies import Push, Reply

TEXT = st.text(st.characters(codec="utf-8"), max_size=8)
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=5,
)
COUNT = st.integers(0, 2**32 - 1)


def documents() -> st.SearchStrategy[Raw]:
    """JSON, with characters as they are or escaped."""
    return st.builds(
        lambda value, escaped: Raw(json.dumps(value, ensure_ascii=escaped).encode()), JSON_VALUES, st.booleans()
    )


def structs(kind: Any) -> st.SearchStrategy[Any]:
    """Structs of this kind, with anything in their fields that the protocol's messages can have. Of a command, reply or
    push, that is one thing."""
    values = {name: _values(hint) for name, hint in fields(kind).items()}
    if kind not in (Command, Reply, Push):
        return st.builds(kind, **values)
    head, *others = values
    return st.one_of([st.builds(kind, **{head: values[head], other: values[other]}) for other in others])


def fields(kind: Any) -> dict[str, Any]:
    """The fields of a struct, and their types with the bounds."""
    hints = get_type_hints(kind, include_extras=True)
    return {name: hints[name] for name in kind.__struct_fields__}


def _values(hint: Any) -> st.SearchStrategy[Any]:
    options = [option for option in get_args(hint) if option is not type(None)]
    if type(None) in get_args(hint):
        return st.none() | _values(options[0])
    if get_origin(hint) is Annotated:
        kind, meta = options
        assert isinstance(meta, Meta)
        if kind is float:
            return st.floats(0, 1e9)
        if kind is int:
            return st.integers(meta.ge, meta.le)  # type: ignore[arg-type]  # both are ints there
        return _values(kind)
    if get_origin(hint) is list:
        return st.lists(_values(options[0]), max_size=2)
    if get_origin(hint) is dict:
        return st.dictionaries(TEXT, _values(options[1]), max_size=2)
    simple: dict[Any, st.SearchStrategy[Any]] = {str: TEXT, bool: st.booleans(), int: COUNT, Raw: documents()}
    return simple[hint] if hint in simple else structs(hint)


def plain(value: Any) -> Any:
    """A struct as a dict of what differs from its default; `Raw` as bytes."""
    if isinstance(value, Struct):
        pairs = [(field, getattr(value, field.name)) for field in msgspec.structs.fields(value)]
        return {field.name: plain(had) for field, had in pairs if had != field.default and had not in ({}, [])}
    if isinstance(value, Raw):
        return bytes(value)
    if isinstance(value, dict):
        return {key: plain(inner) for key, inner in value.items()}
    return [plain(inner) for inner in value] if isinstance(value, list) else value


def opened(value: Any) -> Any:
    """Plain values with the JSON in them decoded."""
    if isinstance(value, bytes):
        return json.loads(value)
    if isinstance(value, dict):
        return {key: opened(inner) for key, inner in value.items()}
    return [opened(inner) for inner in value] if isinstance(value, list) else value
