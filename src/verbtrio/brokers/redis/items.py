"""A frame as another process gets it: what was said, and what its receivers must know of it. Pure.

The first byte has flags. If one of them says so, fields follow that few frames have. The rest is the payload.
"""

from __future__ import annotations

import struct
from collections.abc import Collection
from typing import NamedTuple

import msgspec

from verbtrio.brokers.redis.fields import pack, unpack
from verbtrio.brokers.redis.names import to_bytes, to_text
from verbtrio.messages.frame import Frame, TransientFrame, transient
from verbtrio.messages.published import ClientInfo, SignedFrame

TEXT, JSON, BROADCAST, TRANSIENT, SIGNED, MORE = 1, 2, 4, 8, 16, 32
_HEAD = struct.Struct(">BI")


class Item(NamedTuple):
    """One frame that has come. `exclude`, `exclude_user`: whom a broadcast is not for."""

    frame: Frame
    is_broadcast: bool
    exclude: tuple[str, ...]
    exclude_user: str | None


def encode_item(
    frame: Frame,
    now: float,
    *,
    is_broadcast: bool = False,
    exclude: Collection[str] = (),
    exclude_user: str | None = None,
) -> bytes:
    """The frame for other processes. `now`: the time by the clock of its `ttl`, of which only the rest goes along."""
    flags = (TEXT if frame.text else 0) | (JSON if frame.is_json else 0) | (BROADCAST if is_broadcast else 0)
    more: list[bytes | None] | None = None
    if exclude or exclude_user is not None or isinstance(frame, TransientFrame | SignedFrame):
        flags |= MORE
        more = [pack(map(to_bytes, exclude)), None if exclude_user is None else to_bytes(exclude_user)]
        if isinstance(frame, TransientFrame):
            flags |= TRANSIENT
            key = None if frame.key is None else to_bytes(frame.key[1])
            more += (key, repr(frame.expires - now).encode())
        elif isinstance(frame, SignedFrame) and isinstance(info := frame.info, ClientInfo):
            flags |= SIGNED
            more += (to_bytes(info.user), to_bytes(info.client), _bytes(info.conn_info), _bytes(info.chan_info))
    if more is None:
        return bytes((flags,)) + frame.payload
    fields = pack(more)
    return _HEAD.pack(flags, len(fields)) + fields + frame.payload


def decode_item(data: bytes, room: str, now: float) -> Item | None:
    """The frame that another process has encoded; `None` for one whose time is over.

    Raises:
        ValueError: it is none.
    """
    if not data:
        raise ValueError("an item is empty")
    flags = data[0]
    if not flags & MORE:
        return Item(_frame(flags, data[1:]), bool(flags & BROADCAST), (), None)
    if len(data) < _HEAD.size:
        raise ValueError("the head of an item is cut off")
    start = _HEAD.size + _HEAD.unpack_from(data)[1]
    more = unpack(data[_HEAD.size : start])
    frame = _frame(flags, data[start:])
    excluded, user, *rest = more
    if flags & TRANSIENT:
        key, left = rest
        ttl = float(left or b"inf")
        if ttl <= 0:
            return None
        frame = transient(frame, room, None if key is None else to_text(key), None if ttl == float("inf") else ttl, now)
    elif flags & SIGNED:
        frame = SignedFrame(frame, _info(rest))
    exclude = tuple(to_text(each) for each in unpack(excluded or b"") if each is not None)
    return Item(frame, bool(flags & BROADCAST), exclude, None if user is None else to_text(user))


def _frame(flags: int, payload: bytes) -> Frame:
    return Frame(payload, text=bool(flags & TEXT), is_json=bool(flags & JSON))


def _info(fields: list[bytes | None]) -> ClientInfo:
    user, client, conn_info, chan_info = fields
    return ClientInfo(to_text(user or b""), to_text(client or b""), _raw(conn_info), _raw(chan_info))


def _raw(data: bytes | None) -> msgspec.Raw | None:
    return None if data is None else msgspec.Raw(data)


def _bytes(raw: msgspec.Raw | None) -> bytes | None:
    return None if raw is None else bytes(raw)
