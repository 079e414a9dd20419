"""Sequences of HTTP/2 frames at random: valid ones, invalid ones, and whatever is between."""

from __future__ import annotations

import random

import hpack

from tests.support.http2_frames import ATTACKS, CONNECT, GET, POST, PREFACE, Headers, replaced
from tests.support.wire import FIN, TEXT, close, frame, text

MAX_BYTES = 64 * 1024
"""The most that one client sends: what one read brings."""

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM, END_HEADERS, PADDED, WITH_PRIORITY = 0x1, 0x4, 0x8, 0x20
TYPES = [*range(10), 10, 16, 0xEE]

METHODS = [b"GET", b"POST", b"PUT", b"HEAD", b"CONNECT", b"connect", b"get", b"PRI", b"", b"G\xc9T"]
PATHS = [b"/", b"/body", b"/body", b"/ignored", b"/big", b"/stream", b"/room/a", b"/nowhere", b"*", b"/\xff", b""]
PROTOCOLS = [b"websocket", b"WebSocket", b"h2c", b"", b"\xff"]
FIELDS: Headers = [
    (b"content-length", b"5"),
    (b"content-length", b"abc"),
    (b"te", b"trailers"),
    (b"connection", b"upgrade"),
    (b"X-Upper", b"x"),
    (b"cookie", b"a=b"),
    (b"cookie", b"c"),
    (b"x", b"y" * 300),
    (b"x", b"\xe9\r\n"),
    (b":path", b"/"),
    (b":protocol", b"websocket"),
    (b":status", b"200"),
    (b"expect", b"100-continue"),
    (b"sec-websocket-extensions", b"permessage-deflate"),
]
SIZES = [0, 1, 2, 100, 1000, 16384, 2**24 - 1, 2**31 - 1, 2**31, 2**32 - 1]


class Sequence:
    """One client's, frame by frame."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._encoder = hpack.Encoder()
        self._last = -1  # the stream that was begun last
        self.frames: list[bytes] = []

    def fill(self) -> None:
        """Put all frames in."""
        chance = self._chance
        kinds = (self._request, self._body, self._tunnel, self._control, self._window, self._settings, self._odd)
        weights = (6, 5, 2, 4, 3, 1, 2)
        for kind in chance.choices(kinds, weights, k=chance.randrange(12)):
            kind()
        if chance.random() < 0.01 and self.frames:
            self.frames += [chance.choice(self.frames)] * chance.randrange(2000)
        if chance.random() < 0.1:
            chance.shuffle(self.frames)

    def _put(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if self._chance.random() < 0.1 and kind in (DATA, HEADERS, PUSH_PROMISE):
            padding = self._chance.choice((0, 1, 255))
            payload = bytes([padding]) + payload + bytes(padding if self._chance.random() < 0.8 else 0)
            flags |= PADDED
        if self._chance.random() < 0.02:
            flags = self._chance.randrange(256)
        size = len(payload) if self._chance.random() < 0.98 else self._chance.randrange(2**15)
        self.frames.append(size.to_bytes(3) + bytes([kind, flags]) + stream.to_bytes(4) + payload)

    def _begin(self) -> int:
        self._last += 2 if self._chance.random() < 0.95 else self._chance.choice((0, 1, 200))
        return max(self._last, 0)

    def _any(self) -> int:
        """A stream: the last one, one that there may be, the connection, or none."""
        return self._chance.choice(
            (max(self._last, 1), max(self._last, 1), self._chance.randrange(1, 30, 2), 0, 2**31 - 1)
        )

    def _head(self, stream: int, fields: Headers, flags: int) -> None:
        chance = self._chance
        block = self._encoder.encode(fields, huffman=chance.random() < 0.5)
        if chance.random() < 0.03:
            block = chance.randbytes(chance.randrange(40))
        if chance.random() < 0.1:
            block = chance.randrange(2**32).to_bytes(4) + b"\x10" + block
            flags |= WITH_PRIORITY
        if chance.random() < 0.15:
            at = chance.randrange(len(block) + 1)
            self._put(HEADERS, flags, stream, block[:at])
            for _ in range(chance.choice((0, 0, 0, 1, 20))):
                self._put(CONTINUATION, 0, stream, b"")
            self._put(CONTINUATION, END_HEADERS, stream if chance.random() < 0.95 else self._any(), block[at:])
        else:
            self._put(HEADERS, flags | END_HEADERS, stream, block)

    def _request(self) -> None:
        chance = self._chance
        has_body = chance.random() < 0.5
        fields = replaced(POST if has_body else GET, b":path", chance.choice(PATHS))
        if chance.random() < 0.1:
            fields = replaced(fields, b":method", chance.choice(METHODS))
        if chance.random() < 0.2:
            fields = [*fields, *chance.sample(FIELDS, chance.randrange(1, 3))]
        if chance.random() < 0.05:
            chance.shuffle(fields)
        if chance.random() < 0.05:
            del fields[chance.randrange(len(fields))]
        self._head(self._begin(), fields, 0 if has_body else END_STREAM)
        if has_body and chance.random() < 0.7:
            self._body()

    def _body(self) -> None:
        chance = self._chance
        stream = self._any()
        for _ in range(chance.choice((1, 1, 2, 5, 20))):
            self._put(DATA, 0, stream, bytes(chance.choice((0, 1, 5, 100, 1000))))
        if chance.random() < 0.6:
            self._put(DATA, END_STREAM, stream, bytes(chance.choice((0, 5, 16384))))
        elif chance.random() < 0.2:
            self._head(stream, [(b"trailer", b"x")], END_STREAM)

    def _tunnel(self) -> None:
        chance = self._chance
        fields = CONNECT
        if chance.random() < 0.2:
            fields = replaced(fields, b":protocol", chance.choice(PROTOCOLS))
        if chance.random() < 0.2:
            fields = replaced(fields, b":method", chance.choice(METHODS))
        if chance.random() < 0.2:
            fields = replaced(fields, b":path", chance.choice((b"/deflate", b"/nowhere", b"/\xff")))
        stream = self._begin()
        self._head(stream, fields, END_STREAM if chance.random() < 0.1 else 0)
        for _ in range(chance.randrange(4)):
            message = chance.choice((text("hello"), frame(TEXT, b"part"), close(1000), frame(FIN | TEXT | 0x40, b"x")))
            payload = message if chance.random() < 0.8 else chance.randbytes(20)
            self._put(DATA, END_STREAM if chance.random() < 0.1 else 0, stream, payload)

    def _control(self) -> None:
        chance = self._chance
        match chance.randrange(5):
            case 0:
                self._put(PING, chance.choice((0, 1)), 0, bytes(8))
            case 1:
                self._put(RST_STREAM, 0, self._any(), chance.randrange(20).to_bytes(4))
            case 2:
                self._put(PRIORITY, 0, self._any(), chance.choice((self._any(), 2**31 + 1)).to_bytes(4) + b"\x10")
            case 3:
                self._put(GOAWAY, 0, 0, self._any().to_bytes(4) + chance.randrange(20).to_bytes(4) + b"so long")
            case _:
                self._put(PUSH_PROMISE, END_HEADERS, self._any(), (2).to_bytes(4) + b"\x82")

    def _window(self) -> None:
        self._put(WINDOW_UPDATE, 0, self._any(), self._chance.choice(SIZES).to_bytes(4))

    def _settings(self) -> None:
        chance = self._chance
        pairs = [(chance.choice((*range(1, 10), 0xFFFF)), chance.choice(SIZES)) for _ in range(chance.randrange(4))]
        payload = b"".join(key.to_bytes(2) + value.to_bytes(4) for key, value in pairs)
        self._put(SETTINGS, chance.choice((0, 0, 0, 1)), 0, payload)

    def _odd(self) -> None:
        chance = self._chance
        self._put(chance.choice(TYPES), chance.randrange(256), self._any(), chance.randbytes(chance.randrange(30)))


def http2(chance: random.Random) -> bytes:
    """What one client sends, 64 KiB at most."""
    if chance.random() < 0.03:
        return b"".join(chance.choice(_ATTACKS))[:MAX_BYTES]
    sequence = Sequence(chance)
    sequence.fill()
    preface = PREFACE if chance.random() < 0.98 else PREFACE[: chance.randrange(24)]
    windows = [b"", b"\0\x04\0\0\0\0", b"\0\x04\x7f\xff\xff\xff", b"\0\x05\0\xff\xff\xff", b"\0\x01\0\0\0\0"]
    settings = chance.choice(windows)
    hello = len(settings).to_bytes(3) + b"\x04\0\0\0\0\0" + settings if chance.random() < 0.98 else b""
    return (preface + hello + b"".join(sequence.frames))[:MAX_BYTES]


_ATTACKS = list(ATTACKS.values())
