"""Handlers that raise, and hooks that hang: the end of one connection, and of nothing else."""

from __future__ import annotations

from functools import partial

import trio

from tests.robustness.probes import (
    Figures,
    Probe,
    Target,
    echo,
    events,
    figures_of,
    leaked,
    repeat,
    served,
    settled,
    warm,
)
from tests.support.wire import close, open_wire, text, websocket

UNREAD = 40
"""Messages that are queued behind the one the handler raises at."""


async def raising(target: Target, n: int, figures: Figures) -> None:
    """`n` handlers raise with unread messages queued, while another connection goes on."""
    figures.update(told=0, closed=0, echoes=0)
    async with target.serve() as server:
        before = await warm(server)
        async with websocket(server.port) as other:
            others_turn = trio.Lock()

            async def one(number: int) -> None:
                async with websocket(server.port) as wire:
                    await wire.send(text("raise") + text("never read") * UNREAD)
                    with trio.move_on_after(5):
                        if await wire.close_code() == 1011:
                            figures["told"] += 1
                        await wire.send(close(1011))
                        if await wire.to_end() == b"":
                            figures["closed"] += 1
                if not number % 10:
                    async with others_turn:
                        await echo(other)
                    figures["echoes"] += 1

            await repeat(n, one)
        figures["left"] = leaked(before, await settled(server))
        figures["logged"] = server.log_text().count("ValueError: on purpose")
        figures["hooked"] = sum(event == ["error", "ValueError"] for event in await events(server))
        figures["served"] = await served(server)


async def hanging(target: Target, n: int, figures: Figures, *, path: str = "/hanging") -> None:
    """`n` close hooks that never return (their limit: 5 s)."""
    async with target.serve() as server:
        before = await warm(server)
        begin = trio.current_time()
        for wire in [await open_wire(server.port, path) for _ in range(n)]:
            await wire.send(close())
            await wire.stream.aclose()
        figures["cut"] = 0
        with trio.move_on_after(20):
            while figures["cut"] < n:
                figures["cut"] = (await events(server)).count(["hook ended"])
                await trio.sleep(0.1)
        figures["seconds"] = trio.current_time() - begin
        figures["left"] = leaked(before, await settled(server))
        figures["said"] = server.log_text().count("was cancelled at its time limit")


async def test_handlers_that_raise() -> None:
    figures = await figures_of(raising, 50)
    assert figures["told"] == figures["closed"] == figures["hooked"] == 50
    assert figures["logged"] == 50, "one record each"
    assert (figures["left"], figures["echoes"], figures["served"]) == (0, 5, True)


async def test_hooks_that_hang() -> None:
    figures = await figures_of(partial(hanging, path="/hurried/hanging"), 5)
    assert (figures["cut"], figures["said"], figures["left"]) == (5, 5, 0)


PROBES = [
    Probe(
        "{n} handlers raise with unread messages queued: 1011, TCP closed, the error hook called, one log record each",
        raising,
        1000,
        "{told} told, {closed} closed, {hooked} hooks, {logged} records, {left} left",
        lambda f: f["told"] == f["closed"] == f["hooked"] == f["logged"] == 1000 and f["left"] == 0,
    ),
    Probe(
        "{n} close hooks that never return are ended at their limit (5 s)",
        hanging,
        50,
        "{cut} of 50 within {seconds:.1f} s, {left} left",
        lambda f: f["cut"] == f["said"] == 50 and f["seconds"] <= 6 and f["left"] == 0,
    ),
]
