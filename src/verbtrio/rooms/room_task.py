"""A task that a room is to have: the function, and the bounds of its life. Pure.

    async def game(room: Room, id: str, *, task_status: trio.TaskStatus[None]) -> None: ...

It is checked when it is made, so that a mistake shows where it is written.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from verbtrio.base.checks import check_seconds
from verbtrio.base.restart import Restart
from verbtrio.base.signatures import asked_for, name_of_task

STATUS = "task_status"
"""The parameter by which a task says that it wants to be waited for."""
FENCE = "fence"
"""The parameter by which a singleton asks for the number of its lease."""


@dataclass(frozen=True, slots=True)
class RoomTask:
    """A task of the rooms of one pattern. Each room runs it for itself, from the first member on.

    Raises:
        TypeError: the function is not a coroutine function, or has no first parameter for the room, or asks for
            anything but the pattern's parameters, `task_status` and, in a singleton, `fence`; or a setting has the
            wrong type.
        ValueError: a time is not finite, or too short.
    """

    function: Callable[..., Any]
    """A coroutine function `(room, ...)`. What it wants of the pattern's parameters, `task_status`, and `fence` it asks
    for by name. What it does not ask for is left out."""
    parameters: Collection[str] = ()
    """The names of the pattern's parameters: `["id"]` for "game:{id}"."""
    linger: float = 30.0
    """Seconds for which it goes on when the last member has left. Of several tasks of a room, the longest counts."""
    restart: Restart | None = Restart(max=3, within=60)  # noqa: RUF009 -- frozen
    """How often it is started again when it fails; `None` for never. After its last failure the room is given up."""
    start_timeout: float = 10.0
    """Seconds within which it must have called `task_status.started()`, if it asks for `task_status`: otherwise this
    run of it is cancelled, and has failed. A join waits that long at most, whatever it waits for."""
    singleton: bool = False
    """One process runs it, of all that share the broker: the one that has the lease."""
    lease: float = 10.0
    """Of a singleton: seconds within which another process takes over when the one that runs it dies."""
    name: str = field(init=False)
    """What the log calls it."""
    _wanted: tuple[str, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        name = name_of_task(self.function)
        if not inspect.iscoroutinefunction(self.function):
            raise TypeError(f"a room's task is a coroutine function, which {name} is not: write `async def`")
        check_first(self.function, name, self.parameters)
        check_seconds("linger", self.linger, zero=True)
        check_seconds("start_timeout", self.start_timeout)
        if self.restart is not None and not isinstance(self.restart, Restart):
            raise TypeError(f"restart is a verbtrio.Restart(...), or None for never, not {self.restart!r}")
        check_seconds("lease", self.lease)
        if not isinstance(self.singleton, bool):
            raise TypeError(f"singleton is True or False, not {self.singleton!r:.100}")
        if self.singleton and FENCE in self.parameters:
            raise TypeError(f"{name}: {FENCE!r} is the number of a singleton's lease: rename the pattern's parameter")
        own = (STATUS, FENCE) if self.singleton else (STATUS,)
        wanted = asked_for(self.function, name, (*self.parameters, *own), skip=1)
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "_wanted", wanted)

    @property
    def says_when_started(self) -> bool:
        """Whether joins wait for it to call `task_status.started()`."""
        return STATUS in self._wanted

    def arguments(self, values: Mapping[str, Any], status: object, fence: int | None = None) -> dict[str, Any]:
        """What it is called with, after the room.

        Args:
            values: the pattern's parameters, as this room's name has them.
            status: its `trio.TaskStatus`.
            fence: a singleton's; `None` for one that is none.
        """
        own = {STATUS: status} if fence is None else {STATUS: status, FENCE: fence}
        return {name: own[name] if name in own else values[name] for name in self._wanted}


def check_first(
    function: Callable[..., Any], name: str, parameters: Collection[str], *, define: str = "async def"
) -> None:
    """Raise `TypeError` where the first parameter can't take the room, or looks like one of the pattern's."""
    first = next(iter(inspect.signature(function).parameters.values()), None)
    if first is not None and first.kind is first.VAR_POSITIONAL:
        if parameters:
            raise TypeError(
                f"{name} takes `*{first.name}`, which does not say which of the pattern's parameters it takes "
                f"({', '.join(parameters)}): put @functools.wraps(...) on the function that its decorator makes"
            )
        return
    if first is None or first.kind in (first.KEYWORD_ONLY, first.VAR_KEYWORD):
        raise TypeError(f"{name} takes too few parameters; the first one is the room: write `{define} {name}(room)`")
    if first.name == STATUS:
        raise TypeError(f"{name}: the first parameter is the room; task_status comes after it: (room, *, task_status)")
    if first.name in parameters and not _is_annotated(first):
        is_room = first.name == "room"  # both what a task calls its room, and what patterns call their parameter
        instead = "(room: Room) or, if it needs both, (this, room)" if is_room else f"(room, {first.name})"
        raise TypeError(
            f"{name}: the first parameter is the room, and {first.name!r} is a parameter of the pattern: "
            f"write {instead}"
        )


def _is_annotated(parameter: inspect.Parameter) -> bool:
    """Whether its annotation, or the text of that, is `Room`, so that it can't be meant to be the pattern's."""
    annotation = parameter.annotation
    text = annotation if isinstance(annotation, str) else getattr(annotation, "__name__", "")
    return text.rpartition(".")[2] == "Room"
