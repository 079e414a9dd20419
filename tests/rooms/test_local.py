"""Rooms against a model; and what a broadcast promises."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Collection, Hashable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from verbtrio.base.close import Cause, CloseInfo
from verbtrio.base.limits import Limits
from verbtrio.messages.frame import Frame, TransientFrame, encode
from verbtrio.rooms.local import DISMISSAL_COST, FLUSH_BYTES, Rooms
from verbtrio.rooms.member import Member
from verbtrio.rooms.room import Room


class Listener(Member):
    """A member that remembers what it was told. It is its own peer, and its own outlet."""

    def __init__(self, name: str = "") -> None:
        super().__init__({"type": "http", "headers": []}, self)
        self.name = name
        self.held: list[Frame] = []  # what a real one writes with the next flush stays here
        self.flushed = 0
        self.dismissed: list[tuple[Hashable, CloseInfo, bool]] = []  # the room, why, and whether it is over

    def __repr__(self) -> str:
        return self.name

    @property
    def heard(self) -> list[bytes]:
        return [frame.payload for frame in self.held]

    @property
    def outlet(self) -> Listener:
        return self

    def encode(self, data: Any) -> Frame:
        return encode(data)

    limits = Limits()
    queued = 0

    def put(self, frame: Frame) -> None:
        self.held.append(frame)

    async def wait_below(self, size: int) -> None: ...

    def close(self, code: int, reason: str) -> None: ...

    def drop(self, messages: int) -> None: ...

    def end(self, info: CloseInfo) -> None: ...

    def flush(self) -> None:
        self.flushed = len(self.held)

    def gap_in(self, key: Hashable) -> bool:
        return False

    def dismiss(self, key: Hashable, info: CloseInfo) -> Callable[[], object]:
        number = len(self.dismissed)
        self.dismissed.append((key, info, False))

        def finish() -> None:
            self.flush()
            self.dismissed[number] = (key, info, True)

        return finish


def join(rooms: Rooms, key: Hashable, one: Listener) -> bool:
    return rooms.join(key, one, one)


@settings(deadline=None, max_examples=200, derandomize=True)
@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from(["join", "leave", "broadcast", "to others than the user", "kick", "close"]),
            st.sampled_from("ab"),
            st.integers(0, 3),
        ),
        max_size=40,
    )
)
def test_rooms_are_what_the_model_says(steps: list[tuple[str, str, int]]) -> None:
    people = [Listener(str(number)) for number in range(4)]
    rooms = Rooms(of_user=lambda user: [one for one in people if int(one.name) % 2 == user])  # two users, of two each
    handles = {name: Room(rooms, name) for name in "ab"}  # made once, before anybody is in
    model: dict[str, list[Listener]] = {"a": [], "b": []}
    expected: dict[Listener, list[bytes]] = {person: [] for person in people}
    for number, (step, name, index) in enumerate(steps):
        person, inside = people[index], model[name]
        if step == "join":
            assert join(rooms, name, person) is (person not in inside)
            if person not in inside:
                inside.append(person)
        elif step == "leave":
            assert rooms.leave(name, person) is (person in inside)
            if person in inside:
                inside.remove(person)
        elif step == "kick":
            assert handles[name].kick([person, person]) == (person in inside)
            if person in inside:
                inside.remove(person)
        elif step == "close":
            assert handles[name].close() == len(inside)
            inside.clear()
        elif step.startswith("to others"):
            others = [member for member in inside if int(member.name) % 2 != index % 2 and member is not people[0]]
            assert handles[name].broadcast(str(number), exclude=people[0], exclude_user=index % 2) == len(others)
            for member in others:
                expected[member].append(str(number).encode())
        else:
            others = [member for member in inside if member is not person]
            assert handles[name].broadcast(str(number), exclude=person) == len(others)
            for member in others:
                expected[member].append(str(number).encode())
        for key, members in model.items():
            assert list[object](handles[key].here) == members, "in the order in which they joined"
            assert len(handles[key]) == len(members)
            assert (key in rooms) is bool(members), "a room is there from its first join to its last leave"
        assert sorted(map(str, rooms)) == [key for key, members in model.items() if members]
        assert len(rooms) == sum(map(bool, model.values()))
    assert {person: person.heard for person in people} == expected
    while rooms.flush(2):
        pass
    assert all(person.flushed == len(person.held) for person in people)
    assert all(is_over for person in people for _, _, is_over in person.dismissed)


@pytest.fixture
def rooms() -> Rooms:
    return Rooms()


@pytest.fixture
def people(rooms: Rooms) -> list[Listener]:
    """Three, all in the room "r"."""
    people = [Listener(name) for name in "abc"]
    for person in people:
        join(rooms, "r", person)
    return people


class TestHandle:
    def test_never_stale(self, rooms: Rooms) -> None:
        handle, someone = Room(rooms, "r"), Listener()
        assert len(handle) == 0
        for _ in range(2):  # the room goes and comes back
            join(rooms, "r", someone)
            assert someone in handle
            assert handle.broadcast("hello") == 1
            rooms.leave("r", someone)
            assert someone not in handle
            assert handle.broadcast("nobody hears") == 0
        assert someone.heard == [b"hello", b"hello"]

    def test_its_name_is_text(self, rooms: Rooms) -> None:
        """Whatever it is kept by: the framework's own rooms are kept by tuples, which no application's can be."""
        assert Room(rooms, "lobby").name == "lobby"
        route = Room(rooms, ("verbtrio", "route", "/ws"))
        join(rooms, ("verbtrio", "route", "/ws"), Listener())
        assert (route.name, len(route), len(Room(rooms, route.name))) == ("/ws", 1, 0)
        assert repr(route) == "<Room '/ws' (1 here)>"

    def test_an_empty_room_is_true(self, rooms: Rooms) -> None:
        assert Room(rooms, "r")

    def test_asking_makes_no_room(self, rooms: Rooms) -> None:
        handle = Room(rooms, "r")
        assert (len(handle), handle.here, handle.broadcast("x"), rooms.leave("r", Listener())) == (0, (), 0, False)
        assert len(rooms) == 0

    def test_repr(self, rooms: Rooms, people: list[Listener]) -> None:
        assert repr(Room(rooms, "r")) == "<Room 'r' (3 here)>"

    def test_everybody_may_leave_while_they_are_walked_over(self, rooms: Rooms, people: list[Listener]) -> None:
        for name in rooms:
            for member in Room(rooms, name).here:
                rooms.leave(name, member)
        assert len(rooms) == 0

    def test_it_is_not_walked_over(self, rooms: Rooms, people: list[Listener]) -> None:
        """`len` is to count members of other processes, too: beside it, a walk over those here would lie."""
        room: Any = Room(rooms, "r")
        for walk in (list, iter, lambda room: [*room]):
            with pytest.raises(TypeError, match=r"walk over `room\.here`"):
                walk(room)
        assert Room(rooms, "r").here == tuple(people)

    def test_in_finds_members_and_ids(self, rooms: Rooms, people: list[Listener]) -> None:
        room = Room(rooms, "r")
        assert [one in room for one in (people[0], people[0].id)] == [True, True]
        rooms.leave("r", people[0])
        assert [one in room for one in (people[0], people[0].id, "an id", b"", None, 7)] == [False] * 6

    def test_names_of_different_types_are_different_rooms(self, rooms: Rooms, people: list[Listener]) -> None:
        join(rooms, ("r",), people[0])
        assert (len(Room(rooms, "r")), len(Room(rooms, ("r",)))) == (3, 1)


class TestBroadcast:
    def test_encodes_once(self, rooms: Rooms, people: list[Listener]) -> None:
        assert Room(rooms, "r").broadcast({"to": "all"}) == 3
        assert len({id(person.held[0]) for person in people}) == 1
        assert people[0].heard == [b'{"to":"all"}']

    def test_excludes_a_member(self, rooms: Rooms, people: list[Listener]) -> None:
        assert Room(rooms, "r").broadcast("x", exclude=people[1]) == 2
        assert [person.heard for person in people] == [[b"x"], [], [b"x"]]

    @pytest.mark.parametrize(
        "collection",
        [list, tuple, set, frozenset, deque, lambda members: dict.fromkeys(members).keys()],
        ids=["list", "tuple", "set", "frozenset", "deque", "keys"],
    )
    def test_excludes_a_collection(
        self, rooms: Rooms, people: list[Listener], collection: Callable[[Any], Collection[Member]]
    ) -> None:
        """The annotation says any collection: one that is silently ignored would tell those who must not know."""
        assert Room(rooms, "r").broadcast("x", exclude=collection(people[:2])) == 1
        assert [person.heard for person in people] == [[], [], [b"x"]]

    def test_excludes_another_room(self, rooms: Rooms, people: list[Listener]) -> None:
        join(rooms, "muted", people[0])
        muted = Room(rooms, "muted")
        assert Room(rooms, "r").broadcast("x", exclude=muted.here) == 2
        assert people[0].heard == []
        nobodys_type: Any = muted
        with pytest.raises(TypeError, match=r"walk over `room\.here`"):
            Room(rooms, "r").broadcast("x", exclude=nobodys_type)

    @pytest.mark.parametrize("exclude", [lambda a, b: a.id, lambda a, b: [a.id], lambda a, b: {a, b.id, "nobody"}])
    def test_excludes_ids(self, exclude: Callable[[Member, Member], Any], rooms: Rooms, people: list[Listener]) -> None:
        left_out = exclude(people[0], people[1])
        others = people[2:] if isinstance(left_out, set) else people[1:]
        assert Room(rooms, "r").broadcast("x", exclude=left_out) == len(others)
        assert [person for person in people if person.heard] == others

    def test_an_id_makes_no_ids(self, rooms: Rooms, people: list[Listener]) -> None:
        """One that nobody has asked for can't be meant, and takes memory."""
        room = Room(rooms, "r")
        assert people[0].id in room
        assert Listener().id not in room
        assert room.broadcast("x", exclude=Listener().id) == 3
        assert room.kick([people[0].id, "nobody"]) == 1
        assert people[0].id not in room
        assert ["_id" in vars(person) for person in people] == [True, False, False]

    def test_excludes_nobody(self, rooms: Rooms, people: list[Listener]) -> None:
        nobodies: list[Member | str | list[Member | str] | None] = [None, [], Listener(), "", "an id", ["an id"]]
        for nobody in nobodies:
            assert Room(rooms, "r").broadcast("x", exclude=nobody) == 3

    def test_a_member_is_a_collection_of_its_scopes_keys(self, rooms: Rooms, people: list[Listener]) -> None:
        """Starlette's connections are mappings: it is the member that is excluded, and kicked."""
        assert list(people[0]) == ["type", "headers"]
        assert Room(rooms, "r").broadcast("x", exclude=people[0]) == 2
        assert people[0].heard == []
        assert Room(rooms, "r").kick(people[0]) == 1

    @pytest.mark.parametrize("exclude", [b"an id", b"", 7, [None], {"an id", 7}, (one for one in "ab")])
    @pytest.mark.parametrize("name", ["r", "nobody is here"])
    def test_what_names_no_member(self, name: str, exclude: Any, rooms: Rooms, people: list[Listener]) -> None:
        """It would exclude nobody, and those would hear it who must not."""
        with pytest.raises(TypeError, match="a member, its id"):
            Room(rooms, name).broadcast("x", exclude=exclude)
        assert [person.heard for person in people] == [[], [], []]

    def test_with_a_key_or_a_time(self, people: list[Listener]) -> None:
        """The message is made once for all, by the clock of the outlets, and carries its room's key."""
        rooms = Rooms(now=lambda: 100.0)
        for person in people:
            join(rooms, "r", person)
        assert Room(rooms, "r").broadcast("x", key="price", ttl=5, exclude=people[2]) == 2
        assert Room(rooms, "r").broadcast("y", key="price") == 3
        assert Room(rooms, "r").broadcast("z", ttl=0.5) == 3
        made = people[0].held
        assert [frame for frame in made if not isinstance(frame, TransientFrame)] == []
        assert [(frame.key, frame.expires) for frame in made if isinstance(frame, TransientFrame)] == [
            (("r", "price"), 105.0),
            (("r", "price"), math.inf),
            (None, 100.5),
        ]
        assert people[1].held[0] is made[0]
        assert [person.heard for person in people] == [[b"x", b"y", b"z"], [b"x", b"y", b"z"], [b"y", b"z"]]

    def test_without_them_it_is_a_plain_frame(self, rooms: Rooms, people: list[Listener]) -> None:
        Room(rooms, "r").broadcast("x")
        assert type(people[0].held[0]) is Frame

    @pytest.mark.parametrize(
        ("options", "error"),
        [
            ({"key": 5}, TypeError),
            ({"ttl": "5"}, TypeError),
            ({"ttl": 0}, ValueError),
            ({"key": "a", "ttl": math.nan}, ValueError),
        ],
    )
    def test_a_bad_key_or_time_reaches_nobody(
        self, rooms: Rooms, people: list[Listener], options: Any, error: type[Exception]
    ) -> None:
        for name in ("r", "nobody is here"):
            with pytest.raises(error):
                Room(rooms, name).broadcast("x", **options)
        assert [person.heard for person in people] == [[], [], []]

    def test_what_cannot_be_encoded_reaches_nobody(self, rooms: Rooms, people: list[Listener]) -> None:
        with pytest.raises(TypeError):
            Room(rooms, "r").broadcast(object())
        assert [person.heard for person in people] == [[], [], []]


class TestFlush:
    """What was said goes out when the tick is over."""

    def test_says_once_that_there_is_something(self) -> None:
        dirty: list[str] = []
        rooms = Rooms(on_dirty=lambda: dirty.append("dirty"))
        people = [Listener(name) for name in "abc"]
        for person in people:
            join(rooms, "r", person)
            join(rooms, "s", person)
        assert Room(rooms, "r").broadcast("x", exclude=people) == 0
        assert dirty == [], "nobody was told anything"
        for name in ("r", "s", "r"):
            Room(rooms, name).broadcast(name)
        assert dirty == ["dirty"]
        assert [person.flushed for person in people] == [0, 0, 0]
        assert not rooms.flush()
        assert [person.flushed for person in people] == [3, 3, 3]
        Room(rooms, "r").broadcast("again")
        assert dirty == ["dirty", "dirty"]

    def test_some_at_a_time(self) -> None:
        rooms = Rooms()
        people = [Listener(str(n)) for n in range(10)]
        for person in people:
            join(rooms, "r", person)
        Room(rooms, "r").broadcast("x")
        assert rooms.flush(4)
        assert [person.flushed for person in people] == [1] * 4 + [0] * 6
        Room(rooms, "r").broadcast("y")  # while the first is on its way
        rooms.leave("r", people[9])
        assert people[9].flushed == 2, "it has what was broadcast before it left"
        count = 1
        while rooms.flush(4):
            count += 1
        assert [person.flushed for person in people] == [2] * 10
        assert count <= 6

    def test_who_leaves_has_what_was_broadcast_before(self, rooms: Rooms, people: list[Listener]) -> None:
        Room(rooms, "r").broadcast("x")
        rooms.leave("r", people[0])
        assert people[0].flushed == 1
        Room(rooms, "r").broadcast("y")
        assert people[0].heard == [b"x"]

    def test_who_joins_has_nothing_of_before(self, rooms: Rooms, people: list[Listener]) -> None:
        late = Listener("late")
        Room(rooms, "r").broadcast("x")
        join(rooms, "r", late)
        rooms.flush()
        assert late.heard == []

    def test_a_loop_without_an_await_is_bounded(self, rooms: Rooms, people: list[Listener]) -> None:
        frame = "x" * 100_000
        for _ in range(100):
            Room(rooms, "r").broadcast(frame)
            behind = len(people[0].held) - people[0].flushed
            assert behind * len(frame) <= FLUSH_BYTES + 2 * len(frame)

    def test_those_who_were_removed_some_at_a_time(self) -> None:
        """They are out at once. What follows is asked for once, and takes a part of each flush."""
        dirty: list[str] = []
        rooms = Rooms(on_dirty=lambda: dirty.append("dirty"))
        people = [Listener(str(n)) for n in range(10)]
        for person in people:
            join(rooms, "r", person)
        Room(rooms, "r").broadcast("x")
        assert Room(rooms, "r").kick(people[:3]) == 3
        assert Room(rooms, "r").close(4000, "over") == 7
        assert ("r" in rooms, dirty) == (False, ["dirty", "dirty"])
        steps = []
        while rooms.flush(4 * DISMISSAL_COST):
            steps.append(sum(is_over for person in people for _, _, is_over in person.dismissed))
        assert steps[:2] == [4, 8]
        assert [person.flushed for person in people] == [1] * 10
        assert [person.dismissed for person in people[2:4]] == [
            [("r", CloseInfo(Cause.KICKED, 1008), True)],
            [("r", CloseInfo(Cause.KICKED, 4000, "over"), True)],
        ]
        join(rooms, "r", people[0])
        Room(rooms, "r").close()
        assert dirty == ["dirty"] * 3

    def test_one_that_fails_is_its_own(
        self, rooms: Rooms, people: list[Listener], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail() -> None:
            raise ValueError("on purpose")

        monkeypatch.setattr(people[0], "dismiss", lambda key, info: fail)
        Room(rooms, "r").close()
        assert not rooms.flush()
        assert [person.dismissed[0][2] for person in people[1:]] == [True, True]

    def test_checked_before_anything_is_done(self) -> None:
        """As from another thread."""

        def refuse() -> None:
            raise RuntimeError("not here")

        rooms, someone = Rooms(check=refuse), Listener()
        join(rooms, "r", someone)
        calls: list[Callable[[], int]] = [
            lambda: Room(rooms, "r").broadcast("x"),
            lambda: Room(rooms, "r").kick(someone),
            Room(rooms, "r").close,
        ]
        for call in calls:
            with pytest.raises(RuntimeError, match="not here"):
                call()
        assert (someone.held, someone.dismissed, len(Room(rooms, "r"))) == ([], [], 1)
