"""Messages that never end, and clients that connect again to send more than they may."""

from __future__ import annotations

import zlib
from functools import partial

import trio

from tests.apps.slow import RATE, SECONDS
from tests.robustness.probes import (
    Figures,
    Probe,
    Target,
    answer,
    figures_of,
    leaked,
    repeat,
    served,
    settled,
    warm,
    with_app,
)
from tests.support.wire import BINARY, CONTINUATION, DEFLATE, FIN, RSV1, TEXT, frame, websocket

APP = "tests.apps.slow:app"
DRIP_SECONDS = 0.3


def deflate(data: bytes) -> bytes:
    compress = zlib.compressobj(wbits=-12)
    return compress.compress(data) + compress.flush()


async def endless_messages(target: Target, n: int, figures: Figures, *, patience: float = 8.0) -> None:
    """`n` clients, each with a compressed message of which a byte comes now and then."""
    figures.update(cut=0, seconds=0.0)
    message = deflate(bytes(range(32, 127)) * 20)
    part, rest = message[:20], message[20:]
    async with with_app(target, APP).serve() as server:
        before = await warm(server)

        async def one(_: int) -> None:
            async with websocket(server.port, "/deflate", DEFLATE) as wire:
                begin = trio.current_time()
                await wire.send(frame(RSV1 | TEXT, part))

                async def drip() -> None:
                    for byte in rest:
                        if not await wire.send(frame(CONTINUATION, bytes([byte]))):
                            return
                        await trio.sleep(DRIP_SECONDS)

                async with trio.open_nursery() as nursery:
                    nursery.start_soon(drip)
                    with trio.move_on_after(patience):
                        code = await wire.close_code()
                        figures["cut"] += code == 1008
                        figures["seconds"] = max(figures["seconds"], trio.current_time() - begin)
                    nursery.cancel_scope.cancel()

        await repeat(n, one, at_once=n)
        figures["served"] = await served(server)
        figures["left"] = leaked(before, await settled(server))


MESSAGES = 20
"""What a client sends on each of its connections: a fifth of what it may send at once."""
SILENT_SECONDS = 0.1
"""When nothing has come for so long, nothing more will."""


async def reconnecting(target: Target, n: int, figures: Figures) -> None:
    """One client that connects `n` times, and each time sends 20 messages at once: how many are let through, and how
    many may be at most. (Those that are refused count, too.)"""
    figures.update(through=0, sent=0)
    async with with_app(target, APP).serve() as server:
        before = await warm(server)
        begin = trio.current_time()

        async def one(_: int) -> None:
            async with websocket(server.port, "/rated") as wire:
                await wire.send(frame(FIN | BINARY, b"x") * MESSAGES)
                figures["sent"] += MESSAGES
                ended = False
                while not ended:  # not each that is refused is answered
                    received = None
                    with trio.move_on_after(SILENT_SECONDS):
                        received = await answer(wire)
                    figures["through"] += received == (FIN | BINARY, b"x")
                    ended = received is None

        await repeat(n, one, at_once=4)
        figures["seconds"] = trio.current_time() - begin
        figures["promised"] = RATE + figures["seconds"] * RATE
        figures["served"] = await served(server)
        figures["left"] = leaked(before, await settled(server))


async def test_compressed_messages_that_never_end() -> None:
    figures = await figures_of(partial(endless_messages, patience=30.0), 10)
    assert (figures["cut"], figures["served"], figures["left"]) == (10, True, 0)


async def test_connecting_again_brings_no_new_burst() -> None:
    figures = await figures_of(reconnecting, 50)
    assert RATE <= figures["through"] <= figures["promised"]
    assert figures["sent"] == 50 * MESSAGES
    assert (figures["served"], figures["left"]) == (True, 0)


PROBES = [
    Probe(
        "{n} compressed messages that never end, a byte now and then: each connection ends with 1008 within 2 s (the "
        "message's time) and the pause between two bytes",
        endless_messages,
        100,
        "{cut} of 100 within {seconds:.1f} s, {left} left",
        lambda f: f["cut"] == 100 and f["seconds"] <= SECONDS + 2 and f["served"] and f["left"] == 0,
    ),
    Probe(
        f"One client that connects {{n}} times and each time sends {MESSAGES} messages, where it may send {RATE} a "
        f"second, and {RATE} at once: connecting again brings no new burst",
        reconnecting,
        300,
        "{through} of {sent} let through in {seconds:.1f} s, of {promised:.0f} at most (those refused count, too)",
        lambda f: RATE <= f["through"] <= f["promised"] and f["served"] and f["left"] == 0,
    ),
]
