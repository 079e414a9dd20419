"""What an application calls where messages for a room were lost on the way here: `app.rooms(on_gap=...)`. Pure."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from verbtrio.base.signatures import asked_for, name_of_task
from verbtrio.rooms.room_task import check_first


@dataclass(frozen=True, slots=True)
class GapHook:
    """A function that is told of gaps in the rooms of one pattern.

    Raises:
        TypeError: it is not a function, has no first parameter for the room, or asks for anything but the pattern's
            parameters.
    """

    function: Callable[..., Any]
    """A plain function or a coroutine function `(room, ...)`. What it wants of the pattern's parameters, it asks for by
    name."""
    parameters: Collection[str] = ()
    """The names of the pattern's parameters."""
    name: str = field(init=False)
    """What the log calls it."""
    _wanted: tuple[str, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if not callable(self.function):
            raise TypeError(f"on_gap is a function (room, ...), not {self.function!r:.100}")
        name = name_of_task(self.function)
        check_first(self.function, name, self.parameters, define="def")
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "_wanted", asked_for(self.function, name, self.parameters, skip=1))

    def arguments(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """What it is called with, after the room. `values`: the pattern's parameters, as this room's name has them."""
        return {name: values[name] for name in self._wanted}
