"""Keys that a client could choose to have one hash: refused when the route is made, wherever they stand in a type."""

from __future__ import annotations

import datetime
import enum
import uuid
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from types import GenericAlias
from typing import Annotated, Any, Generic, Literal, NamedTuple, NewType, TypedDict, TypeVar

import msgspec
import pytest
from msgspec import Meta, Struct

from tests.test_linear import TOO_MUCH, growth
from verbtrio import App, WebSocket
from verbtrio.base.errors import MessageError
from verbtrio.base.types import JSON
from verbtrio.messages.decoder import INVALID_JSON, Decoder

T = TypeVar("T")
MODULUS = 2**61 - 1
Int64 = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
Byte = Annotated[int, Meta(ge=0, lt=256)]
UserId = NewType("UserId", int)


class Color(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    LOW = 1


class Point(Struct, frozen=True):
    x: int
    y: int


class Pixel(Struct, frozen=True):
    x: Annotated[int, Meta(ge=0, lt=10_000)]
    y: Annotated[int, Meta(gt=-1, le=9_999)]


class Named(Struct, frozen=True):
    name: str
    color: Color


class Chain(Struct, frozen=True):
    flag: bool
    rest: Chain | None


@dataclass(frozen=True)
class FrozenPoint:
    x: int


class Pair(NamedTuple):
    x: int
    y: str


class HasScores(Struct):
    scores: dict[int, str]


@dataclass
class DataScores:
    scores: dict[int, str]


class TypedScores(TypedDict):
    scores: dict[int, str]


class TupleScores(NamedTuple):
    scores: dict[int, str]


class Box(Struct, Generic[T]):
    content: dict[T, str]


class Tree(Struct):
    children: list[Tree]
    seen: set[int]


class Safe(Struct):
    by_name: dict[str, int]
    children: list[Safe]


class One(Struct, tag=True):
    ids: set[int]


class Two(Struct, tag=True):
    ids: set[str]


KEYS: list[Any] = [
    *(int, Decimal, uuid.UUID, UserId, datetime.timedelta, int | str, int | None, tuple[int, str], tuple[int, ...]),
    *(Annotated[int, Meta(ge=0)], Annotated[int, Meta(lt=10)], Annotated[int, Meta(description="an id")]),
    *(tuple[float, float], tuple[Int64, Int64], tuple[Byte, ...], tuple[Int64, bool], tuple[tuple[int]]),
]
ELEMENTS: list[Any] = [
    *KEYS,
    Any,
    JSON,
    Point,
    Chain,
    FrozenPoint,
    Pair,
    frozenset[int],
    frozenset[Byte],
    frozenset[Int64],
]

REFUSED: list[Any] = [
    *(GenericAlias(dict, (key, str)) for key in KEYS),
    *(GenericAlias(set, (element,)) for element in ELEMENTS),
    *(GenericAlias(frozenset, (element,)) for element in ELEMENTS),
    *(set, frozenset, Mapping[int, str], AbstractSet[int], dict[int, dict[int, str]]),
    *(list[dict[int, str]], tuple[dict[int, str], ...], tuple[str, set[int]], dict[str, dict[int, str]]),
    *(
        dict[int, str] | None,
        dict[str, int] | list[set[int]],
        One | Two,
        Annotated[dict[int, str], Meta(max_length=10)],
    ),
    *(HasScores, DataScores, TypedScores, TupleScores, list[HasScores], Box[int], dict[str, Box[UserId]], Tree),
]
ALLOWED: list[Any] = [
    *(dict, dict[str, Any], dict[str, int], dict[bytes, int], dict[Color, int], dict[Level, int], JSON, Box, Box[str]),
    *(dict[Literal[1, 2], int], dict[Byte, int], dict[Int64, int], dict[Byte | str, int], dict[float, int]),
    *(dict[datetime.datetime, int], dict[datetime.date, int], dict[datetime.time, int], dict[Any, int]),
    *(set[str], set[bytes], set[bool], set[None], set[Byte | None], set[float], set[Color], frozenset[str]),
    *(set[tuple[str, Byte]], set[tuple[Byte, Byte]], set[tuple[str, ...]], set[Pixel], set[Named]),
    *(
        set[frozenset[str]],
        set[frozenset[bool]],
        set[tuple[datetime.datetime, str]],
        list[int],
        Safe,
        Two,
        int,
        Decimal,
    ),
]


@pytest.mark.parametrize("kind", REFUSED)
def test_refused(kind: Any) -> None:
    with pytest.raises(TypeError, match=r"with one hash.*msgspec\.Meta\(ge=0, le=2\*\*63 - 1\)"):
        Decoder(kind)


@pytest.mark.parametrize("kind", ALLOWED)
def test_allowed(kind: Any) -> None:
    Decoder(kind)


def test_the_error_names_the_keys() -> None:
    with pytest.raises(TypeError, match="a dict's keys are uuid"):
        Decoder(dict[uuid.UUID, str])
    with pytest.raises(TypeError, match="a set's elements are Point"):
        Decoder(list[set[Point]])
    with pytest.raises(TypeError, match="a set's elements are int or str"):
        Decoder(set[Annotated[int, Meta(description="an id")] | str])


@pytest.mark.parametrize("form", ["coroutine", "hook", "hooks of a class"])
def test_it_shows_when_the_route_is_made(form: str) -> None:
    app = App()

    async def coroutine(ws: WebSocket[dict[int, str]]) -> None: ...
    def hook(ws: WebSocket, message: dict[int, str]) -> None: ...

    class Hooks:
        def message(self, ws: WebSocket, message: dict[int, str]) -> None: ...

    handler: Any = {"coroutine": coroutine, "hooks of a class": Hooks}.get(form)
    with pytest.raises(TypeError, match="a dict's keys are int"):
        app.ws("/ws", message=hook) if handler is None else app.ws("/ws")(handler)
    assert not app.routes


def numbers(size: int) -> list[str]:
    return [str(7 + k * MODULUS) for k in range(size)]


@cache
def fractions(size: int) -> list[str]:
    """Floats with as few hashes as there can be: 194 with each."""
    found: list[str] = []
    low = 0
    while len(found) < size:
        spread = (
            sum(1 << (10 * j) for j in range(6)) | (low & 1) | sum((low >> j & 1) << (10 * j + 1) for j in range(6))
        )
        low += 1
        for turn in range(61):
            mantissa = ((spread << turn) | (spread >> (61 - turn))) & MODULUS
            if 2**52 <= mantissa < 2**53:
                found += (repr(mantissa * 2.0**e) for e in range(-1000, 971) if (e + turn) % 61 == 0)
    return found[:size]


CHOSEN: dict[str, Callable[[int], list[str]]] = {
    "ints": numbers,
    "64-bit ints": lambda size: [str(7 + k % 9 * 2**59 + k) for k in range(size)],
    "small ints": lambda size: [str(k % 256) for k in range(size)],
    "high bits": lambda size: [str(k << 40) for k in range(size)],
    "floats": fractions,
    "texts": lambda size: [f'"{7 + k * MODULUS}"' for k in range(size)],
    "moments": lambda size: [f'"2026-01-01T00:{k // 60 % 60:02}:{k % 60:02}.{k % 10**6:06}Z"' for k in range(size)],
    "tuples": lambda size: [f"[{k % 256},{k // 256}]" for k in range(size)],
    "names": lambda size: [f'["{7 + k * MODULUS}",{k % 256}]' for k in range(size)],
    "pixels": lambda size: [f'{{"x":{k % 10_000},"y":{k // 10_000}}}' for k in range(size)],
}


@pytest.mark.parametrize("name", CHOSEN)
def test_what_is_allowed_is_decoded_in_linear_time(name: str) -> None:
    for kind in ALLOWED:
        decoder = Decoder[Any](kind)

        def decode(message: str, decoder: Decoder[Any] = decoder) -> None:
            try:
                decoder(message)
            except MessageError:
                pass

        assert growth(decode, lambda size: f"[{','.join(CHOSEN[name](2 * size))}]") < TOO_MUCH, kind
        if name in ("ints", "64-bit ints", "small ints", "high bits", "floats", "texts", "moments"):

            def as_names(size: int) -> str:
                return "{" + ",".join(f'"{key.strip(chr(34))}":0' for key in CHOSEN[name](2 * size)) + "}"

            assert growth(decode, as_names) < TOO_MUCH, kind


def test_what_is_refused_would_not_be() -> None:
    for kind in (set[int], set):
        decode = msgspec.json.Decoder(kind).decode
        assert growth(decode, lambda size: f"[{','.join(numbers(size))}]") > TOO_MUCH


@pytest.mark.parametrize("key", ["256", "-1", str(7 + MODULUS), "9" * 5000, "1.5", "1e2", "x"])
def test_bounds_hold_for_keys_and_elements(key: str) -> None:
    for kind, message in ((dict[Byte, int], f'{{"{key}": 0}}'), (set[Byte], f"[{key}]"), (frozenset[Byte], f"[{key}]")):
        with pytest.raises(MessageError):
            Decoder[Any](kind)(message)


@pytest.mark.parametrize(("kind", "message"), [(set[list[str]], '[["a"]]'), (set[dict[str, str]], "[{}]")])
def test_an_element_that_has_no_hash_is_no_message(kind: Any, message: str) -> None:
    with pytest.raises(MessageError, match=INVALID_JSON):
        Decoder[Any](kind)(message)
