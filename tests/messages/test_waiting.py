"""What waits for a slow peer, against a model: a list of what was added and has not given way."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from verbtrio.base.limits import Limits
from verbtrio.messages.frame import Frame, TransientFrame, encode, transient
from verbtrio.messages.waiting import Waiting

LIMIT = 30
POLICIES = ["close", "drop_oldest", "drop_newest", "latest"]


def size(packet: Frame | bytes) -> int:
    return len(packet)


def waiting(policy: str, *, exempt: int = 0, limit: int = LIMIT) -> Waiting[Frame | bytes]:
    limits: dict[str, Any] = {"backlog_policy": policy, "max_backlog_bytes": limit, "high_water_bytes": 1}
    return Waiting(Limits(**limits), size, exempt=exempt)


def message(text: str, key: str | None = None, ttl: float | None = None, room: str = "room") -> Frame:
    frame = encode(text)
    return frame if key is None and ttl is None else transient(frame, room, key, ttl, now=0.0)


def texts(it: Waiting[Any], now: float = 0.0) -> list[str]:
    """All that it still has, taken."""
    found = []
    while (packet := it.take(math.inf, now)[0]) is not None:
        found.append(packet.payload.decode())
    return found


@dataclass
class Model:
    """The policies, said in the plainest way."""

    policy: str
    exempt: int
    packets: list[Frame | bytes] = field(default_factory=list)

    @property
    def total(self) -> int:
        return sum(map(len, self.packets))

    @property
    def is_over(self) -> bool:
        return self.total > LIMIT and len(self.packets) > self.exempt

    def add(self, packet: Frame | bytes) -> int:
        if self.policy == "latest" and isinstance(packet, TransientFrame) and packet.key is not None:
            for place, other in enumerate(self.packets):
                if isinstance(other, TransientFrame) and other.key == packet.key:
                    self.packets[place] = packet
                    return 1
        self.packets.append(packet)
        dropped = 0
        while self.policy.startswith("drop") and self.is_over:
            messages = [place for place, other in enumerate(self.packets) if isinstance(other, Frame)]
            if not messages:
                break
            del self.packets[messages[0 if self.policy == "drop_oldest" else -1]]
            dropped += 1
        return dropped

    def take(self, at_most: float, now: float) -> tuple[Frame | bytes | None, int]:
        late = 0
        while self.packets:
            first = self.packets[0]
            if isinstance(first, TransientFrame) and first.expires <= now:
                late += 1
            elif len(first) <= at_most:
                return self.packets.pop(0), late
            else:
                break
            del self.packets[0]
        return None, late


adds = st.tuples(
    st.just("add"),
    st.integers(0, 12) | st.just(LIMIT + 5),
    st.sampled_from([None, "a", "b", "c"]),
    st.sampled_from(["one", "two"]),
    st.sampled_from([None, 1.0, 3.0]),
)
steps = st.one_of(
    adds,
    adds,
    st.tuples(st.just("reply"), st.integers(0, 8)),
    st.tuples(st.just("take"), st.sampled_from([0, 5, 10, math.inf])),
    st.tuples(st.just("pass"), st.sampled_from([0.5, 1.0, 2.0])),
    st.tuples(st.just("clear")),
)


@pytest.mark.parametrize("exempt", [0, 1])
@pytest.mark.parametrize("policy", POLICIES)
@settings(deadline=None, max_examples=200, derandomize=True)
@given(plan=st.lists(steps, max_size=50))
def test_what_the_model_says(policy: str, exempt: int, plan: list[tuple[Any, ...]]) -> None:
    it, model = waiting(policy, exempt=exempt), Model(policy, exempt)
    now, taken, dropped, cleared, added = 0.0, 0, 0, 0, 0
    for number, (step, *args) in enumerate(plan):
        if step == "pass":
            now += args[0]
        elif step == "clear":
            cleared += len(it)
            it.clear()
            model.packets.clear()
        elif step == "take":
            packet, late = it.take(args[0], now)
            expected = model.take(args[0], now)
            assert packet is expected[0]
            assert late == expected[1]
            taken += packet is not None
            dropped += late
        elif step == "add" or not exempt:  # where one packet may wait whatever its size, there are only messages
            if step == "add":
                length, key, room, ttl = args
                frame = Frame(bytes([number]) * length, text=False)
                one: Frame | bytes = frame if key is ttl is None else transient(frame, room, key, ttl, now)
            else:
                one = bytes([number]) * args[0]
            more = it.add(one)
            assert more == model.add(one)
            dropped += more
            added += 1
        assert (it.bytes, len(it), it.is_over) == (model.total, len(model.packets), model.is_over)
    assert added == taken + dropped + cleared + len(it), "nothing is lost that was not counted"
    left = []
    while (rest := it.take(math.inf, 0.0)[0]) is not None:
        left.append(rest)
    assert left == model.packets
    assert (it.bytes, len(it)) == (0, 0)


class TestLatest:
    def test_the_newer_one_takes_the_turn_of_the_older(self) -> None:
        it = waiting("latest")
        dropped = [
            it.add(message(text, key))
            for text, key in [("a1", "a"), ("x", None), ("b1", "b"), ("a2", "a"), ("y", None), ("a3", "a")]
        ]
        assert dropped == [0, 0, 0, 1, 0, 1]
        assert texts(it) == ["a3", "x", "b1", "y"]

    def test_what_changes_faster_than_it_is_taken_has_its_turn(self) -> None:
        it = waiting("latest", limit=1000)
        taken = []
        for number in range(100):
            it.add(message(f"fast {number}", "fast"))
            it.add(message("other", str(number)))
            if number % 10 == 9:
                packet, _ = it.take(math.inf, 0.0)
                assert isinstance(packet, Frame)
                taken.append(packet.payload)
        assert taken[0] == b"fast 9"

    def test_keys_of_two_rooms_do_not_meet(self) -> None:
        it = waiting("latest")
        for room in ("one", "two", "one"):
            it.add(message(room, "a", room=room))
        assert texts(it) == ["one", "two"]

    def test_one_that_was_taken_is_past_replacing(self) -> None:
        it = waiting("latest")
        it.add(message("a1", "a"))
        assert it.take(math.inf, 0.0)[0] is not None
        assert it.add(message("a2", "a")) == 0
        assert texts(it) == ["a2"]

    def test_one_that_was_thrown_away_too(self) -> None:
        it = waiting("latest")
        it.add(message("a1", "a"))
        it.clear()
        assert it.add(message("a2", "a")) == 0
        assert texts(it) == ["a2"]

    @pytest.mark.parametrize(("first", "second"), [(1, 20), (20, 1)])
    def test_one_of_another_size(self, first: int, second: int) -> None:
        it = waiting("latest")
        it.add(message("x" * first, "a"))
        it.add(message("y" * second, "a"))
        assert it.bytes == second

    def test_over_the_limit_nothing_gives_way(self) -> None:
        it = waiting("latest")
        assert [it.add(message("x" * 10, key)) for key in ("a", "b", None, "c")] == [0, 0, 0, 0]
        assert it.is_over

    @pytest.mark.parametrize("policy", ["close", "drop_oldest", "drop_newest"])
    def test_under_other_policies_a_key_means_nothing(self, policy: str) -> None:
        it = waiting(policy)
        for text in ("a1", "a2"):
            assert it.add(message(text, "a")) == 0
        assert texts(it) == ["a1", "a2"]


@pytest.mark.parametrize("policy", POLICIES)
class TestTime:
    def test_one_whose_time_is_over_is_dropped_at_its_turn(self, policy: str) -> None:
        it = waiting(policy)
        for text, ttl in [("a", 2), ("b", 1), ("c", None), ("d", 1)]:
            it.add(message(text, ttl=ttl))
        packet, late = it.take(math.inf, 1.0)
        assert isinstance(packet, Frame)
        assert (packet.payload, late) == (b"a", 0)
        assert it.bytes == 3, "until its turn it counts"
        packet, late = it.take(math.inf, 1.0)
        assert isinstance(packet, Frame)
        assert (packet.payload, late) == (b"c", 1)
        assert it.take(math.inf, 1.0) == (None, 1)
        assert (it.bytes, len(it)) == (0, 0)

    def test_until_then_it_is_sent(self, policy: str) -> None:
        it = waiting(policy)
        it.add(message("a", ttl=1))
        assert texts(it, now=0.999) == ["a"]

    def test_the_newer_one_has_its_own_time(self, policy: str) -> None:
        it = waiting(policy)
        for ttl in (5, 1, None, 1):
            it.add(message(f"for {ttl}", "a", ttl))
        assert texts(it, now=2.0) == ([] if policy == "latest" else ["for 5", "for None"])
