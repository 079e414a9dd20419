"""HTTP/2 frames as they come: cut into slices, and counted. Pure: the time is a parameter.

h2 takes apart at once whatever it is given, and a read may bring 7,000 frames. So it gets a few at a time, and other
tasks have their turns in between. Frames that cost a client nothing and bring it nothing (a PING, SETTINGS, an empty
DATA frame) are counted: beyond a rate, they only keep the server busy (RFC 9113 section 10.5).
"""

from __future__ import annotations

from collections.abc import Iterator

PREFACE_BYTES = 24
HEAD_BYTES = 9
SLICE_FRAMES = 8
"""Frames in a slice: they take a third of a millisecond; the most expensive ones take 2 ms."""
REQUEST_FRAMES = 4
"""What a request counts for: it begins a handler."""
SLICE_BYTES = 16 * 1024
"""The size of a slice, whatever its frames are."""

PER_SECOND = 100.0
BURST = 1000.0
"""Control frames that a client may send a second, and at once, in addition to those of its requests and responses."""
PER_REQUEST = 10.0
"""Control frames that belong to a request: it may be reset, and its priority and its window may change."""
PER_SENT_FRAME = 4.0
"""Control frames that belong to a DATA frame of ours: it is answered by two WINDOW_UPDATEs, and some clients measure
the line with a PING."""
MAX_SETTINGS = 32
"""Parameters in one SETTINGS frame. RFC 9113 knows six; nghttp2 takes as many as this."""
MAX_SETTINGS_FRAMES = 100
"""SETTINGS frames of one connection. h2 keeps every parameter it has received, known or not."""

MAX_BLOCK_BYTES = 64 * 1024
"""The size of a block of headers on the wire, with its CONTINUATION frames. h2 takes a megabyte, and decodes it at
once: 0.3 s."""

DATA, HEADERS, SETTINGS, CONTINUATION = 0x0, 0x1, 0x4, 0x9
ACK = END_STREAM = 0x1
END_HEADERS = 0x4


class Frames:
    """The frames of one connection, from its preface on."""

    def __init__(self) -> None:
        self._skip = PREFACE_BYTES  # bytes still to come of the preface, or of a frame's payload
        self._head = b""  # the part of a frame's head that has come
        self._debt = 0.0
        self._at = float("-inf")
        self._settings = 0
        self._block = 0
        self.is_flood = False
        """The client has sent more control frames than it may. The slices up to there have been returned."""

    def slices(self, data: bytes, now: float) -> Iterator[bytes]:
        """Cut `data`, received at `now` (seconds), into slices. Ends early at a flood."""
        self._debt = max(0.0, self._debt - (now - self._at) * PER_SECOND)
        self._at = now
        begin = at = frames = 0
        while at < len(data) and not self.is_flood:
            if self._skip:
                step = min(self._skip, len(data) - at, begin + SLICE_BYTES - at)
                self._skip -= step
                at += step
            else:
                more = data[at : min(at + HEAD_BYTES - len(self._head), begin + SLICE_BYTES)]
                at += len(more)
                self._head += more
                if len(self._head) == HEAD_BYTES:
                    kind = self._count(self._head)
                    self._skip = int.from_bytes(self._head[:3])
                    self._head = b""
                    frames += REQUEST_FRAMES if kind == HEADERS else 1
            if (frames >= SLICE_FRAMES and not self._skip) or at - begin >= SLICE_BYTES:
                yield data[begin:at]
                begin, frames = at, 0
        if at > begin:
            yield data[begin:at]

    def forgive(self, count: float) -> None:
        """`count` control frames belong to a request or a response."""
        self._debt = max(0.0, self._debt - count)

    def charge(self) -> None:
        """Count a frame that has brought nothing after all, but padding."""
        self._debt += 1
        self.is_flood = self.is_flood or self._debt > BURST

    def _count(self, head: bytes) -> int:
        """Count a frame by its head. Returns its type."""
        size, kind, flags = int.from_bytes(head[:3]), head[3], head[4]
        if kind == DATA and (size or flags & END_STREAM):
            return kind
        self._debt += 1
        if kind == SETTINGS and not flags & ACK:
            self._settings += 1
            self.is_flood = size > 6 * MAX_SETTINGS or self._settings > MAX_SETTINGS_FRAMES
        elif kind in (HEADERS, CONTINUATION):
            self._block += size
            self.is_flood = self._block > MAX_BLOCK_BYTES
            if flags & END_HEADERS:
                self._block = 0
        self.is_flood = self.is_flood or self._debt > BURST
        return kind
