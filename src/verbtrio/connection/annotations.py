"""What a handler's signature says: names, annotations, and other frameworks' markers, which nothing here fills."""

from __future__ import annotations

import inspect
from functools import partial
from typing import Any

from verbtrio.base.mistakes import no_injection


def annotation_of(function: Any, parameter: inspect.Parameter) -> Any:
    """The parameter's annotation. If it is text, it is evaluated by itself: other annotations may name what only a type
    checker imports.

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


def check_markers(function: Any, parameter: inspect.Parameter, receiver: str) -> None:
    """Raise `TypeError` for other frameworks' dependency injection: as the default, or in an `Annotated`."""
    markers = [parameter.default]
    try:
        markers += getattr(annotation_of(function, parameter), "__metadata__", ())
    except TypeError:
        pass  # its type does not matter here
    for marker in markers:
        kind = getattr(marker, "__name__", type(marker).__name__)
        if (instead := no_injection(kind, parameter.name, receiver)) is not None:
            raise TypeError(f"{name_of(function)}: nothing fills `{parameter.name}` by {kind}(...): {instead}")
