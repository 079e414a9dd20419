"""What a client that comes back to a room has missed, for the reply to its subscribe."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import msgspec
from msgspec import Raw

from verbtrio.base.position import Position
from verbtrio.brokers.records import History, Page
from verbtrio.multiplex.peer import ClientPeer
from verbtrio.multiplex.settings import App
from verbtrio.multiplex.tokens import Expiry
from verbtrio.protocols import codes
from verbtrio.protocols.codes import Refused
from verbtrio.protocols.commands import SubscribeRequest
from verbtrio.protocols.encoding import Encoding
from verbtrio.protocols.replies import Publication, SubscribeResult
from verbtrio.rooms.naming import channel_of
from verbtrio.rooms.rules import RoomRule

ERROR_FLAG = 2
"""The bit of a request's `flag` that asks for an error where the position can't be recovered."""
RECOVERED_BYTES = 512 * 1024
"""More than so much is not recovered, and no more is told of a history at once. The Python SDK takes 1 MiB a message,
and would connect again and again."""

ENTRY_BYTES = 48
"""What a publication takes besides its data, and who has published it besides that: names, offsets, brackets."""


class Recovery(NamedTuple):
    """Where a subscription begins.

    Attributes:
        position: what was published up to here is not pushed any more; `None` in a room without history.
        publications: what the client has missed.
        is_recovered: that is all it has missed.
        was_recovering: it asked for that.
    """

    position: Position | None
    publications: Sequence[Publication] = ()
    is_recovered: bool = False
    was_recovering: bool = False

    def result(self, data: Raw | None, expiry: Expiry) -> SubscribeResult:
        """As the client is told."""
        position = self.position
        return SubscribeResult(
            expires=expiry.expires,
            ttl=expiry.ttl,
            recoverable=position is not None,
            epoch="" if position is None else position.epoch,
            publications=list(self.publications),
            recovered=self.is_recovered,
            offset=0 if position is None else position.offset,
            positioned=position is not None,
            data=data,
            was_recovering=self.was_recovering,
        )


class Allowance:
    """How much of what a client has missed its first reply may have, for all rooms together that the server subscribes
    it to. Those that come too late for that are not recovered."""

    __slots__ = ("_left",)

    def __init__(self) -> None:
        self._left = RECOVERED_BYTES

    def within(self, result: SubscribeResult) -> SubscribeResult:
        """`result`, with what fits."""
        size = size_of(result.publications)
        if size > self._left:
            return msgspec.structs.replace(result, publications=[], recovered=False)
        self._left -= size
        return result


NOTHING = Recovery(None)
"""In a room without history."""


async def recover(name: str, rule: RoomRule | None, request: SubscribeRequest, app: App, peer: ClientPeer) -> Recovery:
    """Read what the client has missed since the position in its request. No checkpoint is between the reading and the
    return. If cancelled, nothing has changed.

    One that comes back to many rooms at once is told of one after the other, as it takes what it is sent: all of it at
    once would be too much for it, and it would come back again.

    Raises:
        Refused: the position can't be recovered, and the request asks for an error then.
        BrokerUnavailable: the broker can't be reached.
    """
    history = None if rule is None else rule.settings.history
    if history is None:
        return NOTHING
    channel, session = channel_of(name), app.host.session
    await session.wait_subscribed(channel)
    if not request.recover:
        page = await session.history(channel, history, since=None, limit=0, reverse=False)
        return Recovery(page.position)
    async with peer.recovers:
        while True:
            recovery = await _missed(channel, history, request, app, peer.encoding)
            size = size_of(recovery.publications)
            if peer.closed is not None or not peer.queued or peer.queued + size <= peer.limits.high_water_bytes:
                break
            await peer.wait_below(max(0, peer.limits.high_water_bytes - size))  # then more may have been published
    app.counters.resumes += 1
    if not recovery.is_recovered:
        app.counters.history_gaps += 1
        if request.flag & ERROR_FLAG:
            raise Refused(codes.UNRECOVERABLE_POSITION)
    return recovery


async def _missed(channel: str, history: History, request: SubscribeRequest, app: App, encoding: Encoding) -> Recovery:
    page, is_complete = await _since(channel, history, request.offset, request.epoch, app)
    if is_complete and sum(len(message.frame) for message in page.messages) <= RECOVERED_BYTES:
        publications = [encoding.remembered(message.frame, message.position) for message in page.messages]
        if size_of(publications) <= RECOVERED_BYTES:
            return Recovery(page.position, publications, is_recovered=True, was_recovering=True)
    return Recovery(page.position, was_recovering=True)


def size_of(publications: Iterable[Publication]) -> int:
    """Bytes that they take in a reply, roughly."""
    return sum(map(size_in_reply, publications))


def size_in_reply(publication: Publication) -> int:
    """Bytes that a publication takes in a reply, roughly."""
    size, info = ENTRY_BYTES + len(memoryview(publication.data)), publication.info
    if info is not None:
        size += ENTRY_BYTES + len(info.user) + len(info.client)
        size += sum(len(memoryview(each)) for each in (info.conn_info, info.chan_info) if each is not None)
    return size


async def _since(channel: str, history: History, offset: int, epoch: str, app: App) -> tuple[Page, bool]:
    """What came after `offset`, and whether that is all. An empty epoch is any."""
    session = app.host.session
    if epoch:
        page = await session.history(channel, history, since=Position(epoch, offset), limit=None, reverse=False)
        return page, page.is_complete
    page = await session.history(channel, history, since=None, limit=None, reverse=False)
    later = tuple(message for message in page.messages if message.position.offset > offset)
    is_complete = offset <= page.position.offset and len(later) == page.position.offset - offset
    return Page(later, page.position, page.oldest), is_complete
