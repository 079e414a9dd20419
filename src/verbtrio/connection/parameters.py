"""A handler's path parameters: which of them its signature asks for.

The signature is read when the route is made, so that a mistake shows at import. The values are converted when a request
comes (see `conversion`).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NoReturn, TypeAlias

from starlette.convertors import Convertor

from verbtrio.connection.annotations import check_markers, name_of
from verbtrio.connection.conversion import ConversionError, conversion_of

Convertors: TypeAlias = Mapping[str, Convertor[Any]]
"""A path's parameters, as `starlette.routing.compile_path` has them."""

Arguments: TypeAlias = tuple[list[Any], dict[str, Any]]


class ParameterError(Exception):
    """A parameter of the path is not what its annotation says: the client gets a 404."""


class Parameters:
    """The path parameters that a handler takes after its first parameter. `**rest` takes those that have no parameter
    of their own, unconverted.

    Args:
        function: the handler.
        path: the path's parameters.
        first: the first parameter: "connection" or "request".

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
                check_markers(function, parameter, receiver.name)
                conversion = conversion_of(function, parameter, path[parameter.name])
                if conversion is not None:
                    self._conversions[parameter.name] = conversion
            elif parameter.name not in bound:
                _refuse(function, parameter, path, receiver.name)
        if takes_rest:
            self._named += [name for name in path if name not in self._named and name not in self._positional]

    def __bool__(self) -> bool:
        """Whether the handler takes any."""
        return bool(self._positional or self._named)

    def arguments(self, values: Mapping[str, Any]) -> Arguments:
        """The arguments the handler is called with, after its first one.

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
            return conversion(value)
        except ConversionError as error:
            raise ParameterError(f"its {name} {error}") from None


def _signature(function: Any, path: Convertors, first: str) -> list[inspect.Parameter]:
    """The handler's parameters; the first can take the connection or the request."""
    name = name_of(function)
    parameters = list(inspect.signature(function).parameters.values())
    if not parameters or parameters[0].kind in (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.VAR_KEYWORD):
        raise TypeError(f"{name} takes too few parameters; the first one is the {first}")
    receiver = parameters[0]
    if receiver.kind is receiver.VAR_POSITIONAL and path:
        raise TypeError(
            f"{name} takes `*{receiver.name}`, which does not say which of the path's parameters it takes "
            f"({', '.join(path)}): put @functools.wraps(...) on the function that its decorator makes"
        )
    if receiver.name in path:
        raise TypeError(
            f"{name}: the first parameter is the {first}, and {receiver.name!r} is a parameter of the path: "
            f"write ({'ws' if first == 'connection' else first}, {receiver.name})"
        )
    return parameters


def _refuse(function: Any, parameter: inspect.Parameter, path: Convertors, receiver: str) -> NoReturn:
    """Raise `TypeError` for a parameter that is not in the path."""
    name, asked = name_of(function), parameter.name
    check_markers(function, parameter, receiver)
    known = ", ".join(sorted(path)) or "none"
    if parameter.default is parameter.empty:
        raise TypeError(f"{name} asks for {asked!r}, which the path doesn't have (its parameters: {known})")
    raise TypeError(
        f"{name}: nothing fills `{asked}={parameter.default!r:.50}`, which the path doesn't have (its parameters: "
        f"{known}): read {receiver}.query_params[{asked!r}], or give it by functools.partial(..., {asked}=...)"
    )
