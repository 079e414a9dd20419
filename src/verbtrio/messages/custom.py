"""Types that JSON has no form for, such as Pydantic's models, and the app's hooks that convert them. Pure."""

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
"""If there are more, the client is told only how many."""
MAX_PROBLEM_CHARACTERS = 400
"""The longest answer about one message: the value of a tag, which it quotes, may be as long as the message."""

_JSON = (dict, list, str, int, float, bool, type(None))
"""The types that JSON is decoded to."""


def check_hooks(*, encode: object, decode: object) -> None:
    """Raise `TypeError` if an app's hook can't be called with its arguments."""
    for name, hook, arguments in (("encode", encode, ("value",)), ("decode", decode, ("type", "value"))):
        if hook is None:
            continue
        called = f"({', '.join(arguments)})"
        if not callable(hook) or inspect.iscoroutinefunction(hook):
            raise TypeError(f"{name}= takes a plain function {called}, not {hook!r}")
        try:
            inspect.signature(hook).bind(*arguments)
        except TypeError as error:
            raise TypeError(f"the {name} hook {hook!r} is called with {called}: {error}") from None
        except ValueError:
            pass  # a built-in without a signature


def members(kind: Any) -> Iterator[Any]:
    """The members of a union, or `kind` itself. A union's own annotations are left out."""
    plain = get_args(kind)[0] if get_origin(kind) is Annotated else kind
    if get_origin(plain) in (Union, types.UnionType):
        for member in get_args(plain):
            yield from members(member)
    else:
        yield kind


def is_custom(kind: Any) -> bool:
    """Whether JSON has no form for `kind`, or for a member of that union.

    Raises:
        TypeError: `kind` is not a type.
    """
    return any(isinstance(_plain(type_info(member)), CustomType) for member in members(kind))


def _plain(info: Type) -> Type:
    """`info` without its annotations."""
    return info.type if isinstance(info, Metadata) else info


def custom_within(info: Type) -> list[str]:
    """The names of the types in `info` that no JSON value is an instance of. (All values are instances of `object`.)"""
    found = [part.cls for part in parts(info) if isinstance(part, CustomType)]
    return [cls.__name__ for cls in found if not _has_json(cls)]


def _has_json(cls: type) -> bool:
    try:
        return any(issubclass(known, cls) for known in _JSON)
    except TypeError:  # a protocol that `issubclass` does not support
        return False


def checked_hook(hook: DecodeHook) -> DecodeHook:
    """`hook`, called only if the value is not of the type already, and checked: it must return that type.

    A hook that returns something else is the application's mistake (`RuntimeError`), not the client's.
    """

    def make(kind: Any, value: Any) -> Any:
        if not isinstance(kind, type):
            return _call(hook, kind, value)
        if isinstance(value, kind):
            return value
        made = _call(hook, kind, value)
        if not isinstance(made, kind):
            raise RuntimeError(f"the app's decode hook was asked for a {kind.__name__} and returned {made!r:.100}")
        return made

    return make


def _call(hook: DecodeHook, kind: Any, value: Any) -> Any:
    """Call the hook. Pydantic's error may name each of 500,000 wrong elements, and its text would take 100 MB; it is
    replaced before anything asks for that text."""
    try:
        return hook(kind, value)
    except ValueError as error:
        count: Any = getattr(error, "error_count", None)
        if callable(count) and (many := count()) > MAX_PROBLEMS:
            raise ValueError(f"{many} errors in the message") from None
        raise


def whole_decoder(kind: Any, hook: DecodeHook) -> Callable[[str | bytes], Any]:
    """A function that decodes messages of a type that the hook makes as a whole.

    A `ValueError` or `TypeError` from the hook becomes a `MessageError`: the client's message is not valid.
    """
    plain, make = msgspec.json.Decoder().decode, checked_hook(hook)
    if get_origin(kind) is Annotated and len(list(members(kind))) == 1:
        kind = get_args(kind)[0]  # as msgspec passes the type of a part; a union is passed as it stands

    def decode(message: str | bytes) -> Any:
        value = plain(message)
        try:
            return make(kind, value)
        except (ValueError, TypeError) as error:
            raise MessageError(explanation(error)) from error

    return decode


def explanation(error: Exception) -> str:
    """What a client is told about an error raised by the hook, on one line."""
    return shortened(" ".join(str(error)[: 10 * MAX_PROBLEM_CHARACTERS].split()))


def shortened(problem: str) -> str:
    """`problem`, cut in the middle if it is too long: it may quote what the client sent."""
    if len(problem) <= MAX_PROBLEM_CHARACTERS:
        return problem
    half = MAX_PROBLEM_CHARACTERS // 2
    return f"{problem[:half]}...{problem[-half:]}"
