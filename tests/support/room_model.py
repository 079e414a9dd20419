"""What rooms promise, as a model: who is in, what each has heard, who is present, what is remembered. Pure.

Time is a number that `advance` moves. It goes from one whole second to the next, and every delay of a room's settings
has a fraction, so nothing is due at the time of an operation.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

NEVER = float("inf")
LINGER, DELAY, WITHIN, RESTARTS = 3.25, 1.125, 20.3, 1
"""Of the rooms' tasks: how long they linger, and how often they start again."""
BACKLOG = 20_000
"""Bytes that may wait for a client. Small messages never come near."""


@dataclass(frozen=True)
class Kind:
    """The settings of a room."""

    size: int = 0
    """Messages that are remembered; 0: no history."""
    ttl: float = 0.0
    grace: float | None = None
    join_leave: bool = False
    task: bool = False
    max_members: int | None = None


ROOMS = {
    "plain": Kind(),
    "log:a": Kind(size=3, ttl=20.37),
    "team:a": Kind(size=5, ttl=60.37, grace=5.25, join_leave=True),
    "game:a": Kind(size=4, ttl=20.37, grace=2.25, task=True),
    "small:a": Kind(grace=5.25, max_members=2),
}


@dataclass(eq=False)
class Epoch:
    """One life of a history. Its name is made by the broker: whoever sees it first tells it."""

    name: str | None = None


@dataclass(eq=False)
class Message:
    """Something said in a room; with its place in the room's history if it was published there."""

    number: int
    epoch: Epoch | None = None
    offset: int = 0


@dataclass(eq=False)
class Client:
    """One connection.

    Attributes:
        heard: what it has been sent, by room.
        joins: the rooms it is in.
    """

    number: int
    app: int
    user: str
    is_stalled: bool = False
    is_alive: bool = True
    heard: dict[str, list[Message]] = field(default_factory=lambda: {name: [] for name in ROOMS})
    joins: dict[str, Join] = field(default_factory=dict)


@dataclass(eq=False)
class Join:
    """One membership.

    Attributes:
        since: the position from which to go on; `None` for a text that is none; absent where `resumes` is false.
        stage: "start" (waits for the room's task), "history" (waits for what it has missed), "in" or "over".
        outcome: what whoever waits for the join gets: "in", or the error's name; "" while it waits.
    """

    client: Client
    room: str
    info: Any
    resumes: bool
    since: tuple[Epoch, int] | None
    stage: str = "start"
    outcome: str = ""
    turn: int = 0
    """When it asked for the history; 0: not yet."""
    page: list[Message] | None = None
    is_gap: bool = False
    waiting: list[Message] = field(default_factory=list)


@dataclass(eq=False)
class User:
    """A user who is present in a room, or will be back in a moment."""

    info: Any
    joins: set[Join] = field(default_factory=set)
    due: float = NEVER
    turn: int = 0
    """Orders those who are due at the same time."""


class Task:
    """The task of a room, in one app: as in tests/rooms/test_supervision_model.py, without its hanging."""

    def __init__(self) -> None:
        self.phase = "none"  # or starting, running, restarting
        self.has_started = False
        self.begun = self.failures = 0
        self.refused_until = 0.0
        self.restart_at = self.linger_until = NEVER
        self._restarts: list[float] = []

    def occupy(self, *, slow: bool) -> None:
        self.linger_until = NEVER
        if self.phase == "none":
            self._restarts, self.has_started = [], False
            self.begin(slow=slow)

    def begin(self, *, slow: bool) -> None:
        self.restart_at = NEVER
        self.begun += 1
        self.phase = "starting"
        if not slow:
            self.started()

    def started(self) -> None:
        self.phase, self.has_started = "running", True

    def end(self) -> None:
        self.phase, self.restart_at, self.linger_until = "none", NEVER, NEVER

    def crash(self, now: float) -> bool:
        """Returns whether the room is given up."""
        self.failures += 1
        self._restarts = [time for time in self._restarts if time > now - WITHIN]
        if len(self._restarts) < RESTARTS:
            self._restarts.append(now)
            self.phase, self.restart_at = "restarting", now + DELAY
            return False
        self.refused_until = now + WITHIN
        self.end()
        return True


class RoomState:
    """One room, in all apps."""

    def __init__(self, kind: Kind, apps: int) -> None:
        self.kind = kind
        self.members: list[list[Join]] = [[] for _ in range(apps)]
        self.tasks = [Task() for _ in range(apps)]
        self.users: dict[str, User] = {}
        self.changes: list[tuple[str, str, Any]] = []
        self.epoch: Epoch | None = None
        self.top = 0
        self.messages: list[Message] = []
        self.due = NEVER

    def __len__(self) -> int:
        return sum(map(len, self.members))

    @property
    def joins(self) -> Iterator[Join]:
        return itertools.chain.from_iterable(self.members)

    def remembered(self, now: float) -> Epoch:
        """The history's epoch: asking for a history makes one."""
        if self.epoch is None:
            self.epoch, self.top, self.messages = Epoch(), 0, []
            self.due = now + self.kind.ttl
        return self.epoch

    def forget(self) -> None:
        """The history's time is over. Its epoch is kept for members: they have positions."""
        self.messages = []
        if len(self):
            self.due += self.kind.ttl
        else:
            self.epoch, self.due = None, NEVER

    def after(self, since: tuple[Epoch, int] | None, now: float) -> list[Message] | None:
        """What was published after a position; `None` where that is not known any more."""
        epoch = self.remembered(now)
        if since is None or since[0] is not epoch or not self.top - len(self.messages) <= since[1] <= self.top:
            return None
        return [message for message in self.messages if message.offset > since[1]]


class Model:
    """All rooms of one or several apps that share a broker.

    Attributes:
        hold: what readings of a history do that begin now: "" (they are answered), "before" (they wait, and read
            then), "after" (they read now, and are answered then).
        is_slow: whether tasks that begin now are yet to say that they have started.
    """

    def __init__(self, apps: int) -> None:
        self.now = 0.0
        self.apps = apps
        self.rooms = {name: RoomState(kind, apps) for name, kind in ROOMS.items()}
        self.hold = ""
        self.is_slow = False
        self._turns = itertools.count(1)
        self._numbers = itertools.count(1)

    # Members

    def refusal(self, client: Client, name: str) -> str:
        """The error that a join raises at once; "" for none."""
        room = self.rooms[name]
        if room.kind.task and self.now < room.tasks[client.app].refused_until:
            return "RoomUnavailable"
        return "LimitExceeded" if room.kind.max_members is not None and len(room) >= room.kind.max_members else ""

    def join(self, join: Join) -> None:
        room, app = self.rooms[join.room], join.client.app
        join.client.joins[join.room] = join
        if room.kind.task and not room.members[app]:
            room.tasks[app].occupy(slow=self.is_slow)
        room.members[app].append(join)
        self._go_on(join)

    def _go_on(self, join: Join) -> None:
        """Go through the stages of a join as far as it can."""
        room = self.rooms[join.room]
        if join.stage == "start":
            if room.kind.task and not room.tasks[join.client.app].has_started:
                return
            join.stage = "history"
        if join.stage == "history" and join.resumes:
            if not join.turn or not self.hold:
                self._read(join)
            if self.hold:
                return
            if join.is_gap:
                self._remove(join, "HistoryGap", grace=None)
                return
            assert join.page is not None
            heard = join.client.heard[join.room]
            heard += join.page
            heard += [message for message in join.waiting if message not in join.page]
        if join.stage == "history":
            join.stage, join.outcome = "in", "in"
            self._enter(join)

    def _read(self, join: Join) -> None:
        join.turn = join.turn or next(self._turns)
        if self.hold == "before" or join.page is not None or join.is_gap:
            return
        page = self.rooms[join.room].after(join.since, self.now)
        join.page, join.is_gap = page, page is None

    def release(self) -> None:
        """Whoever waits for the history gets it, in the order in which they asked."""
        self.hold = ""
        waiting = [join for room in self.rooms.values() for join in room.joins if join.stage == "history"]
        for join in sorted(waiting, key=lambda join: join.turn):
            self._go_on(join)

    def leave(self, join: Join) -> None:
        self._remove(join, "Denied", grace=0.0)

    def kick(self, join: Join) -> None:
        self._remove(join, "Denied", grace=0.0)

    def close(self, app: int, name: str, outcome: str = "Denied") -> None:
        for join in [*self.rooms[name].members[app]]:
            self._remove(join, outcome, grace=0.0)

    def drop(self, client: Client) -> None:
        """The connection ends."""
        client.is_alive = False
        for join in [*client.joins.values()]:
            self._remove(join, "ConnectionClosed", grace=self.rooms[join.room].kind.grace)

    def _remove(self, join: Join, outcome: str, grace: float | None) -> None:
        room, app = self.rooms[join.room], join.client.app
        room.members[app].remove(join)
        del join.client.joins[join.room]
        if join.stage == "in":
            self._exit(join, grace)
        join.stage, join.outcome = "over", join.outcome or outcome
        if room.kind.task and not room.members[app] and room.tasks[app].phase != "none":
            room.tasks[app].linger_until = self.now + LINGER

    # Presence

    def _enter(self, join: Join) -> None:
        room = self.rooms[join.room]
        if room.kind.grace is None:
            return
        user = room.users.get(join.client.user)
        if user is None:
            user = room.users[join.client.user] = User(join.info)
            room.changes.append(("join", join.client.user, join.info))
        user.due = NEVER
        user.joins.add(join)
        if join.info is not None:
            self._set_info(room, join)

    def _exit(self, join: Join, grace: float | None) -> None:
        room = self.rooms[join.room]
        if room.kind.grace is None:
            return
        assert grace is not None
        user = room.users[join.client.user]
        user.joins.discard(join)
        if not user.joins:
            user.due, user.turn = self.now + grace, next(self._turns)
            if not grace:
                self._expire(room, join.client.user)

    def _expire(self, room: RoomState, name: str) -> None:
        room.changes.append(("leave", name, room.users.pop(name).info))

    def update(self, join: Join, info: Any) -> None:
        join.info = info
        if join.stage == "in":
            self._set_info(self.rooms[join.room], join)

    def _set_info(self, room: RoomState, join: Join) -> None:
        user = room.users[join.client.user]
        if user.info != join.info:
            user.info = join.info
            room.changes.append(("update", join.client.user, join.info))

    def present(self, name: str) -> list[tuple[str, Any, int]]:
        return [(user, there.info, len(there.joins)) for user, there in self.rooms[name].users.items()]

    # Messages

    def say(self, name: str, exclude: Client | None = None) -> Message:
        """A broadcast."""
        message = Message(next(self._numbers))
        self._deliver(name, message, exclude)
        return message

    def publish(self, name: str) -> Message:
        room, message = self.rooms[name], Message(next(self._numbers))
        if room.kind.size:
            message.epoch = room.remembered(self.now)
            room.top += 1
            message.offset = room.top
            room.messages = [*room.messages, message][-room.kind.size :]
            room.due = self.now + room.kind.ttl
        self._deliver(name, message, None)
        return message

    def _deliver(self, name: str, message: Message, exclude: Client | None) -> None:
        for join in self.rooms[name].joins:
            if join.client is exclude:
                continue
            if join.resumes and join.stage != "in":
                join.waiting.append(message)
            else:
                join.client.heard[name].append(message)

    def page(self, name: str, since: Message | None, limit: int | None, *, reverse: bool) -> list[Message] | None:
        """What a page of the history has; `None`: a gap."""
        room = self.rooms[name]
        epoch = room.remembered(self.now)
        if since is None:
            messages = room.messages[:]
        elif since.epoch is not epoch:
            return None
        elif reverse:
            messages = [message for message in room.messages if message.offset < since.offset]
        else:
            after = room.after((epoch, since.offset), self.now)
            if after is None:
                return None
            messages = after
        return (messages[::-1] if reverse else messages)[:limit]

    def flood(self, name: str) -> list[Message]:
        """Three messages that are together too many for whoever does not take them. Those connections end."""
        messages = [self.say(name) for _ in range(3)]
        for join in [*self.rooms[name].joins]:
            if join.client.is_stalled or (join.resumes and join.stage != "in"):
                self.drop(join.client)
        return messages

    # Tasks

    def crash(self, app: int, name: str) -> None:
        if self.rooms[name].tasks[app].crash(self.now):
            self.close(app, name, "RoomUnavailable")

    def start(self) -> None:
        """Tasks say that they have started, one after the other."""
        self.is_slow = False
        for room in self.rooms.values():
            for task, members in zip(room.tasks, room.members, strict=True):
                if task.phase == "starting":
                    task.started()
                for join in [*members]:
                    if join.stage == "start":
                        self._go_on(join)

    # Time

    def advance(self, seconds: int) -> None:
        end = self.now + seconds
        while True:
            due, _, do = min(self._due(), key=lambda entry: entry[:2], default=(NEVER, 0, None))
            if due > end:
                break
            self.now = due
            assert do is not None
            do()
        self.now = end

    def _due(self) -> Iterator[tuple[float, int, Any]]:
        for room in self.rooms.values():
            yield room.due, 0, room.forget
            for name, user in room.users.items():
                yield user.due, user.turn, lambda room=room, name=name: self._expire(room, name)
            for task in room.tasks:
                yield task.restart_at, 0, lambda task=task: task.begin(slow=self.is_slow)
                yield task.linger_until, 0, task.end
