"""Presence in memory, against a model: who is there with which connections."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from verbtrio.brokers.memory_presence import PresenceTable
from verbtrio.brokers.records import PresenceChange, Present

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
        self.connections: dict[tuple[str, str], str] = {}
        self.users: dict[tuple[str, str], User] = {}  # in the order in which they came
        self.told: dict[tuple[str, str], Any] = {}  # what somebody knows who has followed all changes

    def follow(self, room: str, changes: list[PresenceChange]) -> None:
        """The changes lead from what was known to what is."""
        for change in changes:
            key = (room, change.user)
            if change.kind == "join":
                assert key not in self.told
                self.told[key] = change.info
            elif change.kind == "update":
                assert repr(self.told[key]) != repr(change.info)
                self.told[key] = change.info
            else:
                assert repr(self.told.pop(key)) == repr(change.info)
        assert repr(self.told) == repr({key: user.info for key, user in self.users.items()})

    def count(self, room: str, name: str) -> int:
        return sum(other == room and user == name for (other, _), user in self.connections.items())

    @rule(room=ROOMS, connection=CONNECTIONS, name=USERS, info=INFOS)
    def enter(self, room: str, connection: str, name: str, info: Any) -> None:
        earlier = self.connections.pop((room, connection), name)
        if earlier != name and not self.count(room, earlier):
            del self.users[room, earlier]
        self.connections[room, connection] = name
        user = self.users.setdefault((room, name), User())
        user.info, user.due = user.info if info is None else info, None
        self.follow(room, self.table.enter(room, connection, name, info))

    @rule(room=ROOMS, connection=CONNECTIONS, info=INFOS)
    def update(self, room: str, connection: str, info: Any) -> None:
        if (name := self.connections.get((room, connection))) is not None:
            self.users[room, name].info = info
        self.follow(room, self.table.update(room, connection, info))

    @rule(room=ROOMS, connection=CONNECTIONS, grace=st.integers(0, 3))
    def exit(self, room: str, connection: str, grace: int) -> None:
        name = self.connections.pop((room, connection), None)
        leaves = name is not None and not self.count(room, name)
        if leaves:
            self.users[room, str(name)].due = self.now + grace
        assert self.table.exit(room, connection, self.now + grace) == (name if leaves else None)

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

    @invariant()
    def nothing_is_left(self) -> None:
        assert len(self.table._users) == len(self.connections)


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
        table.update("a", "c1", object())
    assert table.present("a") == {"ann": Present(1, 1)}
    assert len(table) == 1
