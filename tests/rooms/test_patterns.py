"""Which names a pattern of room names matches, with which parameters, and which of two patterns comes first."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import pairwise, product, takewhile
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from verbtrio.rooms.patterns import RoomPattern

# Patterns as lists of pieces, for a model that knows nothing of their text: a character, or the kind of a parameter.

KINDS = {"str": "", "int": ":int", "path": ":path"}
PIECES = ["a", "b", ":", "0", "1", *KINDS]
Pieces = list[str]


def written(pieces: Pieces, names: str = "abcdefghij") -> str:
    """The text of the pattern; its parameters are called a, b, and so on."""
    left = iter(names)
    return "".join(f"{{{next(left)}{KINDS[piece]}}}" if piece in KINDS else piece for piece in pieces)


def is_pattern(pieces: Pieces) -> bool:
    try:
        RoomPattern(written(pieces))
    except TypeError:
        return False
    return True


patterns = st.lists(st.sampled_from(PIECES), min_size=1, max_size=7).filter(is_pattern)
names = st.text("ab:01", max_size=8)
VALUES = {
    "str": st.text("ab01\n", min_size=1, max_size=4),
    "int": st.integers(0, 10**19).map(str),
    "path": st.text("ab:0\n", min_size=1, max_size=4),
}


@st.composite
def pairs(draw: st.DrawFn) -> tuple[Pieces, Pieces]:
    """Two patterns; often the second is the first with a part of it replaced, so that one may include the other."""
    first = draw(patterns)
    start = draw(st.integers(0, len(first)))
    end = draw(st.integers(start, len(first)))
    part = draw(st.lists(st.sampled_from(PIECES), max_size=3))
    second = first[:start] + part + first[end:]
    return (first, second) if second and is_pattern(second) else (first, draw(patterns))


# The model of a match: all ways in which the pieces can be given parts of a name.


def may_be(kind: str, part: str) -> bool:
    if kind == "int":
        return part.isascii() and part.isdigit() and str(int(part)) == part and len(part) <= 18
    return bool(part) and (kind == "path" or ":" not in part)


def ways(pieces: Pieces, name: str) -> Iterator[list[str | int]]:
    if not pieces:
        if not name:
            yield []
        return
    first, *rest = pieces
    if first not in KINDS:
        if name[:1] == first:
            yield from ways(rest, name[1:])
        return
    for end in range(1, len(name) + 1):
        if may_be(first, name[:end]):
            value = int(name[:end]) if first == "int" else name[:end]
            yield from ([value, *values] for values in ways(rest, name[end:]))


class TestMatch:
    @given(patterns, st.data())
    def test_as_the_model(self, pieces: Pieces, data: st.DataObject) -> None:
        """Whatever matches does so in one way."""
        one_of_its_own = st.tuples(*(VALUES.get(piece, st.just(piece)) for piece in pieces)).map("".join)
        name = data.draw(one_of_its_own | names)
        found = list(ways(pieces, name))
        assert len(found) <= 1
        values = RoomPattern(written(pieces)).match(name)
        assert (None if values is None else list(values.values())) == (found[0] if found else None)

    @pytest.mark.parametrize(
        ("pattern", "name", "values"),
        [
            ("lobby", "lobby", {}),
            ("lobby", "Lobby", None),
            ("lobby", "lobby\n", None),
            ("lobby", "", None),
            ("a.c", "abc", None),
            ("chat:{room}", "chat:lobby", {"room": "lobby"}),
            ("chat:{room}", "chat:", None),
            ("chat:{room}", "chat:a:b", None),
            ("chat:{room}", "chat:a b/c\n", {"room": "a b/c\n"}),
            ("chat:{room}", "chat:\ud800\x00é", {"room": "\ud800\x00é"}),
            ("{a}:{b}", "x:y", {"a": "x", "b": "y"}),
            ("{a}:{b}", "x:y:z", None),
            ("{a}:", "x:", {"a": "x"}),
            ("{a}-log", "x-log-log", {"a": "x-log"}),
            ("{a}-log", "-log", None),
            ("game:{id:int}", "game:7", {"id": 7}),
            ("game:{id:int}", "game:0", {"id": 0}),
            ("game:{id:int}", "game:" + "9" * 18, {"id": 10**18 - 1}),
            ("game:{id:int}", "game:1" + "0" * 18, None),
            ("game:{id:int}", "game:007", None),
            ("game:{id:int}", "game:00", None),
            ("game:{id:int}", "game:-1", None),
            ("game:{id:int}", "game:+1", None),
            ("game:{id:int}", "game:1_0", None),
            ("game:{id:int}", "game: 1", None),
            ("game:{id:int}", "game:1\n", None),
            ("game:{id:int}", "game:٣", None),
            ("game:{id:int}", "game:x", None),
            ("tile:{x:int},{y:int}", "tile:3,14", {"x": 3, "y": 14}),
            ("{all:path}", "a:b\n:", {"all": "a:b\n:"}),
            ("{all:path}", "", None),
            ("doc:{file:path}:edits", "doc:a:b:edits", {"file": "a:b"}),
            ("doc:{file:path}:edits", "doc::edits:edits", {"file": ":edits"}),
            ("doc:{file:path}:edits", "doc::edits", None),
            ("{{a}}", "{a}", {}),
            ("{{{a}}}", "{x}", {"a": "x"}),
            ("}}{{{a}", "}{x", {"a": "x"}),
            ("a*", "a*", {}),
            (":7", ":7", {}),
            ("{a}:b/7:c", "x:b/7:c", {"a": "x"}),
            ("a+(b)", "a+(b)", {}),
        ],
    )
    def test_some(self, pattern: str, name: str, values: dict[str, Any] | None) -> None:
        assert RoomPattern(pattern).match(name) == values

    def test_what_it_says_of_itself(self) -> None:
        pattern = RoomPattern("chat:{room}:{n:int}")
        assert pattern.text == "chat:{room}:{n:int}"
        assert dict(pattern.parameters) == {"room": str, "n": int}
        assert (str(pattern), repr(pattern)) == (pattern.text, "RoomPattern('chat:{room}:{n:int}')")


# The model of the order: whether every name of one pattern is one of another's, by trying all names at once. A place in
# a pattern is a piece, and how many characters that has taken; a name leads to a set of places.

Places = frozenset[tuple[int, int]]


def closure(places: Places, pieces: Pieces) -> Places:
    """With the places from which the next piece begins: a parameter that has taken something may be over."""
    more = {(piece + 1, 0) for piece, taken in places if piece < len(pieces) and pieces[piece] in KINDS and taken}
    return places | more


def step(places: Places, character: str, pieces: Pieces) -> Places:
    found = set()
    for piece, taken in places:
        kind = pieces[piece] if piece < len(pieces) else None
        if kind == character:
            found.add((piece + 1, 0))
        elif kind == "path" or (kind == "str" and character != ":"):
            found.add((piece, 1))
        elif kind == "int" and character in "01":
            if taken == 0:
                found.add((piece, 99 if character == "0" else 1))  # 99: nothing more may come
            elif taken < 18:
                found.add((piece, taken + 1))
    return closure(frozenset(found), pieces)


def includes(outer: Pieces, inner: Pieces) -> bool:
    """Whether every name of `inner` is one of `outer`'s."""
    start = (frozenset({(0, 0)}), frozenset({(0, 0)}))
    seen, waiting = {start}, [start]
    while waiting:
        in_outer, in_inner = waiting.pop()
        if (len(inner), 0) in in_inner and (len(outer), 0) not in in_outer:
            return False
        for character in "ab:01x":
            there = step(in_outer, character, outer), step(in_inner, character, inner)
            if there[1] and there not in seen:
                seen.add(there)
                waiting.append(there)
    return True


class TestOrder:
    def test_the_documented_one(self) -> None:
        texts = ["chat:lobby:x", "chat:lobby:{n}", "chat:lobby", "chat:{n:int}", "chat:{room}-log", "chat:{room}:x"]
        texts += ["chat:{room}", "{kind}:{room}", "{kind}", "{all:path}"]
        mixed = [RoomPattern(text) for text in texts]
        random.Random(1).shuffle(mixed)
        assert [pattern.text for pattern in sorted(mixed)] == texts

    @given(pairs())
    @example((["str", "a"], ["str", "b", "a"]))
    @example((["path", ":", "a"], ["path", ":", "b", ":", "a"]))
    @example((["int", "1", ":", "a"], ["int", "0", "1", ":", "a"]))
    def test_the_more_specific_comes_first(self, pair: tuple[Pieces, Pieces]) -> None:
        """Every name of one is matched by the other: then the one comes first."""
        one, other = (RoomPattern(written(pieces)) for pieces in pair)
        in_other, in_one = includes(pair[1], pair[0]), includes(pair[0], pair[1])
        assert (one == other) == (in_one and in_other)
        if in_other != in_one:
            assert (one < other) == in_other

    @given(st.lists(patterns, max_size=6))
    def test_it_is_total(self, many: list[Pieces]) -> None:
        made = [RoomPattern(written(pieces)) for pieces in many]
        for one, other in product(made, made):
            assert [one < other, one == other, one > other].count(True) == 1
            assert (one <= other) == (one < other or one == other)
        ordered = sorted(made)
        assert all(one <= other for one, other in pairwise(ordered))

    @given(patterns)
    def test_names_of_parameters_do_not_count(self, pieces: Pieces) -> None:
        one, other = RoomPattern(written(pieces)), RoomPattern(written(pieces, "klmnopqrst"))
        assert one == other
        assert hash(one) == hash(other)
        assert not one < other

    def test_with_something_else(self) -> None:
        pattern: Any = RoomPattern("a")
        assert pattern != "a"
        with pytest.raises(TypeError):
            _ = pattern < "a"


class TestMistakes:
    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("", r'the pattern \'\': it is empty: for all rooms write "\{name:path\}"'),
            ("chat:{room", r"'chat:\{room': '\{' has no other brace: write \"\{name\}\" for a parameter, or '\{\{'"),
            ("chat:room}", r"'\}' has no other brace: .* or '\}\}'"),
            ("{{a}", "'}' has no other brace"),
            ("{a}}", "'}' has no other brace"),
            ("{a{b}}", "'{' has no other brace"),
            ("{}", "by name, and '' is not one"),
            ("{1}", "by name, and '1' is not one"),
            ("{a-b}", "by name, and 'a-b' is not one"),
            ("{ a }", "by name, and ' a ' is not one"),
            ("{a\n}", "is not one"),
            ("{class}", "by name, and 'class' is not one"),
            ("{:int}", "by name, and '' is not one"),
            ("{task_status}", "name the parameter otherwise"),
            ("{a:str}", r"\{a:str\} is not known: write \{a\}, \{a:int\} or \{a:path\}"),
            ("{a:}", r"\{a:\} is not known"),
            ("{a:uuid}", r"\{a:uuid\} is not known"),
            ("{a:INT}", r"\{a:INT\} is not known"),
            ("{a:int:int}", r"\{a:int:int\} is not known"),
            ("{a}:{a:int}", "it has 'a' twice"),
            ("{a}{b}", r'where \{a\} ends and \{b\} begins, since they have nothing between them: put ":" between'),
            ("x{n:int}{b}", "they have nothing between them: put anything but a digit between"),
            ("{a}-{b}", r"where \{a\} ends and \{b\} begins, since \{a\} may contain '-': put \":\" between"),
            ("{n:int}0{b}", r"since \{n:int\} may contain '0': put anything but a digit between"),
            ("{p:path}:{b}", r"\{p:path\} may contain everything, so it must be the last parameter: leave \{b\} out"),
            ("{p:path}{b}", "it must be the last parameter"),
            ("*", r"'\*' stands only for itself: write \{name\}"),
            ("chat:*", r"'\*' stands only for itself: write \{name\}"),
            ("chat:*:x", r"'\*' stands only for itself: write \{name\}"),
            ("{a}:**", r"'\*\*' stands only for itself: write \{name:path\}"),
            (":room", r"':room' stands only for itself, unlike in a path: write \{room\}"),
            ("team/:name", r"':name' stands only for itself, unlike in a path: write \{name\}"),
            ("{a}/:name", r"':name' stands only for itself, unlike in a path: write \{name\}"),
        ],
    )
    def test_in_the_text(self, text: str, message: str) -> None:
        with pytest.raises(TypeError, match=message):
            RoomPattern(text)

    @pytest.mark.parametrize("value", [None, 5, b"chat", ["chat"], print])
    def test_no_text(self, value: Any) -> None:
        with pytest.raises(TypeError, match=r'is a str, like "chat:\{room\}", not '):
            RoomPattern(value)

    @given(st.text("{}:ab*1int"))
    def test_any_text(self, text: str) -> None:
        """It is a pattern, or a `TypeError`; without braces it matches itself."""
        try:
            pattern = RoomPattern(text)
        except TypeError:
            assert not text or "{" in text or "}" in text or "*" in text or text[0] == ":"
            return
        if not set(text) & set("{}"):
            assert pattern.match(text) == {}


def test_a_numbers_length() -> None:
    """As many digits as a database's integer surely has."""
    match = RoomPattern("{n:int}").match
    found = list(takewhile(lambda text: match(text) is not None, ("1" * size for size in range(1, 30))))
    assert len(found) == 18
