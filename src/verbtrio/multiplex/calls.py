"""Functions that clients call: `@app.call("rename")`, and the calls of one client that are running.

    @app.call("rename")
    async def rename(client: Client, data: Rename) -> Renamed: ...

Each call runs in a task of its own, in the client's nursery, in a scope with the caller's deadline. It ends when it
returns, when its caller does not want it any more or has gone, or when its time is over.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import trio
from msgspec import Raw

from verbtrio.base.calls import single
from verbtrio.base.errors import (
    BrokerUnavailable,
    CallError,
    ConnectionClosed,
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
from verbtrio.rooms.member import Member

logger = logging.getLogger("verbtrio.calls")


@dataclass(frozen=True, slots=True)
class Call:
    """A function `(client)` or `(client, data)` that clients call, a coroutine function or a plain one.

    Raises:
        TypeError: it can't be called so; or `data` is annotated with a type that JSON has no form for.
    """

    function: Callable[..., Any]
    decode: DecodeHook | None = None
    """The app's hook."""
    name: str = field(init=False)
    """What the log calls it."""
    _decoder: DataDecoder[Any] | None = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", name_of_task(self.function))
        object.__setattr__(self, "_decoder", _decoder(self.function, self.name, self.decode))

    def arguments(self, client: object, data: Raw, *, is_binary: bool) -> tuple[Any, ...]:
        """What the function is called with.

        Raises:
            MessageError: `data` is not what it takes.
        """
        if self._decoder is None:
            return (client,)
        return (client, self._decoder(data, is_binary=is_binary))


def _decoder(function: Any, name: str, hook: DecodeHook | None) -> DataDecoder[Any] | None:
    if not callable(function) or inspect.isclass(function):
        raise TypeError(f"what clients call is a function (client, data), not {function!r:.100}")
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise TypeError(f"{name} is a generator function: what clients call returns one answer")
    try:
        signature = inspect.signature(function)
    except ValueError:
        raise TypeError(f"{name} has no signature: write a function (client, data)") from None
    for arguments in (("client", "data"), ("client",)):
        try:
            signature.bind(*arguments)
        except TypeError:
            continue
        if len(arguments) == 1:
            return None
        parameter = list(signature.parameters.values())[1]
        kind = annotation_of(function, parameter) if parameter.kind is not parameter.VAR_POSITIONAL else parameter.empty
        return DataDecoder(JSON if kind is inspect.Parameter.empty else kind, hook)
    raise TypeError(f"{name} is called with (client, data), or with (client): write `async def {name}(client, data)`")


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
        return ProtocolError(codes.INTERNAL.code, "not available now", temporary=True)
    return None


class RunningCalls:
    """The calls of one client that have not ended.

    Args:
        client: the facade.
        seconds: how long a call may take whose caller does not say.
        most: how many there may be at once.
    """

    __slots__ = ("_client", "_most", "_scopes", "_seconds", "count")

    def __init__(self, client: Member, seconds: float, most: int | None) -> None:
        self._client = client
        self._seconds = seconds
        self._most = most
        self._scopes: dict[int, trio.CancelScope] = {}  # by the command's id, of those that are running
        self.count = 0

    @property
    def is_full(self) -> bool:
        return self._most is not None and self.count >= self._most

    def cancel(self, command: int) -> bool:
        """The caller does not want it any more. Returns whether it was running."""
        scope = self._scopes.get(command)
        if scope is None:
            return False
        scope.cancel()
        return True

    def cancel_all(self) -> None:
        """The client has gone."""
        for scope in self._scopes.values():
            scope.cancel()

    async def run(
        self,
        call: Call,
        arguments: tuple[Any, ...],
        command: int,
        patience: float,
        answer: Callable[[object], None],
        refuse: Callable[[ProtocolError], None],
    ) -> None:
        """Run one call, and answer it. Raises no `Exception`. If cancelled, so is the function, and nobody is answered.

        Args:
            command: the command's id; 0 for one that is not answered.
            patience: seconds that the caller will wait; 0: it does not say.
            answer: called with what the function has returned.
            refuse: called where there is nothing to answer with.
        """
        seconds = min(patience, self._seconds) if patience > 0 else self._seconds
        scope = trio.CancelScope(deadline=trio.current_time() + seconds)
        if command:
            self._scopes[command] = scope
        try:
            with scope:
                result = call.function(*arguments)
                if hasattr(result, "__await__"):
                    result = await result
                if command:
                    answer(result)
                return
            if trio.current_time() >= scope.deadline:
                refuse(codes.TIMEOUT)
        except Exception as error:
            self._failed(call, single(error), refuse)
        finally:
            self.count -= 1
            if self._scopes.get(command) is scope:
                del self._scopes[command]

    def _failed(self, call: Call, error: Exception, refuse: Callable[[ProtocolError], None]) -> None:
        if isinstance(error, ConnectionClosed) and error.info is self._client.closed:
            return  # nobody is there
        reply = error_of(error)
        if reply is None:
            logger.error("the call %s of %r failed", call.name, self._client, exc_info=error)
        refuse(codes.INTERNAL if reply is None else reply)
