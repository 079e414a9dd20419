"""Floods: a great many of the smallest things. Memory stays bounded, and others have their turns."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from functools import partial

import pytest
import trio

from tests.robustness.probes import (
    Figures,
    Probe,
    Target,
    figures_of,
    leaked,
    memory,
    observer,
    p99,
    served,
    settled,
    warm,
)
from tests.support.process import Server
from tests.support.wire import BINARY, CONTINUATION, FIN, KIB, MIB, PING, PONG, TEXT, Wire, close, frame, websocket

FLOODS: dict[str, tuple[bytes, bytes, int]] = {
    "one-byte fragments": (frame(TEXT, b"x"), frame(CONTINUATION, b"x"), 65_000),
    "empty fragments": (frame(TEXT), frame(CONTINUATION), 131_000),
    "empty messages": (b"", frame(FIN | BINARY), 50_000),
    "pings": (b"", frame(FIN | PING, b"x"), 50_000),
    "pongs": (b"", frame(FIN | PONG, b"x"), 50_000),
    "tiny messages": (b"", frame(FIN | BINARY, b"x"), 1_000_000),
}
"""What it begins with, what is then sent again and again, and how often. (A message may have 64 KiB: of one-byte
fragments 65,000 are within it, of empty ones any number.)"""

QUIET_SECONDS = 2.0
FLOOD_SECONDS = 3.0
"""For as long, clients flood one after the other: there are enough echoes for a percentile then."""
PATIENCE_SECONDS = 40.0


async def flood(
    target: Target, n: int, figures: Figures, *, kind: str, quiet: float = QUIET_SECONDS, flooded: float = FLOOD_SECONDS
) -> None:
    """`n` of a kind from one client, and from another one until `flooded` seconds have gone, while another one echoes:
    its p99 before and meanwhile."""
    first, each, _ = FLOODS[kind]

    async def one(server: Server) -> None:
        async with websocket(server.port) as flooder:
            await send_and_read(flooder, first, each, n)

    await beside(target, figures, one, quiet=quiet, flooded=flooded)


async def beside(
    target: Target,
    figures: Figures,
    one: Callable[[Server], Awaitable[None]],
    *,
    quiet: float,
    flooded: float,
) -> None:
    """Run `one` again and again for `flooded` seconds, while a client echoes."""
    figures["floods"] = 0
    async with target.serve() as server:
        before = await warm(server)
        async with observer(server) as other:
            await trio.sleep(quiet)
            used = await memory(server)
            begin = now = time.perf_counter()
            with trio.move_on_after(PATIENCE_SECONDS) as limit:
                while figures["floods"] == 0 or now < begin + flooded:
                    await one(server)
                    now = time.perf_counter()
                    figures["floods"] += 1
                    figures["seconds"] = (now - begin) / figures["floods"]
            end = time.perf_counter()
            echoes = await other.stop()
            figures["finished"] = not limit.cancelled_caught
            figures.setdefault("seconds", end - begin)
            figures["quiet_ms"] = p99([took for at, took in echoes if at < begin]) * 1000
            times = [took for at, took in echoes if at + took > begin and at < end]
            figures["echoes"] = len(times)
            figures["p99_ms"] = p99(times) * 1000
            figures["grown"] = used.grown()
            figures["mib"] = figures["grown"] / MIB
        figures["left"] = leaked(before, await settled(server))
        figures["served"] = await served(server)


async def send_and_read(flooder: Wire, first: bytes, each: bytes, n: int) -> None:
    """Send the flood and a Close, and read all that comes back, until the server has worked through all of it."""

    async def send() -> None:
        await flooder.send(first)
        part = each * 1000
        for _ in range(n // 1000):
            if not await flooder.send(part):
                break
        await flooder.send(close())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        while await flooder.receive(256 * KIB):
            pass
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("kind", FLOODS)
async def test_a_flood_holds_nobody_up(kind: str) -> None:
    """While it is worked through, another client has its turn at least once for every sixth slice of 4 KiB."""
    n = min(FLOODS[kind][2] // 2, 100_000) // 1000 * 1000
    figures = await figures_of(partial(flood, kind=kind, quiet=0.05, flooded=0), n)
    assert figures["finished"]
    assert figures["echoes"] > n * len(FLOODS[kind][1]) / (4 * KIB) / 6
    assert figures["grown"] < 8 * MIB
    assert (figures["left"], figures["served"]) == (0, True)


def kept(figures: Figures) -> bool:
    in_time = figures["p99_ms"] <= max(10, 3 * figures["quiet_ms"])
    return bool(in_time and figures["finished"] and figures["grown"] < 8 * MIB and figures["left"] == 0)


PROBES = [
    Probe(
        f"{{n}} {kind} from one client: another one's echoes take 10 ms at most (99 of 100), or three times the quiet "
        "time",
        partial(flood, kind=kind),
        n,
        "{quiet_ms:.1f} ms quiet, {p99_ms:.1f} ms meanwhile, {mib:.1f} MiB, {seconds:.1f} s",
        kept,
        limit=90,
    )
    for kind, (_, _, n) in FLOODS.items()
]
