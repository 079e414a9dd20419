"""Presence in memory, against a model: who is there with which connections."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from verbtrio.brokers.memory_presence import Change, PresenceTable
from verbtrio.brokers.records import ConnectionChange, Present, PresentConnection

ROOMS = st.sampled_from(["a", "b"])
CONNECTIONS = st.sampled_from([f"c{number}" for number in range(5)])
USERS = st.sampled_from(["ann", "bob", "c1"])
INFOS = st.sampled_from([None, 1, True, "x", {"a": [1]}])


class User:
    """A user in a room, as the model has it."""

    def __init__(self) -> None:
        self.info: Any = None
        self.due: float | None = None


class PresenceMachine(RuleBasedStateMachine):
    """Connections come and go, as this user or that, in two rooms; time passes. The model is the list of connections,
    and the users who are there with them or in grace; what others are told follows from those before and after."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.table = PresenceTable()
        self.connections: dict[tuple[str, str], PresentConnection] = {}  # in the order in which they came
        self.connections_told: dict[tuple[str, str], PresentConnection] = {}  # as they were when they came
        self.gone: PresentConnection | None = None  # the last that went
        self.users: dict[tuple[str, str], User] = {}  # in the order in which they came
        self.told: dict[tuple[str, str], Any] = {}  # what somebody knows who has followed all changes

    def follow(self, room: str, changes: list[Change]) -> None:
        """The changes lead from what was known to what is."""
        for change in changes:
            key = (room, change.user)
            if isinstance(change, ConnectionChange):
                self.follow_connection(room, change)
            elif change.kind == "join":
                assert key not in self.told
                self.told[key] = change.info
            elif change.kind == "update":
                assert repr(self.told[key]) != repr(change.info)
                self.told[key] = change.info
            else:
                assert repr(self.told.pop(key)) == repr(change.info)
                users = {(room, connection.user) for (room, _), connection in self.connections_told.items()}
                assert key not in users, "its connections leave first"
        assert repr(self.told) == repr({key: user.info for key, user in self.users.items()})
        assert list(self.connections_told) == list(self.connections)

    def follow_connection(self, room: str, change: ConnectionChange) -> None:
        """What is told of one that goes is the last that it gave: see `exit` and `enter`."""
        assert (room, change.user) in self.told, "its user comes first"
        key, record = (room, change.connection), PresentConnection(change.user, change.info, change.details)
        if change.kind == "join":
            assert key not in self.connections_told
            assert repr(record) == repr(self.connections[key])
            self.connections_told[key] = record
        else:
            assert self.connections_told.pop(key).user == change.user
            assert repr(record) == repr(self.gone)

    def count(self, room: str, name: str) -> int:
        return sum(other == room and one.user == name for (other, _), one in self.connections.items())

    @rule(room=ROOMS, connection=CONNECTIONS, name=USERS, info=INFOS, details=INFOS)
    def enter(self, room: str, connection: str, name: str, info: Any, details: Any) -> None:
        earlier = self.connections.get((room, connection))
        if earlier is not None and earlier.user != name:
            self.gone = self.connections.pop((room, connection))
            if not self.count(room, earlier.user):
                del self.users[room, earlier.user]
            earlier = None
        before = earlier or PresentConnection(name)
        self.connections[room, connection] = PresentConnection(
            name, before.info if info is None else info, before.details if details is None else details
        )
        user = self.users.setdefault((room, name), User())
        user.info, user.due = user.info if info is None else info, None
        self.follow(room, self.table.enter(room, connection, name, info, details))

    @rule(room=ROOMS, connection=CONNECTIONS, info=INFOS)
    def update(self, room: str, connection: str, info: Any) -> None:
        if (one := self.connections.get((room, connection))) is not None:
            self.users[room, one.user].info = info
            self.connections[room, connection] = replace(one, info=info)
        self.follow(room, self.table.update(room, connection, info))

    @rule(room=ROOMS, connection=CONNECTIONS, grace=st.integers(0, 3))
    def exit(self, room: str, connection: str, grace: int) -> None:
        changes, leaves = self.table.exit(room, connection, self.now + grace)
        one = self.connections.pop((room, connection), None)
        if one is not None:
            self.gone = one
        is_last = one is not None and not self.count(room, one.user)
        assert leaves == (one.user if one is not None and is_last else None)
        if leaves is not None:
            self.users[room, leaves].due = self.now + grace
        assert len(changes) == (one is not None)
        self.follow(room, changes)

    @rule(room=ROOMS, name=USERS)
    def expire(self, room: str, name: str) -> None:
        user = self.users.get((room, name))
        if user is not None and user.due is not None and user.due <= self.now:
            del self.users[room, name]
        self.follow(room, self.table.expire(room, name, self.now))

    @rule()
    def wait(self) -> None:
        self.now += 1

    @invariant()
    def who_is_present(self) -> None:
        rooms = {room for room, _ in self.users}
        assert len(self.table) == len(rooms)
        assert self.table.presences == len(self.users)
        for room in ("a", "b"):
            expected = {
                name: Present(user.info, self.count(room, name))
                for (other, name), user in self.users.items()
                if other == room
            }
            assert repr(self.table.present(room)) == repr(expected)
            connections = {name: one for (other, name), one in self.connections.items() if other == room}
            assert repr(self.table.connections(room)) == repr(connections)


TestPresence = PresenceMachine.TestCase
TestPresence.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)


def test_info_that_json_has_no_form_for() -> None:
    table = PresenceTable()
    table.enter("a", "c1", "ann", 1)
    with pytest.raises(TypeError):
        table.enter("a", "c1", "bob", object())
    with pytest.raises(TypeError):
        table.enter("b", "c1", "bob", object())
    with pytest.raises(TypeError):
        table.enter("a", "c1", "ann", 2, object())
    with pytest.raises(TypeError):
        table.update("a", "c1", object())
    assert table.present("a") == {"ann": Present(1, 1)}
    assert table.connections("a") == {"c1": PresentConnection("ann", 1)}
    assert len(table) == 1


def test_equal_info_is_kept_once() -> None:
    """A user's and that of the user's connections: it may be most of what a large room costs."""
    table, info = PresenceTable(), {"name": "Ann"}
    table.enter("a", "c1", "ann", info)
    table.enter("a", "c2", "ann", info)
    here = table._rooms["a"]
    assert here.connections["c1"].info is here.connections["c2"].info is here.users["ann"].info


@pytest.mark.parametrize(("tabs", "most"), [(1, 180), (10, 110)])
def test_what_a_connection_costs(tabs: int, most: int) -> None:
    """In a room of 10,000, with its user, beside its id, the user's, and what it gives."""
    connections = [(f"c{number}", f"u{number // tabs}") for number in range(10_000)]
    table = PresenceTable()
    tracemalloc.start()
    try:
        for connection, user in connections:
            table.enter("a", connection, user, None)
        assert tracemalloc.get_traced_memory()[0] / len(connections) <= most
    finally:
        tracemalloc.stop()
