"""Messages on their way out (encoded once) and in (decoded to what the handler takes). Pure: no Trio, no clock."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, Generic, TypeAlias, TypeVar

import msgspec
import msgspec.inspect

from verbtrio.base.errors import MessageError
from verbtrio.base.types import Data, DecodeHook, EncodeHook
from verbtrio.messages.collisions import check_keys
from verbtrio.messages.custom import custom_within, is_custom, maker, shortened, told, whole_decoder

T = TypeVar("T")

INVALID_JSON = "Invalid JSON format"


class Frame:
    """One outgoing message, encoded when it is made and then shared by everybody it goes to.

    Attributes:
        text: whether it goes as a text message (else binary).
        wire: the message as a server sends it, uncompressed: a whole frame (RFC 6455 section 5.2).
    """

    __slots__ = ("_start", "text", "wire")

    def __init__(self, payload: bytes, *, text: bool) -> None:
        """`payload`: the message's bytes; UTF-8 where `text` is true."""
        size = len(payload)
        # By hand: 0.3 us, where websockets' `Frame.serialize` takes 1.2, a quarter of what a send may cost.
        if size < 126:
            head = (_TEXT_HEADS if text else _BINARY_HEADS)[size]
        elif size < 65536:
            head = struct.pack("!BBH", 0x81 if text else 0x82, 126, size)
        else:
            head = struct.pack("!BBQ", 0x81 if text else 0x82, 127, size)
        self.text = text
        self.wire = head + payload
        self._start = len(head)

    def __len__(self) -> int:
        """The size of the message, in bytes."""
        return len(self.wire) - self._start

    @property
    def payload(self) -> bytes:
        """The message's bytes."""
        return self.wire[self._start :]


_TEXT_HEADS = [bytes((0x81, size)) for size in range(126)]
_BINARY_HEADS = [bytes((0x82, size)) for size in range(126)]


def encode(data: Data) -> Frame:
    """Encode `data` for sending: `str` as text, bytes-like as binary, anything else as JSON text.

    Raises:
        TypeError: `data` is of a type JSON has no form for (msgspec's message names it).
        UnicodeEncodeError: a `str` holds a lone surrogate.
    """
    if isinstance(data, str):
        return Frame(data.encode(), text=True)
    if isinstance(data, bytes | bytearray | memoryview):
        return Frame(bytes(data), text=False)
    return Frame(msgspec.json.encode(data), text=True)


Encode: TypeAlias = Callable[[Data], Frame]
"""`encode`, or what an app with an `encode=` hook has in its place."""


def encoder(hook: EncodeHook | None) -> Encode:
    """`encode`, which asks `hook` for each value that JSON has no form for.

    What the hook returns stands in the value's place: for a whole message text goes as text and bytes as binary; within
    one, as everywhere in JSON, text is a string, and bytes are base64.
    """
    if hook is None:
        return encode

    def encode_by_hook(data: Data) -> Frame:
        if isinstance(data, str | bytes | bytearray | memoryview):
            return encode(data)

        def stand_in(value: Any) -> Any:
            made = hook(value)
            if made is value:
                raise TypeError(f"the app's encode hook returned the {type(value).__name__} that it was asked for")
            if value is data and isinstance(made, str | bytes | bytearray | memoryview):
                raise _Whole(made)
            return made

        try:
            return Frame(msgspec.json.encode(data, enc_hook=stand_in), text=True)
        except _Whole as whole:
            return encode(whole.data)

    return encode_by_hook


class _Whole(Exception):  # noqa: N818 -- a way out of msgspec, not an error
    """The hook has made the whole message."""

    def __init__(self, data: Data) -> None:
        self.data = data


class Decoder(Generic[T]):
    """Turns a received message into what the handler takes.

    `kind` is the message type of the handler's annotation: `str`, `bytes` or `str | bytes` are taken as
    they come; everything else (`dict`, a `msgspec.Struct`, a union of tagged structs, `JSON`) is decoded from
    JSON, in a text or a binary message alike, and checked by msgspec. What JSON has no form for is made by `hook`: the
    whole of the message, where that is one or a union of such, or a part of it.

    Calling it raises `MessageError` with the answer for the peer where the message is something else.

    Raises:
        TypeError: JSON has no form for `kind`, or a part of it, and there is no `hook`; or clients could choose a
            dict's keys, or a set's elements, so that they have one hash (see `collisions`).
    """

    __slots__ = ("_decode", "_tags", "kind")

    def __init__(self, kind: Any, hook: DecodeHook | None = None) -> None:
        self.kind = kind
        self._tags: dict[str, str] = {}  # by the problem that they answer
        self._decode: Callable[[str | bytes], Any]
        if kind == str | bytes:
            self._decode = _as_received
        elif kind is str:
            self._decode = _text
        elif kind is bytes:
            self._decode = _binary
        elif is_custom(kind):
            if hook is None:
                raise TypeError(f"{kind!r} is no type that JSON can be decoded to: {_WHAT_CAN_BE}")
            self._decode = whole_decoder(kind, hook)
        else:
            info = msgspec.inspect.type_info(kind)
            if hook is None and (unknown := custom_within(info)):
                raise TypeError(f"{kind!r} has {unknown[0]} in it, which JSON can't be decoded to: {_WHAT_CAN_BE}")
            check_keys(kind, info)
            self._decode = msgspec.json.Decoder(kind, dec_hook=None if hook is None else maker(hook)).decode
            self._tags = _known_tags(info)

    def __call__(self, message: str | bytes) -> T:
        try:
            decoded: T = self._decode(message)
        except msgspec.ValidationError as error:
            # With a cause: it is the hook that has said so, of a part of the message.
            said = told(error) if error.__cause__ is not None else self._explain(str(error))
            raise MessageError(said) from error
        except (msgspec.DecodeError, RecursionError, UnicodeError, TypeError) as error:
            # RecursionError: 100 KB of "[" nest deeper than any honest message. TypeError: a list in what is a set.
            raise MessageError(INVALID_JSON) from error
        return decoded

    def _explain(self, problem: str) -> str:
        """msgspec's words where they name a field; `INVALID_JSON` where the whole message is of another kind."""
        if problem.startswith("Expected ") and " - at `" not in problem:
            return INVALID_JSON
        known = next((text for end, text in self._tags.items() if problem.endswith(end)), "")
        return shortened(problem) + known


_WHAT_CAN_BE = (
    "use a msgspec.Struct, a dataclass, a TypedDict, dict, list, str, int, float, bool or a union of them; or give the "
    "app a hook that makes one; for Pydantic's models, adapter = functools.cache(pydantic.TypeAdapter) and "
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
    """What to say to a message whose tag is missing or unknown, by the end of the problem msgspec has with it."""
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
