"""What a function asks for, by the names of its parameters: for those that are not called by a route. Pure."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection
from typing import Any


def asked_for(function: Callable[..., Any], name: str, known: Collection[str], *, skip: int = 0) -> tuple[str, ...]:
    """Which of `known` the function asks for, by name, after its first `skip` parameters.

    Args:
        function: the function.
        name: the function's, for the error.
        known: what it may ask for.
        skip: how many parameters it is given by position.

    Raises:
        TypeError: it asks for something else.
    """
    try:
        parameters = list(inspect.signature(function).parameters.values())[skip:]
    except ValueError:
        return ()  # a built-in without a signature
    by_name = [each.name for each in parameters if each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY)]
    rest = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    for each in parameters:
        is_given = each.name in known and each.name in by_name
        if not is_given and each.default is each.empty and each.kind not in rest:
            there_is = " and ".join(known) or "nothing"
            raise TypeError(f"{name} asks for {each.name!r}; it may ask, by name, for {there_is}")
    return tuple(each for each in known if each in by_name)


def name_of_task(function: object) -> str:
    """What the log calls a task that runs the function."""
    name: str = getattr(function, "__qualname__", repr(function))
    return name
