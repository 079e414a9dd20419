"""`@on(Say)`: a handler class with a method for each type of message, instead of one `message` hook."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, Union, get_origin, is_typeddict

import msgspec

from verbtrio.messages.custom import is_custom, members

F = TypeVar("F", bound=Callable[..., Any])

_MARK = "__verbtrio_on__"


def on(*types: Any) -> Callable[[F], F]:
    """Have a method of a handler class called, with `(ws, message)`, for the messages of these types.

        class Say(msgspec.Struct, tag=True):
            text: str

        @app.ws("/chat")
        class Chat:
            @on(Say)
            async def say(self, ws: WebSocket, message: Say) -> Said: ...

            @on(Move, Turn)
            def move(self, ws: WebSocket, message: Move | Turn) -> None: ...

    The union of what a class handles is its message type: anything else is answered with an error message. The methods
    may be plain or coroutine functions, as a `message` hook, and what they return is sent to the client. A subclass
    that overrides one by its name need not say `@on` again; `say = None` takes it away.

    Args:
        types: classes, or unions of them. Structs are told apart by their tags: `class Say(msgspec.Struct, tag=True)`.

    Raises:
        TypeError: something is not a class, or nothing is given. The rest is checked when `app.ws` decorates the class:
            two methods for one type, a `message` hook beside them, structs without tags, a method that can't be called
            with `(ws, message)`, or whose annotation says something else.
    """
    taken = [member for kind in types for member in members(kind)]
    if not taken:
        raise TypeError("@on needs the type of the messages: @on(Say)")
    for kind in taken:
        if not isinstance(kind, type) or get_origin(kind) is not None or kind in (Any, object) or is_typeddict(kind):
            raise TypeError(f"@on takes classes whose instances tell what they are, as @on(Say), not {kind!r}")

    def mark(method: F) -> F:
        if isinstance(method, type) or not hasattr(method, "__get__"):
            raise TypeError(f"@on decorates a method of a handler class, not {method!r}")
        setattr(method, _MARK, tuple(dict.fromkeys([*getattr(method, _MARK, ()), *taken])))
        return method

    return mark


def handled(target: type) -> dict[type, str]:
    """The names of the methods of a handler class that are `@on` something, by the types.

    Raises:
        TypeError: two methods are for one type.
    """
    found: dict[str, tuple[type, ...]] = {}
    for owner in reversed(target.__mro__):
        for name, member in vars(owner).items():
            function = getattr(member, "__func__", member)  # what a static or class method is around
            if isinstance(kinds := getattr(member, _MARK, getattr(function, _MARK, None)), tuple):
                found[name] = kinds
            elif member is None:
                found.pop(name, None)
    table: dict[type, str] = {}
    for name, kinds in found.items():
        for kind in kinds:
            if table.setdefault(kind, name) != name:
                raise TypeError(f"{target.__qualname__}: both {table[kind]} and {name} are @on({kind.__name__})")
    return table


def union_of(table: Mapping[type, str], name: str) -> Any:
    """The union of the types in `table`.

    Raises:
        TypeError: messages of these types can't be told apart.
    """
    objects = [kind for kind in table if issubclass(kind, msgspec.Struct | dict) or dataclasses.is_dataclass(kind)]
    untagged = [kind.__name__ for kind in objects if not _tag_of(kind)]
    if untagged and len(objects) > 1 and not any(map(is_custom, table)):
        raise TypeError(
            f"{name}: a message of {untagged[0]} can't be told from the others: give each class a tag, "
            f"`class {untagged[0]}(msgspec.Struct, tag=True)`"
        )
    return Union[tuple(table)]  # noqa: UP007 -- there may be one


def covers(annotation: Any, kinds: list[type]) -> bool:
    """Whether a parameter with that annotation takes all the types that its method is `@on`."""
    named = [get_origin(member) or member for member in members(annotation)]  # `dict` of `dict[str, Any]`
    classes = tuple(member for member in named if isinstance(member, type))
    return Any in named or all(issubclass(kind, classes) for kind in kinds)


class Dispatch:
    """One handler instance's `message` hook."""

    __slots__ = ("_instance", "_table")

    def __init__(self, instance: Any, table: Mapping[type, str]) -> None:
        self._instance = instance
        self._table = table

    def __call__(self, ws: Any, message: Any) -> Any:
        name = self._table.get(type(message)) or self._look_for(message)
        return getattr(self._instance, name)(ws, message)

    def _look_for(self, message: Any) -> str:
        """The method for an instance of a subclass, which a decode hook may make. Of several bases the nearest
        counts."""
        for base in type(message).__mro__:
            if base in self._table:
                return self._table[base]
        for kind, name in self._table.items():  # a virtual subclass
            if isinstance(message, kind):
                return name
        raise TypeError(f"the app's decode hook made {message!r:.100}, which no method is @on")


def _tag_of(kind: type) -> Any:
    return kind.__struct_config__.tag if issubclass(kind, msgspec.Struct) else None
