"""Ways to use a name of another package, and whether that would still work. Nothing of the package is imported here.

What is checked is the use: a function with the arguments it is called with, not with all of its parameters. A further
optional parameter is fine. A parameter that is gone, renamed or newly required is a fault.
"""

from __future__ import annotations

import importlib
import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any


def find(path: str) -> Any:
    """What `path` names, as "package.module:Class.attribute".

    Raises:
        ImportError: there is no such module.
        AttributeError: it has no such attribute.
    """
    module, _, attributes = path.partition(":")
    found: Any = importlib.import_module(module)
    for name in attributes.split(".") if attributes else ():
        found = getattr(found, name)
    return found


@dataclass(frozen=True)
class Use(ABC):
    """One name, and what is done with it.

    Args:
        path: as in `find`.
    """

    path: str

    def faults(self) -> Iterator[str]:
        """What is missing or different. Raises nothing, whatever the other package has become."""
        try:
            found = find(self.path)
        except (ImportError, AttributeError):
            yield f"{self.path} is gone"
        except Exception as error:
            yield f"{self.path} can't be imported: {error!r}"
        else:
            yield from self._faults_of(found)

    @abstractmethod
    def _faults_of(self, found: Any) -> Iterator[str]:
        """The faults of a name that is there."""


@dataclass(frozen=True)
class Name(Use):
    """The name is there: a constant of some type, a class to compare with, a module."""

    kind: type = object

    def _faults_of(self, found: Any) -> Iterator[str]:
        if not isinstance(found, self.kind):
            yield f"{self.path} is not of type {self.kind.__name__}"


@dataclass(frozen=True)
class Call(Use):
    """The function is called, or is overridden and called by the other package.

    Args:
        arguments: what is passed, "self, event, last_stream_id=": those with a "=" by name, the others by position.
            The names of the latter are checked, too: a parameter with another name has another meaning.
        is_async: whether it is a coroutine function.
    """

    arguments: str = ""
    is_async: bool = False

    def _faults_of(self, found: Any) -> Iterator[str]:
        names = self.arguments.replace(",", " ").split()
        by_position = [name for name in names if not name.endswith("=")]
        by_name = {name[:-1]: None for name in names if name.endswith("=")}
        try:
            signature = inspect.signature(found)
            signature.bind(*by_position, **by_name)
        except (TypeError, ValueError):
            yield f"{self.path} can't be called with ({self.arguments})"
            return
        parameters = [name for name, parameter in signature.parameters.items() if parameter.kind in _NAMED]
        moved = any(name != parameter for name, parameter in zip(by_position, parameters, strict=False))
        if moved or not by_name.keys() <= signature.parameters.keys():
            yield f"{self.path} can't be called with ({self.arguments}): it has ({', '.join(parameters)})"
        elif inspect.iscoroutinefunction(found) != self.is_async:
            yield f"{self.path} is {'not a' if self.is_async else 'a'} coroutine function"


_NAMED = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


@dataclass(frozen=True)
class Returns(Use):
    """The function is called, and its result is known.

    Args:
        arguments: by position.
        result: what it returns for them.
    """

    arguments: tuple[Any, ...]
    result: Any

    def _faults_of(self, found: Any) -> Iterator[str]:
        try:
            result = found(*self.arguments)
        except Exception as error:
            yield f"{self.path} can't be called: {error!r}"
        else:
            if result != self.result:
                yield f"{self.path} returns something else"


@dataclass(frozen=True)
class Attributes(Use):
    """Instances of the class have attributes, some of which only `__init__` sets.

    Args:
        make: returns an instance, at little cost.
        names: the attributes, "app config stream".
        kinds: the types of those whose type matters.
    """

    make: Callable[[], Any]
    names: str
    kinds: Mapping[str, type] = field(default_factory=dict)

    def _faults_of(self, found: Any) -> Iterator[str]:
        try:
            instance = self.make()
        except Exception as error:
            yield f"{self.path} can't be made: {error!r}"
            return
        for name in self.names.split():
            try:
                value = getattr(instance, name)
            except AttributeError:
                yield f"{self.path} has no attribute {name}"
            else:
                kind = self.kinds.get(name, object)
                if not isinstance(value, kind):
                    yield f"{self.path}.{name} is not of type {kind.__name__}"


@dataclass(frozen=True)
class Refers(Use):
    """The function's code looks names up: globals that are replaced, attributes that are set and methods that are
    overridden, all for its sake."""

    names: str

    def _faults_of(self, found: Any) -> Iterator[str]:
        code = getattr(found, "__code__", None)
        known = set() if code is None else {*code.co_names, *code.co_freevars}
        for name in self.names.split():
            if name not in known:
                yield f"{self.path} does not use {name}"
