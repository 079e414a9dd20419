"""Patterns of room names: "chat:{room}" has settings, and these are those of each room whose name it matches. Pure.

    {name}          one or more characters except ":"
    {name:int}      a whole number, 0 or more, of 18 digits at most and without leading zeros: the parameter is an int
    {name:path}     one or more characters, whichever
    {{ and }}       a brace

All other characters stand for themselves. There is one way, at most, in which a pattern matches a name: what follows a
parameter says where it ends. So between two parameters there is a character that the first can't contain: a ":" after
`{name}`, anything but a digit after `{name:int}`. After `{name:path}` there is no other parameter.

That has three consequences. A match takes time in proportion to the name's length, which a client may have chosen.
Two patterns match the same names only if they differ in nothing but their parameters' names. And if every name that
one pattern matches is matched by another one, the first is the more specific in the order of the patterns, too.

A number has no leading zeros because "game:7" and "game:007" are two rooms. With one parameter, 7, they would be two
rooms for one game.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import total_ordering
from keyword import iskeyword
from types import MappingProxyType
from typing import TypeAlias

Value: TypeAlias = str | int

MAX_DIGITS = 18
"""Of a number: what fits into a signed integer of 64 bits, as databases have them."""


@dataclass(frozen=True, slots=True)
class _Kind:
    """What a parameter may contain.

    Attributes:
        rank: its place in the order of the patterns, after a literal character (0).
        type: the parameter's, made of what was matched.
        regex: what it matches.
        part: a regular expression for the characters that it may contain.
        end: what may follow it, for error messages.
    """

    rank: int
    type: type[str | int]
    regex: str
    part: str
    end: str


_KINDS = {
    "int": _Kind(1, int, rf"(0|[1-9][0-9]{{0,{MAX_DIGITS - 1}}})", "[0-9]*", "anything but a digit"),
    "": _Kind(2, str, "([^:]+)", "[^:]*", '":"'),
    "path": _Kind(3, str, "(.+)", "(?s:.*)", ""),
}
_END = (4, 0)
"""The end of a pattern, in the order."""

_PIECE = re.compile(r"\{\{|\}\}|\{[^{}]*\}|[{}]|[^{}]+")
_WILDCARD = re.compile(r"(?:^|(?<=:))(\*{1,2})(?=:|$)")
_PATH_PARAMETER = re.compile(r"(?:^|(?<=/)):([^\W\d]\w*)")


@dataclass(frozen=True, slots=True)
class _Parameter:
    name: str
    kind: _Kind
    text: str


@total_ordering
class RoomPattern:
    """A pattern of room names.

    Patterns are equal if they match the same names. The names of their parameters don't count. They sort by how
    specific they are, the most specific first: compared from the left, a character comes before a number, that before
    other text, that before a path, and the end comes last.

        chat:lobby < chat:{n:int} < chat:{room} < {kind}:{room} < {all:path}

    Of two that differ in what follows the same parameter ("{x}-log" and "{x}log"), the one in which more follows comes
    first: every name that it matches may be one of the other's, and not the other way round.

    Args:
        text: the pattern.

    Attributes:
        text: as it was written.
        parameters: its parameters by name, in their order, with the type of each.

    Raises:
        TypeError: it is not a pattern. The message says what to write.
    """

    __slots__ = ("_key", "_match", "parameters", "text")

    def __init__(self, text: str) -> None:
        if not isinstance(text, str):
            raise TypeError(f'a pattern of room names is a str, like "chat:{{room}}", not {text!r:.100}')
        pieces = list(_parse(text))
        parameters = [piece for piece in pieces if isinstance(piece, _Parameter)]
        _check(text, pieces, [parameter.name for parameter in parameters])
        self.text = text
        self.parameters = MappingProxyType({parameter.name: parameter.kind.type for parameter in parameters})
        self._key = tuple(_key(pieces))
        regex = "".join(piece.kind.regex if isinstance(piece, _Parameter) else re.escape(piece) for piece in pieces)
        self._match = re.compile(regex, re.DOTALL).fullmatch

    def match(self, name: str) -> dict[str, Value] | None:
        """The parameters that `name` has, or `None` if the pattern does not match it."""
        match = self._match(name)
        if match is None:
            return None
        values = zip(self.parameters.items(), match.groups(), strict=True)
        return {parameter: kind(value) for (parameter, kind), value in values}

    def __eq__(self, other: object) -> bool:
        return self._key == other._key if isinstance(other, RoomPattern) else NotImplemented

    def __lt__(self, other: object) -> bool:
        return self._key < other._key if isinstance(other, RoomPattern) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._key)

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return f"RoomPattern({self.text!r})"


_Piece: TypeAlias = str | _Parameter
"""A piece of a pattern: a parameter, or characters that stand for themselves. No two of the latter are neighbours."""


def _parse(text: str) -> Iterator[_Piece]:
    literal = ""
    for piece in _PIECE.findall(text):
        if piece in ("{{", "}}"):
            literal += piece[0]
        elif piece in ("{", "}"):
            raise _mistake(text, f'{piece!r} has no other brace: write "{{name}}" for a parameter, or {piece * 2!r}')
        elif piece[0] == "{":
            if literal:
                yield literal
            literal = ""
            yield _parameter(text, piece)
        else:
            literal += piece
    if literal:
        yield literal


def _parameter(text: str, piece: str) -> _Parameter:
    name, colon, convertor = piece[1:-1].partition(":")
    if not name.isidentifier() or iskeyword(name):
        raise _mistake(
            text, f"functions ask for parameters by name, and {name!r} is not one: write {{room}}, {{n:int}}"
        )
    if name == "task_status":
        raise _mistake(text, "a room's task asks for its own task_status by that name: name the parameter otherwise")
    if convertor not in _KINDS or (colon and not convertor):
        ways = f"{{{name}}}, {{{name}:int}} or {{{name}:path}}"
        raise _mistake(text, f"{piece} is not known: write {ways}")
    return _Parameter(name, _KINDS[convertor], piece)


def _check(text: str, pieces: list[_Piece], names: list[str]) -> None:
    """Raise `TypeError` for what is written well and yet no pattern."""
    if not pieces:
        raise _mistake(text, 'it is empty: for all rooms write "{name:path}"')
    for name in names:
        if names.count(name) > 1:
            raise _mistake(text, f"it has {name!r} twice: give one of them another name")
    literals = "{}".join(piece if isinstance(piece, str) else "" for piece in pieces)
    if (wildcard := _WILDCARD.search(literals)) is not None:
        instead = "{name}" if wildcard[1] == "*" else "{name:path}"
        raise _mistake(text, f"{wildcard[1]!r} stands only for itself: write {instead}")
    if (habit := _PATH_PARAMETER.search(literals)) is not None:  # nobody would notice that the rooms have no guard
        raise _mistake(text, f"{habit[0]!r} stands only for itself, unlike in a path: write {{{habit[1]}}}")
    for number, first in enumerate(pieces):
        rest = pieces[number + 1 :]
        if isinstance(first, _Parameter) and (second := _next(rest)) is not None:
            between = rest[0] if isinstance(rest[0], str) else ""
            if _tail(first, between) == len(between):
                raise _mistake(text, _no_end(first, second, between))


def _next(pieces: list[_Piece]) -> _Parameter | None:
    """The first parameter among `pieces`."""
    return next((piece for piece in pieces if isinstance(piece, _Parameter)), None)


def _tail(parameter: _Parameter, literal: str) -> int:
    """How many characters at the beginning of `literal` the parameter before it might contain."""
    match = re.match(parameter.kind.part, literal)
    assert match is not None
    return match.end()


def _no_end(first: _Parameter, second: _Parameter, between: str) -> str:
    """What is wrong if nothing between two parameters says where the first one ends."""
    if not first.kind.end:
        return f"{first.text} may contain everything, so it must be the last parameter: leave {second.text} out"
    why = f"{first.text} may contain {between!r}" if between else "they have nothing between them"
    return f"nothing says where {first.text} ends and {second.text} begins, since {why}: put {first.kind.end} between"


def _key(pieces: list[_Piece]) -> Iterator[tuple[int, int]]:
    """What patterns are compared by: a pair for each parameter and each character, and one for the end."""
    for piece, following in zip(pieces, [*pieces[1:], ""], strict=True):
        if isinstance(piece, _Parameter):
            yield piece.kind.rank, -_tail(piece, following) if isinstance(following, str) else 0
        else:
            yield from ((0, ord(character)) for character in piece)
    yield _END


def _mistake(text: str, what: str) -> TypeError:
    return TypeError(f"the pattern {text!r}: {what}")
