"""What Redis's answers and messages say. Pure."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence

import msgspec

from verbtrio.base.position import Position
from verbtrio.brokers.records import ConnectionChange, Page, PresenceChange, Present, PresentConnection, Publication
from verbtrio.brokers.redis.items import Item, decode_item
from verbtrio.brokers.redis.names import to_text
from verbtrio.messages.frame import Frame

logger = logging.getLogger("verbtrio.brokers.redis")

COME, GONE = b"come", b"gone"
"""A connection's join, and its leave."""


def position_of(epoch: bytes, offset: bytes) -> Position:
    """A place in a history."""
    return Position(epoch.decode(), int(offset))


def page_of(answer: Sequence[bytes], room: str, since: Position | None, now: float, *, reverse: bool) -> Page:
    """What `PAGE` has returned. See `Session.history`."""
    epoch, top, kept = answer[0].decode(), int(answer[1]), int(answer[2])
    messages = []
    for offset, data in zip(answer[3::2], answer[4::2], strict=True):
        item = _item_of(data, room, now)
        frame = Frame(b"", text=True) if item is None else item.frame
        messages.append(Publication(Position(epoch, int(offset)), frame))
    before_oldest = top - kept
    oldest = Position(epoch, before_oldest + 1) if kept else None
    if since is None:
        is_complete = True
    elif since.epoch != epoch:
        is_complete = False
    else:
        is_complete = reverse or before_oldest <= since.offset <= top
    return Page(tuple(messages), Position(epoch, top), oldest, is_complete)


def _item_of(data: bytes, room: str, now: float) -> Item | None:
    try:
        return decode_item(data, room, now)
    except ValueError as error:  # whoever has written that: it must not keep anybody from what comes after it
        logger.error("a message of the history of %.200r is left out: %s", room, error)
        return None


def changes_of(fields: Sequence[bytes | None]) -> Iterator[PresenceChange | ConnectionChange]:
    """The changes of a message of presence, after its kind."""
    rest = iter(fields)
    for kind in rest:
        name = to_text(next(rest) or b"")
        if kind in (COME, GONE):
            user, info, details = to_text(next(rest) or b""), _decode(next(rest)), _decode(next(rest))
            yield ConnectionChange("join" if kind == COME else "leave", name, user, info, details)
        elif kind == b"join":
            yield PresenceChange("join", name, _decode(next(rest)))
        elif kind == b"leave":
            yield PresenceChange("leave", name, _decode(next(rest)))
        else:
            yield PresenceChange("update", name, _decode(next(rest)))


def users_of(answer: Sequence[tuple[bytes, list[bytes | None]]]) -> dict[str, Present]:
    """What `PRESENT` has returned of users: in the order in which they came."""
    rows = sorted(((fields, name) for name, fields in answer), key=lambda row: row[0][1] or b"")
    return {to_text(name): Present(_decode(fields[3]), int(fields[0] or 0)) for fields, name in rows}


def connections_of(answer: Sequence[tuple[bytes, list[bytes | None]]]) -> dict[str, PresentConnection]:
    """What `PRESENT` has returned of connections: in the order in which they came."""
    rows = sorted(((fields, name) for name, fields in answer), key=lambda row: row[0][2] or b"")
    return {
        to_text(name): PresentConnection(to_text(fields[0] or b""), _decode(fields[3]), _decode(fields[4]))
        for fields, name in rows
    }


def counts_of(answer: Sequence[bytes]) -> dict[bytes, int]:
    """A room's members, by process."""
    return {process: int(count) for process, count in zip(answer[::2], answer[1::2], strict=True)}


def form_of(value: object) -> bytes | None:
    """A value as JSON; `None` for `null`.

    Raises:
        TypeError: JSON has no form for it.
    """
    form = msgspec.json.encode(value)
    return None if form == b"null" else form


def _decode(form: bytes | None) -> object:
    if form is None:
        return None
    try:
        return msgspec.json.decode(form)
    except (msgspec.DecodeError, RecursionError) as error:  # whoever has written that: who is present can be told
        logger.error("public info or details of somebody present are left out: %s", error)
        return None
