"""What clients send as `data`, decoded to what a function takes. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

import msgspec
from msgspec import Raw

from verbtrio.base.errors import MessageError
from verbtrio.base.types import DecodeHook
from verbtrio.messages.custom import shortened
from verbtrio.messages.decoder import INVALID_JSON, Decoder

T = TypeVar("T")

INVALID = "Invalid data"


class DataDecoder(Generic[T]):
    """Turns `data` into what a function takes.

    Calling it raises `MessageError` if `data` is not of that type.

    Args:
        kind: the type in the function's annotation. `str` is a JSON string; `bytes` are the data as they are for a
            Protobuf client, and base64 in a JSON string for others. All other types are as in `Decoder`.
        hook: as in `Decoder`.

    Raises:
        TypeError: as in `Decoder`; or `kind` is `str | bytes`, which JSON can't tell apart.
    """

    __slots__ = ("_decode", "_is_bytes", "kind")

    def __init__(self, kind: Any, hook: DecodeHook | None = None) -> None:
        self.kind = kind
        self._is_bytes = kind is bytes
        self._decode: Callable[[bytes], Any]
        if kind == str | bytes:
            raise TypeError("data is text or bytes, and JSON can't tell them apart: annotate it as str, or as bytes")
        if kind is str or kind is bytes:
            self._decode = msgspec.json.Decoder(kind).decode
        else:
            self._decode = Decoder[Any](kind, hook).__call__  # as a method: called half as fast as an object

    def __call__(self, data: Raw, *, is_binary: bool) -> T:
        """`is_binary`: whether the client's encoding is."""
        form = bytes(data)
        if self._is_bytes and is_binary:
            return form  # type: ignore[return-value]  # T is bytes
        try:
            decoded: T = self._decode(form or b"null")
        except msgspec.ValidationError as error:
            raise MessageError(_explain(error, form)) from error
        except MessageError as error:
            # `Decoder` calls it invalid JSON where the whole is of another type. Here the JSON is the client's message,
            # and that was valid.
            if str(error) == INVALID_JSON and isinstance(error.__cause__, msgspec.ValidationError):
                raise MessageError(_explain(error.__cause__, form)) from error
            raise
        except (msgspec.DecodeError, RecursionError, UnicodeError) as error:
            raise MessageError(INVALID) from error
        return decoded


def _explain(error: msgspec.ValidationError, form: bytes) -> str:
    """msgspec's words, and whether there were data at all."""
    return shortened(str(error)) + ("" if form else ": no data were sent")
