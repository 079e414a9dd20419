"""HTTP/2 as no client speaks it: odd pseudo-headers, late data, and worse; with prior knowledge, in clear text."""

from __future__ import annotations

from dataclasses import dataclass, field

import hpack
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    PushPromiseFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

Headers = list[tuple[bytes, bytes]]

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HELLO = PREFACE + SettingsFrame(0).serialize()

METHOD, PATH = (b":method", b"GET"), (b":path", b"/nowhere")
SCHEME, AUTHORITY = (b":scheme", b"http"), (b":authority", b"x")
GET: Headers = [METHOD, PATH, SCHEME, AUTHORITY]
POST: Headers = [(b":method", b"POST"), PATH, SCHEME, AUTHORITY]
CONNECT: Headers = [
    (b":method", b"CONNECT"),
    (b":protocol", b"websocket"),
    (b":path", b"/ws"),
    SCHEME,
    AUTHORITY,
    (b"sec-websocket-version", b"13"),
]


def headers(fields: Headers, *, stream: int = 1, flags: tuple[str, ...] = ("END_HEADERS", "END_STREAM")) -> bytes:
    return HeadersFrame(stream, hpack.Encoder().encode(fields, huffman=False), flags=flags).serialize()


def data(payload: bytes, *, stream: int = 1, flags: tuple[str, ...] = ()) -> bytes:
    return DataFrame(stream, payload, flags=flags).serialize()


def without(fields: Headers, name: bytes) -> Headers:
    return [(n, v) for n, v in fields if n != name]


def replaced(fields: Headers, name: bytes, value: bytes) -> Headers:
    return [(n, value if n == name else v) for n, v in fields]


def raw(kind: type[Frame], stream: int, body: bytes) -> bytes:
    """A frame whose body is as given, valid or not."""
    return len(body).to_bytes(3) + bytes([kind.type or 0, 0]) + stream.to_bytes(4) + body


def reset(stream: int = 1) -> bytes:
    return RstStreamFrame(stream, 8).serialize()


@dataclass
class Answers:
    """What a server has said, as far as tests ask.

    Attributes:
        statuses: by stream.
        resets: the error code of each stream that was reset.
        goodbye: the GOAWAY's error code.
    """

    statuses: dict[int, bytes] = field(default_factory=dict)
    resets: dict[int, int] = field(default_factory=dict)
    goodbye: int | None = None
    _decoder: hpack.Decoder = field(default_factory=hpack.Decoder)
    _received: bytearray = field(default_factory=bytearray)

    def receive(self, data: bytes) -> None:
        received = self._received
        received += data
        while len(received) >= 9 and len(received) >= (end := 9 + int.from_bytes(received[:3])):
            kind, stream, payload = received[3], int.from_bytes(received[5:9]), bytes(received[9:end])
            del received[:end]
            if kind == HeadersFrame.type:
                self.statuses[stream] = dict(self._decoder.decode(payload, raw=True))[b":status"]
            elif kind == RstStreamFrame.type:
                self.resets[stream] = int.from_bytes(payload)
            elif kind == GoAwayFrame.type:
                self.goodbye = int.from_bytes(payload[4:8])


OPEN: tuple[str, ...] = ("END_HEADERS",)

ATTACKS: dict[str, tuple[bytes, ...]] = {
    **{
        f"without {name.decode()}": (HELLO + headers(without(GET, name)),)
        for name in (b":method", b":path", b":scheme", b":authority")
    },
    **{
        f"{name.decode()} {value!r}": (HELLO + headers(replaced(GET, name, value)),)
        for name, value in (
            (b":method", b"caf\xe9"),
            (b":method", b""),
            (b":method", b"GET\r\nX: y"),
            (b":path", b"/\xff\xfe"),
            (b":path", b"/nowhere?\xff"),
            (b":path", b""),
            (b":path", b"*"),
            (b":path", b"nowhere"),
            (b":scheme", b"\xff"),
            (b":authority", b"\xff"),
        )
    },
    "two :method": (HELLO + headers([METHOD, *GET]),),
    "two :path": (HELLO + headers([PATH, *GET]),),
    ":status in a request": (HELLO + headers([*GET, (b":status", b"200")]),),
    "an unknown pseudo-header": (HELLO + headers([*GET, (b":what", b"ever")]),),
    "a pseudo-header behind a header": (HELLO + headers([(b"a", b"b"), *GET]),),
    ":protocol on a GET": (HELLO + headers([*GET, (b":protocol", b"websocket")]),),
    "an upper-case header": (HELLO + headers([*GET, (b"X-Upper", b"b")]),),
    "a non-ASCII header": (HELLO + headers([*GET, (b"caf\xe9", b"\xe9")]),),
    "a bad content-length": (HELLO + headers([*POST, (b"content-length", b"abc")], flags=OPEN) + data(b"x"),),
    "a short content-length": (HELLO + headers([*POST, (b"content-length", b"1")], flags=OPEN) + data(b"xyz"),),
    "connection: upgrade": (HELLO + headers([*GET, (b"connection", b"upgrade")]),),
    "CONNECT": (HELLO + headers([(b":method", b"CONNECT"), AUTHORITY]),),
    "CONNECT without :path": (HELLO + headers(without(CONNECT, b":path"), flags=OPEN),),
    "CONNECT without :protocol": (HELLO + headers(without(CONNECT, b":protocol"), flags=OPEN),),
    "CONNECT to a \\xff path": (HELLO + headers(replaced(CONNECT, b":path", b"/\xff"), flags=OPEN),),
    "CONNECT of another protocol": (HELLO + headers(replaced(CONNECT, b":protocol", b"\xff"), flags=OPEN),),
    "CONNECT of another version": (HELLO + headers(replaced(CONNECT, b"sec-websocket-version", b"\xb2"), flags=OPEN),),
    "CONNECT that ends at once": (HELLO + headers(CONNECT),),
    "CONNECT, garbage": (HELLO + headers(CONNECT, flags=OPEN), data(b"\xff" * 1000)),
    "CONNECT, reset": (HELLO + headers(CONNECT, flags=OPEN), reset(), data(b"late")),
    "CONNECT, data behind the end": (
        HELLO + headers(CONNECT, flags=OPEN),
        data(b"\x88\x80\0\0\0\0", flags=("END_STREAM",)),
        data(b"late"),
    ),
    "late data": (HELLO + headers(replaced(POST, b":path", b"/nowhere"), flags=OPEN), data(b"late"), data(b"later")),
    "late data with the end": (
        HELLO + headers(replaced(POST, b":path", b"/nowhere"), flags=OPEN),
        data(b"late", flags=("END_STREAM",)),
    ),
    "data behind the end": (HELLO + headers(GET) + data(b"x"),),
    "data before the headers": (HELLO + data(b"x"),),
    "data on a stream that was reset": (HELLO + headers(POST, flags=OPEN) + reset() + data(b"x"),),
    "data on stream 0": (HELLO + raw(DataFrame, 0, b"x"),),
    "headers on an even stream": (HELLO + headers(GET, stream=2),),
    "headers on a lower stream": (HELLO + headers(GET, stream=5) + headers(GET, stream=3),),
    "headers twice": (HELLO + headers(GET) + headers(GET),),
    "trailers with a pseudo-header": (HELLO + headers(POST, flags=OPEN) + headers([PATH]),),
    "bad header compression": (HELLO + HeadersFrame(1, b"\xff" * 50, flags=OPEN).serialize(),),
    "an endless header block": (
        HELLO
        + HeadersFrame(1, b"\x40", flags=()).serialize()
        + ContinuationFrame(1, b"\x01a\x01b" * 1000).serialize() * 100,
    ),
    "a continuation of nothing": (HELLO + ContinuationFrame(1, b"").serialize(),),
    "a stream that depends on itself": (HELLO + PriorityFrame(1, depends_on=1).serialize() + headers(GET),),
    "streams that depend on each other": (
        HELLO
        + PriorityFrame(3, depends_on=1).serialize()
        + PriorityFrame(1, depends_on=3, exclusive=True).serialize()
        + headers(GET)
        + headers(GET, stream=3),
    ),
    "priorities of ten thousand streams": (
        HELLO + b"".join(PriorityFrame(n, depends_on=0).serialize() for n in range(1, 20_001, 2)),
    ),
    "priority of stream 0": (HELLO + raw(PriorityFrame, 0, bytes(5)),),
    "a window update of 0": (HELLO + headers(POST, flags=OPEN) + raw(WindowUpdateFrame, 1, bytes(4)),),
    "a window update too far": (HELLO + WindowUpdateFrame(0, 2**31 - 1).serialize() * 2,),
    "a window update for an idle stream": (HELLO + WindowUpdateFrame(9, 10).serialize(),),
    "a reset of an idle stream": (HELLO + reset(9),),
    "a reset while it is answered": (HELLO + headers(GET) + reset(),),
    "a thousand resets": (HELLO + b"".join(headers(GET, stream=n) + reset(n) for n in range(1, 2001, 2)),),
    "a thousand streams": (HELLO + b"".join(headers(POST, stream=n, flags=OPEN) for n in range(1, 2001, 2)),),
    "bad settings": (PREFACE + raw(SettingsFrame, 0, b"\0\x04\xff\xff\xff\xff"),),
    "settings of an odd length": (PREFACE + raw(SettingsFrame, 0, b"\0\x04\xff"),),
    "settings on a stream": (HELLO + raw(SettingsFrame, 1, b""),),
    "a tiny frame size": (PREFACE + raw(SettingsFrame, 0, b"\0\x05\0\0\0\x01"),),
    "no window at all": (PREFACE + SettingsFrame(0, settings={4: 0}).serialize() + headers(GET),),
    "a push from the client": (HELLO + headers(POST, flags=OPEN) + PushPromiseFrame(1, 2, b"").serialize(),),
    "a long ping": (HELLO + raw(PingFrame, 0, bytes(9)),),
    "ten thousand pings": (HELLO + PingFrame(0, bytes(8)).serialize() * 10_000,),
    "ten thousand settings": (HELLO + SettingsFrame(0).serialize() * 10_000,),
    "goodbye, then a request": (HELLO + GoAwayFrame(0).serialize() + headers(GET),),
    "an unknown frame": (HELLO + b"\0\0\x01\xee\0\0\0\0\x01x" + headers(GET),),
    "a frame that is too long": (HELLO + b"\xff\xff\xff\0\0\0\0\0\x01" + bytes(100_000),),
    "padding longer than the frame": (HELLO + headers(POST, flags=OPEN) + b"\0\0\x02\0\x08\0\0\0\x01\xff\xff",),
}
"""Each a conversation: what is sent in one go, then a pause for the answer, then what is sent next."""
