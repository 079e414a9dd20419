"""A worker without descriptors: it recovers, and does not fill the disk with log lines."""

from __future__ import annotations

import resource
from functools import partial

import trio

from tests.robustness.probes import Figures, Probe, Target, figures_of, leaked, left, served, settled, warm
from tests.support.wire import Wire, request

ALLOWED = 64
HELD_SECONDS = 3.0


async def exhausted(target: Target, n: int, figures: Figures, *, held: float = HELD_SECONDS) -> None:
    """`n` clients where 64 descriptors are allowed: how many get in at once and, as those leave, in the end; what is
    logged meanwhile; whether everything is as before once they have gone."""
    async with target.serve() as server:
        before = await warm(server)
        limits = (ALLOWED, ALLOWED)
        resource.prlimit((await left(server))["pid"], resource.RLIMIT_NOFILE, limits)
        wires = [Wire(await trio.open_tcp_stream("127.0.0.1", server.port)) for _ in range(n)]
        for wire in wires:
            await wire.send(request())
        lines = len(server.log_text().splitlines())
        await trio.sleep(held)
        figures["lines"] = len(server.log_text().splitlines()) - lines
        figures["lines_a_second"] = figures["lines"] / held
        figures["let_in"] = 0
        with trio.move_on_after(10):
            for wire in wires:  # in the order in which they came
                figures["let_in"] += (await wire.head()).startswith(b"HTTP/1.1 101 ")
                await trio.aclose_forcefully(wire.stream)
        for wire in wires:
            await trio.aclose_forcefully(wire.stream)
        figures["served"] = await served(server)
        figures["left"] = leaked(before, await settled(server))


async def test_descriptors_exhausted() -> None:
    figures = await figures_of(partial(exhausted, held=1.0), 120)
    assert figures["let_in"] == 120
    assert figures["lines"] <= 10
    assert (figures["served"], figures["left"]) == (True, 0)


PROBES = [
    Probe(
        f"{{n}} clients where {ALLOWED} descriptors are allowed: all get in as others leave, and there are 10 log "
        "lines a second at most",
        exhausted,
        150,
        "{let_in} let in, {lines_a_second:.0f} lines a second, {left} left",
        lambda f: f["let_in"] == 150 and f["lines_a_second"] <= 10 and f["served"] and f["left"] == 0,
    ),
]
