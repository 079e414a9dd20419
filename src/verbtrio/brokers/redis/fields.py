"""Several byte strings in one: how everything is written that goes to Redis, and what its scripts write. Pure.

Each field is its length, as four bytes, and its bytes. A length of `NONE` stands for a field that is not there. The
scripts have the same two functions in Lua (`scripts.py`).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable

NONE = 0xFFFFFFFF
_LENGTH = struct.Struct(">I")


def pack(fields: Iterable[bytes | None]) -> bytes:
    """The fields in one byte string."""
    parts = []
    for field in fields:
        if field is None:
            parts.append(_LENGTH.pack(NONE))
        else:
            parts += (_LENGTH.pack(len(field)), field)
    return b"".join(parts)


def unpack(data: bytes, start: int = 0) -> list[bytes | None]:
    """The fields that `pack` was given; the first begins at `start`.

    Raises:
        ValueError: it is cut off.
    """
    fields: list[bytes | None] = []
    end = len(data)
    while start < end:
        if start + 4 > end:
            raise ValueError("the length of a field is cut off")
        (length,) = _LENGTH.unpack_from(data, start)
        start += 4
        if length == NONE:
            fields.append(None)
            continue
        if start + length > end:
            raise ValueError("a field is cut off")
        fields.append(data[start : start + length])
        start += length
    return fields
