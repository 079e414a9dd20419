"""HTTP/2's streams: what one of them does holds up no other, and what nobody takes costs little."""

from __future__ import annotations

from functools import partial
from typing import Any

import trio
from hyperframe.frame import SettingsFrame

from tests.robustness.probes import Figures, Probe, Target, figures_of, leaked, left, memory, served, settled, warm
from tests.support.http2_frames import GET, HELLO, OPEN, POST, PREFACE, Answers, data, headers, replaced
from tests.support.process import Server
from tests.support.wire import MIB, plain

OTHERS = 50
"""Requests on the connection, in addition to the one that nobody reads."""
UNREAD = headers(replaced(POST, b":path", b"/unread"), flags=OPEN) + data(b"x" * 10) * 15
"""A request of 15 parts, to a handler that takes none of them, for 3 s."""


async def unread(target: Target, n: int, figures: Figures, *, patience: float = 2.0) -> None:
    """On each of `n` connections a body that is not read, and then other requests: how many are answered before the
    handler that does not read has ended."""
    figures.update(answered=0, expected=n * OTHERS, seconds=0.0)
    others = b"".join(headers(replaced(GET, b":path", b"/events"), stream=3 + 2 * number) for number in range(OTHERS))
    async with target.serve() as server:
        before = await warm(server)

        async def one() -> None:
            async with plain(server.port) as wire:
                await wire.send(HELLO + UNREAD)
                await trio.sleep(0.2)
                begin = trio.current_time()
                await wire.send(others)
                answers = Answers()
                with trio.move_on_after(patience):
                    while len(answers.statuses) < OTHERS and (received := await wire.receive()):
                        answers.receive(received)
                        figures["seconds"] = max(figures["seconds"], trio.current_time() - begin)
                figures["answered"] += sum(stream != 1 for stream in answers.statuses)

        async with trio.open_nursery() as nursery:
            for _ in range(n):
                nursery.start_soon(one)
        await none_left(server, before)
        figures["left"] = leaked(before, await settled(server))
        figures["served"] = await served(server)


async def none_left(server: Server, before: Any, *, patience: float = 10.0) -> None:
    """Wait until nothing is left: the handlers' own time, for one thing."""
    with trio.move_on_after(patience):
        while leaked(before, await left(server)):
            await trio.sleep(0.1)


ALLOWED_BYTES = 100 * MIB
"""32 MiB of a connection's responses may wait for its client before no further request is begun; those that one slice
of frames has brought are begun together."""


async def without_a_window(target: Target, n: int, figures: Figures, *, held: float = 1.0) -> None:
    """A client with a window of 0 asks `n` times for 20 MB: what that costs, and what is left once it has gone."""
    async with target.serve() as server:
        before = await warm(server)
        used = await memory(server)
        async with plain(server.port) as wire:
            big = b"".join(headers(replaced(GET, b":path", b"/big"), stream=2 * number + 1) for number in range(n))
            await wire.send(PREFACE + SettingsFrame(0, settings={4: 0}).serialize() + big)
            answers = Answers()
            with trio.move_on_after(held):
                while received := await wire.receive():
                    answers.receive(received)
            figures["begun"] = len(answers.statuses)
            figures["grown"] = used.grown()
            figures["mib"] = figures["grown"] / MIB
            figures["served"] = await served(server)
        await none_left(server, before)
        figures["left"] = leaked(before, await settled(server))


async def test_a_body_that_is_not_read_holds_up_no_other_stream() -> None:
    figures = await figures_of(partial(unread, patience=20.0), 3)
    assert (figures["answered"], figures["left"], figures["served"]) == (3 * OTHERS, 0, True)


async def test_responses_without_a_window() -> None:
    figures = await figures_of(partial(without_a_window, held=0.3), 20)
    assert figures["begun"] > 0
    assert figures["grown"] <= ALLOWED_BYTES
    assert (figures["left"], figures["served"]) == (0, True)


PROBES = [
    Probe(
        f"15 DATA frames to a handler that does not read, on each of {{n}} HTTP/2 connections: {OTHERS} other requests "
        "on it are answered all the same",
        unread,
        20,
        "{answered} of {expected} answered within {seconds:.2f} s, {left} left",
        lambda f: f["answered"] == f["expected"] and f["served"] and f["left"] == 0,
    ),
    Probe(
        "{n} requests for 20 MB on one HTTP/2 connection with a window of 0: they take 100 MiB at most, "
        "and nothing once the client has gone",
        without_a_window,
        100,
        "{mib:.0f} MiB, {left} left",
        lambda f: f["begun"] > 0 and f["grown"] <= ALLOWED_BYTES and f["served"] and f["left"] == 0,
    ),
]
