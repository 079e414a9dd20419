"""A handler's path parameters: what its signature asks for is read when the route is made, so that a mistake shows at
import, and is converted by its annotation when a request comes.

What the path holds is converted as msgspec converts text (`msgspec.convert(..., strict=False)`): `int`, `float`,
`bool`, `UUID`, `date`, enums, `Literal`, `int | None`, `Annotated[int, msgspec.Meta(ge=1)]`.
"""

from __future__ import annotations

import inspect
import math
import sys
from collections.abc import Callable, Mapping
from decimal import Decimal
from functools import partial, wraps
from typing import Any, NoReturn, TypeAlias
from uuid import UUID

import msgspec
import msgspec.inspect as types
from starlette.concurrency import run_in_threadpool
from starlette.convertors import (
    Convertor,
    FloatConvertor,
    IntegerConvertor,
    PathConvertor,
    StringConvertor,
    UUIDConvertor,
)
from starlette.exceptions import HTTPException
from starlette.requests import Request

from verbtrio.base.mistakes import no_injection

Convertors: TypeAlias = Mapping[str, Convertor[Any]]
"""A path's parameters, as `starlette.routing.compile_path` has them."""

Arguments: TypeAlias = tuple[list[Any], dict[str, Any]]

MAX_SHOWN = 50
"""Characters of a parameter's value that are shown in a log line."""

# What each of Starlette's own convertors gives, and the types that take it. One that a user has registered is unknown.
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


class ParameterError(Exception):
    """A parameter of the path is not what its annotation says: for the client there is no such path."""


class Parameters:
    """The path parameters that a handler takes behind its first parameter. `**rest` takes those that have no parameter
    of their own, as the path's convertors leave them.

    Args:
        function: the handler.
        path: the path's parameters.
        first: what the first parameter is: "connection" or "request".

    Raises:
        TypeError: a parameter can't be filled, or its annotation contradicts the path.
    """

    def __init__(self, function: Callable[..., Any], path: Convertors, *, first: str) -> None:
        name = name_of(function)
        receiver, *others = _signature(function, path, first)
        bound = set(function.keywords) if isinstance(function, partial) else set()
        takes_rest = False
        self._positional: list[str] = []
        self._named: list[str] = []
        self._conversions: dict[str, Callable[[Any], Any]] = {}
        for parameter in others:
            if parameter.kind is parameter.VAR_KEYWORD:
                takes_rest = True
            elif parameter.kind is parameter.VAR_POSITIONAL:
                raise TypeError(
                    f"{name}: nothing fills `*{parameter.name}`: the path's parameters go by name, all of them to "
                    f"`**{parameter.name}`"
                )
            elif parameter.name in path:
                names = self._positional if parameter.kind is parameter.POSITIONAL_ONLY else self._named
                names.append(parameter.name)
                conversion = _conversion(function, parameter, path[parameter.name], receiver.name)
                if conversion is not None:
                    self._conversions[parameter.name] = conversion
            elif parameter.name not in bound:
                _refuse(function, parameter, path, receiver.name)
        if takes_rest:
            self._named += [name for name in path if name not in self._named and name not in self._positional]

    def __bool__(self) -> bool:
        """Whether it takes any."""
        return bool(self._positional or self._named)

    def arguments(self, values: Mapping[str, Any]) -> Arguments:
        """What the handler is called with, beside its first argument.

        Args:
            values: the path's parameters as Starlette has converted them.

        Raises:
            ParameterError: a value is not what its annotation says.
        """
        return [self._value(name, values) for name in self._positional], {
            name: self._value(name, values) for name in self._named
        }

    def _value(self, name: str, values: Mapping[str, Any]) -> Any:
        value = values[name]
        conversion = self._conversions.get(name)
        if conversion is None:
            return value
        try:
            value = conversion(value)
        except (msgspec.ValidationError, ValueError, ArithmeticError) as error:
            problem = str(error)[: 2 * MAX_SHOWN]  # which may have the whole value in it
            raise ParameterError(f"its {name} is {str(value)[:MAX_SHOWN]!r}: {problem}") from None
        if isinstance(value, float | Decimal) and not _is_usual(value):
            raise ParameterError(f"its {name} is no finite number, or out of all bounds")
        return value


def _is_usual(number: float | Decimal) -> bool:
    """Whether it is finite, and within a float's range: `int(Decimal("1e999999999"))` would take minutes."""
    if isinstance(number, float):
        return math.isfinite(number)
    return number.is_finite() and abs(number.adjusted()) <= sys.float_info.max_10_exp


def http_endpoint(endpoint: Any, path: Convertors) -> Any:
    """`endpoint` as Starlette calls it: with the request alone. An ASGI application, or a class, stays as it is.

    Raises:
        TypeError: see `Parameters`.
    """
    function = endpoint
    while isinstance(function, partial):
        function = function.func
    if not (inspect.isfunction(function) or inspect.ismethod(function)):
        return endpoint
    parameters = Parameters(endpoint, path, first="request")
    if not parameters:
        return endpoint

    @wraps(endpoint)
    async def call(request: Request) -> Any:
        try:
            positional, named = parameters.arguments(request.path_params)
        except ParameterError as error:
            raise HTTPException(404) from error
        if inspect.iscoroutinefunction(endpoint):
            return await endpoint(request, *positional, **named)
        return await run_in_threadpool(endpoint, request, *positional, **named)

    call.__name__ = getattr(endpoint, "__name__", type(endpoint).__name__)  # what Starlette names the route by
    return call


def annotation_of(function: Any, parameter: inspect.Parameter) -> Any:
    """The parameter's annotation; one that is text is evaluated alone: the others may name what only a type checker
    imports.

    Raises:
        TypeError: it can't be evaluated.
    """
    annotation = parameter.annotation
    if not isinstance(annotation, str):
        return annotation
    plain = function
    while isinstance(plain, partial):
        plain = plain.func
    try:
        return eval(annotation, getattr(inspect.unwrap(plain), "__globals__", {}))
    except Exception as error:
        raise TypeError(
            f"{name_of(function)}: the annotation {annotation!r} can't be read ({error}); define the type at the top "
            f"of its module, not in a function or under TYPE_CHECKING"
        ) from error


def name_of(function: Any) -> str:
    """What a handler is called in messages."""
    name: str = getattr(function, "__qualname__", repr(function))
    return name


def _signature(function: Any, path: Convertors, first: str) -> list[inspect.Parameter]:
    """The handler's parameters; the first can take the connection or the request."""
    name = name_of(function)
    parameters = list(inspect.signature(function).parameters.values())
    if not parameters or parameters[0].kind in (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.VAR_KEYWORD):
        raise TypeError(f"{name} takes too few parameters; the first one is the {first}")
    receiver = parameters[0]
    if receiver.kind is receiver.VAR_POSITIONAL and path:
        raise TypeError(
            f"{name} takes `*{receiver.name}`, which does not tell the parameters it wants of the path "
            f"({', '.join(path)}): put @functools.wraps(...) on the function that its decorator makes"
        )
    if receiver.name in path:
        raise TypeError(
            f"{name}: the first parameter is the {first}, and {receiver.name!r} is a parameter of the path: "
            f"write ({'ws' if first == 'connection' else first}, {receiver.name})"
        )
    return parameters


def _refuse(function: Any, parameter: inspect.Parameter, path: Convertors, receiver: str) -> NoReturn:
    """Raise `TypeError` for a parameter that is none of the path's."""
    name, asked = name_of(function), parameter.name
    check_markers(function, parameter, receiver)
    known = ", ".join(sorted(path)) or "none"
    if parameter.default is parameter.empty:
        raise TypeError(f"{name} asks for {asked!r}, which the path doesn't have (its parameters: {known})")
    raise TypeError(
        f"{name}: nothing fills `{asked}={parameter.default!r:.50}`, which the path doesn't have (its parameters: "
        f"{known}): read {receiver}.query_params[{asked!r}], or give it by functools.partial(..., {asked}=...)"
    )


def check_markers(function: Any, parameter: inspect.Parameter, receiver: str) -> None:
    """Raise `TypeError` for other frameworks' dependency injection: as the default, or in an `Annotated`."""
    markers = [parameter.default]
    try:
        markers += getattr(annotation_of(function, parameter), "__metadata__", ())
    except TypeError:
        pass  # of a type that nobody else has to read
    for marker in markers:
        kind = getattr(marker, "__name__", type(marker).__name__)
        if (instead := no_injection(kind, parameter.name, receiver)) is not None:
            raise TypeError(f"{name_of(function)}: nothing fills `{parameter.name}` by {kind}(...): {instead}")


def _conversion(
    function: Any, parameter: inspect.Parameter, convertor: Convertor[Any], receiver: str
) -> Callable[[Any], Any] | None:
    """What makes of Starlette's value what the annotation says; `None` where it is that already."""
    check_markers(function, parameter, receiver)
    annotation = annotation_of(function, parameter)
    if annotation in (parameter.empty, Any, object):
        return None
    known = _GIVES.get(type(convertor))
    problem = _problem(annotation)
    if known is None:  # a convertor of the user's: its text is converted, all else is what it has to be
        return None if problem else lambda value: _convert(value, annotation) if isinstance(value, str) else value
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
    return None if annotation is given and given is not float else lambda value: _convert(value, annotation)


def _convert(value: Any, annotation: Any) -> Any:
    return msgspec.convert(value, annotation, strict=False)


def _members(annotation: Any) -> tuple[types.Type, ...]:
    info = types.type_info(annotation)
    return info.types if isinstance(info, types.UnionType) else (info,)


def _problem(annotation: Any) -> str | None:
    """Why nothing of the kind can stand in a path; `None` where it can."""
    try:
        members = _members(annotation)
        _convert("", annotation)
    except msgspec.ValidationError:
        pass
    except TypeError as error:
        return str(error)
    readable = (*_GIVES[StringConvertor][2], types.AnyType, types.EnumType, types.LiteralType)
    return None if any(isinstance(member, readable) for member in members) else "it is no text and no number"


def _takes(member: types.Type, given: type, takers: tuple[type, ...]) -> bool:
    """Whether a value of the type `given` may become what `member` of the annotation says."""
    if isinstance(member, types.EnumType):
        values: tuple[Any, ...] = tuple(choice.value for choice in member.cls)
    elif isinstance(member, types.LiteralType):
        values = tuple(member.values)
    else:
        return isinstance(member, (*takers, types.AnyType))
    # Text may be any of them: a path of several segments only text.
    return any(type(value) is given or (type(value) is int and types.IntType in takers) for value in values)
