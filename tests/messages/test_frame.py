"""Messages on their way out: encoded once, as a server sends them."""

from __future__ import annotations

import enum
import math
from typing import Any

import msgspec
import pytest

from verbtrio.messages.frame import Frame, TransientFrame, encode, transient
from verbtrio.wire.codec import Codec


def wire(data: Any) -> bytes:
    """`data` as a server sends it."""
    return Codec(max_message_bytes=1).encode(encode(data))


class Say(msgspec.Struct, tag_field="type", tag="say"):
    text: str


class Colour(enum.StrEnum):
    RED = "red"


class TestEncode:
    @pytest.mark.parametrize(
        ("data", "payload", "text"),
        [
            ("héllo", "héllo".encode(), True),
            ("", b"", True),
            ('{"as": "it is"}', b'{"as": "it is"}', True),
            (Colour.RED, b"red", True),
            (b"\x00\xff", b"\x00\xff", False),
            (b"", b"", False),
            (bytearray(b"ab"), b"ab", False),
            (memoryview(b"abcdef")[::2], b"ace", False),
            ({"type": "ping"}, b'{"type":"ping"}', True),
            ([1, "é", None, True], '[1,"é",null,true]'.encode(), True),
            (None, b"null", True),
            (0, b"0", True),
            (2**70, str(2**70).encode(), True),
            (float("nan"), b"null", True),  # JSON has no NaN
            (Say("hi"), b'{"type":"say","text":"hi"}', True),
        ],
    )
    def test_by_type(self, data: Any, payload: bytes, text: bool) -> None:
        frame = encode(data)
        assert (frame.payload, frame.text) == (payload, text)

    def test_what_json_has_no_form_for(self) -> None:
        with pytest.raises(TypeError, match="object"):
            encode({"x": object()})

    @pytest.mark.parametrize("data", ["\ud800", {"x": "\udfff"}])
    def test_a_lone_surrogate(self, data: Any) -> None:
        with pytest.raises(UnicodeEncodeError):
            encode(data)

    def test_a_buffer_is_copied(self) -> None:
        buffer = bytearray(b"before")
        frame = encode(buffer)
        buffer[:] = b"after!"
        assert frame.payload == b"before"


class TestFrame:
    @pytest.mark.parametrize(
        ("size", "header"),
        [
            (0, b"\x82\x00"),
            (125, b"\x82\x7d"),
            (126, b"\x82\x7e\x00\x7e"),
            (65535, b"\x82\x7e\xff\xff"),
            (65536, b"\x82\x7f\x00\x00\x00\x00\x00\x01\x00\x00"),
        ],
    )
    def test_wire_format(self, size: int, header: bytes) -> None:
        """RFC 6455 section 5.2: the shortest form of the length, no mask."""
        assert wire(bytes(size)) == header + bytes(size)

    def test_text_has_its_own_opcode(self) -> None:
        assert wire("é") == b"\x81\x02\xc3\xa9"


class TestTransient:
    def test_is_the_same_message(self) -> None:
        frame = encode("é")
        made = transient(frame, "room", "key", 5, now=100.0)
        assert isinstance(made, Frame)
        assert (made.payload, made.text, made.wire, len(made)) == (frame.payload, True, frame.wire, 2)
        assert (made.key, made.expires) == (("room", "key"), 105.0)
        assert made.wire is frame.wire, "no copy"

    def test_without_a_key_or_a_time(self) -> None:
        assert transient(encode("x"), "room", None, 0.5, now=1.0).key is None
        assert transient(encode("x"), "room", "", None, now=1.0).expires == math.inf

    @pytest.mark.parametrize("key", [5, b"key", ("a", "b"), True])
    def test_a_key_is_text(self, key: Any) -> None:
        with pytest.raises(TypeError, match=r"key is text, not .*: use key=str\(\.\.\.\)"):
            transient(encode("x"), "room", key, None, now=0.0)

    @pytest.mark.parametrize("ttl", ["5", True, 1j])
    def test_a_time_is_a_number(self, ttl: Any) -> None:
        with pytest.raises(TypeError, match=r"^ttl is a number of seconds, not"):
            transient(encode("x"), "room", None, ttl, now=0.0)

    @pytest.mark.parametrize("ttl", [0, -1, -0.5, math.inf, math.nan])
    def test_that_is_finite_and_in_the_future(self, ttl: float) -> None:
        with pytest.raises(ValueError, match=r"^ttl is a number of seconds, more than 0 and finite, not"):
            transient(encode("x"), "room", None, ttl, now=0.0)

    def test_a_plain_frame_has_neither(self) -> None:
        """It is shared by the hot path: what only some messages have costs the others nothing."""
        assert TransientFrame.__slots__ == ("expires", "key")
        assert not hasattr(encode("x"), "key")
