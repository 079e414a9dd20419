"""Types that JSON has no form for, as Pydantic's models: an app's `encode=` and `decode=` hooks make it. Pure."""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Iterator
from typing import Annotated, Any, Union, get_args, get_origin

import msgspec
from msgspec.inspect import CustomType, Metadata, Type, type_info

from verbtrio.base.errors import MessageError
from verbtrio.base.types import DecodeHook
from verbtrio.messages.collisions import parts

MAX_PROBLEMS = 10
"""Of more the client is told their number alone."""
MAX_PROBLEM_CHARACTERS = 400
"""What is said about one message: the value of a tag may be as long as the message."""

_JSON = (dict, list, str, int, float, bool, type(None))
"""What JSON is decoded to."""


def check_hooks(*, encode: object, decode: object) -> None:
    """Raise `TypeError` where an app's hook can't be called with what it will be called with."""
    for name, hook, arguments in (("encode", encode, ("value",)), ("decode", decode, ("type", "value"))):
        if hook is None:
            continue
        called = f"({', '.join(arguments)})"
        if not callable(hook) or inspect.iscoroutinefunction(hook):
            raise TypeError(f"{name}= is a plain function {called}, not {hook!r}")
        try:
            inspect.signature(hook).bind(*arguments)
        except TypeError as error:
            raise TypeError(f"the {name} hook {hook!r} is called with {called}: {error}") from None
        except ValueError:
            pass  # a built-in, which tells nothing about itself


def members(kind: Any) -> Iterator[Any]:
    """The members of a union, or `kind` itself. What a union is annotated with is left out."""
    plain = get_args(kind)[0] if get_origin(kind) is Annotated else kind
    if get_origin(plain) in (Union, types.UnionType):
        for member in get_args(plain):
            yield from members(member)
    else:
        yield kind


def is_custom(kind: Any) -> bool:
    """Whether JSON has no form for `kind`, or for a member of that union.

    Raises:
        TypeError: `kind` is no type.
    """
    return any(isinstance(_plain(type_info(member)), CustomType) for member in members(kind))


def _plain(info: Type) -> Type:
    """`info` without what it is annotated with."""
    return info.type if isinstance(info, Metadata) else info


def custom_within(info: Type) -> list[str]:
    """The names of the types in `info` that no JSON value is an instance of. (All are of `object`.)"""
    found = [part.cls for part in parts(info) if isinstance(part, CustomType)]
    return [cls.__name__ for cls in found if not _has_json(cls)]


def _has_json(cls: type) -> bool:
    try:
        return any(issubclass(known, cls) for known in _JSON)
    except TypeError:  # a protocol that can't be asked
        return False


def maker(hook: DecodeHook) -> DecodeHook:
    """`hook`, not called where there is nothing to make, and checked: what it makes is what was asked for.

    A hook that makes something else is the application's mistake (`RuntimeError`), not the client's.
    """

    def make(kind: Any, value: Any) -> Any:
        if not isinstance(kind, type):
            return _made(hook, kind, value)
        if isinstance(value, kind):
            return value
        made = _made(hook, kind, value)
        if not isinstance(made, kind):
            raise RuntimeError(f"the app's decode hook was asked for a {kind.__name__} and made {made!r:.100}")
        return made

    return make


def _made(hook: DecodeHook, kind: Any, value: Any) -> Any:
    """What the hook makes. Pydantic's error may name each of 500,000 elements that are wrong: 100 MB of text, which
    nobody is to make."""
    try:
        return hook(kind, value)
    except ValueError as error:
        count: Any = getattr(error, "error_count", None)
        if callable(count) and (many := count()) > MAX_PROBLEMS:
            raise ValueError(f"{many} things are wrong with it") from None
        raise


def whole_decoder(kind: Any, hook: DecodeHook) -> Callable[[str | bytes], Any]:
    """What decodes a message that is made by the hook as a whole. A `ValueError` or `TypeError` of the hook's is a
    `MessageError`: what the client sent is none."""
    plain, make = msgspec.json.Decoder().decode, maker(hook)
    if get_origin(kind) is Annotated and len(list(members(kind))) == 1:
        kind = get_args(kind)[0]  # as msgspec asks for a part of a message; a union is asked for as it stands

    def decode(message: str | bytes) -> Any:
        value = plain(message)
        try:
            return make(kind, value)
        except (ValueError, TypeError) as error:
            raise MessageError(told(error)) from error

    return decode


def told(error: Exception) -> str:
    """What a client is told of an error of the hook's: on one line."""
    return shortened(" ".join(str(error)[: 10 * MAX_PROBLEM_CHARACTERS].split()))


def shortened(problem: str) -> str:
    """As much of `problem` as a client is told: it may hold what the client wrote."""
    if len(problem) <= MAX_PROBLEM_CHARACTERS:
        return problem
    half = MAX_PROBLEM_CHARACTERS // 2
    return f"{problem[:half]}...{problem[-half:]}"
