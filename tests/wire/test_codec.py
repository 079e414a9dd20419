"""The codec: what a stream of bytes means, however it was cut; the limits; an answer for every violation."""

from __future__ import annotations

import itertools
import random
import struct
import tracemalloc
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import wsproto.connection
import wsproto.events
import wsproto.extensions
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.extensions.permessage_deflate import PerMessageDeflate

from verbtrio.base.close import Cause
from verbtrio.messages.frame import Frame, encode
from verbtrio.wire.codec import Codec
from verbtrio.wire.events import Disconnect, Event, Pong

PROPERTY = settings(deadline=None, max_examples=150, derandomize=True)
CONT, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
RSV1, RSV2, RSV3 = 4, 2, 1
KIB = 1024


def frame(opcode: int, payload: bytes = b"", *, fin: bool = True, rsv: int = 0, masked: bool = True) -> bytes:
    """A client's frame (RFC 6455 section 5.2), valid or not."""
    mask_bit, size = masked << 7, len(payload)
    head = bytes([fin << 7 | rsv << 4 | opcode])
    if size < 126:
        head += bytes([mask_bit | size])
    elif size < 65536:
        head += struct.pack("!BH", mask_bit | 126, size)
    else:
        head += struct.pack("!BQ", mask_bit | 127, size)
    if not masked:
        return head + payload
    key = b"\x37\xfa\x21\x3d"
    return head + key + bytes(byte ^ mask for byte, mask in zip(payload, itertools.cycle(key), strict=False))


def close_frame(code: int, reason: bytes = b"") -> bytes:
    return frame(CLOSE, struct.pack("!H", code) + reason)


def fragments(opcode: int, *parts: bytes) -> bytes:
    last = len(parts) - 1
    return b"".join(frame(CONT if i else opcode, part, fin=i == last) for i, part in enumerate(parts))


def codec(limit: int = 64 * KIB, *, deflate: bool = False) -> Codec:
    """A codec; with `deflate` as our own negotiation sets it up."""
    extension = PerMessageDeflate(False, False, 12, 12, {"memLevel": 5})
    return Codec(max_message_bytes=limit, extensions=[extension] if deflate else [])


def converse(subject: Codec, *pieces: bytes) -> tuple[list[Event], bytes]:
    """Feed `pieces` one by one; all events and all replies."""
    events: list[Event] = []
    replies = b""
    for piece in pieces:
        events += subject.receive(piece)
        replies += subject.replies()
    return events, replies


def server_frames(data: bytes) -> list[tuple[int, bytes]]:
    """The control frames in the server's bytes: opcode and payload."""
    frames = []
    while data:
        head, size = data[:2]
        assert head & 0x80, "control frames are whole"
        assert size <= 125, "short, and not masked"
        frames.append((head & 0x7F, data[2 : 2 + size]))
        data = data[2 + size :]
    return frames


def close_code(replies: bytes) -> int:
    """The code of the Close frame that `replies` ends with."""
    opcode, payload = server_frames(replies)[-1]
    assert opcode == CLOSE
    payload[2:].decode()
    return int.from_bytes(payload[:2], "big")


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted({cut % (len(data) + 1) for cut in cuts}), len(data)]
    return [data[start:stop] for start, stop in itertools.pairwise(edges)]


@dataclass
class Said:
    """Bytes from a client and what they mean."""

    data: bytes
    events: list[Event]
    pongs: bytes = b""


def said_message(opcode: int, payload: bytes, cuts: list[int], pings: list[bytes]) -> Said:
    """A message in fragments, with a ping behind all but the last of them."""
    data = pongs = b""
    parts = pieces(payload, cuts)
    for i, part in enumerate(parts):
        data += frame(CONT if i else opcode, part, fin=i == len(parts) - 1)
        if pings and i < len(parts) - 1:
            ping = pings[i % len(pings)]
            data += frame(PING, ping)
            pongs += frame(PONG, ping, masked=False)
    return Said(data, [payload if opcode == BINARY else payload.decode()], pongs)


CUTS = st.lists(st.integers(0, 10_000), max_size=6)
CONTROL = st.binary(max_size=125)
MESSAGES = st.builds(
    said_message,
    st.just(TEXT),
    st.text(max_size=200).map(str.encode),
    CUTS,
    st.lists(CONTROL, max_size=2),
) | st.builds(said_message, st.just(BINARY), st.binary(max_size=200), CUTS, st.lists(CONTROL, max_size=2))
CONTROLS = st.builds(
    lambda payload: Said(frame(PING, payload), [], frame(PONG, payload, masked=False)), CONTROL
) | st.builds(lambda payload: Said(frame(PONG, payload), [Pong(payload)]), CONTROL)
INVALID_TEXT = st.builds(
    lambda payload, cuts: fragments(TEXT, *pieces(payload + b"\xff", cuts)), st.binary(max_size=20), CUTS
)


class TestCutting:
    @PROPERTY
    @given(
        said=st.lists(MESSAGES | CONTROLS, max_size=6),
        end=st.none() | st.tuples(st.sampled_from([1000, 1001, 1014, 3000, 4999]), st.text(max_size=30)),
        cuts=st.lists(st.integers(0, 10_000), max_size=20),
    )
    def test_a_valid_conversation(self, said: list[Said], end: tuple[int, str] | None, cuts: list[int]) -> None:
        data = b"".join(part.data for part in said)
        events = [event for part in said for event in part.events]
        replies = b"".join(part.pongs for part in said)
        if end is not None:
            code, reason = end
            data += close_frame(code, reason.encode()) + frame(TEXT, b"too late")
            events.append(Disconnect(Cause.PEER, code, reason))
            replies += frame(CLOSE, struct.pack("!H", code) + reason.encode(), masked=False)
        assert converse(codec(), *pieces(data, cuts)) == (events, replies)

    @PROPERTY
    @given(
        data=st.lists(
            MESSAGES.map(lambda said: said.data)
            | CONTROLS.map(lambda said: said.data)
            | INVALID_TEXT
            | st.binary(max_size=20)
            | st.sampled_from([close_frame(1000), frame(CLOSE), frame(CONT), frame(TEXT, fin=False), frame(3)]),
            max_size=6,
        ).map(b"".join),
        cuts=st.lists(st.integers(0, 10_000), max_size=20),
    )
    def test_anything_at_all(self, data: bytes, cuts: list[int]) -> None:
        """The rule of the codec's file: events and answers are the same however the stream was cut."""
        whole = converse(codec(), data)
        assert converse(codec(), *pieces(data, cuts)) == whole
        assert converse(codec(), *(data[i : i + 1] for i in range(len(data)))) == whole

    @PROPERTY
    @given(
        texts=st.lists(st.text(max_size=100).map(lambda text: text * 3), max_size=5),
        size=st.integers(1, 50),
        cuts=st.lists(st.integers(0, 10_000), max_size=20),
        bad=st.none() | st.tuples(st.integers(0, 10_000), st.integers(0, 255)),
    )
    def test_compressed(self, texts: list[str], size: int, cuts: list[int], bad: tuple[int, int] | None) -> None:
        """In fragments, over a context that is carried on, and with a byte that is not what it was."""
        compressor = zlib.compressobj(wbits=-12)
        data = b""
        for text in texts:
            compressed = compressor.compress(text.encode()) + compressor.flush(zlib.Z_SYNC_FLUSH)
            data += compressed_frames(compressed[:-4], size) + frame(PING, b"?")
        if bad is not None and data:
            at, byte = bad[0] % len(data), bad[1]
            data = data[:at] + bytes([byte]) + data[at + 1 :]
        whole = converse(codec(200, deflate=True), data)
        assert converse(codec(200, deflate=True), *pieces(data, cuts)) == whole
        assert converse(codec(200, deflate=True), *(data[i : i + 1] for i in range(len(data)))) == whole
        if bad is None and all(len(text.encode()) <= 200 for text in texts):
            assert whole[0] == texts

    @pytest.mark.parametrize(
        "behind", [frame(PING, b"x"), close_frame(1000), frame(3)], ids=["ping", "close", "violation"]
    )
    def test_what_stands_behind_invalid_text(self, behind: bytes) -> None:
        """In one read or in two: the text is answered with 1007, and what is behind it is not answered at all."""
        events, replies = converse(codec(), frame(TEXT, b"\xff") + behind)
        assert events == [Disconnect(Cause.PROTOCOL, 1007, "invalid UTF-8: invalid start byte")]
        assert close_code(replies) == 1007
        assert len(server_frames(replies)) == 1

    @PROPERTY
    @given(data=st.lists(st.binary(max_size=100), max_size=5), deflate=st.booleans())
    def test_nothing_raises(self, data: list[bytes], deflate: bool) -> None:
        subject = codec(50, deflate=deflate)
        converse(subject, *data)
        subject.close(1000, "")

    @PROPERTY
    @given(
        frames=st.lists(
            st.builds(
                frame,
                st.sampled_from([CONT, TEXT, BINARY, CLOSE, PING, PONG, 3, 15]),
                st.binary(max_size=140),
                fin=st.booleans(),
                rsv=st.sampled_from([0, 0, 0, RSV1, RSV2, RSV3]),
                masked=st.sampled_from([True, True, True, False]),
            ),
            max_size=8,
        ),
        deflate=st.booleans(),
    )
    def test_nothing_raises_for_frames(self, frames: list[bytes], deflate: bool) -> None:
        """Whatever comes, there is one end at most, it is the last event, and it is answered with one Close."""
        events, replies = converse(codec(100, deflate=deflate), *frames)
        ends = [event for event in events if isinstance(event, Disconnect)]
        assert ends == events[len(events) - len(ends) :]
        assert len(ends) <= 1
        opcodes = [opcode for opcode, _ in server_frames(replies)]
        assert opcodes.count(CLOSE) == len(ends)
        assert not ends or opcodes[-1] == CLOSE


class TestSize:
    """`max_message_bytes` counts bytes, after decompression, of the whole message."""

    @pytest.mark.parametrize(
        "data",
        [
            frame(TEXT, "€€€".encode()),
            fragments(TEXT, "€€€".encode()[:4], "€€€".encode()[4:]),
            fragments(BINARY, *[b"x"] * 9, b""),
            frame(BINARY, bytes(9)) * 3,
            frame(BINARY, bytes(5), fin=False) + frame(PING, b"1234") + frame(CONT, bytes(4)),
        ],
        ids=["single", "fragments", "single bytes", "many messages", "a ping between"],
    )
    def test_at_the_limit(self, data: bytes) -> None:
        events, _ = converse(codec(9), data)
        assert events
        assert not any(isinstance(event, Disconnect) for event in events)

    @pytest.mark.parametrize(
        "data",
        [
            frame(TEXT, "€€€".encode() + b"."),  # 4 characters
            fragments(TEXT, "€€".encode(), "€".encode(), b"."),
            fragments(BINARY, *[b"x"] * 10),
            frame(BINARY, bytes(9)) + frame(BINARY, bytes(10)),
            b"\x82\xff" + struct.pack("!Q", 2**62),  # the header alone, of a message that never comes
            b"\x82\xff" + struct.pack("!Q", 2**64 - 1),
        ],
        ids=["characters", "text fragments", "single bytes", "the second message", "announced", "negative length"],
    )
    def test_over_the_limit(self, data: bytes) -> None:
        events, replies = converse(codec(9), data)
        assert isinstance(events[-1], Disconnect)
        assert (events[-1].cause, events[-1].code, close_code(replies)) == (Cause.SIZE, 1009, 1009)

    @pytest.mark.parametrize(
        "data",
        [
            frame(PING, bytes(125)),
            frame(PONG, bytes(125)),
            frame(BINARY, bytes(8), fin=False) + frame(PING, b"keep-alive") + frame(CONT, bytes(1)),
            close_frame(4000, b"a reason of its own"),
        ],
        ids=["ping", "pong", "ping in a message", "close"],
    )
    def test_control_frames_are_no_messages(self, data: bytes) -> None:
        """A control frame has 125 bytes at most by itself; the message limit, or what is left of it, is not its."""
        events, _ = converse(codec(9), data)
        assert not any(isinstance(event, Disconnect) and event.cause is Cause.SIZE for event in events)

    @pytest.mark.parametrize("part", [1, 100, 10**6], ids=["tiny fragments", "fragments", "one frame"])
    def test_what_is_inflated_counts(self, part: int) -> None:
        compressed = deflate("€" * 333 + ".")  # 1000 bytes
        data = compressed_frames(compressed, part)
        assert converse(codec(1000, deflate=True), data)[0] == ["€" * 333 + "."]
        events, replies = converse(codec(999, deflate=True), data)
        assert isinstance(events[-1], Disconnect)
        assert (events[-1].cause, close_code(replies)) == (Cause.SIZE, 1009)

    def test_compression_that_does_not_pay(self) -> None:
        """What counts is the message: deflate makes random bytes longer."""
        message = random.Random(0).randbytes(1000)
        data = frame(BINARY, deflate(message), rsv=RSV1)
        assert len(data) > 1000
        assert codec(1000, deflate=True).receive(data) == [message]

    @pytest.mark.parametrize("part", [1000, 10**6], ids=["fragments", "one frame"])
    def test_a_bomb_stays_bounded(self, part: int) -> None:
        """20 MiB in 20 KiB, against a limit of 64 KiB."""
        bomb = compressed_frames(deflate(b"\0" * 20 * KIB * KIB), part)
        assert len(bomb) < 64 * KIB
        subject = codec(64 * KIB, deflate=True)
        tracemalloc.start()
        try:
            events = subject.receive(bomb)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert [type(event) for event in events] == [Disconnect]
        assert close_code(subject.replies()) == 1009
        assert peak < 512 * KIB


def deflate(data: str | bytes) -> bytes:
    """One message, compressed by RFC 7692 section 7.2.1."""
    compressor = zlib.compressobj(wbits=-12)
    payload = data.encode() if isinstance(data, str) else data
    return (compressor.compress(payload) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]


def compressed_frames(compressed: bytes, size: int) -> bytes:
    """`compressed` as a text message in fragments of `size`."""
    parts = [compressed[i : i + size] for i in range(0, len(compressed), size)]
    last = len(parts) - 1
    return b"".join(
        frame(CONT if i else TEXT, part, fin=i == last, rsv=0 if i else RSV1) for i, part in enumerate(parts)
    )


class TestDeflate:
    def wsproto_client(self) -> wsproto.connection.Connection:
        extension = wsproto.extensions.PerMessageDeflate()
        extension.finalize("permessage-deflate; server_max_window_bits=12; client_max_window_bits=12")
        return wsproto.connection.Connection(wsproto.connection.ConnectionType.CLIENT, [extension])

    def test_round_trip(self) -> None:
        """With an implementation of its own on the other end; the contexts are carried from message to message."""
        client, subject = self.wsproto_client(), codec(deflate=True)
        for text in ("", "é", "the same again " * 100, "the same again " * 100, "x" * 5000):
            assert subject.receive(client.send(wsproto.events.TextMessage(text))) == [text]
            wire = subject.encode(encode(text))
            client.receive_data(wire)
            assert "".join(event.data for event in client.events()) == text  # type: ignore[attr-defined]
        assert len(wire) < 100, "compressed"

    def test_messages_without_compression_are_taken_too(self) -> None:
        assert codec(deflate=True).receive(frame(TEXT, b"plain")) == ["plain"]

    def test_pings_between_compressed_fragments(self) -> None:
        whole = compressed_frames(deflate("hello hello hello"), 5)
        first = whole[: 2 + 4 + 5]
        events, replies = converse(codec(deflate=True), first + frame(PING, b"?") + whole[len(first) :])
        assert (events, replies) == (["hello hello hello"], frame(PONG, b"?", masked=False))

    @pytest.mark.parametrize(
        "data",
        [
            frame(TEXT, b"\xff\xff\xff\xff", rsv=RSV1),
            frame(TEXT, deflate("x"), rsv=RSV1 | RSV2),
            frame(TEXT, b"", rsv=RSV1, fin=False) + frame(CONT, b"", rsv=RSV1),
            frame(PING, b"", rsv=RSV1),
            frame(CLOSE, b"", rsv=RSV1),
        ],
        ids=["garbage", "RSV2", "RSV1 on a continuation", "RSV1 on a ping", "RSV1 on a close"],
    )
    def test_violations(self, data: bytes) -> None:
        events, replies = converse(codec(deflate=True), data)
        assert isinstance(events[-1], Disconnect)
        assert (events[-1].cause, events[-1].code, close_code(replies)) == (Cause.PROTOCOL, 1002, 1002)

    def test_invalid_text_in_a_compressed_message(self) -> None:
        events, replies = converse(codec(deflate=True), compressed_frames(deflate(b"ok\xff"), 3))
        assert isinstance(events[-1], Disconnect)
        assert (events[-1].code, close_code(replies)) == (1007, 1007)


VIOLATIONS: dict[str, tuple[bytes, int]] = {
    "unmasked": (frame(TEXT, b"x", masked=False), 1002),
    "RSV1": (frame(TEXT, b"x", rsv=RSV1), 1002),
    "RSV2": (frame(BINARY, b"x", rsv=RSV2), 1002),
    "RSV3": (frame(PING, b"x", rsv=RSV3), 1002),
    **{f"opcode {opcode}": (frame(opcode), 1002) for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)},
    "long ping": (frame(PING, bytes(126)), 1002),
    "long pong": (frame(PONG, bytes(126)), 1002),
    "long close": (close_frame(1000, bytes(124)), 1002),
    "fragmented ping": (frame(PING, fin=False), 1002),
    "fragmented pong": (frame(PONG, fin=False), 1002),
    "fragmented close": (frame(CLOSE, fin=False), 1002),
    "continuation without a beginning": (frame(CONT, b"x"), 1002),
    "continuation after the end": (fragments(TEXT, b"a", b"b") + frame(CONT, b"x"), 1002),
    "text in a fragmented message": (frame(TEXT, b"a", fin=False) + frame(TEXT, b"b"), 1002),
    "binary in a fragmented message": (frame(TEXT, fin=False) + frame(BINARY), 1002),
    "invalid UTF-8": (frame(TEXT, b"ok\xff"), 1007),
    "overlong UTF-8": (frame(TEXT, b"\xc0\xaf"), 1007),
    "a surrogate in UTF-8": (frame(TEXT, b"\xed\xa0\x80"), 1007),
    "over U+10FFFF": (frame(TEXT, b"\xf4\x90\x80\x80"), 1007),
    "an unfinished character": (frame(TEXT, "€".encode()[:2]), 1007),
    "invalid UTF-8 in the last fragment": (fragments(TEXT, b"ok", b"\xff"), 1007),
    "invalid UTF-8 across fragments": (fragments(TEXT, "€".encode()[:2], b"x"), 1007),
    "unfinished over all fragments": (fragments(TEXT, b"ok", "€".encode()[:2], b""), 1007),
    "close of one byte": (frame(CLOSE, b"\x03"), 1002),
    **{f"close code {c}": (close_frame(c), 1002) for c in (0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535)},
    "invalid UTF-8 in the reason": (close_frame(1000, b"\xff"), 1007),
}


class TestViolations:
    @pytest.mark.parametrize(("data", "code"), VIOLATIONS.values(), ids=VIOLATIONS)
    def test_is_answered_and_ends_it(self, data: bytes, code: int) -> None:
        subject = codec()
        assert subject.receive(frame(TEXT, b"before")) == ["before"]
        events, replies = converse(subject, data)
        assert isinstance(events[-1], Disconnect)
        assert (events[-1].cause, events[-1].code) == (Cause.PROTOCOL, code)
        assert close_code(replies) == code
        assert converse(subject, frame(TEXT, b"after"), frame(PING), close_frame(1000)) == ([], b"")
        assert subject.close(1011, "") == b"", "its Close frame was sent"

    def test_what_came_before_is_handed_out(self) -> None:
        events, _ = converse(codec(), frame(TEXT, b"one") + frame(BINARY, b"two") + frame(3) + frame(TEXT, b"three"))
        assert events[:2] == ["one", b"two"]
        assert len(events) == 3

    def test_invalid_text_shows_at_its_first_bad_byte(self) -> None:
        """Not when the message is complete: the peer may never complete it."""
        events, replies = converse(codec(), frame(TEXT, "€".encode()[:1], fin=False), frame(CONT, b"\xff", fin=False))
        assert [type(event) for event in events] == [Disconnect]
        assert close_code(replies) == 1007

    def test_binary_is_not_checked(self) -> None:
        data = frame(BINARY, b"\xff\xfe", fin=False) + frame(CONT, b"\xc3")
        assert codec().receive(data) == [b"\xff\xfe\xc3"]


class TestControl:
    def test_a_ping_is_answered_with_its_payload(self) -> None:
        assert converse(codec(), frame(PING, b"payload")) == ([], frame(PONG, b"payload", masked=False))

    def test_a_pong_is_an_event(self) -> None:
        assert converse(codec(), frame(PONG, b"?")) == ([Pong(b"?")], b"")

    @pytest.mark.parametrize("code", [1000, 1001, 1002, 1003, *range(1007, 1015), 3000, 4999])
    def test_a_close_is_echoed(self, code: int) -> None:
        events, replies = converse(codec(), close_frame(code, "wegen 3 €".encode()))
        assert events == [Disconnect(Cause.PEER, code, "wegen 3 €")]
        assert close_code(replies) == code

    @PROPERTY
    @given(st.binary(max_size=4) | st.binary(max_size=130), st.sampled_from([1000, 1001, 1005, 3000, 4999, 5000, None]))
    def test_a_close_alone_is_what_websockets_makes_of_it(self, said: bytes, code: int | None) -> None:
        """Taken apart here, or left to it (as it is behind a ping)."""
        data = frame(CLOSE, said if code is None else struct.pack("!H", code) + said)
        theirs = codec()
        converse(theirs, frame(PING))
        assert converse(codec(), data) == converse(theirs, data)
        assert theirs.close(1000, "") == b""

    def test_a_close_without_a_code(self) -> None:
        assert converse(codec(), frame(CLOSE)) == ([Disconnect(Cause.PEER, 1005, "")], b"\x88\x00")

    def test_a_close_in_the_middle_of_a_message(self) -> None:
        """A control frame may stand there (RFC 6455 section 5.4), this one too."""
        events, replies = converse(codec(), frame(TEXT, b"half", fin=False) + close_frame(4000), frame(CONT, b"late"))
        assert events == [Disconnect(Cause.PEER, 4000, "")]
        assert close_code(replies) == 4000

    def test_nothing_after_the_peers_close(self) -> None:
        subject = codec()
        events, _ = converse(subject, frame(TEXT, b"last") + close_frame(1000) + frame(TEXT, b"late"))
        assert events == ["last", Disconnect(Cause.PEER, 1000, "")]
        assert converse(subject, frame(TEXT, b"late"), frame(PING), frame(3)) == ([], b"")
        assert subject.close(1000, "") == b""

    def test_our_close(self) -> None:
        subject = codec()
        assert subject.close(4000, "why €") == frame(CLOSE, struct.pack("!H", 4000) + "why €".encode(), masked=False)
        assert subject.close(4001, "again") == b""
        assert subject.replies() == b""

    def test_our_close_without_a_code(self) -> None:
        assert codec().close(1005, "") == b"\x88\x00"

    def test_the_peers_answer_to_our_close(self) -> None:
        subject = codec()
        subject.close(4000, "")
        assert converse(subject, close_frame(4000)) == ([Disconnect(Cause.PEER, 4000, "")], b"")

    @pytest.mark.parametrize(
        "late",
        [frame(TEXT, b"late"), frame(BINARY, b"late"), fragments(TEXT, b"la", b"te")],
        ids=["text", "binary", "fragments"],
    )
    def test_no_message_after_our_close(self, late: bytes) -> None:
        """The rule of the codec's file: "after a Close frame, in or out, nothing ... reaches the handler"."""
        subject = codec()
        subject.close(1000, "")
        assert converse(subject, late, close_frame(1000))[0] == [Disconnect(Cause.PEER, 1000, "")]

    @pytest.mark.parametrize("payload", [b"", b"x" * 125])
    def test_our_ping(self, payload: bytes) -> None:
        assert codec().ping(payload) == frame(PING, payload, masked=False)


class TestEncode:
    def test_shares_the_frame_with_everybody(self) -> None:
        message = encode("to all")
        assert codec().encode(message) is codec().encode(message)

    @pytest.mark.parametrize("make", [lambda: encode("text"), lambda: encode(b"binary"), lambda: encode([1])])
    def test_each_peer_has_its_own_compression(self, make: Callable[[], Frame]) -> None:
        message = make()
        first, second = codec(deflate=True), codec(deflate=True)
        first.encode(encode("something else before " * 10))
        wires: list[Any] = [first.encode(message), second.encode(message)]
        assert all(wire[0] & 0x40 for wire in wires), "RSV1: compressed"
        assert wires[1][0] & 0x0F == (TEXT if message.text else BINARY)


@pytest.mark.parametrize("length", [b"\x85", b"\xfe\0\x05", b"\xff\0\0\0\0\0\0\0\x05"], ids=["7 bits", "16", "64"])
@pytest.mark.parametrize("first", [0x81, 0x82, 0x8A])
def test_each_form_of_a_length_says_the_same(length: bytes, first: int) -> None:
    """Longer than needed is not what RFC 6455 section 5.2 asks for, but must never be read as something else."""
    codec = Codec(max_message_bytes=1000)
    mask = b"\1\2\3\4"
    payload = bytes(byte ^ mask[at % 4] for at, byte in enumerate(b"hello"))
    events = codec.receive(bytes((first,)) + length + mask + payload)
    if first == 0x8A and length != b"\x85":  # a control frame has no long form
        assert isinstance(events[0], Pong | Disconnect)
    else:
        assert events == [{0x81: "hello", 0x82: b"hello", 0x8A: Pong(b"hello")}[first]]
