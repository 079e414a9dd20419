"""Which settings a room has: those of the most specific pattern that matches its name. Pure.

The settings of that pattern count alone: they are not added to those of others that match. A room that no pattern
matches has nothing but its members, and no guard.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

from verbtrio.base.errors import Denied
from verbtrio.base.signatures import asked_for, name_of_task
from verbtrio.rooms.member import Member
from verbtrio.rooms.patterns import RoomPattern, Value
from verbtrio.rooms.room_task import RoomTask
from verbtrio.rooms.settings import Opening, RoomGuard, RoomSettings

CACHED_NAMES = 1024
"""Names whose rule is remembered, at most."""
CACHED_LENGTH = 128
"""Characters of such a name, at most. A client may send names of any length: what is remembered stays below 1 MiB."""


@dataclass(frozen=True, slots=True)
class RoomRule:
    """A pattern, and what its rooms have.

    Raises:
        TypeError: the guard asks for what the pattern doesn't have; or a function's annotation of a parameter
            contradicts the pattern.
    """

    pattern: RoomPattern
    settings: RoomSettings
    _asked: tuple[str, ...] = field(init=False, repr=False)
    """The parameters that the guard asks for."""

    def __post_init__(self) -> None:
        guard, parameters = self.settings.guard, self.pattern.parameters
        asked = () if guard is None else _asked(guard, parameters)
        functions = [task.function for task in self.settings.tasks]
        if guard is not None:
            functions.append(guard)
        if self.settings.on_gap is not None:
            functions.append(self.settings.on_gap.function)
        for function in functions:
            check_annotations(function, parameters)
        object.__setattr__(self, "_asked", asked)

    def parameters_of(self, name: str) -> dict[str, Value]:
        """The pattern's parameters, as the room `name` has them.

        Raises:
            ValueError: the pattern does not match this name.
        """
        values = self.pattern.match(name)
        if values is None:
            raise ValueError(f"{self.pattern!r} does not match {name!r:.100}")
        return values

    def ask_guard(self, member: Member, name: str) -> None:
        """Ask the guard whether `member` may join the room `name`. Without a guard everybody may.

        Raises:
            Denied: it may not; or what else the guard has raised.
            TypeError: the guard has returned something else than a `bool`, such as a coroutine, which would be true.
        """
        guard = self.settings.guard
        if guard is None:
            return
        values = self.parameters_of(name) if self._asked else {}
        admitted: object = guard(member, **{asked: values[asked] for asked in self._asked})
        if admitted is False:
            raise Denied("You may not join this room")
        if admitted is not True:
            if inspect.iscoroutine(admitted):
                admitted.close()  # or Python warns that nobody has awaited it
            kind = type(admitted).__name__  # not its value, which may be a user's claims
            raise TypeError(f"the guard {name_of_task(guard)} returned a {kind}: it must return True or False")


class RoomTable:
    """The patterns of an app, each with what its rooms have. It is filled before the app starts."""

    def __init__(self) -> None:
        self._rules: dict[RoomPattern, RoomRule] = {}  # the most specific first
        self._declared: set[RoomPattern] = set()  # those with settings; the others have only tasks so far
        self._cached = lru_cache(CACHED_NAMES)(self._find)

    def __len__(self) -> int:
        return len(self._rules)

    def __iter__(self) -> Iterator[RoomRule]:
        """The rules, the most specific first."""
        return iter(self._rules.values())

    def add(self, pattern: str | RoomPattern, settings: RoomSettings) -> None:
        """Add a pattern with what its rooms have.

        Raises:
            TypeError: it is not a pattern; an equal one has been added, or has tasks, and its parameters other names;
                or the guard asks for what the pattern doesn't have.
        """
        pattern = _as_pattern(pattern)
        if pattern in self._declared:
            raise TypeError(
                f"app.rooms has {self._rules[pattern].pattern.text!r} already, and {pattern.text!r} matches the same "
                f"names: write one app.rooms({pattern.text!r}, ...) with all that they have"
            )
        if (other := self._equal(pattern)) is not None:
            settings = replace(settings, tasks=(*settings.tasks, *other.settings.tasks))
        self._put(RoomRule(pattern, settings))
        self._declared.add(pattern)

    def add_task(self, pattern: str | RoomPattern, task: RoomTask) -> None:
        """Add a task to a pattern; to a new one without settings, if there is no equal one yet.

        Raises:
            TypeError: it is not a pattern, or there is an equal one whose parameters have other names; or the pattern
                has this task already.
        """
        pattern = _as_pattern(pattern)
        other = self._equal(pattern)
        settings = RoomSettings() if other is None else other.settings
        self._put(RoomRule(pattern, replace(settings, tasks=(*settings.tasks, task))))

    def open(self, pattern: str | RoomPattern, opening: Opening) -> None:
        """Open the rooms of a pattern that was added to clients, by this."""
        rule = self._rules[_as_pattern(pattern)]
        self._put(RoomRule(rule.pattern, replace(rule.settings, opening=opening)))

    def match(self, name: str) -> RoomRule | None:
        """What the room `name` has: the most specific of the rules whose pattern matches."""
        return self._cached(name) if len(name) <= CACHED_LENGTH else self._find(name)

    def describe(self) -> str:
        """The patterns in their order, each with what its rooms have, on one line; "" if there are none."""
        if not self._rules:
            return ""
        return "the rooms' patterns, the first that matches counts: " + "; ".join(
            f"{rule.pattern} ({rule.settings})" for rule in self
        )

    def _find(self, name: str) -> RoomRule | None:
        return next((rule for rule in self if rule.pattern.match(name) is not None), None)

    def _equal(self, pattern: RoomPattern) -> RoomRule | None:
        """The rule whose pattern matches the same names.

        Raises:
            TypeError: its parameters have other names.
        """
        other = self._rules.get(pattern)
        if other is not None and other.pattern.parameters.keys() != pattern.parameters.keys():
            raise TypeError(
                f"{pattern.text!r} matches the same names as {other.pattern.text!r}, and functions ask for the "
                f"parameters by name: write {other.pattern.text!r} here, too"
            )
        return other

    def _put(self, rule: RoomRule) -> None:
        functions = [task.function for task in rule.settings.tasks]
        for task in rule.settings.tasks:
            if functions.count(task.function) > 1:
                raise TypeError(f"{rule.pattern.text!r} has the task {task.name} already: leave one of them out")
        rules = {**self._rules, rule.pattern: rule}
        self._rules = {pattern: rules[pattern] for pattern in sorted(rules)}
        self._cached.cache_clear()


def _asked(guard: RoomGuard, parameters: Mapping[str, type]) -> tuple[str, ...]:
    """Which of the pattern's parameters the guard asks for.

    Raises:
        TypeError: it can't be called with the member and these.
    """
    name = name_of_task(guard)
    first = next(iter(inspect.signature(guard).parameters.values()), None)
    if first is None or first.kind in (first.KEYWORD_ONLY, first.VAR_KEYWORD):
        raise TypeError(f"the guard {name} takes too few parameters; the first one is the member: write (member)")
    if first.kind is first.VAR_POSITIONAL and parameters:
        raise TypeError(
            f"the guard {name} takes `*{first.name}`, which does not say which of the pattern's parameters it takes "
            f"({', '.join(parameters)}): put @functools.wraps(...) on the function that its decorator makes"
        )
    if first.name in parameters:
        raise TypeError(
            f"the guard {name}: the first parameter is the member, and {first.name!r} is a parameter of the pattern: "
            f"write (member, {first.name})"
        )
    return asked_for(guard, f"the guard {name}", parameters.keys(), skip=1)


def check_annotations(function: Callable[..., Any], parameters: Mapping[str, type]) -> None:
    """Raise `TypeError` where `id: int` asks for the text of "{id}", or `id: str` for the number of "{id:int}"."""
    for parameter in inspect.signature(function).parameters.values():
        there_is = parameters.get(parameter.name)
        if there_is is str and parameter.annotation in (int, "int"):
            what, write = "text", f"{{{parameter.name}:int}} in the pattern"
        elif there_is is int and parameter.annotation in (str, "str"):
            what, write = "a number", f"{{{parameter.name}}} in the pattern"
        else:
            continue
        raise TypeError(
            f"{name_of_task(function)} asks for `{parameter.name}: {_type_name(parameter.annotation)}`, and the "
            f"pattern's {parameter.name} is {what}: write {write}"
        )


def _type_name(annotation: object) -> str:
    return annotation if isinstance(annotation, str) else getattr(annotation, "__name__", repr(annotation))


def _as_pattern(pattern: str | RoomPattern) -> RoomPattern:
    return pattern if isinstance(pattern, RoomPattern) else RoomPattern(pattern)
