"""A room's handler: the function that runs for each subscription, and what it takes."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, get_args, get_origin

from msgspec import Raw

from verbtrio.base.signatures import asked_for, name_of_task
from verbtrio.base.types import JSON, DecodeHook
from verbtrio.connection.annotations import annotation_of
from verbtrio.multiplex.client import Subscription
from verbtrio.multiplex.data import DataDecoder
from verbtrio.rooms.rules import RoomRule, check_annotations


class SubscriptionHandler:
    """`async def chat(sub: Subscription[Say], room: str)`, with those of the pattern's parameters that it asks for.

    Args:
        function: a coroutine function.
        parameters: the pattern's, with their types.
        hook: the app's, for types that JSON has no form for.

    Raises:
        TypeError: it is not a coroutine function, can't be called so, or contradicts the pattern; or JSON has no form
            for what it receives.
    """

    def __init__(self, function: Callable[..., Any], parameters: Mapping[str, type], hook: DecodeHook | None) -> None:
        self.name = name_of_task(function)
        if not inspect.iscoroutinefunction(function):
            raise TypeError(f"a room's handler is a coroutine function, which {self.name} is not: write `async def`")
        first = next(iter(inspect.signature(function).parameters.values()), None)
        if first is None or first.kind in (first.KEYWORD_ONLY, first.VAR_KEYWORD):
            raise TypeError(
                f"{self.name} takes too few parameters; the first one is the subscription: write "
                f"`async def {self.name}(sub)`"
            )
        if first.name in parameters:
            raise TypeError(
                f"{self.name}: the first parameter is the subscription, and {first.name!r} is a parameter of the "
                f"pattern: write (sub, {first.name})"
            )
        check_annotations(function, parameters)
        self._function = function
        self._asked = asked_for(function, self.name, parameters.keys(), skip=1)
        self._decode: DataDecoder[Any] = DataDecoder(_kind(function, first, self.name), hook)

    def decode(self, data: Raw, *, is_binary: bool) -> Any:
        """What a client has published.

        Raises:
            MessageError: it is not what the handler receives.
        """
        return self._decode(data, is_binary=is_binary)

    def run(self, subscription: Subscription[Any], name: str, rule: RoomRule) -> Coroutine[Any, Any, None]:
        """The handler's coroutine for one subscription."""
        values = rule.parameters_of(name) if self._asked else {}
        handler: Coroutine[Any, Any, None] = self._function(
            subscription, **{asked: values[asked] for asked in self._asked}
        )
        return handler


def _kind(function: Callable[..., Any], first: inspect.Parameter, name: str) -> Any:
    """`T` of the annotation `Subscription[T]`."""
    annotation = annotation_of(function, first)
    if annotation in (inspect.Parameter.empty, Any, Subscription):
        return JSON
    if get_origin(annotation) is Subscription and len(get_args(annotation)) <= 2:
        return get_args(annotation)[0]
    raise TypeError(
        f"{name}: the subscription's parameter is annotated {annotation!r}; use `Subscription`, or `Subscription[...]` "
        f"with the type of what clients publish"
    )
