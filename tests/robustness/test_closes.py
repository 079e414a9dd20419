"""Clients that end in ways no library would: all in one segment, twice, with a reset at any stage."""

from __future__ import annotations

import trio

from tests.robustness.probes import Figures, Probe, Target, events, figures_of, leaked, repeat, served, settled, warm
from tests.support.wire import CONTINUATION, FIN, TEXT, close, frame, open_wire, plain, request, text, websocket

CLEAN_SECONDS = 5.0


async def one_segment(target: Target, n: int, figures: Figures) -> None:
    """A message and a Close in one segment, to a handler that answers the message and returns."""
    figures["clean"] = 0
    async with target.serve() as server:
        before = await warm(server)

        async def one(_: int) -> None:
            async with websocket(server.port, "/once") as wire:
                await wire.send(text("hi") + close(1000))
                with trio.move_on_after(CLEAN_SECONDS):
                    if await wire.close_code() == 1000 and await wire.to_end() == b"":
                        figures["clean"] += 1

        await repeat(n, one)
        figures["left"] = leaked(before, await settled(server))
        figures["tracebacks"] = server.log_text().count("Traceback")
        figures["served"] = await served(server)


ODD_ENDS = {
    "two closes": close(1000) + close(1001),
    "a message behind the close": close(1000) + text("late"),
    "garbage behind the close": close(1000) + b"\xff" * 1000,
    "a close in a message": frame(TEXT, b"half") + close(1000),
    "a message, a close, a continuation": text("a") + close(1000) + frame(CONTINUATION, b"b"),
    "many closes": close(1000) * 1000,
}
"""Each is sent in one go; what it ends with is the peer's own 1000, or 1002."""


async def odd_ends(target: Target, n: int, figures: Figures) -> None:
    """Each of `ODD_ENDS`, `n` times: how many were answered with one Close frame, and closed."""
    figures.update(clean=0, tried=0)
    async with target.serve() as server:
        before = await warm(server)

        async def one(_: int) -> None:
            for data in ODD_ENDS.values():
                figures["tried"] += 1
                async with websocket(server.port) as wire:
                    await wire.send(data)
                    with trio.move_on_after(CLEAN_SECONDS):
                        if await wire.close_code() in (1000, 1002) and await wire.to_end() == b"":
                            figures["clean"] += 1

        await repeat(n, one)
        figures["left"] = leaked(before, await settled(server))
        figures["tracebacks"] = server.log_text().count("Traceback")
        figures["served"] = await served(server)


STAGES: dict[str, tuple[str, bytes]] = {
    "mid-message": ("/ws", frame(FIN | TEXT, b"x" * 5000)[:2500]),
    "mid-header": ("/ws", frame(FIN | TEXT, b"x" * 5000)[:3]),
    "between fragments": ("/ws", frame(TEXT, b"half")),
    "behind a message": ("/ws", text("x" * 5000)),
    "behind a close": ("/ws", close(1000)),
    "mid-send": ("/flood", b""),
    "in a room": ("/room", text("hello")),
    "while the handler is busy": ("/busy", text("unread") * 100),
    "while the handler raises": ("/ws", text("raise")),
}
"""Where a client that has a WebSocket resets it: a path, and what it has sent. (100 messages fill an inbox.)"""


async def resets(target: Target, n: int, figures: Figures) -> None:
    """`n` resets at each of `STAGES`, and `n` at each stage of the handshake."""
    figures["resets"] = 0
    async with target.serve() as server:
        before = await warm(server)

        async def one(_: int) -> None:
            for path, data in STAGES.values():
                wire = await open_wire(server.port, path)
                await wire.send(data)
                if path in ("/flood", "/room"):
                    await wire.receive(1)
                wire.reset()
                figures["resets"] += 1
            for part in (b"", request()[:20], request()[:-2], request()):
                async with plain(server.port) as wire:
                    await wire.send(part)
                    wire.reset()
                    figures["resets"] += 1

        await repeat(n, one)
        figures["left"] = leaked(before, await settled(server))
        figures["served"] = await served(server)


async def gone(target: Target, n: int, figures: Figures) -> None:
    """`n` peers go while a handler sends to them: when has `send` told each handler?"""
    async with target.serve() as server:
        before = await warm(server)
        wires = [await open_wire(server.port, "/push") for _ in range(n)]
        for wire in wires:
            await wire.frame()
        begin = trio.current_time()
        for wire in wires:
            wire.reset()
        figures["told"] = 0
        with trio.move_on_after(10):
            while figures["told"] < n:
                figures["told"] = sum(event[0] == "raised" for event in await events(server))
        figures["seconds"] = trio.current_time() - begin
        figures["left"] = leaked(before, await settled(server))


async def test_a_message_and_a_close_in_one_segment() -> None:
    """One such client ends a stock hypercorn worker."""
    assert await figures_of(one_segment, 50) == {"clean": 50, "left": 0, "tracebacks": 0, "served": True}


async def test_odd_ends() -> None:
    figures = await figures_of(odd_ends, 5)
    assert figures == {"clean": 30, "tried": 30, "left": 0, "tracebacks": 0, "served": True}


async def test_resets_at_every_stage() -> None:
    assert await figures_of(resets, 10) == {"resets": 130, "left": 0, "served": True}


async def test_send_tells_that_the_peer_is_gone() -> None:
    figures = await figures_of(gone, 20)
    assert (figures["told"], figures["left"]) == (20, 0)


PROBES = [
    Probe(
        "A message and a Close in one segment, to a handler that returns: {n} of {n} clean closes",
        one_segment,
        5000,
        "{clean} clean, {left} left",
        lambda f: f["clean"] == 5000 and f["left"] == 0 and f["tracebacks"] == 0,
    ),
    Probe(
        "Two Close frames, anything behind one, one within a message, {n} of each: one Close is the answer",
        odd_ends,
        100,
        "{clean} of {tried} clean, {left} left",
        lambda f: f["clean"] == f["tried"] and f["left"] == 0 and f["tracebacks"] == 0,
    ),
    Probe(
        "Resets at each of 13 stages of a connection's life, {n} of each: nothing is left",
        resets,
        1000,
        "{resets} resets, {left} left",
        lambda f: f["resets"] == 13000 and f["left"] == 0 and f["served"],
    ),
    Probe(
        "`send` to a peer that is gone raises within a second",
        gone,
        100,
        "{told} of 100 within {seconds:.2f} s",
        lambda f: f["told"] == 100 and f["seconds"] <= 1 and f["left"] == 0,
    ),
]
