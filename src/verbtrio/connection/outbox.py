"""What is on its way to one peer, in order, within a limit.

Rules of this file:
- the outbox alone writes to the transport, so frames never mix, whatever is cancelled;
- while nothing is queued, a packet is written in place, without a task; what the peer does not take at once is
  queued, and a writer task lives for as long as the queue does;
- what rooms broadcast is held until the tick is over (`flush`) and then written in one piece; what is sent directly
  meanwhile is held behind it, so a peer receives what one task sends in the order in which it was sent.
"""

from __future__ import annotations

from typing import Protocol

import trio

from verbtrio.base.counters import Counters
from verbtrio.base.limits import Limits
from verbtrio.connection.backlog import CHUNK_BYTES, Backlog
from verbtrio.messages.frame import Frame
from verbtrio.wire.events import Progress
from verbtrio.wire.transport import Close, Packet, Transport


class Owner(Protocol):
    """What an outbox reports to: a connection."""

    def slow(self, reason: str) -> None:
        """The peer is too slow. `reason` is for its Close frame."""

    def gone(self) -> None:
        """A write has found the peer gone. Called once."""

    def failed(self, error: Exception) -> None:
        """Writing failed by a bug of ours."""

    def written(self) -> None:
        """Everything that was queued is written."""

    def low(self) -> None:
        """The backlog, having been over the high-water mark, no longer is."""


class Outbox:
    """The one way to a peer.

    Args:
        transport: written to by this outbox alone.
        nursery: owns the writer task, which is shielded from its cancellation and ends with `shut`: the Close frame
            has to get out when the server is cancelled, too.
        limits: backlog, policy, high-water mark and the time a write may take.
        owner: the connection.
        counters: where messages are counted.
    """

    __slots__ = (
        "_backlog",
        "_changed",
        "_closing",
        "_direct",
        "_limits",
        "_nursery",
        "_owner",
        "_transport",
        "_writer",
        "broken",
        "counters",
        "dropped",
        "held",
    )

    def __init__(
        self,
        transport: Transport,
        nursery: trio.Nursery,
        limits: Limits,
        owner: Owner,
        counters: Counters,
    ) -> None:
        self._transport = transport
        self._nursery = nursery
        self._limits = limits
        self._owner = owner
        self.counters = counters
        # There is one, and a writer, only while the peer has not taken everything: idle, an outbox costs 200 bytes.
        self._backlog: Backlog | None = None
        self._writer: trio.CancelScope | None = None
        self._closing = False  # the Close frame is on its way: no data may follow it (RFC 6455 section 5.5.1)
        self._changed: trio.lowlevel.ParkingLot | None = None
        self.held: list[Frame] = []
        """What rooms have broadcast since the last `flush`, bounded by the rooms. They append to it."""
        self._direct = 0  # bytes of what was sent directly among it
        self.dropped = 0
        """Messages dropped by the policy, or because their time was over."""
        self.broken = False
        """Nothing can be written any more: the peer is gone, or a write was cut short."""

    @property
    def size(self) -> int:
        """Bytes queued or being written."""
        return 0 if self._backlog is None else self._backlog.size

    @property
    def is_empty(self) -> bool:
        """Whether all is written."""
        return self._backlog is None and not self.held

    def progress(self) -> Progress:
        """What the peer has done so far, for a heartbeat."""
        seen = self._transport.progress()
        return seen if self._backlog is None else seen._replace(in_flight=True)

    @property
    def is_low(self) -> bool:
        """Whether no more is queued than `Limits.high_water_bytes`."""
        return self._backlog is None or self._backlog.size <= self._limits.high_water_bytes

    def put_nowait(self, packet: Packet) -> None:
        """Write `packet`, or queue it behind what is queued. Does nothing once the outbox is broken.

        What waits behind the packet being written is the backlog (so one message may be larger than the limit).
        Over the limit, the policy decides: end the connection, or drop messages. Control frames and replies are
        never dropped, but they count: a peer that pings and never reads ends as slow.
        """
        if self.held:
            if isinstance(packet, Frame):
                self.held.append(packet)
                self._direct += len(packet)
                if self._direct <= CHUNK_BYTES:
                    return
                packet = self.held.pop()  # so much can't wait for the end of the tick: no limit would apply to it
            self.flush()
        if self.broken:
            return
        if isinstance(packet, Frame):
            if self._closing:
                return
            self.counters.sent += 1
        elif isinstance(packet, Close):
            self._closing = True
        if self._backlog is None:
            self._write_now(packet)
        else:
            self._enqueue(self._backlog, packet)

    def flush(self) -> None:
        """Write what is held, at once, or queue it behind what is queued."""
        if not self.held:
            return
        self._direct = 0
        if self._backlog is None and not self._closing and not self.broken:
            joined = self._transport.join(self.held)
            if joined is not None and len(joined) <= CHUNK_BYTES:  # more is queued as messages, for the policy
                self.counters.sent += len(self.held)
                self.held.clear()  # always the same list: rooms know it
                self._write_now(joined)
                return
        frames = self.held.copy()
        self.held.clear()
        for frame in frames:
            self.put_nowait(frame)

    def _write_now(self, packet: Packet) -> None:
        try:
            rest = self._transport.write_nowait(packet)
        except trio.BrokenResourceError:
            self.shut()
            self._owner.gone()
            return
        if rest is not None:
            self._backlog = Backlog(rest, self._limits)
            self._writer = trio.CancelScope(shield=True)
            self._nursery.start_soon(self._write, self._backlog, self._writer)

    def _enqueue(self, backlog: Backlog, packet: Packet) -> None:
        self._count_dropped(backlog.add(packet))
        if backlog.is_over:  # the policy does not drop (these), or control frames alone are too much
            self._owner.slow(f"over {self._limits.max_backlog_bytes} bytes behind")

    def _count_dropped(self, messages: int) -> None:
        self.dropped += messages
        self.counters.dropped += messages

    def drop(self, messages: int) -> None:
        """So many messages were dropped before they came here: they count as those that are dropped here."""
        self.counters.sent += messages
        self._count_dropped(messages)

    def clear(self) -> None:
        """Throw away what is queued, but not the packet the peer has begun to take."""
        self.held.clear()
        if self._backlog is not None:
            self._backlog.clear()
        self._wake()

    def shut(self) -> None:
        """Nothing is written from now on: the writer is cancelled, tasks that wait are woken. May be called twice."""
        self.broken = True
        if self._writer is not None:
            self._writer.cancel()
        if self._backlog is not None:
            self._backlog.abandon()
        self.clear()

    async def wait_low(self) -> None:
        """Wait until the backlog is below the high-water mark, or the outbox broken. Always a checkpoint."""
        await trio.lowlevel.checkpoint()
        while not self.is_low and not self.broken:
            await self._wait()

    async def wait_below(self, size: int) -> None:
        """Wait until no more than `size` bytes are queued, or the outbox is broken. Always a checkpoint."""
        await trio.lowlevel.checkpoint()
        while self.size > size and not self.broken:
            await self._wait()

    async def wait_empty(self) -> None:
        """Wait until all is written, or the outbox is broken."""
        self.flush()
        while self._backlog is not None and not self.broken:
            await self._wait()

    async def _wait(self) -> None:
        if self._changed is None:
            self._changed = trio.lowlevel.ParkingLot()
        await self._changed.park()

    def _wake(self) -> None:
        if self._changed is not None:
            self._changed.unpark_all()

    @trio.lowlevel.enable_ki_protection  # it may run in the hub's nursery, whose end is the worker's
    async def _write(self, backlog: Backlog, scope: trio.CancelScope) -> None:
        """Write until nothing is queued. Owned by the nursery that the outbox was given."""
        try:
            with scope:
                while not self.broken and backlog.has_more:
                    was_low = self.is_low  # before packing, which may make more of it, or less
                    chunk, size, late = backlog.take(self._transport.pack, trio.current_time())
                    self._count_dropped(late)
                    with trio.move_on_after(self._limits.send_timeout) as timeout:
                        await self._transport.write(chunk)
                    if timeout.cancelled_caught:
                        self.shut()
                        self._owner.slow(f"nothing read for {self._limits.send_timeout:g} s")
                        return
                    was_low = was_low and self.is_low
                    backlog.written(size)
                    self._wake()
                    if not was_low and self.is_low:
                        self._owner.low()
                self._backlog = self._writer = None
                self._wake()
                self._owner.written()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self.shut()
            self._owner.gone()
        except Exception as error:  # a bug of ours: it must not reach the others whose writers share the nursery
            self.shut()
            self._owner.failed(error)
        finally:
            if self._backlog is not None:  # left in the middle: how much the peer has got is not known
                self.shut()
