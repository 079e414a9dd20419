"""An event subscriber by itself: what it queues, what it drops, and how it ends."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import aclosing
from typing import Any

import pytest
import trio
import trio.testing
from trio.abc import Clock

from tests.support.sse import parse
from verbtrio import Cause, CloseInfo, ConnectionClosed, EventSubscriber, Limits
from verbtrio.base.counters import Counters
from verbtrio.http.event_subscriber import CLIENT_GONE, SubscriberPeer
from verbtrio.http.subscriber_response import events
from verbtrio.http.writer import CHUNK_BYTES
from verbtrio.messages.frame import Encode, Frame, encode, encoder, transient
from verbtrio.messages.waiting import PACKET_BYTES

SCOPE = {"type": "http", "path": "/events/lobby", "headers": []}


def subscriber(encode: Encode = encode, scope: Any = None, **limits: Any) -> SubscriberPeer:
    peer = SubscriberPeer(Limits(**limits), Counters(), encode=encode)
    EventSubscriber({**SCOPE, **(scope or {})}, peer)
    return peer


async def heard(one: SubscriberPeer) -> list[str]:
    """What it still has to send, once it has ended."""
    async with aclosing(events(one)) as chunks:
        return [event.data for event in parse(b"".join([chunk async for chunk in chunks]))]


def bounded(messages: int, policy: str = "close") -> SubscriberPeer:
    """One with room for so many messages of two bytes."""
    size = messages * (2 + PACKET_BYTES)
    return subscriber(max_backlog_bytes=size, high_water_bytes=size, backlog_policy=policy)


def how_it_ended(one: SubscriberPeer) -> CloseInfo | None:
    return one.closed


class TestBacklog:
    async def test_up_to_the_limit_and_over_it(self) -> None:
        one = bounded(5)
        for number in range(5):
            one.put(encode(f"m{number}"))
        assert how_it_ended(one) is None
        one.put(encode("m5"))
        assert how_it_ended(one) == CloseInfo(Cause.SLOW, 1008, "Too slow: over 330 bytes behind")
        assert await heard(one) == ['{"code":1008,"reason":"Too slow: over 330 bytes behind"}']

    @pytest.mark.parametrize(("policy", "left"), [("drop_oldest", ["m3", "m4"]), ("drop_newest", ["m0", "m1"])])
    async def test_what_is_dropped(self, policy: str, left: list[str]) -> None:
        one = bounded(2, policy)
        for number in range(5):
            one.put(encode(f"m{number}"))
        assert (one.dropped, one._counters.dropped, one._counters.sent) == (3, 3, 5)
        one.subscriber.close_nowait()
        assert await heard(one) == [*left, '{"code":1000,"reason":""}']

    @pytest.mark.parametrize("policy", ["close", "drop_oldest", "drop_newest"])
    async def test_one_message_over_the_limit(self, policy: str) -> None:
        one = bounded(2, policy)
        one.put(encode("x" * 1000))
        assert one.closed is None
        one.subscriber.close_nowait()
        assert (await heard(one))[0] == "x" * 1000

    async def test_what_is_taken_makes_room(self) -> None:
        one = bounded(2)
        async with aclosing(events(one)) as chunks:
            for _ in range(10):
                one.put(encode("m0"))
                one.put(encode("m1"))
                assert await anext(chunks) == b"data: m0\n\ndata: m1\n\n"
        assert one.closed is None

    async def test_a_piece_is_64_kib_or_one_message(self) -> None:
        one = subscriber()
        for size in (40_000, 40_000, 10, 200_000, 10):
            one.put(encode("x" * size))
        async with aclosing(events(one)) as chunks:
            sizes = [len(await anext(chunks)) for _ in range(2)]
        assert sizes == [2 * 40_008, 18 + 200_008]
        assert all(size - 200_008 < CHUNK_BYTES for size in sizes)

    async def test_empty_messages_are_not_taken_all_at_once(self, autojump_clock: Clock) -> None:
        one = subscriber()
        for _ in range(4 * CHUNK_BYTES // PACKET_BYTES):
            one.put(encode(""))
        with trio.fail_after(1):
            counts = [len(frames) for frames in [await one.take() for _ in range(4)] if frames is not None]
        assert counts == [CHUNK_BYTES // PACKET_BYTES] * 4


class TestLatest:
    """As for WebSockets: it is the same queue."""

    def told(self, one: SubscriberPeer, text: str, key: str | None = None, ttl: float | None = None) -> None:
        one.held.append(transient(encode(text), "room", key, ttl, trio.current_time()))
        one.flush()

    async def test_the_newest_in_the_turn_of_the_first(self) -> None:
        one = bounded(3, "latest")
        for number in range(5):
            self.told(one, f"a{number}", "a")
            if not number:
                one.put(encode("xx"))
        self.told(one, "b0", "b")
        assert (one.dropped, one._counters.dropped, one._counters.sent) == (4, 4, 7)
        one.subscriber.close_nowait()
        assert await heard(one) == ["a4", "xx", "b0", '{"code":1000,"reason":""}']

    async def test_too_many_keys_are_too_slow(self) -> None:
        one = bounded(2, "latest")
        for key in "aba":
            self.told(one, "xx", key)
        assert how_it_ended(one) is None
        self.told(one, "xx", "c")
        assert how_it_ended(one) == CloseInfo(Cause.SLOW, 1008, "Too slow: over 132 bytes behind")

    async def test_one_message_over_the_limit(self) -> None:
        one = bounded(2, "latest")
        self.told(one, "xx", "a")
        self.told(one, "x" * 1000, "a")
        assert one.closed is None
        one.subscriber.close_nowait()
        assert (await heard(one))[0] == "x" * 1000

    @pytest.mark.parametrize("policy", ["close", "drop_oldest", "drop_newest", "latest"])
    async def test_one_whose_time_is_over(self, autojump_clock: Clock, policy: str) -> None:
        one = bounded(10, policy)
        for text, ttl in [("late", 1), ("in time", 2), ("late", 1)]:
            self.told(one, text, ttl=ttl)
        await trio.sleep(1)
        one.subscriber.close_nowait()
        assert await heard(one) == ["in time", '{"code":1000,"reason":""}']
        assert (one.dropped, one._counters.dropped) == (2, 2)

    async def test_who_takes_waits_on_if_nothing_is_left(self, autojump_clock: Clock) -> None:
        one = bounded(10)
        self.told(one, "late", ttl=1)
        await trio.sleep(1)
        async with aclosing(events(one)) as chunks, trio.open_nursery() as nursery:
            nursery.start_soon(self.soon, one)
            assert await anext(chunks) == b"data: in time\n\n"
        assert one.dropped == 1

    async def test_idle_it_has_no_queue(self) -> None:
        """Neither before its first message nor after many: an idle subscriber takes 700 bytes less for it."""
        one = subscriber(backlog_policy="latest")
        assert one._waiting is None
        for number in range(1000):
            self.told(one, "x", str(number))
        one.subscriber.close_nowait()
        while await one.take() is not None:
            pass
        assert one._waiting is None

    async def soon(self, one: SubscriberPeer) -> None:
        await trio.testing.wait_all_tasks_blocked()
        one.put(encode("in time"))


class TestTheEnd:
    @pytest.mark.parametrize(
        ("end", "cause", "rest"),
        [
            (
                lambda one: one.subscriber.close_nowait(4000, "bye"),
                Cause.KICKED,
                ["last words", '{"code":4000,"reason":"bye"}'],
            ),
            (
                lambda one: one.drain(),
                Cause.DRAIN,
                ["last words", '{"code":1012,"reason":"The server is restarting"}'],
            ),
            (
                lambda one: one.end(CloseInfo(Cause.EXPIRED, 4401, "over")),
                Cause.EXPIRED,
                ['{"code":4401,"reason":"over"}'],
            ),
            (lambda one: one.end(CLIENT_GONE), Cause.GONE, ['{"code":1006,"reason":""}']),  # which nobody reads
        ],
    )
    async def test_what_it_still_hears(
        self, end: Callable[[SubscriberPeer], None], cause: Cause, rest: list[str]
    ) -> None:
        one = subscriber()
        one.put(encode("last words"))
        end(one)
        with pytest.raises(ConnectionClosed):
            one.put(encode("too late"))
        assert one.closed is not None
        assert one.closed.cause is cause
        assert one.end(CLIENT_GONE) is one.closed, "the first end counts"
        assert await heard(one) == rest

    async def test_what_was_broadcast_in_the_same_tick_comes_before(self) -> None:
        one = subscriber()
        one.held.append(encode("not flushed yet"))
        one.subscriber.close_nowait(4000, "bye")
        one.flush()
        assert await heard(one) == ["not flushed yet", '{"code":4000,"reason":"bye"}']

    async def test_it_wakes_who_waits(self, autojump_clock: Clock) -> None:
        one = subscriber()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(heard, one)
            await trio.testing.wait_all_tasks_blocked()
            one.drain()

    @pytest.mark.parametrize(("code", "reason"), [(1005, ""), (999, ""), (1000, "x" * 124)])
    def test_a_close_that_must_not_be_sent(self, code: int, reason: str) -> None:
        one = subscriber()
        with pytest.raises(ValueError, match="close"):
            one.subscriber.close_nowait(code, reason)
        assert one.closed is None


class TestSendNowait:
    async def test_in_its_place_behind_what_was_broadcast(self) -> None:
        one = subscriber()
        one.held.append(encode("broadcast"))
        one.subscriber.send_nowait("sent")
        one.subscriber.send_nowait({"a": 1})
        one.subscriber.send_nowait(b"bytes")
        one.subscriber.close_nowait()
        assert await heard(one) == ["broadcast", "sent", '{"a":1}', "Ynl0ZXM=", '{"code":1000,"reason":""}']

    async def test_to_one_that_has_ended(self) -> None:
        one = subscriber()
        one.subscriber.close_nowait(4000)
        with pytest.raises(ConnectionClosed) as caught:
            one.subscriber.send_nowait("too late")
        assert caught.value.info is one.closed

    def test_what_cannot_be_encoded(self) -> None:
        one = subscriber()
        with pytest.raises(TypeError, match="object"):
            one.subscriber.send_nowait(object())
        assert one._waiting is None

    async def test_within_the_backlog(self) -> None:
        one = bounded(2, "drop_oldest")
        for _ in range(5):
            one.subscriber.send_nowait("xx")
        assert one.dropped == 3
        one = bounded(2)
        for _ in range(3):
            one.subscriber.send_nowait("xx")
        assert one.closed is not None
        assert one.closed.cause is Cause.SLOW

    def test_in_another_thread_the_apps_encoder_is_not_called(self) -> None:
        def check() -> None:
            raise RuntimeError("not here")

        def encode(data: Any) -> Any:
            raise AssertionError("called")

        peer = SubscriberPeer(Limits(), Counters(), check, encode)
        with pytest.raises(RuntimeError, match="not here"):
            EventSubscriber(dict(SCOPE), peer).send_nowait("x")

    def test_by_the_apps_encoder(self) -> None:
        one = subscriber(encoder(lambda value: "made"))
        one.subscriber.send_nowait(object())
        assert one._waiting is not None
        (made,) = one._waiting._entries
        assert isinstance(made, Frame)
        assert made.payload == b"made"


def test_what_it_tells_of_itself() -> None:
    one = subscriber(scope={"path_params": {"room": "lobby"}, "user": {"id": 1}}).subscriber
    assert one.params == {"room": "lobby"}
    assert one.user == {"id": 1}
    assert repr(one) == f"<EventSubscriber {one.id[:8]} '/events/lobby'>"
    assert subscriber().subscriber.user is None
    assert subscriber().subscriber.params == {}
