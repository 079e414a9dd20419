"""From what a route is given to its handler: a coroutine function, a class with hooks, or the hook functions.

What a handler takes is read from its annotations once, when the route is made, so that a mistake shows at import.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, get_args, get_origin

from verbtrio.base.mistakes import check_hook_names, check_made
from verbtrio.base.types import DecodeHook, Hook
from verbtrio.connection.annotations import annotation_of, check_markers, name_of
from verbtrio.connection.dispatch import Dispatch, covers, handled, union_of
from verbtrio.connection.handler import HOOKS, CoroutineHandler, Handler, HooksHandler
from verbtrio.connection.parameters import Convertors, Parameters
from verbtrio.connection.websocket import WebSocket
from verbtrio.messages.decoder import Decoder


@dataclass(frozen=True, slots=True)
class HandlerKind:
    """A route's handler: how to make one for a connection, and what it receives.

    Attributes:
        make: called with the path's parameters; raises `ParameterError` where they are not what the handler takes.
    """

    make: Callable[[Mapping[str, Any]], Handler]
    decoder: Decoder[Any]
    name: str


def handler_kind(target: Any, path_params: Convertors, decode: DecodeHook | None = None) -> HandlerKind:
    """The handler behind `target`: a coroutine function `(ws, **path parameters)`, or a class with hooks.

    Args:
        decode: the app's hook, for message types that JSON has no form for.

    Raises:
        TypeError: `target` is neither, or asks for a parameter the path doesn't have (see `Parameters`).
    """
    name = name_of(target)
    if inspect.isclass(target):
        table = handled(target)
        check_hook_names(target, HOOKS, name, table.values())
        hooks = {hook: getattr(target, hook) for hook in HOOKS if hasattr(target, hook)}
        if not hooks and not table:
            raise TypeError(f"{name} has none of the hooks {', '.join(HOOKS)}, and no method that is @on a message")
        check_made(target, name)
        for hook, function in hooks.items():
            plain = inspect.isfunction(inspect.getattr_static(target, hook))
            _check_signature(hook, function, with_self=plain)
        if table:
            decoder = _dispatched(target, table, hooks, decode)
        else:
            message = inspect.getattr_static(target, "message", None)
            decoder = _decoder(hooks, decode, skip_self=inspect.isfunction(message))

        def make(_: Mapping[str, Any]) -> Handler:
            instance = target()
            return HooksHandler(_methods(instance, Dispatch(instance, table) if table else None))

        return HandlerKind(make, decoder, name)
    if inspect.iscoroutinefunction(target):
        parameters = Parameters(target, path_params, first="connection")
        kind = _message_type(target, position=0)
        return HandlerKind(
            lambda values: CoroutineHandler(target, parameters.arguments(values)), Decoder(kind, decode), name
        )
    if any(callable(getattr(target, hook, None)) for hook in HOOKS):
        raise TypeError(f"{name} is an instance: give its class, of which each connection gets an instance of its own")
    raise TypeError(
        f"{name} is not a handler: use `async def {getattr(target, '__name__', 'handler')}(ws)`, or a class with the "
        f"hooks {', '.join(HOOKS)}"
    )


def hooks_kind(hooks: Mapping[str, Hook], decode: DecodeHook | None = None) -> HandlerKind:
    """The handler made of hook functions."""
    for hook, function in hooks.items():
        _check_signature(hook, function, with_self=False)
    name = ", ".join(map(name_of, hooks.values()))
    return HandlerKind(lambda _: HooksHandler(hooks), _decoder(hooks, decode, skip_self=False), name)


def _methods(instance: Any, message: Hook | None = None) -> dict[str, Hook]:
    """The hooks of a handler's instance; `message` replaces its message hook."""
    methods: dict[str, Hook] = {hook: getattr(instance, hook) for hook in HOOKS if hasattr(instance, hook)}
    return methods if message is None else {**methods, "message": message}


def _check_signature(hook: str, function: Any, *, with_self: bool) -> None:
    """Raise `TypeError` if a hook can't be called with the arguments it will be given."""
    arguments = HOOKS[hook]
    try:
        signature = inspect.signature(function)
        signature.bind(*(("self",) if with_self else ()), *arguments)
    except TypeError as error:
        raise TypeError(
            f"the {hook} hook {name_of(function)} is called with ({', '.join(arguments)}): {error}. "
            f"The path's parameters are in ws.params"
        ) from None
    except ValueError:
        return  # a built-in function without a signature
    for parameter in signature.parameters.values():
        check_markers(function, parameter, "ws")


def _decoder(hooks: Mapping[str, Any], decode: DecodeHook | None, *, skip_self: bool) -> Decoder[Any]:
    """The decoder for what the message hook's second parameter is annotated with, else for what its first says."""
    message = hooks.get("message")
    if message is None:
        return Decoder(str | bytes)
    first = 1 if skip_self else 0
    annotation = _annotation(message, position=first + 1)
    if annotation is not inspect.Parameter.empty:
        return Decoder(annotation, decode)
    return Decoder(_message_type(message, position=first), decode)


def _dispatched(
    target: type, table: Mapping[type, str], hooks: Mapping[str, Any], decode: DecodeHook | None
) -> Decoder[Any]:
    """The decoder of a class whose methods are `@on` messages, which are checked here."""
    name = name_of(target)
    if "message" in hooks and "message" not in table.values():
        raise TypeError(
            f"{name} has a message hook beside methods that are @on messages: rename it, or put @on above it"
        )
    for method in dict.fromkeys(table.values()):
        if method in HOOKS and method != "message":
            raise TypeError(f"{name}.{method} is the {method} hook, and @on a message: give one of them another name")
        function, plain = getattr(target, method), inspect.isfunction(inspect.getattr_static(target, method))
        _check_signature("message", function, with_self=plain)
        first = 1 if plain else 0
        _message_type(function, position=first)
        annotation = _annotation(function, position=first + 1)
        kinds = [kind for kind, handler in table.items() if handler == method]
        if annotation is not inspect.Parameter.empty and not covers(annotation, kinds):
            named = ", ".join(kind.__name__ for kind in kinds)
            raise TypeError(f"{name_of(function)} is @on({named}), and its message is annotated {annotation!r}")
    return Decoder(union_of(table, name), decode)


def _message_type(function: Any, *, position: int) -> Any:
    """`T` of the annotation `WebSocket[T]`."""
    annotation = _annotation(function, position=position)
    if annotation in (inspect.Parameter.empty, Any, WebSocket):
        return str | bytes
    if get_origin(annotation) is WebSocket and len(get_args(annotation)) <= 2:
        return get_args(annotation)[0]
    raise TypeError(
        f"{name_of(function)}: the connection's parameter is annotated {annotation!r}; use "
        f"`WebSocket`, or `WebSocket[...]` with the type of its messages (and that of its user)"
    )


def _annotation(function: Any, *, position: int) -> Any:
    parameters = list(inspect.signature(function).parameters.values())
    if position >= len(parameters):
        raise TypeError(f"{name_of(function)} takes too few parameters; the first one is the connection")
    return annotation_of(function, parameters[position])
