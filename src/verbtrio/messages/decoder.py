"""Incoming messages: decoded to the type that the handler takes. Pure: no Trio, no clock."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

import msgspec
import msgspec.inspect

from verbtrio.base.errors import MessageError
from verbtrio.base.types import DecodeHook
from verbtrio.messages.collisions import check_keys
from verbtrio.messages.custom import checked_hook, custom_within, explanation, is_custom, shortened, whole_decoder

T = TypeVar("T")

INVALID_JSON = "Invalid JSON format"


class Decoder(Generic[T]):
    """Turns a received message into what the handler takes.

    Calling it raises `MessageError`, with the answer for the peer, if the message is not of that type.

    Args:
        kind: the message type in the handler's annotation. Messages for `str`, `bytes` and `str | bytes` are taken as
            they come. For any other type (`dict`, a `msgspec.Struct`, a union of tagged structs, `JSON`), text and
            binary messages alike are decoded from JSON and checked by msgspec.
        hook: makes what JSON has no form for: the whole message, if `kind` is such a type or a union with one, or
            parts of it.

    Raises:
        TypeError: JSON has no form for `kind`, or for a part of it, and there is no `hook`; or clients could choose
            the keys of a dict, or the elements of a set, so that they share one hash (see `collisions`).
    """

    __slots__ = ("_decode", "_tags", "kind")

    def __init__(self, kind: Any, hook: DecodeHook | None = None) -> None:
        self.kind = kind
        self._tags: dict[str, str] = {}  # the known tags, by the end of msgspec's message
        self._decode: Callable[[str | bytes], Any]
        if kind == str | bytes:
            self._decode = _as_received
        elif kind is str:
            self._decode = _text
        elif kind is bytes:
            self._decode = _binary
        elif is_custom(kind):
            if hook is None:
                raise TypeError(f"{kind!r} is not a type that JSON can be decoded to: {_WHAT_CAN_BE}")
            self._decode = whole_decoder(kind, hook)
        else:
            info = msgspec.inspect.type_info(kind)
            if hook is None and (unknown := custom_within(info)):
                raise TypeError(f"{kind!r} contains {unknown[0]}, which JSON can't be decoded to: {_WHAT_CAN_BE}")
            check_keys(kind, info)
            self._decode = msgspec.json.Decoder(kind, dec_hook=None if hook is None else checked_hook(hook)).decode
            self._tags = _known_tags(info)

    def __call__(self, message: str | bytes) -> T:
        try:
            decoded: T = self._decode(message)
        except msgspec.ValidationError as error:
            # It has a cause if the hook raised it, for a part of the message.
            said = explanation(error) if error.__cause__ is not None else self._explain(str(error))
            raise MessageError(said) from error
        except (msgspec.DecodeError, RecursionError, UnicodeError, TypeError) as error:
            # RecursionError: 100 KB of "[" nest deeper than any honest message. TypeError: a list as a set's element.
            raise MessageError(INVALID_JSON) from error
        return decoded

    def _explain(self, problem: str) -> str:
        """msgspec's words if they name a field; `INVALID_JSON` if the whole message is of another type."""
        if problem.startswith("Expected ") and " - at `" not in problem:
            return INVALID_JSON
        known = next((text for end, text in self._tags.items() if problem.endswith(end)), "")
        return shortened(problem) + known


_WHAT_CAN_BE = (
    "use a msgspec.Struct, a dataclass, a TypedDict, dict, list, str, int, float, bool, a union of them, typing.Any; "
    "or give the app a hook that makes it; for Pydantic's models, adapter = functools.cache(pydantic.TypeAdapter) and "
    "App(decode=lambda type, value: adapter(type).validate_python(value))"
)


def _as_received(message: str | bytes) -> str | bytes:
    return message


def _text(message: str | bytes) -> str:
    if isinstance(message, str):
        return message
    raise MessageError("Expected a text message, got a binary one")


def _binary(message: str | bytes) -> bytes:
    if isinstance(message, bytes):
        return message
    raise MessageError("Expected a binary message, got a text one")


def _known_tags(info: msgspec.inspect.Type) -> dict[str, str]:
    """The known tags, as text for the answer to a missing or unknown one, by the end of msgspec's message about it."""
    members = info.types if isinstance(info, msgspec.inspect.UnionType) else (info,)
    tags: dict[str, list[str]] = {}
    for member in members:
        if isinstance(member, msgspec.inspect.StructType) and member.tag_field is not None:
            tags.setdefault(member.tag_field, []).append(repr(member.tag))
    known: dict[str, str] = {}
    for field, values in tags.items():
        text = f" (known: {', '.join(values)})"
        known[f" - at `$.{field}`"] = text
        known[f"Object missing required field `{field}`"] = text
    return known
