"""Messages over the limit, compressed and not: 1009, and neither memory nor reading for them."""

from __future__ import annotations

import struct
from contextlib import AsyncExitStack
from functools import partial

import pytest
import trio

from tests.robustness.probes import (
    LIMIT_BYTES,
    Figures,
    Probe,
    Target,
    answer,
    events,
    figures_of,
    leaked,
    memory,
    served,
    settled,
    warm,
)
from tests.support.wire import BINARY, DEFLATE, FIN, KIB, MIB, RSV1, TEXT, Wire, deflated, frame, text, websocket

BIG_BYTES = 10 * MIB
PART_BYTES = 16 * KIB


async def send_and_see(wire: Wire, data: bytes, figures: Figures) -> None:
    """Send `data`, the last 4 KiB after the answer: what that was, how long until the connection was gone, and how
    much the server took."""
    begin = trio.current_time()

    async def send() -> None:
        for at in range(0, len(data), PART_BYTES):
            if not await wire.send(data[at : at + PART_BYTES]):
                break
            figures["taken"] = max(figures["taken"], at + PART_BYTES)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        with trio.move_on_after(10) as limit:
            if await wire.close_code() == 1009:
                figures["answered"] += 1
            await wire.to_end()
        nursery.cancel_scope.cancel()
    if not limit.cancelled_caught:
        figures["gone"] += 1
    figures["seconds"] = max(figures["seconds"], trio.current_time() - begin)


async def bombs(target: Target, n: int, figures: Figures, *, size: int, at_once: int = 1) -> None:
    """`n` connections, with `at_once` bombs of `size` bytes each in one go."""
    figures.update(answered=0, gone=0, taken=0, seconds=0.0)
    data = frame(FIN | RSV1 | BINARY, deflated(size)) * at_once
    async with target.serve() as server:
        before = await warm(server)
        async with websocket(server.port, "/deflate", DEFLATE) as wire:  # what zlib needs is got now
            await wire.send(frame(FIN | RSV1 | BINARY, deflated(KIB)))
            await wire.frame()
        used = await memory(server)
        for _ in range(n):
            async with websocket(server.port, "/deflate", DEFLATE) as wire:
                await send_and_see(wire, data, figures)
        figures["grown"] = used.grown()
        figures["mib"] = figures["grown"] / MIB
        figures["left"] = leaked(before, await settled(server))
        figures["served"] = await served(server)


async def oversize(target: Target, n: int, figures: Figures) -> None:
    """`n` messages of 10 MiB against 64 KiB."""
    figures.update(answered=0, gone=0, taken=0, seconds=0.0)
    async with target.serve() as server:
        before = await warm(server)
        used = await memory(server)
        for _ in range(n):
            async with websocket(server.port) as wire:
                wire.stream.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_SNDBUF, 16 * KIB)
                await send_and_see(wire, frame(FIN | BINARY, bytes(BIG_BYTES)), figures)
        figures["grown"] = used.grown()
        figures["mib"] = figures["grown"] / MIB
        figures["left"] = leaked(before, await settled(server))
        figures["served"] = await served(server)


async def characters(target: Target, n: int, figures: Figures) -> None:
    """`n` messages of 64 KiB in 3-byte characters, and as many of a byte more: what counts are bytes."""
    figures.update(fit=0, refused=0)
    fitting = "€" * (LIMIT_BYTES // 3) + "x" * (LIMIT_BYTES % 3)
    async with target.serve() as server:
        for _ in range(n):
            async with websocket(server.port) as wire:
                await wire.send(text(fitting))
                figures["fit"] += await answer(wire) == (FIN | TEXT, fitting.encode())
            async with websocket(server.port) as wire:
                await wire.send(text(fitting + "x"))
                received = await answer(wire)
                figures["refused"] += received is not None and received[1][:2] == struct.pack("!H", 1009)
        told = [event[1:3] for event in await events(server) if event[0] == "close"]
        figures["told"] = told.count(["size", 1009])


async def unread_bombs(target: Target, n: int, figures: Figures) -> None:
    """`n` connections to a handler that receives nothing, with a thousand messages of 60 KiB each, in 4 MB in all."""
    data = frame(FIN | RSV1 | BINARY, deflated(60 * KIB)) * 1000
    async with target.serve() as server:
        await warm(server)
        used = await memory(server)
        async with AsyncExitStack() as stack:
            for _ in range(n):
                wire = await stack.enter_async_context(websocket(server.port, "/busy-deflate", DEFLATE))
                with trio.move_on_after(0.5):
                    await wire.send(data)
            figures["each_bytes"] = used.grown() / n
            figures["each_mib"] = figures["each_bytes"] / MIB


async def test_many_small_bombs_in_one_read() -> None:
    """Each within the limit, together 60 MiB: no more of them is unpacked than the inbox holds, and one slice."""
    assert (await figures_of(unread_bombs, 5))["each_bytes"] < 4 * MIB


@pytest.mark.parametrize(("size", "at_once"), [(64, 1), (8, 20)])
async def test_deflate_bombs(size: int, at_once: int) -> None:
    figures = await figures_of(partial(bombs, size=size * MIB, at_once=at_once), 3)
    assert figures["answered"] == figures["gone"] == 3
    assert figures["grown"] <= 2 * MIB
    assert (figures["left"], figures["served"]) == (0, True)


async def test_oversize() -> None:
    figures = await figures_of(oversize, 3)
    assert figures["answered"] == figures["gone"] == 3
    assert figures["taken"] < BIG_BYTES / 2, "64 KiB, the lingering's 256 KiB, and what the sockets' buffers hold"
    assert figures["grown"] <= 2 * MIB
    assert (figures["left"], figures["served"]) == (0, True)


async def test_the_limit_counts_bytes() -> None:
    assert await figures_of(characters, 2) == {"fit": 2, "refused": 2, "told": 2}


RESULT = "{answered} of 10 answered, {gone} gone, {seconds:.1f} s at most, {mib:.1f} MiB"


def bounded(figures: Figures) -> bool:
    ended = figures["answered"] == figures["gone"] == 10 and figures["left"] == 0
    return bool(ended and figures["seconds"] <= 1 and figures["grown"] <= 2 * MIB)


PROBES = [
    Probe(
        "Deflate bombs of 256 MiB against a limit of 64 KiB, {n}: 1009, gone within 1 s, 2 MiB of memory at most",
        partial(bombs, size=256 * MIB),
        10,
        RESULT,
        bounded,
    ),
    Probe(
        "20 bombs of 32 MiB in one go, on {n} connections: the same",
        partial(bombs, size=32 * MIB, at_once=20),
        10,
        RESULT,
        bounded,
    ),
    Probe(
        "10 MiB against 64 KiB, {n} times: the same, and little of it is read",
        oversize,
        10,
        RESULT,
        bounded,
    ),
    Probe(
        "1000 messages of 60 KiB, deflated to nothing, to {n} handlers that receive none: 4 MiB each at most",
        unread_bombs,
        10,
        "{each_mib:.1f} MiB each",
        lambda f: f["each_bytes"] <= 4 * MIB,
    ),
    Probe(
        "The limit counts bytes, not characters, {n} times",
        characters,
        10,
        "{fit} of 64 KiB fit, {refused} of a byte more were refused",
        lambda f: f["fit"] == f["refused"] == f["told"] == 10,
    ),
]
