"""From a path parameter's text to what a handler's annotation says.

It is converted as msgspec converts text (`msgspec.convert(..., strict=False)`): `int`, `float`, `bool`, `UUID`, `date`,
enums, `Literal`, `int | None`, `Annotated[int, msgspec.Meta(ge=1)]`. A type that can't be made of text is noticed when
the route is made.
"""

from __future__ import annotations

import inspect
import math
import sys
from collections.abc import Callable
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec
import msgspec.inspect as types
from starlette.convertors import (
    Convertor,
    FloatConvertor,
    IntegerConvertor,
    PathConvertor,
    StringConvertor,
    UUIDConvertor,
)

from verbtrio.connection.annotations import annotation_of, name_of

MAX_SHOWN = 50
"""Characters of a parameter's value that are shown in a log line."""

# What each of Starlette's own convertors gives, and the types that take it. A user's own convertor is not in it.
_GIVES: dict[type, tuple[str, type, tuple[type, ...]]] = {
    StringConvertor: (
        "str",
        str,
        (
            types.StrType,
            types.BoolType,
            types.IntType,
            types.FloatType,
            types.DecimalType,
            types.UUIDType,
            types.DateType,
            types.TimeType,
            types.DateTimeType,
            types.TimeDeltaType,
        ),
    ),
    PathConvertor: ("path", str, (types.StrType,)),
    IntegerConvertor: ("int", int, (types.IntType, types.FloatType, types.DecimalType)),
    FloatConvertor: ("float", float, (types.FloatType, types.DecimalType)),
    UUIDConvertor: ("uuid", UUID, (types.UUIDType,)),
}


class ConversionError(Exception):
    """A value is not what its annotation says. The text goes on after "its room ..."."""


def conversion_of(
    function: Any, parameter: inspect.Parameter, convertor: Convertor[Any]
) -> Callable[[Any], Any] | None:
    """What turns Starlette's value into what the annotation of `parameter` says; `None` if it is that already. Calling
    it raises `ConversionError`.

    Raises:
        TypeError: the annotation contradicts the path, or can't be read from text.
    """
    annotation = annotation_of(function, parameter)
    if annotation in (parameter.empty, Any, object):
        return None
    known = _GIVES.get(type(convertor))
    problem = _problem(annotation)
    if known is None:  # a user's own convertor: if it gives text, that is converted
        return None if problem else lambda value: _converted(value, annotation if isinstance(value, str) else Any)
    spelling, given, takers = known
    label = f"`{parameter.name}: {inspect.formatannotation(annotation)}`"
    if problem:
        raise TypeError(
            f"{name_of(function)}: {label} can't be read from a path ({problem}); use str, int, float, bool, UUID, an "
            f"Enum, a Literal or a date"
        )
    if not any(_takes(member, given, takers) for member in _members(annotation)):
        raise TypeError(
            f"{name_of(function)}: the path's {{{parameter.name}:{spelling}}} is of the type {given.__name__}, and the "
            f"handler takes {label}: annotate it as `{given.__name__}`, or write {{{parameter.name}}} in the path"
        )
    return None if annotation is given and given is not float else lambda value: _converted(value, annotation)


def _converted(value: Any, annotation: Any) -> Any:
    try:
        converted = _convert(value, annotation)
    except (msgspec.ValidationError, ValueError, ArithmeticError) as error:
        problem = str(error)[: 2 * MAX_SHOWN]  # the whole value may be in it
        raise ConversionError(f"is {str(value)[:MAX_SHOWN]!r}: {problem}") from None
    if isinstance(converted, float | Decimal) and not _is_usual(converted):
        raise ConversionError("is not a finite number, or beyond the range of a float")
    return converted


def _convert(value: Any, annotation: Any) -> Any:
    return msgspec.convert(value, annotation, strict=False)


def _members(annotation: Any) -> tuple[types.Type, ...]:
    info = types.type_info(annotation)
    return info.types if isinstance(info, types.UnionType) else (info,)


def _problem(annotation: Any) -> str | None:
    """Why a value of that type can't be read from a path; `None` if it can."""
    try:
        members = _members(annotation)
        _convert("", annotation)
    except msgspec.ValidationError:
        pass
    except TypeError as error:
        return str(error)
    readable = (*_GIVES[StringConvertor][2], types.AnyType, types.EnumType, types.LiteralType)
    return None if any(isinstance(member, readable) for member in members) else "it is neither text nor a number"


def _takes(member: types.Type, given: type, takers: tuple[type, ...]) -> bool:
    """Whether a value of the type `given` can be converted to `member`, one of the annotation's types."""
    if isinstance(member, types.EnumType):
        values: tuple[Any, ...] = tuple(choice.value for choice in member.cls)
    elif isinstance(member, types.LiteralType):
        values = tuple(member.values)
    else:
        return isinstance(member, (*takers, types.AnyType))
    # A segment may be any of them; a path of several segments only text.
    return any(type(value) is given or (type(value) is int and types.IntType in takers) for value in values)


def _is_usual(number: float | Decimal) -> bool:
    """Whether `number` is finite and within a float's range: `int(Decimal("1e999999999"))` would take minutes."""
    if isinstance(number, float):
        return math.isfinite(number)
    return number.is_finite() and abs(number.adjusted()) <= sys.float_info.max_10_exp
