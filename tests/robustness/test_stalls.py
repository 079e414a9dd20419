"""Requests and messages made to have a parser go over the same bytes again and again (CWE-1333, CWE-407)."""

from __future__ import annotations

import contextlib
from functools import partial

import pytest
import trio

from tests.robustness.probes import ONE_PROCESS, STOCK, Figures, Probe, Target, figures_of
from tests.robustness.test_floods import beside, kept
from tests.support.process import Server
from tests.support.wire import HEADERS, MIB, open_wire, plain, text

FORWARDED = Target("verbtrio", "tests.apps.stalls:app")
"""Its client's address comes from `Forwarded`, and one of its routes takes numbers for keys."""
BLANKS = " " * 15_000
LINES = "Connection: a\r\n" * 1000
POST = "POST /body HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
COLLIDING = "{" + ",".join(f'"{7 + key * (2**61 - 1)}":0' for key in range(20_000)) + "}"
"""Numbers that have one hash: each as a key has to be compared with all before it."""

REQUESTS = {
    "a `Forwarded` header with 15,000 blanks": f"GET / HTTP/1.1\r\nHost: x\r\nForwarded: for=1.2.3.4,{BLANKS}\r\n\r\n",
    "a header with 15,000 blanks and a NUL": f"GET / HTTP/1.1\r\nHost: x\r\nX:{BLANKS}\0\r\n\r\n",
    "a header with 15,000 blanks and a bare CR": f"GET / HTTP/1.1\r\nHost: x\r\nX:{BLANKS}\rx\r\n\r\n",
    "an upgrade with 15,000 blanks and a NUL": f"GET /ws HTTP/1.1\r\n{HEADERS}X:{BLANKS}\0\r\n\r\n",
    "a trailer with 15,000 blanks and a NUL": f"{POST}0\r\nX:{BLANKS}\0\r\n\r\n",
    "the line before a chunk with 15,000 blanks": f"{POST}0;{BLANKS}\nx\r\n",
    "1,000 lines of one header": f"GET /ws HTTP/1.1\r\n{HEADERS}{LINES}\r\n",
}
MESSAGES = {f"a message of {len(COLLIDING) // 1024} KiB whose keys have one hash": COLLIDING}

QUIET_SECONDS = 1.0
STALL_SECONDS = 2.0


async def stall(
    target: Target, n: int, figures: Figures, *, kind: str, quiet: float = QUIET_SECONDS, flooded: float = STALL_SECONDS
) -> None:
    """`n` of a kind, and again until `flooded` seconds have gone, while another client echoes: its p99."""

    async def one(server: Server) -> None:
        for _ in range(n):
            if kind in MESSAGES:
                await say(server, MESSAGES[kind])
            else:
                await ask(server, REQUESTS[kind].encode("latin-1"))

    await beside(target if target is STOCK else FORWARDED, figures, one, quiet=quiet, flooded=flooded)


async def ask(server: Server, request: bytes) -> None:
    """Send it, half-close, and read to the end, however that comes."""
    async with plain(server.port) as wire:
        await wire.send(request)
        with contextlib.suppress(trio.BrokenResourceError):
            await wire.stream.send_eof()
        with trio.move_on_after(20):
            await wire.to_end()


async def say(server: Server, message: str) -> None:
    """As a message, to a handler that takes a dict with numbers within bounds for its keys; and wait for the answer."""
    wire = await open_wire(server.port, "/keys")
    async with wire.stream:
        await wire.send(text(message))
        with trio.move_on_after(20):
            await wire.frame()


# The others are in tests/server/takeover/test_http1.py and tests/test_linear.py, without a process for each.
@pytest.mark.parametrize("kind", ["a `Forwarded` header with 15,000 blanks", *MESSAGES])
async def test_nobody_is_held_up(kind: str) -> None:
    """While they are taken apart, another client has its turns."""
    figures = await figures_of(partial(stall, kind=kind, quiet=0.05, flooded=0), 10, ONE_PROCESS)
    assert figures["finished"]
    assert figures["echoes"] > 0
    assert figures["grown"] < 8 * MIB
    assert (figures["left"], figures["served"]) == (0, True)


PROBES = [
    Probe(
        f"{{n}} times {kind}: another client's echoes take 10 ms at most (99 of 100), or three times the quiet time",
        partial(stall, kind=kind),
        20,
        "{quiet_ms:.1f} ms quiet, {p99_ms:.1f} ms meanwhile, {mib:.1f} MiB",
        kept,
        limit=60,
    )
    for kind in (*REQUESTS, *MESSAGES)
]
