"""Tells subscribers which clients come and go, in rooms with `join_leave`.

In a room where few want to be told, each change is told at once. Where many do, changes are collected: if 10,000 come
back to a room at the same time, each of them would be told of each other one by one.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import msgspec
import trio
from msgspec import Raw

from verbtrio.base.timers import Timer, Timers
from verbtrio.brokers.records import ConnectionChange, PresentConnection
from verbtrio.messages.frame import ProtocolFrame
from verbtrio.multiplex.peer import MESSAGE_BYTES, ClientPeer
from verbtrio.protocols.encoding import Encoding
from verbtrio.protocols.replies import ClientInfo, JoinPush, Push

AT_ONCE = 64
"""Up to so many subscribers are told of each change at once."""
COLLECT_SECONDS = 0.05
"""For how long changes are collected otherwise."""


class _RoomNews:
    """Those who want to be told about one room, and what they have not been told yet.

    Attributes:
        listeners: each with the number of changes that it need not be told of: it came later.
        changes: in their order; `None` for one that others have made obsolete.
    """

    __slots__ = ("_latest", "changes", "is_telling", "listeners", "timer")

    def __init__(self) -> None:
        self.listeners: dict[ClientPeer, int] = {}
        self.changes: list[ConnectionChange | None] = []
        self.timer: Timer | None = None
        self.is_telling = False
        self._latest: dict[str, tuple[int, ...]] = {}  # where each connection's are among them: two at most

    def collect(self, change: ConnectionChange) -> None:
        """Add a change. Of a connection that comes and goes and comes again, only the last change counts."""
        at = self._latest.get(change.connection, ())
        if len(at) == 2:
            for index in at:
                self.changes[index] = None
            at = ()
        self._latest[change.connection] = (*at, len(self.changes))
        self.changes.append(change)

    def take(self) -> list[ConnectionChange | None]:
        """The changes, which are now told: everybody is told of the next ones."""
        changes, self.changes = self.changes, []
        self._latest.clear()
        return changes


class ConnectionNews:
    """Those clients of an app that want to be told, by room.

    Args:
        timers: the app's.
    """

    def __init__(self, timers: Timers) -> None:
        self._timers = timers
        self._rooms: dict[str, _RoomNews] = {}

    def __len__(self) -> int:
        """How many rooms there are with such clients."""
        return len(self._rooms)

    def add(self, room: str, peer: ClientPeer) -> None:
        """Tell `peer` from now on."""
        if (news := self._rooms.get(room)) is None:
            news = self._rooms[room] = _RoomNews()
        news.listeners[peer] = len(news.changes)

    def discard(self, room: str, peer: ClientPeer) -> None:
        """Tell `peer` nothing more."""
        news = self._rooms.get(room)
        if news is not None:
            news.listeners.pop(peer, None)
            if not news.listeners:
                del self._rooms[room]
                if news.timer is not None:
                    self._timers.cancel(news.timer)

    def tell(self, room: str, change: ConnectionChange) -> None:
        """A connection has come, or gone."""
        if (news := self._rooms.get(room)) is None:
            return
        news.collect(change)
        if news.timer is not None or news.is_telling:
            return
        if len(news.listeners) <= AT_ONCE:
            _tell_all(room, news)
        else:
            due = trio.current_time() + COLLECT_SECONDS
            news.timer = self._timers.at(due, partial(self._tell_collected, room, news))

    def _tell_collected(self, room: str, news: _RoomNews, now: float, when: float) -> None:
        news.timer = None
        _tell_all(room, news)


def _tell_all(room: str, news: _RoomNews) -> None:
    """Tell what was collected; then what that has changed: one that does not keep up is sent away."""
    news.is_telling = True
    try:
        while news.changes:
            _tell(room, news)
    finally:
        news.is_telling = False


def _tell(room: str, news: _RoomNews) -> None:
    """Tell what was collected: in messages that are made once for each encoding. Who came while the changes of one such
    message were collected may be told of all of them."""
    changes = news.take()
    made: dict[str, list[tuple[int, ProtocolFrame]]] = {}
    for peer, known in tuple(news.listeners.items()):
        encoding = peer.encoding
        if (frames := made.get(encoding.name)) is None:
            frames = made[encoding.name] = list(_frames(room, changes, encoding))
        if known and peer in news.listeners:
            news.listeners[peer] = 0
        for end, frame in frames:
            if end > known:
                peer.hold(frame)


def _frames(
    room: str, changes: list[ConnectionChange | None], encoding: Encoding
) -> Iterator[tuple[int, ProtocolFrame]]:
    """The changes as messages of `MESSAGE_BYTES` at most, each with the number of changes up to its end."""
    pushes: list[bytes] = []
    size = 0
    for at, change in enumerate(changes):
        if change is None:
            continue
        push = encoding.encode_push(_push(room, change))
        if pushes and size + len(push) > MESSAGE_BYTES:
            yield at, ProtocolFrame(encoding.join(pushes), text=not encoding.is_binary)
            pushes, size = [], 0
        pushes.append(push)
        size += len(push) + 1
    if pushes:
        yield len(changes), ProtocolFrame(encoding.join(pushes), text=not encoding.is_binary)


def _push(room: str, change: ConnectionChange) -> Push:
    about = JoinPush(info_of(change.connection, change))
    return Push(channel=room, join=about) if change.kind == "join" else Push(channel=room, leave=about)


def info_of(connection: str, known: PresentConnection | ConnectionChange) -> ClientInfo:
    """Who a present connection is, in the protocol's terms. That of another protocol has its public info as that of the
    channel."""
    user = "" if known.user == connection else known.user  # one without a user is present by its own id
    details = known.details
    if isinstance(details, dict):
        return ClientInfo(user, connection, _raw(details.get("conn_info")), _raw(details.get("chan_info")))
    return ClientInfo(user, connection, None, _raw(known.info))


def _raw(value: object) -> Raw | None:
    return None if value is None else Raw(msgspec.json.encode(value))
