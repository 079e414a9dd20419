"""Frames that RFC 6455 forbids: each is answered with its code, and the application is told the cause."""

from __future__ import annotations

import trio

from tests.robustness.probes import Figures, Probe, Target, events, figures_of, leaked, served, settled, warm
from tests.support.wire import (
    BINARY,
    CLOSE,
    CONTINUATION,
    FIN,
    PING,
    PONG,
    TEXT,
    close,
    frame,
    websocket,
)

INVALID: dict[str, tuple[bytes, int]] = {
    "unmasked": (frame(FIN | TEXT, b"x", mask=False), 1002),
    "unmasked ping": (frame(FIN | PING, b"x", mask=False), 1002),
    **{f"RSV{3 - n} on a message": (frame(FIN | 0x10 << n | TEXT, b"x"), 1002) for n in range(3)},
    **{f"RSV{3 - n} on a ping": (frame(FIN | 0x10 << n | PING), 1002) for n in range(3)},
    **{f"opcode {opcode}": (frame(FIN | opcode), 1002) for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)},
    **{
        f"{name} of 126 bytes": (frame(FIN | opcode, bytes(126)), 1002)
        for name, opcode in (("ping", PING), ("pong", PONG))
    },
    "close of 126 bytes": (close(1000, bytes(124)), 1002),
    "fragmented ping": (frame(PING), 1002),
    "fragmented pong": (frame(PONG), 1002),
    "fragmented close": (frame(CLOSE), 1002),
    "continuation of nothing": (frame(FIN | CONTINUATION, b"x"), 1002),
    "text within a message": (frame(TEXT, b"a") + frame(FIN | TEXT, b"b"), 1002),
    "binary within a message": (frame(TEXT, b"a") + frame(FIN | BINARY, b"b"), 1002),
    "invalid UTF-8": (frame(FIN | TEXT, b"ok\xff"), 1007),
    "overlong UTF-8": (frame(FIN | TEXT, b"\xc0\xaf"), 1007),
    "a surrogate in UTF-8": (frame(FIN | TEXT, b"\xed\xa0\x80"), 1007),
    "an unfinished character": (frame(FIN | TEXT, b"\xe2\x82"), 1007),
    "invalid UTF-8 over fragments": (frame(TEXT, b"\xe2\x82") + frame(FIN | CONTINUATION, b"x"), 1007),
    "invalid UTF-8 in the first fragment": (frame(TEXT, b"\xff"), 1007),
    "close of one byte": (frame(FIN | CLOSE, b"\x03"), 1002),
    **{f"close code {c}": (close(c), 1002) for c in (0, 999, 1004, 1005, 1006, 1015, 2999, 5000, 65535)},
    "invalid UTF-8 in a close reason": (close(1000, b"\xff"), 1007),
}


async def invalid_frames(target: Target, n: int, figures: Figures) -> None:
    """Each of `INVALID`, `n` times: how many are answered with their code, and told to the application by cause."""
    figures.update(tried=0, answered=0, wrong=[])
    expected = []
    async with target.serve() as server:
        before = await warm(server)
        begin = len(await events(server))
        for _ in range(n):
            for name, (data, code) in INVALID.items():
                figures["tried"] += 1
                expected.append(code)
                answer = None
                async with websocket(server.port) as wire:
                    await wire.send(data)
                    with trio.move_on_after(2):
                        answer = await wire.close_code()
                        await wire.to_end()
                if answer == code:
                    figures["answered"] += 1
                else:
                    figures["wrong"].append(f"{name}: {answer}")
        figures["left"] = leaked(before, await settled(server))
        told = [event[1:3] for event in (await events(server))[begin:] if event[0] == "close"]
        figures["told"] = sum(event == ["protocol", code] for event, code in zip(told, expected, strict=False))
        figures["tracebacks"] = server.log_text().count("Traceback")
        figures["served"] = await served(server)


async def test_invalid_frames() -> None:
    figures = await figures_of(invalid_frames, 1)
    assert figures["wrong"] == []
    assert figures["answered"] == figures["told"] == figures["tried"] == len(INVALID)
    assert (figures["left"], figures["tracebacks"], figures["served"]) == (0, 0, True)


PROBES = [
    Probe(
        f"{len(INVALID)} kinds of invalid frames: each is answered with its code (1002, 1007), and the application is "
        "told the cause",
        invalid_frames,
        1,
        "{answered} of {tried} answered, {told} told",
        lambda f: f["answered"] == f["told"] == f["tried"] and f["left"] == 0 and f["tracebacks"] == 0,
        limit=120,
    ),
]
