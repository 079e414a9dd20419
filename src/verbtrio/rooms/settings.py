"""What the rooms of a pattern have besides their members: the settings of `app.rooms`. Pure."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from verbtrio.base.checks import check_count, check_seconds
from verbtrio.base.signatures import name_of_task
from verbtrio.brokers.records import History
from verbtrio.rooms.gap_hook import GapHook
from verbtrio.rooms.room_task import RoomTask

RoomGuard: TypeAlias = Callable[..., bool]
"""`(member, ...)`, a plain function: whether this member may join. What it wants of the pattern's parameters, it asks
for by name."""


@dataclass(frozen=True, slots=True)
class Presence:
    """Lets a room know which users are in it.

    Raises:
        TypeError: `grace` is not a number.
        ValueError: `grace` is less than 0, or not finite.
    """

    grace: float = 5.0
    """Seconds for which a user may be away: one who comes back within them has neither left nor joined. So the reload
    of a page is not seen by the others."""

    def __post_init__(self) -> None:
        check_seconds("Presence.grace", self.grace, zero=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """What clients of `app.centrifuge` may do in a room. Without one they may do nothing: a room's name alone opens
    nothing.

    Raises:
        TypeError: a setting is not `True` or `False`. (A function in its place would open the room to everybody.)
    """

    handler: Any = None
    """What runs for each subscription: a `SubscriptionHandler`. (It is typed `Any`: its module is further up.)"""
    subscribe: bool = True
    publish: bool = False
    """What they publish is passed on as it is, subscribed or not. (With a handler, that decides.)"""
    token: bool = False
    """They need a token of the subscription's own."""

    def __post_init__(self) -> None:
        for name in ("subscribe", "publish", "token"):
            value = getattr(self, name)
            if not isinstance(value, bool):
                instead = f": a function that decides is guard={name_of_task(value)}" if callable(value) else ""
                raise TypeError(f"{name} is True or False, not {value!r:.100}{instead}")


@dataclass(frozen=True, slots=True, kw_only=True)
class RoomSettings:
    """What the rooms of one pattern have. See `App.rooms`.

    Raises:
        TypeError: a setting has the wrong type, `guard` is not a plain function, or there is `join_leave` without
            `presence`.
        ValueError: `max_members` is less than 1.
    """

    history: History | None = None
    presence: Presence | None = None
    join_leave: bool = False
    """Members are told who comes and goes."""
    guard: RoomGuard | None = None
    tasks: tuple[RoomTask, ...] = ()
    max_members: int | None = None
    opening: Opening | None = None
    on_gap: GapHook | None = None

    def __post_init__(self) -> None:
        if self.history is not None and not isinstance(self.history, History):
            raise TypeError(f"history is a verbtrio.History, or None for none: {_history(self.history)}")
        if self.presence is not None and not isinstance(self.presence, Presence):
            raise TypeError(f"presence is True, False or a verbtrio.Presence(grace=...), not {self.presence!r:.100}")
        if not isinstance(self.join_leave, bool):
            raise TypeError(f"join_leave is True or False, not {self.join_leave!r:.100}")
        if self.join_leave and self.presence is None:
            raise TypeError("join_leave tells members who is present: add presence=True")
        if self.guard is not None:
            _check_guard(self.guard)
        if self.max_members is not None:
            check_count("max_members", self.max_members)

    def __str__(self) -> str:
        """For the log: what there is, in a few words."""
        told = []
        if self.history is not None:
            told.append(f"history of {self.history.size} for {self.history.ttl:g} s")
        if self.presence is not None:
            told.append("presence, told to members" if self.join_leave else "presence")
        if self.guard is not None:
            told.append(f"guard {name_of_task(self.guard)}")
        told += [f"task {task.name}" for task in self.tasks]
        if self.max_members is not None:
            told.append(f"{self.max_members} members at most")
        if self.on_gap is not None:
            told.append(f"on_gap {self.on_gap.name}")
        if self.opening is not None:
            told.append("open to clients")
        return ", ".join(told) or "nothing"


def as_presence(value: object) -> Presence | None:
    """The `presence=` of `app.rooms`: `True` stands for `Presence()`, `False` for `None`.

    Raises:
        TypeError: it is neither, nor a `Presence`.
    """
    if value is True:
        return Presence()
    if value is False or value is None:
        return None
    if not isinstance(value, Presence):
        seconds = isinstance(value, int | float)
        instead = f"write presence=Presence(grace={value!r})" if seconds else "write presence=True"
        raise TypeError(f"presence is True, False or a verbtrio.Presence(grace=...), not {value!r:.100}: {instead}")
    return value


def _history(value: object) -> str:
    """What to write instead of a `history=` that is not a `History`."""
    if value is True:
        return "write history=History()"
    if value is False:
        return "leave it out"
    size = value if isinstance(value, int) else 100
    return f"write history=History(size={size}), not {value!r:.100}"


def _check_guard(guard: object) -> None:
    """Raise `TypeError` for a guard that would let everybody in, since what it returns is true, or that is no function.

    What it asks for is checked with the pattern.
    """
    if not callable(guard) or inspect.isclass(guard):
        raise TypeError(f"guard is a function (member, ...), which returns True or False, not {guard!r:.100}")
    name = name_of_task(guard)
    if inspect.iscoroutinefunction(guard) or inspect.iscoroutinefunction(type(guard).__call__):
        raise TypeError(
            f"the guard {name} is a coroutine function, and a join takes effect at once: write `def`, and look up what "
            f"it needs before `ws.join`, for example in middleware"
        )
    if inspect.isgeneratorfunction(guard) or inspect.isasyncgenfunction(guard):
        raise TypeError(f"the guard {name} is a generator function: write `return`, not `yield`")
