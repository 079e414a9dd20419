"""Messages on their way in: decoded to what the handler takes."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Annotated, Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from verbtrio.base.errors import MessageError
from verbtrio.base.types import JSON
from verbtrio.messages.decoder import INVALID_JSON, Decoder
from verbtrio.messages.frame import encode

PROPERTY = settings(deadline=None, max_examples=100, derandomize=True)


class Say(msgspec.Struct, tag_field="type", tag="say"):
    text: str


class Move(msgspec.Struct, tag_field="type", tag="move"):
    x: int
    y: int = 0


Bounded = Annotated[int, msgspec.Meta(ge=0, le=100)]


class Inner(msgspec.Struct):
    names: list[str]


class Outer(msgspec.Struct):
    inner: Inner


class Nested(msgspec.Struct):
    said: list[Say | Move]


NESTED_PROBLEM = "Object missing required field `x` - at `$.said[1]`"


def answer(kind: Any, message: str | bytes) -> str:
    """What the peer is answered with."""
    with pytest.raises(MessageError) as caught:
        Decoder(kind)(message)
    return str(caught.value)


class TestDecoder:
    @pytest.mark.parametrize("kind", [str | bytes, bytes | str])
    @pytest.mark.parametrize("message", ["text", b"binary", "", b"", "{"])
    def test_as_received(self, kind: Any, message: str | bytes) -> None:
        assert Decoder[Any](kind)(message) == message

    def test_text_alone(self) -> None:
        assert Decoder[str](str)("{") == "{"
        assert answer(str, b"x") == "Expected a text message, got a binary one"

    def test_binary_alone(self) -> None:
        assert Decoder[bytes](bytes)(b"{") == b"{"
        assert answer(bytes, "x") == "Expected a binary message, got a text one"

    @pytest.mark.parametrize("form", [str, str.encode])
    def test_json_in_text_and_binary_alike(self, form: Callable[[str], str | bytes]) -> None:
        assert Decoder[Any](dict)(form('{"x": [1, null]}')) == {"x": [1, None]}
        assert Decoder[Any](JSON)(form('"just a string"')) == "just a string"
        assert Decoder[Any](Say)(form('{"type": "say", "text": "é"}')) == Say("é")

    def test_a_union_is_told_apart_by_its_tag(self) -> None:
        decode = Decoder[Say | Move](Say | Move)
        assert decode('{"type": "move", "x": 1}') == Move(1)
        assert decode('{"text": "hi", "type": "say", "unknown": 1}') == Say("hi")

    def test_a_union_that_cannot_be_told_apart_shows_when_the_route_is_made(self) -> None:
        with pytest.raises(TypeError, match="must be tagged"):
            Decoder(Inner | Outer)

    @pytest.mark.parametrize(
        "message", ["", " ", "nope", "{", "[1]x", '"', "{'a': 1}", "NaN", "Infinity", '{"x": NaN}']
    )
    def test_no_json(self, message: str) -> None:
        assert answer(JSON, message) == INVALID_JSON == "Invalid JSON format"
        assert answer(Say, message) == INVALID_JSON

    @pytest.mark.parametrize("message", ["[]", "5", '"say"', "null", "true"])
    @pytest.mark.parametrize("kind", [dict, Say, Say | Move])
    def test_a_whole_of_the_wrong_kind(self, kind: Any, message: str) -> None:
        assert answer(kind, message) == INVALID_JSON

    @pytest.mark.parametrize(
        ("kind", "message", "expected"),
        [
            (Say, '{"type": "say", "text": 5}', "Expected `str`, got `int` - at `$.text`"),
            (Say, '{"type": "say"}', "Object missing required field `text`"),
            (Say | Move, "{}", "Object missing required field `type` (known: 'say', 'move')"),
            (Say | Move, '{"type": "stay"}', "Invalid value 'stay' - at `$.type` (known: 'say', 'move')"),
            (Say | Move, '{"type": 5}', "Expected `str` - at `$.type` (known: 'say', 'move')"),
            (Say, '{"type": "stay"}', "Invalid value 'stay' - at `$.type` (known: 'say')"),
            (Nested, '{"said": [{"type": "say", "text": "a"}, {"type": "move"}]}', NESTED_PROBLEM),
            (Nested, '{"said": [{"type": "stay"}]}', "Invalid value 'stay' - at `$.said[0].type`"),
            (Outer, '{"inner": {"names": ["a", 5]}}', "Expected `str`, got `int` - at `$.inner.names[1]`"),
            (Outer, '{"inner": []}', "Expected `object`, got `array` - at `$.inner`"),
            (dict[Bounded, int], '{"a": 1}', "Expected `int`, got `str` - at `key` in `$`"),
        ],
    )
    def test_the_answer_names_the_field(self, kind: Any, message: str, expected: str) -> None:
        assert answer(kind, message) == expected

    def test_the_answer_does_not_repeat_a_long_message(self) -> None:
        said = answer(Say | Move, f'{{"type": "{"x" * 100_000}"}}')
        assert len(said) < 500
        assert said.endswith("x' - at `$.type` (known: 'say', 'move')")

    @pytest.mark.parametrize("message", ["[" * 200_000, '{"x":' * 100_000, '{"x":[' * 50_000 + "]}" * 50_000])
    @pytest.mark.parametrize("kind", [JSON, dict])
    def test_deep_nesting(self, kind: Any, message: str) -> None:
        assert answer(kind, message) == INVALID_JSON

    @pytest.mark.parametrize(
        "message",
        ['{"x": "\\ud800"}', '{"x": "\\udc00\\ud800"}', '{"x": "\ud800"}', b'{"x": "\xff"}', b'{"x": "\xc3"}'],
    )
    def test_no_unicode(self, message: str | bytes) -> None:
        assert answer(dict, message) == INVALID_JSON

    def test_numbers(self) -> None:
        decode = Decoder[Any](JSON)
        assert decode("9" * 100) == int("9" * 100)
        assert decode("-0.0") == 0
        assert answer(dict, '{"x": 1e400}').startswith("Number out of range")
        assert answer(Move, '{"type": "move", "x": 1.5}') == "Expected `int`, got `float` - at `$.x`"

    @PROPERTY
    @given(message=st.binary() | st.text(alphabet=st.characters(exclude_categories=())))
    def test_nothing_but_message_errors(self, message: str | bytes) -> None:
        for kind in (str, bytes, str | bytes, JSON, dict, Say | Move, Outer):
            with suppress(MessageError):
                Decoder[Any](kind)(message)

    @PROPERTY
    @given(
        data=st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
            lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
            max_leaves=10,
        )
    )
    def test_round_trip(self, data: Any) -> None:
        if not isinstance(data, str):
            assert Decoder[Any](JSON)(encode(data).payload) == data


def test_a_type_that_json_has_no_form_for_shows_at_once() -> None:
    class Plain:
        pass

    with pytest.raises(TypeError, match=r"use a msgspec\.Struct"):
        Decoder(Plain)
