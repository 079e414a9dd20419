"""What the framework keeps about one client: what it holds for it, its subscriptions, and how it ends.

Applications hold its facade, a `Client`. To rooms and to the registry of users it is a `Peer` as others. What is said
to it, in whatever room, and the replies to its commands wait here until the tick is over, and go out as one message.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Protocol

import trio

from verbtrio.base.close import PEERS_ENDS, Cause, CloseInfo, check_close
from verbtrio.base.errors import ConnectionClosed
from verbtrio.base.limits import Limits
from verbtrio.base.types import Data
from verbtrio.connection.peer import handled_by
from verbtrio.messages.frame import Frame, ProtocolFrame
from verbtrio.multiplex.carrier import Carrier
from verbtrio.protocols import codes
from verbtrio.protocols.encoding import Encoding
from verbtrio.protocols.replies import Empty, Push, Reply
from verbtrio.rooms.local import Rooms
from verbtrio.rooms.member import Outlet

MESSAGE_BYTES = 64 * 1024
"""What is joined into one message is no larger, unless one reply or push alone is. (Two clients out of three take no
message over 1 MiB, and what is streamed over HTTP must not be split.)"""
ANSWER_BYTES = 40
"""What the answer to a publish takes of that, at most."""


class Owner(Protocol):
    """What the client's connection is, beside its messages: its session."""

    def dismissed(self, name: str, info: CloseInfo) -> Callable[[], object]:
        """The client was removed from a room. See `Peer.dismiss`."""

    def ended(self, info: CloseInfo) -> None:
        """The connection has ended: leave everything now."""


class ClientPeer:
    """One client, as the framework knows it. All its methods but `wait_below` are synchronous.

    Args:
        carrier: carries its messages.
        encoding: the one in which it speaks.
        rooms: the app's.

    Attributes:
        client: the facade, a `Client`, whose constructor sets this. (It is typed `Any`: its module imports this one.)
        owner: set before anything is said to it.
        held: what rooms and the session have for it since the last `flush`. While it is not empty, another `flush` is
            to come at the end of the tick.
        published_bytes: see `Load`.
    """

    __slots__ = (
        "_answered",
        "_direct",
        "_dismissed",
        "_has_replied",
        "_is_due",
        "_recovers",
        "_rooms",
        "carrier",
        "client",
        "encoding",
        "held",
        "owner",
        "published_bytes",
    )

    client: Any
    owner: Owner

    def __init__(self, carrier: Carrier, encoding: Encoding, rooms: Rooms) -> None:
        self.carrier = carrier
        self.encoding = encoding
        self.held: list[Frame] = []
        self._rooms = rooms
        self._has_replied = False  # there are replies among what is held
        self._answered: list[int] | None = None  # the publishes to answer with the next `flush`, before what is held
        self._direct = 0  # bytes among what is held that no room bounds
        self._is_due = False  # the rooms flush this at the end of the tick
        self.published_bytes = 0
        self._recovers: trio.Lock | None = None
        self._dismissed: CloseInfo | None = None  # how it will end, since it was removed from all connections

    def __repr__(self) -> str:
        return repr(self.client)

    # Sending

    def hold(self, frame: Frame) -> None:
        """Have `frame` go out at the end of the tick, behind what is held."""
        self.held.append(frame)
        self._due(len(frame))

    def _due(self, size: int) -> None:
        """So many bytes more are held that no room bounds."""
        self._direct += size
        if self._direct > MESSAGE_BYTES:
            self.flush()
        elif not self._is_due:
            self._is_due = True
            self._rooms.flush_soon(self)

    def reply(self, reply: Reply) -> None:
        """Answer a command."""
        self._has_replied = True
        self.hold(self.encoding.reply(reply))

    def returned(self, command: int, result: Any, *, joins: bool) -> None:
        """Answer a call with what its function has returned: at once, unless something is held that it has to follow,
        or it `joins` other answers that are expected.

        Raises:
            TypeError, UnicodeEncodeError: that can't be encoded.
        """
        frame = self.encoding.returned(command, result, self._rooms.encode)
        if joins or self.held or self._answered is not None:
            self._has_replied = True
            self.hold(frame)
        else:
            self.carrier.write(frame)

    def answer_publish(self, command: int) -> None:
        """Answer a publish: before what is held, unless another reply is among it. Its place beside pushes means
        nothing, and so those who hold the same pushes, as the members of a room in which all talk, still do."""
        if self._has_replied:
            self.reply(Reply(id=command, publish=Empty()))
            return
        if self._answered is None:
            self._answered = []
        self._answered.append(command)
        if self.held and self._direct <= MESSAGE_BYTES:
            self._direct += ANSWER_BYTES  # it goes out with what is held: who is in the room is flushed once, not twice
        else:
            self._due(ANSWER_BYTES)

    def push(self, push: Push) -> None:
        """Tell the client what it has not asked for. No policy drops it."""
        self.hold(self.encoding.pushed(push))

    def put(self, frame: Frame) -> None:
        """Send what an application has for this client alone.

        Raises:
            ConnectionClosed: the connection has ended.
            RuntimeError: called in another thread than the app's.
        """
        self._rooms.check()
        if (closed := self.carrier.closed) is not None:
            raise ConnectionClosed(closed)
        self.hold(frame)

    def flush(self) -> None:
        """Send what is held, as few messages; behind a backlog each by itself, since the policy may drop some."""
        self._is_due = False
        held, answered = self.held, self._answered
        if not held and answered is None:
            return
        self._direct, self._answered, self._has_replied = 0, None, False
        carrier, encoding = self.carrier, self.encoding
        frames = held.copy()
        held.clear()  # always the same list: rooms know it
        if len(frames) > 1 and carrier.is_empty:
            joined = self._joined(frames)
            size = len(joined)
            if size and answered is not None:
                joined = encoding.answered(answered, joined)
                size = len(joined)
            if 0 < size <= MESSAGE_BYTES:
                carrier.write(joined)
                return
            if not size:
                frames = []  # nothing of it is for clients of this protocol
        if answered is not None:
            frames.insert(0, encoding.publish_answers(answered))
        _send(carrier, encoding, frames)

    def _joined(self, frames: list[Frame]) -> Frame:
        """The pushes as one message: that of the client before, if it holds the same, as members of one room do."""
        kept = self._rooms.kept
        last = kept.get(self.encoding.name)
        if last is not None and last[0] == frames:  # frames are equal only to themselves
            return last[1]
        joined = self.encoding.pushed_together(frames)
        kept[self.encoding.name] = frames, joined
        return joined

    # What rooms and users know of it

    @property
    def outlet(self) -> Outlet:
        """Itself: rooms append to `held`, and call `flush`."""
        return self

    @property
    def limits(self) -> Limits:
        return self.carrier.limits

    @property
    def closed(self) -> CloseInfo | None:
        return self.carrier.closed

    @property
    def dropped(self) -> int:
        return self.carrier.dropped

    def drop(self, messages: int) -> None:
        self.carrier.drop(messages)

    def encode(self, data: Data) -> Frame:
        """The app's encoder. It may call a hook of the application's: not in another thread."""
        self._rooms.check()
        return self._rooms.encode(data)

    @property
    def queued(self) -> int:
        return self.carrier.queued

    @property
    def recovers(self) -> trio.Lock:
        """Held by the subscription whose missed messages are read."""
        if self._recovers is None:  # most clients never need it
            self._recovers = trio.Lock()
        return self._recovers

    async def wait_below(self, size: int) -> None:
        """Wait while more than so many bytes are queued, and the connection has not ended. Always a checkpoint."""
        await self.carrier.wait_below(size)

    def gap_in(self, key: Hashable) -> bool:
        """Its SDK subscribes again, with the position that it knows."""
        return True

    def dismiss(self, key: Hashable, info: CloseInfo) -> Callable[[], object]:
        """The client was removed from a room. If that was its route's, or that of all connections, it ends."""
        if isinstance(key, str):
            return self.owner.dismissed(key, info)
        self._dismissed = info
        return partial(self.end, info)

    # The end

    def close(self, code: int, reason: str) -> None:
        """Close on the application's behalf: called by a task of this client (`CLOSED`) or by other code (`KICKED`).

        Raises:
            ValueError, TypeError: `code` or `reason` must not be sent; nothing has changed.
        """
        self._rooms.check()
        check_close(code, reason)
        mine = handled_by.get()
        self.end(CloseInfo(Cause.KICKED if mine is None or mine() is not self.client else Cause.CLOSED, code, reason))

    def end(self, info: CloseInfo) -> object:
        """End the connection; the first call decides how."""
        return self.carrier.end(info)

    # What its connection asks: see `Dialect`

    def closing(self, info: CloseInfo) -> CloseInfo:
        """The code and the reason of the protocol for this end. What is held goes out first."""
        if self._dismissed is not None:
            info = replace(self._dismissed, exception=info.exception)  # that was decided before
        if info.cause is Cause.SLOW:
            self.held.clear()  # a client that does not read has no use for more
            self._answered = None
        else:
            self.flush()
        return codes.closing(info)

    def ended(self, info: CloseInfo) -> None:
        """It has ended: it leaves all rooms and lists now."""
        if info.cause in PEERS_ENDS:
            self.held.clear()
            self._answered = None
        self.owner.ended(info)


def _send(carrier: Carrier, encoding: Encoding, frames: list[Frame]) -> None:
    """Send the frames; those that may go together as one message."""
    made = [frame if isinstance(frame, ProtocolFrame) else encoding.push(frame) for frame in frames]
    for batch in _batches([frame for frame in made if frame is not None]):
        if len(batch) > 1 and carrier.is_empty:
            carrier.write(encoding.joined(batch))
            continue
        for frame in batch:
            carrier.write(frame)


def _batches(frames: Sequence[Frame]) -> Iterator[Sequence[Frame]]:
    """The frames in their order, joined as far as `MESSAGE_BYTES` allow."""
    batch: list[Frame] = []
    size = 0
    for frame in frames:
        if batch and size + len(frame) > MESSAGE_BYTES:
            yield batch
            batch, size = [], 0
        batch.append(frame)
        size += len(frame)
    if batch:
        yield batch
