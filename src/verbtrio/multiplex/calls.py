"""Functions that clients call, and what their callers are told of what they raise. Pure.

@app.call("rename")
async def rename(client: Client, data: Rename) -> Renamed: ...
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from dataclasses import dataclass, field, is_dataclass
from typing import Any, get_origin

from msgspec import Raw, Struct

from verbtrio.base.errors import (
    BrokerUnavailable,
    CallError,
    Denied,
    LimitExceeded,
    MessageError,
    RoomUnavailable,
)
from verbtrio.base.signatures import name_of_task
from verbtrio.base.types import JSON, DecodeHook
from verbtrio.connection.annotations import annotation_of
from verbtrio.multiplex.data import DataDecoder
from verbtrio.protocols import codes
from verbtrio.protocols.codes import ProtocolError

logger = logging.getLogger("verbtrio.calls")


@dataclass(frozen=True, slots=True)
class Call:
    """A function `(client)` or `(client, data)` that clients call: a coroutine function, which runs in a task, or a
    plain one, which is called in place.

    Raises:
        TypeError: it can't be called so; or `data` is annotated with a type that JSON has no form for.
    """

    function: Callable[..., Any]
    decode: DecodeHook | None = None
    """The app's hook."""
    name: str = field(init=False)
    """What the log calls it."""
    is_plain: bool = field(init=False, repr=False)
    """Whether it is called in place. (It may return an awaitable all the same, as some decorated functions do.)"""
    _decode: Callable[..., Any] | None = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", name_of_task(self.function))
        decoder = _decoder(self.function, self.name, self.decode)
        object.__setattr__(self, "_decode", None if decoder is None else decoder.__call__)
        by_object = getattr(self.function, "__call__", None)  # noqa: B004 -- an object's own method, if it has one
        is_coroutine = inspect.iscoroutinefunction(self.function) or inspect.iscoroutinefunction(by_object)
        object.__setattr__(self, "is_plain", not is_coroutine)

    def arguments(self, client: object, data: Raw, *, is_binary: bool) -> tuple[Any, ...]:
        """What the function is called with.

        Raises:
            MessageError: `data` is not what it takes.
        """
        if self._decode is None:
            return (client,)
        return (client, self._decode(data, is_binary=is_binary))


def _decoder(function: Any, name: str, hook: DecodeHook | None) -> DataDecoder[Any] | None:
    if not callable(function) or inspect.isclass(function):
        raise TypeError(f"what clients call is a function (client, data), not {function!r:.100}")
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise TypeError(f"{name} is a generator function: what clients call returns one answer")
    try:
        signature = inspect.signature(function)
    except ValueError:
        raise TypeError(f"{name} has no signature: write a function (client, data)") from None
    _check_first(function, name, signature)
    for arguments in (("client", "data"), ("client",)):
        try:
            signature.bind(*arguments)
        except TypeError:
            continue
        if len(arguments) == 1:
            return None
        parameter = list(signature.parameters.values())[:2][-1]  # the second; or `*args`
        kind = annotation_of(function, parameter) if parameter.kind is not parameter.VAR_POSITIONAL else parameter.empty
        return DataDecoder(JSON if kind is inspect.Parameter.empty else kind, hook)
    raise TypeError(f"{name} is called with (client, data), or with (client): write `async def {name}(client, data)`")


def _check_first(function: Any, name: str, signature: inspect.Signature) -> None:
    """Raise `TypeError` for a function that takes the data first: it would be called with the client."""
    first = next(iter(signature.parameters.values()), None)
    if first is None or first.kind is first.VAR_POSITIONAL:
        return
    annotation = annotation_of(function, first)
    kind = get_origin(annotation) or annotation
    if inspect.isclass(kind) and (
        issubclass(kind, Struct | str | bytes | int | float | dict | list) or is_dataclass(kind)
    ):
        raise TypeError(
            f"{name}: the first parameter is the client, not {first.name}: {kind.__name__}: write "
            f"`async def {name}(client, {first.name}: {kind.__name__})`"
        )


BROKER_AWAY = ProtocolError(codes.INTERNAL.code, "not available now", temporary=True)
"""The broker can't be reached."""


def error_of(error: Exception) -> ProtocolError | None:
    """The error reply for what a function of the application has raised; `None` where that is a failure, which only
    the log is told of."""
    if isinstance(error, CallError):
        return ProtocolError(error.code, error.message, temporary=error.temporary)
    if isinstance(error, Denied):
        return ProtocolError(codes.PERMISSION_DENIED.code, str(error) or codes.PERMISSION_DENIED.message)
    if isinstance(error, MessageError):
        return ProtocolError(codes.BAD_REQUEST.code, str(error) or codes.BAD_REQUEST.message)
    if isinstance(error, LimitExceeded):
        return ProtocolError(codes.LIMIT_EXCEEDED.code, str(error) or codes.LIMIT_EXCEEDED.message)
    if isinstance(error, RoomUnavailable):
        return ProtocolError(codes.INTERNAL.code, str(error), temporary=True)
    if isinstance(error, BrokerUnavailable):  # its text may have the broker's address
        return BROKER_AWAY
    return None
