"""The outbox: everything in order, once, whatever the peer takes at a time; and an end for those who take nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from itertools import chain, repeat
from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from verbtrio.base.counters import Counters
from verbtrio.base.limits import Limits
from verbtrio.connection import backlog
from verbtrio.connection.backlog import CHUNK_BYTES
from verbtrio.connection.outbox import Outbox
from verbtrio.messages.frame import Frame, transient
from verbtrio.messages.waiting import PACKET_BYTES
from verbtrio.wire.events import Event
from verbtrio.wire.transport import Close, Packet, Ping, Transport

KIB = 1024


@pytest.fixture(autouse=True)
def _count_bytes_alone(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A packet's own cost would only be in the way of the figures below; one test looks at it."""
    if "own_cost" not in request.node.name:
        monkeypatch.setattr(backlog, "PACKET_BYTES", 0)


async def test_a_packets_own_cost_counts(autojump_clock: MockClock) -> None:
    """Tiny messages are not free: a peer that never reads can't have a million of them queued."""
    async with trio.open_nursery() as nursery:
        it = Line(nursery, [0] * 1000, {"max_backlog_bytes": 100 * PACKET_BYTES, "high_water_bytes": 1})
        it.put("x", *["x"] * 98)
        assert not it.slows
        it.put("x", "x", "x")
        assert it.slows
        it.box.shut()


class Peer(Transport):
    """A peer that takes so many bytes at a time; a message is its payload on the wire.

    Args:
        takes: what it takes of each write; `None` is everything. 0 of a waiting write: it stalls until `go` is set.
    """

    can_ping = True

    def __init__(self, takes: Sequence[int | None] = ()) -> None:
        self.got = bytearray()
        self.largest = 0
        self.joins = True
        self.joined: list[int] = []
        self.broken = False
        self.go = trio.Event()
        self._takes: Iterator[int | None] = chain(takes, repeat(None))
        self._writing = False

    def pack(self, packet: Packet) -> bytes | memoryview:
        if isinstance(packet, Frame):
            return packet.payload
        if isinstance(packet, Close):
            return f"<close {packet.code}>".encode()
        return b"<ping>" if isinstance(packet, Ping) else packet

    def write_nowait(self, packet: Packet) -> Packet | None:
        assert not self._writing, "the writer task owns the transport while it writes"
        self._check()
        data = self.pack(packet)
        taken = next(self._takes)
        left = self._take(data, taken)
        return left or None

    def join(self, frames: Sequence[Frame]) -> bytes | None:
        if not self.joins:
            return None
        self.joined.append(len(frames))
        return b"".join(frame.payload for frame in frames)

    async def write(self, packets: Sequence[Packet]) -> None:
        assert not self._writing, "one writer at a time"
        self._writing = True
        try:
            data: bytes | memoryview = b"".join(map(self.pack, packets))
            self.largest = max(self.largest, len(data))
            await trio.lowlevel.checkpoint()
            while data:
                self._check()
                taken = next(self._takes)
                if taken == 0:
                    await self.go.wait()
                else:
                    await trio.lowlevel.checkpoint()
                self._check()
                data = self._take(data, taken)
        finally:
            self._writing = False

    def _take(self, data: bytes | memoryview, taken: int | None) -> bytes | memoryview:
        count = len(data) if taken is None else taken
        self.got += data[:count]
        return memoryview(data)[count:]

    def _check(self) -> None:
        if self.broken:
            raise trio.BrokenResourceError

    async def receive(self) -> list[Event]:
        raise NotImplementedError

    def replies(self) -> bytes:
        raise NotImplementedError

    async def aclose(self, *, linger: bool) -> None:
        raise NotImplementedError


def limit(box: Outbox, limits: Limits) -> None:
    """Other limits from now on, for what is queued already, too."""
    assert box._backlog is not None
    box._limits = box._backlog._waiting._limits = limits


class Line:
    """An outbox, its peer, and what it has called."""

    def __init__(self, nursery: trio.Nursery, takes: Sequence[int | None], limits: dict[str, Any]) -> None:
        self.peer = Peer(takes)
        self.nursery = nursery
        self.slows: list[str] = []
        self.gones = 0
        self.lows = 0
        self.errors: list[Exception] = []
        self.box = Outbox(self.peer, nursery, Limits(**limits), self, Counters())

    def slow(self, reason: str) -> None:
        self.slows.append(reason)

    def gone(self) -> None:
        self.gones += 1

    def written(self) -> None:
        pass

    def low(self) -> None:
        self.lows += 1

    def failed(self, error: Exception) -> None:
        self.errors.append(error)

    def hold(self, *messages: str) -> None:
        """What a room does."""
        for message in messages:
            self.box.held.append(Frame(message.encode(), text=True))

    def told(self, message: str, key: str | None = None, ttl: float | None = None) -> None:
        """What a room does with a message that has a key or a time."""
        frame = Frame(message.encode(), text=True)
        self.box.held.append(transient(frame, "room", key, ttl, trio.current_time()))
        self.box.flush()

    def put(self, *packets: str | Packet) -> None:
        for packet in packets:
            self.box.put_nowait(Frame(packet.encode(), text=True) if isinstance(packet, str) else packet)


@asynccontextmanager
async def line(*takes: int | None, **limits: Any) -> AsyncIterator[Line]:
    """A line, all of its tasks done at the end of the block."""
    async with trio.open_nursery() as nursery:
        yield Line(nursery, takes, limits)


@asynccontextmanager
async def stalled(*, backlog: int = 100, **limits: Any) -> AsyncIterator[Line]:
    """A line whose peer has taken half of a first message, and nothing since."""
    limits = {"max_backlog_bytes": backlog, "high_water_bytes": min(backlog, 10), **limits}
    async with line(2, 0, **limits) as it:
        it.put("<0>")
        await wait_all_tasks_blocked()
        assert it.peer.got == b"<0"
        yield it
        it.peer.go.set()


class TestHeld:
    """What rooms offer in a tick."""

    async def test_goes_out_as_one_write_when_the_tick_is_over(self, autojump_clock: MockClock) -> None:
        async with line() as it:
            it.hold("a", "b", "c")
            assert it.peer.got == b""
            it.box.flush()
            assert it.peer.got == b"abc"
            assert it.peer.joined == [3]
            it.box.flush()
            assert it.peer.got == b"abc"

    async def test_the_rooms_list_stays_the_same(self, autojump_clock: MockClock) -> None:
        async with line() as it:
            held = it.box.held
            for flush in (it.box.flush, it.box.clear, it.box.shut):
                it.hold("a")
                flush()
                assert held == []
                assert it.box.held is held

    async def test_what_is_sent_meanwhile_keeps_its_place(self, autojump_clock: MockClock) -> None:
        async with line() as it:
            it.hold("a")
            it.put("b")
            it.hold("c")
            assert it.peer.got == b"", "a message can wait for the end of the tick"
            it.put(Ping())
            assert it.peer.got == b"abc<ping>", "a control frame is no message, and takes them along"
            it.hold("d")
            it.put(Close(1000, ""))
            assert it.peer.got == b"abc<ping>d<close 1000>"

    async def test_waiting_for_all_to_be_written(self, autojump_clock: MockClock) -> None:
        async with line() as it:
            it.hold("a")
            await it.box.wait_empty()
            assert it.peer.got == b"a"

    async def test_messages_that_cannot_be_joined(self, autojump_clock: MockClock) -> None:
        """Compressed ones, and ASGI's: each by itself, for what is dropped must not have been compressed."""
        async with line() as it:
            it.peer.joins = False
            it.hold("a", "b")
            it.box.flush()
            assert it.peer.got == b"ab"

    async def test_behind_a_backlog_the_policy_holds_for_each(self, autojump_clock: MockClock) -> None:
        async with stalled(backlog=3, backlog_policy="drop_oldest") as it:
            it.hold(*"abcde")
            it.box.flush()
            assert it.box.dropped == 2
        assert it.peer.got == b"<0>cde"

    async def test_more_than_a_chunk_is_not_one_packet(self, autojump_clock: MockClock) -> None:
        """Else a tick's worth could be in flight, where no policy reaches it."""
        async with line(0, 0, max_backlog_bytes=CHUNK_BYTES, high_water_bytes=1) as it:
            it.hold(*["x" * 30_000] * 5)
            it.box.flush()
            assert it.slows[0] == f"over {CHUNK_BYTES} bytes behind"
            it.box.shut()

    async def test_direct_messages_behind_a_room_s_are_bounded(self, autojump_clock: MockClock) -> None:
        """They wait for the end of the tick, but not without limit: what does not go out is backlog, as ever."""
        async with line(0, 0, max_backlog_bytes=CHUNK_BYTES, high_water_bytes=1) as it:
            it.hold("first")
            it.put(*["x" * 30_000] * 10)
            assert sum(map(len, it.box.held)) <= CHUNK_BYTES
            assert it.slows
            it.box.shut()

    async def test_nothing_once_it_is_broken(self, autojump_clock: MockClock) -> None:
        async with line() as it:
            it.box.shut()
            it.hold("a", "b")
            it.box.flush()
            assert it.peer.got == b""
            assert not it.box.held


async def test_says_when_the_backlog_is_low_again(autojump_clock: MockClock) -> None:
    async with stalled(backlog=100) as it:
        it.put(*["x" * 6] * 3)
        assert not it.box.is_low
        assert it.lows == 0
        it.peer.go.set()
        await it.box.wait_empty()
        assert (it.lows, it.box.is_low) == (1, True)


class TestOrder:
    async def test_written_in_place_without_a_task(self, autojump_clock: MockClock) -> None:
        async with line() as it:
            with trio.testing.assert_no_checkpoints():
                it.put("a", b"b", Ping(), memoryview(b"c"), Close(1000, ""))
                await it.box.wait_empty()
            assert it.peer.got == b"ab<ping>c<close 1000>"
            assert not it.nursery.child_tasks
            assert it.box.size == 0

    async def test_the_rest_of_a_message_comes_first(self, autojump_clock: MockClock) -> None:
        async with line(2) as it:
            it.put("abcd", "e", Ping(), "f")
            assert it.peer.got == b"ab"
            assert it.box.size == 2 + 1 + 2 + 1, "a ping counts 2 bytes"
            await it.box.wait_empty()
            assert it.peer.got == b"abcde<ping>f"
            assert it.box.size == 0

    async def test_a_message_of_which_nothing_was_taken(self, autojump_clock: MockClock) -> None:
        """As over ASGI, where a write may block: the packet comes back as it was."""
        async with line(0) as it:
            it.put("abcd", "e")
            await it.box.wait_empty()
            assert it.peer.got == b"abcde"

    async def test_written_in_place_again_when_the_backlog_is_gone(self, autojump_clock: MockClock) -> None:
        async with line(1) as it:
            it.put("ab")
            await it.box.wait_empty()
            it.put("c")
            assert it.peer.got == b"abc"
        assert not it.nursery.child_tasks

    async def test_in_chunks(self, autojump_clock: MockClock) -> None:
        """A long write is cut: the time for one is limited, and one that is cancelled spoils no more than it has to."""
        data = [bytes([number]) * (40 * KIB) for number in range(5)]
        async with line(1) as it:
            it.put(b"xy", *data, b"z" * 3 * CHUNK_BYTES)
            await it.box.wait_empty()
            assert it.peer.got == b"xy" + b"".join(data) + b"z" * 3 * CHUNK_BYTES
            assert it.peer.largest <= CHUNK_BYTES

    async def test_small_packets_share_a_write(self, autojump_clock: MockClock) -> None:
        async with stalled() as it:
            it.put(*"abcdef")
            it.peer.go.set()
            await it.box.wait_empty()
            assert it.peer.got == b"<0>abcdef"
            assert it.peer.largest == 6

    @settings(deadline=None, max_examples=100, derandomize=True)
    @given(
        sizes=st.lists(st.integers(0, 12) | st.sampled_from([CHUNK_BYTES - 1, CHUNK_BYTES + 1]), max_size=15),
        takes=st.lists(st.integers(0, 20) | st.sampled_from([None, CHUNK_BYTES]), max_size=60),
        rests=st.lists(st.sampled_from([0, 0, 0, 1]), min_size=1, max_size=6),
    )
    def test_always_the_concatenation(self, sizes: list[int], takes: list[int | None], rests: list[int]) -> None:
        packets = [bytes([65 + number]) * size for number, size in enumerate(sizes)]

        async def main() -> None:
            async with line(*takes) as it:
                it.peer.go.set()
                for number, packet in enumerate(packets):
                    it.put(packet if number % 2 else packet.decode())
                    if rests[number % len(rests)]:
                        await trio.lowlevel.checkpoint()
                    assert b"".join(packets).startswith(it.peer.got)
                await it.box.wait_empty()
                assert it.peer.got == b"".join(packets)
                assert (it.box.size, it.box.dropped, it.box.broken, it.slows, it.gones) == (0, 0, False, [], 0)

        trio.run(main, clock=MockClock(autojump_threshold=0))


class TestBacklog:
    async def test_close(self, autojump_clock: MockClock) -> None:
        async with stalled(backlog=5) as it:
            it.put("12345")
            assert it.slows == []
            it.put("6")
            assert it.slows == ["over 5 bytes behind"]
            assert it.box.dropped == 0

    async def test_drop_oldest(self, autojump_clock: MockClock) -> None:
        async with stalled(backlog=5, backlog_policy="drop_oldest") as it:
            it.put("aa", "bb", "cc", "d")
            assert it.box.dropped == 1
            it.put("eee")
            assert it.box.dropped == 3
        assert it.peer.got == b"<0>deee"
        assert (it.slows, it.box.size) == ([], 0)

    async def test_drop_newest(self, autojump_clock: MockClock) -> None:
        async with stalled(backlog=5, backlog_policy="drop_newest") as it:
            it.put("aa", "bb", "cc", "d", "e")
            assert it.box.dropped == 2
        assert it.peer.got == b"<0>aabbd"
        assert it.slows == []

    @pytest.mark.parametrize(
        ("policy", "expected"),
        [
            ("drop_oldest", b"<0><ping>pong<ping>cc<close 1000>"),
            ("drop_newest", b"<0><ping>apongb<ping><close 1000>"),
        ],
    )
    async def test_control_frames_are_never_dropped(
        self, autojump_clock: MockClock, policy: str, expected: bytes
    ) -> None:
        """And what is left stays in order."""
        async with stalled(backlog=10, backlog_policy=policy) as it:
            it.put(Ping(), "a", b"pong", "b", Ping())  # 2 + 1 + 4 + 1 + 2
            it.put("cc")
            assert it.box.dropped == (2 if policy == "drop_oldest" else 1)
            limit(it.box, Limits(max_backlog_bytes=1000, high_water_bytes=5))  # room for the Close, which counts 125
            it.put(Close(1000, ""))
        assert it.peer.got == expected

    @pytest.mark.parametrize("policy", ["close", "drop_oldest", "drop_newest"])
    async def test_control_frames_count(self, autojump_clock: MockClock, policy: str) -> None:
        """A peer that pings and never reads ends as slow, whatever the policy."""
        async with stalled(backlog=10, backlog_policy=policy) as it:
            it.put(b"pong1", b"pong2")
            assert it.slows == []
            it.put(b"!")
            assert it.slows == ["over 10 bytes behind"]

    @pytest.mark.parametrize("policy", ["close", "drop_oldest", "drop_newest"])
    async def test_one_message_may_be_over_the_limit(self, autojump_clock: MockClock, policy: str) -> None:
        """What a slow peer is at does not count, however large it is."""
        async with line(3, max_backlog_bytes=5, high_water_bytes=5, backlog_policy=policy) as it:
            it.put("x" * 3 * CHUNK_BYTES, "12345")
            await it.box.wait_empty()
        assert it.peer.got == b"x" * 3 * CHUNK_BYTES + b"12345"
        assert (it.slows, it.box.dropped) == ([], 0)

    async def test_the_slow_one_may_be_cut_from_within_the_call(
        self, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As a connection does: it clears what is queued, and says good-bye."""
        async with stalled(backlog=5) as it:

            def cut(reason: str) -> None:
                it.box.clear()
                it.put(Close(1008, reason))

            monkeypatch.setattr(it, "slow", cut)
            limit(it.box, Limits(max_backlog_bytes=200, high_water_bytes=5))
            it.put(*["x" * 50] * 5)
        assert it.peer.got == b"<0><close 1008>"

    @settings(deadline=None, max_examples=100, derandomize=True)
    @given(
        sizes=st.lists(st.integers(1, 9), max_size=30),
        takes=st.lists(st.integers(1, 5), max_size=30),
        rests=st.lists(st.integers(0, 3), min_size=1, max_size=6),
        policy=st.sampled_from(["drop_oldest", "drop_newest"]),
    )
    def test_nothing_is_lost_that_was_not_counted(
        self, sizes: list[int], takes: list[int], rests: list[int], policy: str
    ) -> None:
        """What arrives are whole messages, in order, each once; those missing are as many as `dropped` says."""
        messages = [chr(65 + number) * size for number, size in enumerate(sizes)]

        async def main() -> None:
            async with line(*takes, max_backlog_bytes=12, high_water_bytes=12, backlog_policy=policy) as it:
                for number, message in enumerate(messages):
                    it.put(message)
                    assert it.box._backlog is None or it.box._backlog.queued <= 12
                    for _ in range(rests[number % len(rests)]):
                        await trio.lowlevel.checkpoint()
                await it.box.wait_empty()
                rest = it.peer.got.decode()
                arrived = 0
                for message in messages:
                    if rest.startswith(message):
                        rest = rest.removeprefix(message)
                        arrived += 1
                assert rest == ""
                assert arrived + it.box.dropped == len(messages)
                assert (it.slows, it.box.size) == ([], 0)

        trio.run(main, clock=MockClock(autojump_threshold=0))


class TestLatest:
    """Messages with a key. (tests/messages/test_waiting.py has the queue by itself.)"""

    async def test_the_newest_in_the_turn_of_the_first(self, autojump_clock: MockClock) -> None:
        async with stalled(backlog_policy="latest") as it:
            it.told("a1", "a")
            it.put("x")
            it.told("b1", "b")
            it.told("a22", "a")
            it.told("a333", "a")
            assert (it.box.dropped, it.box.counters.dropped, it.box.counters.sent) == (2, 2, 6)
            assert it.box.size == 1 + 4 + 1 + 2, "the rest of the first, and what is queued now"
        assert it.peer.got == b"<0>a333xb1"
        assert (it.slows, it.box.size) == ([], 0)

    async def test_what_is_being_written_is_past_replacing(self, autojump_clock: MockClock) -> None:
        async with line(2, 0, 0, backlog_policy="latest") as it:
            it.told("a1..", "a")  # the peer has taken half
            it.told("a2", "a")
            await wait_all_tasks_blocked()
            it.told("a3", "a")  # the writer has the two of them
            it.told("a4", "a")
            it.peer.go.set()
        assert it.peer.got == b"a1..a2a4"
        assert it.box.dropped == 1

    async def test_what_was_held_in_one_tick(self, autojump_clock: MockClock) -> None:
        """It goes out as it was said if the peer takes it; behind a backlog, a key has one message there as well."""
        async with line(backlog_policy="latest") as it:
            for text in ("a1", "a2"):
                it.box.held.append(transient(Frame(text.encode(), text=True), "room", "a", None, 0.0))
            it.box.flush()
            assert it.peer.got == b"a1a2"
        async with stalled(backlog_policy="latest") as it:
            for text in ("a1", "a2"):
                it.box.held.append(transient(Frame(text.encode(), text=True), "room", "a", None, 0.0))
            it.box.flush()
        assert it.peer.got == b"<0>a2"
        assert it.box.dropped == 1

    async def test_too_many_keys_are_too_slow(self, autojump_clock: MockClock) -> None:
        async with stalled(backlog=5, backlog_policy="latest") as it:
            it.told("aa", "a")
            it.told("bb", "b")
            it.told("cc", "a")
            assert it.slows == []
            it.told("dd", "d")
            assert it.slows == ["over 5 bytes behind"]
            assert it.box.dropped == 1

    @pytest.mark.parametrize("end", ["clear", "shut"])
    async def test_nothing_of_a_key_is_left_by_the_end(self, autojump_clock: MockClock, end: str) -> None:
        async with stalled(backlog_policy="latest") as it:
            it.told("a1", "a")
            getattr(it.box, end)()
            it.told("a2", "a")
            assert it.box.dropped == 0
        assert bytes(it.peer.got) == (b"<0" if end == "shut" else b"<0>a2")

    async def test_what_is_replaced_was_never_packed(
        self, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A compressor's state would have it, and its client never."""
        async with stalled(backlog_policy="latest") as it:
            packed: list[bytes] = []
            pack = it.peer.pack

            def seen(packet: Packet) -> bytes | memoryview:
                packed.append(bytes(pack(packet)))
                return pack(packet)

            monkeypatch.setattr(it.peer, "pack", seen)
            for text in ("a1", "a2", "a3"):
                it.told(text, "a")
            it.told("late", ttl=1)
            await trio.sleep(1)
            it.peer.go.set()
            await it.box.wait_empty()
        assert it.peer.got == b"<0>a3"
        assert not {b"a1", b"a2", b"late"} & set(packed)


class TestMessagesWithATime:
    @pytest.mark.parametrize("policy", ["close", "drop_oldest", "drop_newest", "latest"])
    async def test_dropped_at_its_turn(self, autojump_clock: MockClock, policy: str) -> None:
        async with stalled(backlog_policy=policy) as it:
            it.told("short", ttl=1)
            it.told("long", ttl=2)
            it.put("x")
            it.told("short", ttl=1)
            await trio.sleep(1)
            assert (it.box.dropped, it.box.size) == (0, 1 + 5 + 4 + 1 + 5)
            it.peer.go.set()
            await it.box.wait_empty()
            assert (it.box.dropped, it.box.counters.dropped, it.box.counters.sent) == (2, 2, 5)
        assert it.peer.got == b"<0>longx"

    async def test_nothing_else_was_queued(self, autojump_clock: MockClock) -> None:
        """The writer has nothing to write then: it ends, and what comes next is written in place."""
        async with stalled(high_water_bytes=3) as it:
            for _ in range(3):
                it.told("short", ttl=1)
            assert not it.box.is_low
            await trio.sleep(1)
            it.peer.go.set()
            with trio.fail_after(5):
                await it.box.wait_low()
                await it.box.wait_empty()
            assert (it.box.dropped, it.box.size, it.lows) == (3, 0, 1)
            it.put("next")
            assert it.peer.got == b"<0>next"
        assert not it.nursery.child_tasks

    async def test_what_the_peer_takes_at_once_is_not_looked_at(self, autojump_clock: MockClock) -> None:
        async with line() as it:
            it.told("now", "a", ttl=0.001)
            assert it.peer.got == b"now"


class TestTime:
    async def test_a_peer_that_reads_nothing(self, autojump_clock: MockClock) -> None:
        start = trio.current_time()
        async with line(1, 0, send_timeout=3) as it:
            it.put("ab", "queued")
            with trio.fail_after(10):
                await it.box.wait_empty()
            assert trio.current_time() - start == 3
        assert it.slows == ["nothing read for 3 s"]
        assert it.box.broken
        assert it.gones == 0
        assert it.peer.got == b"a"

    async def test_the_time_is_for_each_write(self, autojump_clock: MockClock) -> None:
        """A large backlog may take longer in all."""
        async with line(1, send_timeout=3) as it:
            write = it.peer.write

            async def unhurried(packets: Sequence[Packet]) -> None:
                await trio.sleep(2)
                await write(packets)

            it.peer.write = unhurried  # type: ignore[method-assign]
            it.put("x" * 4 * CHUNK_BYTES)
            await it.box.wait_empty()
        assert (it.slows, len(it.peer.got)) == ([], 4 * CHUNK_BYTES)


class TestWaiting:
    async def test_wait_low_is_a_checkpoint(self, autojump_clock: MockClock) -> None:
        async with line() as it:
            with trio.testing.assert_checkpoints():
                await it.box.wait_low()

    async def test_wait_low_wakes_at_the_mark(self, autojump_clock: MockClock) -> None:
        """Not when all is written: a handler that fills what the peer empties never lets the line run dry."""
        async with line(1, 0, high_water_bytes=CHUNK_BYTES) as it:
            it.put("x" * 3 * CHUNK_BYTES)
            left: list[int] = []

            async def wait() -> None:
                await it.box.wait_low()
                left.append(it.box.size)

            it.nursery.start_soon(wait)
            await wait_all_tasks_blocked()
            assert left == []
            it.peer.go.set()
        assert left == [CHUNK_BYTES - 1]

    async def test_nobody_waits_below_the_mark(self, autojump_clock: MockClock) -> None:
        async with stalled() as it:
            it.put("123456789")  # and one in flight: 10
            with trio.fail_after(1):
                await it.box.wait_low()
            it.put("!")
            with trio.move_on_after(1) as scope:
                await it.box.wait_low()
            assert scope.cancelled_caught

    @pytest.mark.parametrize("wait", ["wait_low", "wait_empty"])
    @pytest.mark.parametrize("end", ["shut", "gone", "slow", "cancel"])
    async def test_whoever_waits_is_woken_by_the_end(self, autojump_clock: MockClock, wait: str, end: str) -> None:
        async with trio.open_nursery() as nursery:
            io = await nursery.start(_own_nursery)
            it = Line(io, [1, 0], {"high_water_bytes": 1, "send_timeout": 5})
            it.put("abc", "def")
            with trio.fail_after(5.5):
                async with trio.open_nursery() as waiting:
                    waiting.start_soon(getattr(it.box, wait))
                    await wait_all_tasks_blocked()
                    assert waiting.child_tasks
                    if end == "shut":
                        it.box.shut()
                    elif end == "gone":
                        it.peer.broken = True
                        it.peer.go.set()
                    elif end == "cancel":
                        io.cancel_scope.cancel()
            assert it.box.broken
            io.cancel_scope.cancel()


async def _own_nursery(task_status: trio.TaskStatus[trio.Nursery]) -> None:
    async with trio.open_nursery() as nursery:
        task_status.started(nursery)
        await trio.sleep_forever()


class TestEnd:
    async def test_clear_keeps_what_the_peer_has_begun_to_take(self, autojump_clock: MockClock) -> None:
        async with stalled() as it:
            it.put("queued", Ping())
            it.box.clear()
            assert it.box.size == 1
            it.put(Close(1008, ""))
        assert it.peer.got == b"<0><close 1008>"

    async def test_clear_wakes_whoever_waits(self, autojump_clock: MockClock) -> None:
        async with stalled(high_water_bytes=5) as it:
            it.put("queued")
            it.nursery.start_soon(it.box.wait_low)
            await wait_all_tasks_blocked()
            it.box.clear()
            await wait_all_tasks_blocked()
            assert len(it.nursery.child_tasks) == 1, "only the writer is left"

    async def test_shut(self, autojump_clock: MockClock) -> None:
        async with stalled() as it:
            it.put("queued")
            for _ in range(2):
                it.box.shut()
                assert (it.box.broken, it.box.size) == (True, 0)
            it.put("after")
            await it.box.wait_empty()
            await it.box.wait_low()
        assert it.box.size == 0
        assert b"queued" not in it.peer.got
        assert b"after" not in it.peer.got
        assert (it.slows, it.gones) == ([], 0)

    async def test_gone_when_written_in_place(self, autojump_clock: MockClock) -> None:
        async with line() as it:
            it.peer.broken = True
            it.put("a", "b")
            assert (it.gones, it.box.broken, it.box.size) == (1, True, 0)

    async def test_gone_while_writing(self, autojump_clock: MockClock) -> None:
        async with stalled() as it:
            it.put("queued")
            it.peer.broken = True
            it.peer.go.set()
            await it.box.wait_empty()
            assert (it.gones, it.box.broken, it.box.size, it.slows) == (1, True, 0, [])
            it.put("after")
        assert it.peer.got == b"<0"
        assert it.gones == 1

    async def test_shut_in_the_middle_of_a_write(self, autojump_clock: MockClock) -> None:
        """Nobody knows how much the peer has got: anything behind it would be garbage."""
        async with trio.open_nursery() as nursery:
            it = Line(nursery, [1, 0], {})
            it.put("abc", "queued")
            await wait_all_tasks_blocked()
            it.box.shut()
        assert it.box.broken
        it.put(Close(1000, ""))
        assert it.peer.got == b"a"
        assert (it.slows, it.gones, it.box.size) == ([], 0, 0)

    async def test_a_cancelled_nursery_leaves_the_writer_to_its_owner(self, autojump_clock: MockClock) -> None:
        """The Close frame has to get out when the server is cancelled; `shut` and the time limit bound it."""
        async with trio.open_nursery() as nursery:
            it = Line(nursery, [1], {})
            nursery.cancel_scope.cancel()
            it.put("abc", "queued")
        assert not it.box.broken
        assert it.peer.got == b"abcqueued"

    async def test_a_cancellation_beside_an_idle_outbox_breaks_nothing(self, autojump_clock: MockClock) -> None:
        async with trio.open_nursery() as nursery:
            it = Line(nursery, [1], {})
            it.put("abc")
            await it.box.wait_empty()
            nursery.cancel_scope.cancel()
        assert not it.box.broken
        assert it.peer.got == b"abc"

    @pytest.mark.parametrize("make", [lambda: b"", lambda: Frame(b"", text=True)])
    async def test_an_empty_packet(self, autojump_clock: MockClock, make: Callable[[], Packet]) -> None:
        async with line(0) as it:
            it.put(make(), "a")
            await it.box.wait_empty()
        assert it.peer.got == b"a"


async def test_a_bug_in_writing_stays_with_its_connection(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Writers share the hub's nursery: what one of them raises would end the worker."""
    async with stalled(backlog=1000) as it:
        it.put("a")

        def broken(packet: Packet) -> bytes:
            raise MemoryError

        monkeypatch.setattr(it.peer, "pack", broken)
        it.peer.go.set()
        await it.box.wait_empty()
        assert [type(error) for error in it.errors] == [MemoryError]
        assert it.box.broken


async def test_low_again_although_packing_has_made_more_of_it(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What can't be compressed grows when it is packed: over the mark by that alone is over the mark."""
    async with line(2, 0, max_backlog_bytes=1000, high_water_bytes=20) as it:
        it.put("<0>", "x" * 15)
        pack = it.peer.pack
        monkeypatch.setattr(it.peer, "pack", lambda packet: bytes(pack(packet)) * 2)
        await wait_all_tasks_blocked()
        it.put("y" * 15)
        lows = it.lows
        it.peer.go.set()
        await it.box.wait_empty()
        assert it.lows > lows
