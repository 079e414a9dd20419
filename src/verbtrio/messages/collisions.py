"""Which types may be the keys of a dict, or the elements of a set, that a client sends. Pure.

Python's hash of a number is that number modulo 2**61 - 1. A client that sends `7 + k * (2**61 - 1)` for many k gives
them all one hash, and each key is compared with all the keys before it: 20,000 keys in 555 KB took 3 s (CWE-407). The
hash of a text is made with a secret of the process, so a client can't aim at it.

The rule: a client may choose among at most `MAX_VALUES` values. There are 2**61 - 1 hashes, so few values share one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from typing import Any

from msgspec import inspect

MAX_VALUES = 2**64
"""As many as there are floats, or 64-bit integers: about 200 floats, or 9 integers, share one hash at the most."""

_SECRET = 1
"""The number of choices in a type whose hash has a secret: a client can't choose the hash."""
_SECRET_TYPES = (inspect.StrType, inspect.BytesType, inspect.DateType, inspect.TimeType, inspect.NoneType)
_MOMENTS = 3_652_059 * 86_400 * 10**6
"""Microseconds from the year 1 to 9999. The hash of an aware datetime has no secret."""
_UNHASHABLE = (
    inspect.ListType,
    inspect.DictType,
    inspect.SetType,
    inspect.ByteArrayType,
    inspect.MemoryViewType,
    inspect.TypedDictType,
)


def check_keys(kind: object, info: inspect.Type) -> None:
    """Check all dicts and sets in a message's type.

    Args:
        kind: the type, for the error message.
        info: msgspec's description of it.

    Raises:
        TypeError: clients could choose keys or elements that share one hash.
    """
    key: Any
    for part in parts(info):
        if isinstance(part, inspect.SetType | inspect.FrozenSetType):
            key, what = part.item_type, "set's elements"
        else:
            key, what = getattr(part, "key_type", None), "dict's keys"
            if key is None or isinstance(key, inspect.AnyType):  # JSON's own names are texts
                continue
        if _choices(key, ()) > MAX_VALUES:
            raise TypeError(
                f"{kind!r}: a {what} are {_name(key)}, and a client can send many with one hash: each is then compared "
                f"with all the others (CWE-407). Use texts (dict[str, ...], set[str]), a list, or integers within "
                f"bounds: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]"
            )


def parts(info: inspect.Type) -> Iterator[inspect.Type]:
    """`info` and every type in it, each once: types may contain themselves."""
    seen: set[int] = set()
    waiting: list[Any] = [info]
    while waiting:
        part = waiting.pop()
        if isinstance(part, tuple):
            waiting += part
        elif isinstance(part, inspect.Type | inspect.Field) and id(part) not in seen:
            seen.add(id(part))
            waiting += (getattr(part, name) for name in part.__struct_fields__)
            if isinstance(part, inspect.Type):
                yield part


def _choices(info: inspect.Type, inside: tuple[int, ...]) -> float:
    """How many values with a predictable hash there are; `math.inf` if there is no limit or it is unknown."""
    if id(info) in inside:
        return math.inf
    choices = partial(_choices, inside=(*inside, id(info)))
    match info:
        case inspect.Metadata():
            return choices(info.type)
        case inspect.IntType():
            return _integers(info)
        case inspect.FloatType():
            return 2**64
        case inspect.UUIDType():
            return 2**128
        case inspect.BoolType():
            return 2
        case inspect.EnumType():
            return len(info.cls)
        case inspect.LiteralType():
            return len(info.values)
        case inspect.DateTimeType():
            return _MOMENTS
        case inspect.UnionType():
            return sum(map(choices, info.types))
        case inspect.TupleType():
            return math.prod(map(choices, info.item_types))
        case inspect.StructType() | inspect.DataclassType() | inspect.NamedTupleType():
            return math.prod(choices(field.type) for field in info.fields)
        case inspect.VarTupleType():
            return _SECRET if choices(info.item_type) <= _SECRET else math.inf
        case inspect.FrozenSetType():
            members = choices(info.item_type)
            return _SECRET if members <= _SECRET else 2**members if members <= 64 else math.inf
    if isinstance(info, _SECRET_TYPES):
        return _SECRET
    return 0 if isinstance(info, _UNHASHABLE) else math.inf


def _integers(info: inspect.IntType) -> float:
    low = info.ge if info.gt is None else info.gt + 1
    high = info.le if info.lt is None else info.lt - 1
    return math.inf if low is None or high is None else max(high - low + 1, 0)


def _name(info: inspect.Type) -> str:
    """A type's name as its author writes it, more or less: `IntType` is `int`."""
    if isinstance(info, inspect.Metadata):
        return _name(info.type)
    if isinstance(info, inspect.UnionType):
        return " or ".join(map(_name, info.types))
    cls = getattr(info, "cls", None)
    return cls.__name__ if isinstance(cls, type) else type(info).__name__.removesuffix("Type").lower()
