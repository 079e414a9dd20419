"""Who of this process is present in rooms. What is so is kept here, and is written anew on each new link."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import trio

from verbtrio.base.errors import BrokerUnavailable
from verbtrio.base.timers import Timer, Timers
from verbtrio.brokers.redis.link import Link
from verbtrio.brokers.redis.marks import Marks
from verbtrio.brokers.redis.names import Names, to_bytes
from verbtrio.brokers.redis.presence_scripts import ENTER, EXIT, EXPIRE, UPDATE
from verbtrio.brokers.redis.records import form_of

AGAIN_SECONDS = 1.0
"""When a grace that could not be ended, since there was no link, is looked at again."""


class _Present(NamedTuple):
    user: str
    info: bytes | None
    details: bytes | None
    has_info: bool
    is_written: bool


class LocalPresence:
    """The connections of this process that are present. Synchronous.

    Args:
        names: of the keys and channels.
        link: gives the present link; `None` while there is none.
        me: gives the name under which this process is known now.
        marks: which rooms have something of this process.
        timers: end graces.
    """

    def __init__(
        self,
        names: Names,
        link: Callable[[], Link | None],
        me: Callable[[], str],
        marks: Marks,
        timers: Timers,
    ) -> None:
        self._names = names
        self._link = link
        self._me = me
        self._marks = marks
        self._timers = timers
        self._present: dict[tuple[str, str], _Present] = {}
        self._gone: dict[tuple[str, str], tuple[str, float]] = {}  # while there was no link: user, end of the grace
        self._graces: dict[tuple[str, str], Timer] = {}  # of users, by room

    def __len__(self) -> int:
        return len(self._present)

    def enter(self, room: str, connection: str, user: str, info: Any, details: Any) -> None:
        """See `Session`."""
        form, details_form = form_of(info), form_of(details)
        known = self._present.get((room, connection))
        if known is None:
            self._marks.add(room)
        elif known.user == user:
            form = known.info if info is None else form
            details_form = known.details if details is None else details_form
        has_info = info is not None or (known is not None and known.user == user and known.has_info)
        link = self._link()
        was_written = (known is not None and known.is_written) or self._gone.pop((room, connection), None) is not None
        present = _Present(user, form, details_form, has_info, is_written=was_written or link is not None)
        self._present[room, connection] = present
        if link is not None:
            given = present._replace(has_info=info is not None)
            self._enter(link, room, connection, given, has_details=details is not None)

    def update(self, room: str, connection: str, info: Any) -> None:
        """See `Session`."""
        form = form_of(info)
        if (known := self._present.get((room, connection))) is None:
            return
        self._present[room, connection] = known._replace(info=form, has_info=True)
        if (link := self._link()) is not None:
            link.call(UPDATE, self._keys(room), to_bytes(connection), form or b"")

    def exit(self, room: str, connection: str, grace: float) -> None:
        """See `Session`."""
        if (known := self._present.pop((room, connection), None)) is None:
            return
        if (link := self._link()) is not None:
            link.call(EXIT, self._keys(room), to_bytes(connection), round(grace * 1000))
            if grace > 0:
                self._wait(room, known.user, grace)
        elif known.is_written:
            self._gone[room, connection] = known.user, trio.current_time() + grace
        self._marks.discard(room)

    def resume(self, link: Link) -> None:
        """There is a new link: write everything anew, and who has gone meanwhile, with what is left of the grace."""
        for (room, connection), present in self._present.items():
            self._present[room, connection] = present._replace(is_written=True)
            self._enter(link, room, connection, present, has_details=True, again=True)
        for (room, connection), (user, end) in self._gone.items():
            rest = max(0.0, end - trio.current_time())
            link.call(EXIT, self._keys(room), to_bytes(connection), round(rest * 1000))
            if rest > 0:
                self._wait(room, user, rest)
        self._gone.clear()

    def close(self) -> None:
        """All are gone, without a grace."""
        for room, connection in tuple(self._present):
            self.exit(room, connection, 0)

    def _enter(
        self,
        link: Link,
        room: str,
        connection: str,
        present: _Present,
        *,
        has_details: bool,
        again: bool = False,
    ) -> None:
        link.call(
            ENTER,
            self._keys(room),
            self._me(),
            to_bytes(connection),
            to_bytes(present.user),
            b"1" if present.has_info else b"0",
            present.info or b"",
            b"1" if has_details and present.details is not None else b"0",
            present.details or b"",
            b"1" if again else b"0",
        )

    # Graces

    def _wait(self, room: str, user: str, seconds: float) -> None:
        """Look in so many seconds whether the user's grace is over."""
        if (timer := self._graces.pop((room, user), None)) is None:
            self._marks.add(room)  # whoever clears away after this process ends its graces, too
        else:
            self._timers.cancel(timer)
        self._graces[room, user] = self._timers.at(trio.current_time() + seconds, partial(self._end, room, user))

    def _end(self, room: str, user: str, now: float, when: float) -> None:
        if (link := self._link()) is None:
            self._graces[room, user] = self._timers.at(now + AGAIN_SECONDS, partial(self._end, room, user))
            return
        del self._graces[room, user]
        link.call(EXPIRE, self._keys(room), to_bytes(user), then=partial(self._ended, link, room, user))
        self._marks.discard(room)

    def _ended(self, link: Link, room: str, user: str, left: Any, error: BrokerUnavailable | None) -> None:
        if error is not None or left:
            self._wait(room, user, AGAIN_SECONDS if error is not None else int(left) / 1000)

    def _keys(self, room: str) -> list[bytes]:
        return [self._names.connections(room), self._names.users(room), self._names.channel(room)]
