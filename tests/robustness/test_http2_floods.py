"""Floods of small HTTP/2 frames: they cost a client nothing, so beyond a rate they end its connection."""

from __future__ import annotations

from functools import partial

import pytest
import trio
from hyperframe.frame import PingFrame, PriorityFrame, RstStreamFrame, SettingsFrame, WindowUpdateFrame

from tests.robustness.probes import Figures, Probe, Target, figures_of
from tests.robustness.test_floods import beside, kept
from tests.support.http2_frames import HELLO, OPEN, POST, Answers, data, headers, replaced
from tests.support.process import Server
from tests.support.wire import KIB, MIB, plain

CALM = 11
"""ENHANCE_YOUR_CALM (RFC 9113 section 7)."""
UPLOAD = replaced(POST, b":path", b"/body")
BODY = headers(UPLOAD, flags=OPEN)


def many(count: int) -> bytes:
    """So many requests whose bodies are still to come."""
    return b"".join(headers(UPLOAD, stream=stream, flags=OPEN) for stream in range(1, 2 * count, 2))


def window(size: int) -> bytes:
    return SettingsFrame(0, settings={4: size}).serialize()


def priorities() -> bytes:
    """64 KB: 900 streams, one behind the other, which are then moved about with all that depend on them."""
    chain = [PriorityFrame(n, depends_on=max(n - 2, 0)) for n in range(1, 1800, 2)]
    moves = [PriorityFrame(n % 1800 | 1, depends_on=0, exclusive=True) for n in range(0, 7400, 2)]
    return b"".join(frame.serialize() for frame in (*chain, *moves))


FLOODS: dict[str, tuple[bytes, bytes, int, bool]] = {
    "PRIORITY frames (64 KB in one segment, most of them exclusive)": (b"", priorities(), 1, True),
    "PING frames": (b"", PingFrame(0, bytes(8)).serialize(), 20_000, True),
    "SETTINGS frames": (b"", SettingsFrame(0).serialize(), 20_000, True),
    "SETTINGS frames that change the windows of 100 open streams": (many(100), window(1) + window(2), 10_000, True),
    "WINDOW_UPDATE frames of the connection": (b"", WindowUpdateFrame(0, 1).serialize(), 20_000, True),
    "WINDOW_UPDATE frames of a stream": (BODY, WindowUpdateFrame(1, 1).serialize(), 20_000, True),
    "RST_STREAM frames": (BODY, RstStreamFrame(1, 8).serialize(), 20_000, True),
    "frames of unknown types": (b"", b"\0\0\x01\xee\0\0\0\0\0x", 20_000, True),
    "DATA frames without data": (BODY, data(b""), 20_000, True),
    "DATA frames of one byte": (BODY, data(b"x"), 60_000, False),
}
"""What it begins with, what is then sent again and again, how often, and whether it is refused."""

QUIET_SECONDS = 1.0
FLOOD_SECONDS = 2.0
PART_BYTES = 64 * KIB


async def flood(
    target: Target, n: int, figures: Figures, *, kind: str, quiet: float = QUIET_SECONDS, flooded: float = FLOOD_SECONDS
) -> None:
    """`n` of a kind from one client, and from another one until `flooded` seconds have gone, while another one echoes:
    its p99 before and meanwhile, and how many of the floods are ended for what they are."""
    first, each, _, _ = FLOODS[kind]
    figures["calmed"] = 0

    async def one(server: Server) -> None:
        answers = await said_to_flood(server, HELLO + first + each * n)
        figures["calmed"] += answers.goodbye == CALM

    await beside(target, figures, one, quiet=quiet, flooded=flooded)


async def said_to_flood(server: Server, flood: bytes) -> Answers:
    """Send it, half-close, and read until the server has worked through all of it, or hung up."""
    answers = Answers()
    async with plain(server.port) as wire:

        async def send() -> None:
            for at in range(0, len(flood), PART_BYTES):
                if not await wire.send(flood[at : at + PART_BYTES]):
                    return
            try:
                await wire.stream.send_eof()
            except trio.BrokenResourceError:
                pass  # it has hung up

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            while received := await wire.receive():
                answers.receive(received)
            nursery.cancel_scope.cancel()
    return answers


# The others, and more, are in tests/server/takeover/test_http2.py, without a process for each.
@pytest.mark.parametrize(
    "kind", [kind for kind in FLOODS if "PRIORITY" in kind or "100 open" in kind or "one byte" in kind]
)
async def test_a_flood_of_frames(kind: str) -> None:
    _, _, n, is_refused = FLOODS[kind]
    figures = await figures_of(partial(flood, kind=kind, quiet=0.05, flooded=0), min(n, 5000))
    assert (figures["finished"], figures["floods"], figures["calmed"]) == (True, 1, is_refused)
    assert figures["grown"] < 8 * MIB
    assert (figures["left"], figures["served"]) == (0, True)


def all_calmed(figures: Figures, *, is_refused: bool) -> bool:
    return kept(figures) and figures["calmed"] == (figures["floods"] if is_refused else 0)


PROBES = [
    Probe(
        f"{kind if n == 1 else f'{{n}} {kind}'}, again and again: another client's echoes take 10 ms at most (99 of "
        "100), or three times the quiet time"
        + (", and the flooding client gets GOAWAY with ENHANCE_YOUR_CALM" if is_refused else ""),
        partial(flood, kind=kind),
        n,
        "{quiet_ms:.1f} ms quiet, {p99_ms:.1f} ms meanwhile, {mib:.1f} MiB, {calmed} of {floods} ended for it",
        partial(all_calmed, is_refused=is_refused),
        limit=90,
    )
    for kind, (_, _, n, is_refused) in FLOODS.items()
]
