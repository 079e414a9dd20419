"""Outgoing messages: encoded once for all recipients. Pure: no Trio, no clock."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Hashable
from typing import Any, TypeAlias

import msgspec

from verbtrio.base.checks import check_seconds
from verbtrio.base.types import Data, EncodeHook


class Frame:
    """One outgoing message. It is encoded when it is made, then shared by all its receivers.

    Attributes:
        text: whether it goes as a text message (else binary).
        wire: the message as a server sends it, uncompressed: a whole frame (RFC 6455 section 5.2).
        is_json: whether it was made into JSON, and was not text already.
        room: the key of the room that it was said in; `None` for a message to one connection, or one user's.
        pushes: what the encodings of another protocol have made of it, by their names: the payload, and a frame of
            that alone, if one was needed; `None` before any has.
    """

    __slots__ = ("_start", "is_json", "pushes", "room", "text", "wire")

    room: Hashable
    pushes: dict[str, tuple[bytes, Frame | None]] | None

    def __init__(self, payload: bytes, text: bool, is_json: bool = False) -> None:
        """`payload` is the message's bytes: UTF-8 if `text` is true. (Without names, a frame is made in 3,000
        instructions instead of 4,000.)"""
        size = len(payload)
        # By hand this takes 0.3 us; websockets' `Frame.serialize` takes 1.2, a quarter of what a send may cost.
        if size < 126:
            head = (_TEXT_HEADS if text else _BINARY_HEADS)[size]
        elif size < 65536:
            head = struct.pack("!BBH", 0x81 if text else 0x82, 126, size)
        else:
            head = struct.pack("!BBQ", 0x81 if text else 0x82, 127, size)
        self.text = text
        self.wire = head + payload
        self._start = len(head)
        self.is_json = is_json
        self.room = self.pushes = None

    def share(self, frame: Frame) -> None:
        """Be the same message as `frame`, with its bytes and not a copy of them."""
        self.text = frame.text
        self.wire = frame.wire
        self._start = frame._start
        self.is_json = frame.is_json
        self.room = self.pushes = None

    def __len__(self) -> int:
        """The size of the message, in bytes."""
        return len(self.wire) - self._start

    @property
    def payload(self) -> bytes:
        """The message's bytes."""
        return self.wire[self._start :]


_TEXT_HEADS = [bytes((0x81, size)) for size in range(126)]
_BINARY_HEADS = [bytes((0x82, size)) for size in range(126)]


class ProtocolFrame(Frame):
    """A message as its protocol has it: it goes out as it is."""

    __slots__ = ()


class ReplyFrame(ProtocolFrame):
    """An answer to this peer alone: no backlog policy drops it."""

    __slots__ = ()


Key: TypeAlias = tuple[Hashable, str]
"""What a newer message replaces an older one by: the room, and the key within it. Two rooms' keys never meet."""


class TransientFrame(Frame):
    """A message that is of use only until there is a newer one, or for some time. Made by `transient`.

    Attributes:
        key: a newer message with the same key replaces this one, while it waits for a peer under the policy "latest";
            `None`: nothing replaces it.
        expires: when its time is over, on the clock that `transient` was given; infinity: never.
    """

    __slots__ = ("expires", "key")

    def __init__(self, frame: Frame, key: Key | None, expires: float) -> None:
        self.share(frame)
        self.key = key
        self.expires = expires


def transient(frame: Frame, room: Hashable, key: str | None, ttl: float | None, now: float) -> TransientFrame:
    """`frame`, with the key and the time that its sender gave it.

    Args:
        room: the room that it is sent to.
        key: what it tells about, within that room.
        ttl: seconds from `now`, after which nobody needs it any more.

    Raises:
        TypeError: `key` is not a `str`, or `ttl` not a number.
        ValueError: `ttl` is not more than 0, or not finite.
    """
    if not isinstance(key, str | None):
        raise TypeError(f"key is text, not {key!r}: use key=str(...)")
    if ttl is not None:
        check_seconds("ttl", ttl)
    expires = math.inf if ttl is None else now + ttl
    return TransientFrame(frame, None if key is None else (room, key), expires)


BYTES_LIKE = (bytes, bytearray, memoryview)
"""A tuple: a union would be made anew for each question."""


def encode(data: Data) -> Frame:
    """Encode `data` for sending: `str` as text, bytes-like as binary, anything else as JSON text.

    Raises:
        TypeError: `data` is of a type that JSON has no form for (msgspec's message names it).
        UnicodeEncodeError: a `str` holds a lone surrogate.
    """
    if isinstance(data, str):
        return Frame(data.encode(), True)
    if isinstance(data, BYTES_LIKE):
        return Frame(bytes(data), False)
    return Frame(msgspec.json.encode(data), True, True)


Encode: TypeAlias = Callable[[Data], Frame]
"""`encode`, or what replaces it in an app with an `encode=` hook."""


def encoder(hook: EncodeHook | None) -> Encode:
    """`encode`, but with `hook` called for each value that JSON has no form for.

    What the hook returns replaces the value. If it replaces the whole message, text is sent as text and bytes as
    binary; within a message, text becomes a JSON string and bytes become base64.
    """
    if hook is None:
        return encode

    def encode_by_hook(data: Data) -> Frame:
        if isinstance(data, str | bytes | bytearray | memoryview):
            return encode(data)

        def stand_in(value: Any) -> Any:
            made = hook(value)
            if made is value:
                raise TypeError(f"the app's encode hook returned the {type(value).__name__} that it was given")
            if value is data and isinstance(made, str | bytes | bytearray | memoryview):
                raise _Whole(made)
            return made

        try:
            return Frame(msgspec.json.encode(data, enc_hook=stand_in), text=True, is_json=True)
        except _Whole as whole:
            return encode(whole.data)

    return encode_by_hook


class _Whole(Exception):  # noqa: N818 -- a way out of msgspec, not an error
    """The hook has replaced the whole message."""

    def __init__(self, data: Data) -> None:
        self.data = data
