"""Peers that read nothing, say nothing, or never finish what they say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import trio

from tests.robustness.probes import (
    ONE_PROCESS,
    VERBTRIO,
    Figures,
    Probe,
    Target,
    answer,
    echo,
    events,
    figures_of,
    leaked,
    left,
    memory,
    p99,
    repeat,
    served,
    settled,
    warm,
)
from tests.support.process import Server
from tests.support.wire import FIN, KIB, MIB, TEXT, Wire, frame, open_wire, plain, request, text, websocket

PEER_BYTES = 1 * MIB + 64 * KIB
"""What a peer that reads nothing may cost: the backlog's limit, and 64 KiB."""


async def open_many(server: Server, n: int, path: str) -> list[Wire]:
    wires: list[Wire] = []

    async def one(_: int) -> None:
        wires.append(await open_wire(server.port, path))

    await repeat(n, one)
    return wires


async def close_all(wires: list[Wire]) -> None:
    for wire in wires:
        await trio.aclose_forcefully(wire.stream)


async def deaf(target: Target, n: int, figures: Figures, *, path: str = "/flood", patience: float = 12.0) -> None:
    """`n` peers that read nothing while the server sends to each without end, for `patience` seconds: what they cost,
    whether another client is served meanwhile, and how many are dropped."""
    async with target.serve() as server:
        await warm(server)
        begin = len(await events(server))
        used = await memory(server)
        wires = await open_many(server, n, path)
        figures["served"] = 0
        with trio.move_on_after(patience) as limit:
            while (await left(server))["connections"]:
                figures["served"] += await served(server)
                await trio.sleep(0.2)
        figures["dropped"] = n - (await left(server))["connections"] if limit.cancelled_caught else n
        figures["each_bytes"] = used.grown() / n
        figures["each_kib"] = figures["each_bytes"] / KIB
        ends = [event[1:3] for event in (await events(server))[begin:] if event[0] == "dropped"]
        figures["slow"] = ends.count(["slow", 1008])
        await close_all(wires)
        figures["left"] = (await settled(server))["connections"]


async def impatient(target: Target, n: int, figures: Figures) -> None:
    """`n` handlers with a time-out of one second around sends to a peer that reads nothing."""
    async with target.serve() as server:
        wires = await open_many(server, n, "/impatient")
        found: list[float] = []
        with trio.move_on_after(10):
            while len(found) < n:
                found = [event[1] for event in await events(server) if event[0] == "impatient"]
                await trio.sleep(0.1)
        figures["returned"] = len(found)
        if found:
            figures["seconds"] = max(found)
        await close_all(wires)


async def stop_with_deaf(target: Target, n: int, figures: Figures) -> None:
    """SIGTERM while `n` peers read nothing."""
    async with target.serve() as server:
        wires = await open_many(server, n, "/flood")
        await trio.sleep(0.5)
        try:
            figures["exit_code"] = await trio.to_thread.run_sync(server.stop)
            figures["seconds"] = server.stopped_after
        finally:
            await close_all(wires)


async def stalled_member(target: Target, n: int, figures: Figures, *, messages: int = 100) -> None:
    """A room of `n`, one of which reads nothing: do the others get everything, and how soon?"""
    payload = b"x" * 20_000

    async with target.serve() as server:
        before = await warm(server)
        wires = await open_many(server, n - 1, "/room")
        speaker = await open_wire(server.port, "/room")
        for wire in (*wires, speaker):
            await answer(wire)

        async def talk() -> list[float]:
            """Say all messages; for each, the seconds until the last member had it."""
            times: list[float] = []
            for _ in range(messages):
                begin = trio.current_time()
                await speaker.send(frame(FIN | TEXT, payload))
                async with trio.open_nursery() as nursery:
                    for wire in (*wires, speaker):
                        nursery.start_soon(hear, wire)
                times.append(trio.current_time() - begin)
            return times

        async def hear(wire: Wire) -> None:
            received = await answer(wire)
            figures["heard"] += received == (FIN | TEXT, payload)

        figures["heard"] = 0
        quiet = p99(await talk())
        figures["heard"] = 0
        stalled = await open_wire(server.port, "/room")
        stalled.stream.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_RCVBUF, 4 * KIB)
        used = await memory(server)
        times = await talk()
        figures["expected"] = messages * n
        figures["quiet_ms"], figures["p99_ms"] = quiet * 1000, p99(times) * 1000
        figures["grown"] = used.grown()
        figures["mib"] = figures["grown"] / MIB
        await close_all([*wires, speaker, stalled])
        figures["left"] = leaked(before, await settled(server))


async def silent(target: Target, n: int, figures: Figures, *, path: str = "/silent", first: bytes = b"") -> None:
    """`n` peers that send `first`, and never again anything, not even a Pong or FIN (their heartbeat: 2 and 4 s)."""
    async with target.serve() as server:
        before = await warm(server)
        wires = await open_many(server, n, path)
        for wire in wires:
            await wire.send(first)
        begin = trio.current_time()
        with trio.move_on_after(10):
            while (await left(server))["connections"]:
                await trio.sleep(0.1)
        figures["seconds"] = trio.current_time() - begin
        figures["dropped"] = n - (await left(server))["connections"]
        await close_all(wires)
        figures["left"] = leaked(before, await settled(server))


HANDSHAKES = [b"", request()[:40], request()[:-2], b"PRI * HTTP/2.0\r\n", b"\r\n"]
"""What slow handshakes begin with."""
PAUSE_SECONDS = 0.005
"""Between one and the next: of 500 at once, the kernel would let most wait (hypercorn's backlog is 100)."""


async def slow_handshakes(
    target: Target, n: int, figures: Figures, *, serve: Sequence[str] = (), pace: float = 1.0, patience: float = 15.0
) -> None:
    """`n` clients that send a byte of their handshakes every `pace` seconds, or none at all, to a server with the
    options `serve`."""
    figures.update(cut=0, served=0, connect_ms=0.0, seconds=0.0)
    async with target.serve(*serve) as server:
        before = await warm(server)

        async def one(number: int) -> None:
            await trio.sleep(number * PAUSE_SECONDS)
            begin = trio.current_time()
            async with plain(server.port) as wire:
                await wire.send(HANDSHAKES[number % len(HANDSHAKES)])

                async def dribble() -> None:
                    if number % 2:
                        while await wire.send(b"x"):
                            await trio.sleep(pace)

                async with trio.open_nursery() as nursery:
                    nursery.start_soon(dribble)
                    with trio.move_on_after(patience):
                        await wire.to_end()
                        figures["cut"] += 1
                        figures["seconds"] = max(figures["seconds"], trio.current_time() - begin)
                    nursery.cancel_scope.cancel()

        async def newcomers() -> None:
            while True:
                start = trio.current_time()
                async with websocket(server.port) as wire:
                    figures["connect_ms"] = max(figures["connect_ms"], (trio.current_time() - start) * 1000)
                    await echo(wire)
                    figures["served"] += 1
                await trio.sleep(0.05)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(newcomers)
            await repeat(n, one, at_once=n)
            nursery.cancel_scope.cancel()
        figures["left"] = leaked(before, await settled(server))


SLOW_BYTES = 2 * MIB
"""What a slow client downloads, at 400 KiB a second."""


async def deaf_downloads(
    target: Target, n: int, figures: Figures, *, path: str = "/download", patience: float = 12.0
) -> None:
    """`n` clients that ask for 50 MB over plain HTTP and read nothing; then one that reads slowly."""
    async with target.serve() as server:
        before = await warm(server)
        streams = [await small_stream(server.port) for _ in range(n)]
        for stream in streams:
            await stream.send_all(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        begin = trio.current_time()
        await trio.sleep(0.5)
        figures["begun"] = (await left(server))["tasks"] - before["tasks"] >= n
        with trio.move_on_after(patience):
            while leaked(before, await left(server)):
                await trio.sleep(0.1)
        figures["seconds"] = trio.current_time() - begin
        figures["left"] = leaked(before, await left(server))
        figures["lines"] = server.log_text().count("has taken nothing of a response for 2 s")
        for stream in streams:
            await trio.aclose_forcefully(stream)
        wire = Wire(await small_stream(server.port))
        async with wire.stream:
            await wire.send(f"GET /download?size={SLOW_BYTES} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            await wire.head()
            figures["slow_bytes"] = 0
            while figures["slow_bytes"] < SLOW_BYTES and (data := await wire.receive(16 * KIB)):
                figures["slow_bytes"] += len(data)
                await trio.sleep(len(data) / (400 * KIB))
        figures["whole"] = "all" if figures["slow_bytes"] == SLOW_BYTES else "not all"


async def small_stream(port: int) -> trio.SocketStream:
    """A client's connection whose receive buffer is small."""
    socket = trio.socket.socket()
    socket.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_RCVBUF, 4 * KIB)
    await socket.connect(("127.0.0.1", port))
    return trio.SocketStream(socket)


async def test_downloads_that_nobody_reads() -> None:
    async def probe(path: str) -> None:
        figures = await figures_of(partial(deaf_downloads, path=path, patience=30.0), 5)
        assert figures["begun"], path
        assert (figures["left"], figures["lines"], figures["slow_bytes"]) == (0, 5, SLOW_BYTES), path

    async with trio.open_nursery() as nursery:  # side by side: each has a server of its own, and waits
        for path in ("/download", "/file", "/streaming"):
            nursery.start_soon(probe, path)


async def test_peers_that_never_read() -> None:
    figures = await figures_of(partial(deaf, path="/hurried/flood", patience=30.0), 10)
    assert (figures["dropped"], figures["slow"], figures["left"]) == (10, 10, 0)
    assert figures["each_bytes"] <= PEER_BYTES
    assert figures["served"] > 0


async def test_a_time_out_around_a_send() -> None:
    assert (await figures_of(impatient, 5))["returned"] == 5


async def test_sigterm_is_not_held_up() -> None:
    assert (await figures_of(stop_with_deaf, 5, VERBTRIO))["exit_code"] == 0


async def test_a_stalled_member() -> None:
    figures = await figures_of(partial(stalled_member, messages=150), 10)
    assert figures["heard"] == figures["expected"]
    assert figures["grown"] <= 3 * MIB
    assert figures["left"] == 0


async def test_silent_peers() -> None:
    async def probe(first: bytes) -> None:
        figures = await figures_of(partial(silent, path="/hurried/silent", first=first), 5)
        assert (figures["dropped"], figures["left"]) == (5, 0)

    async with trio.open_nursery() as nursery:  # side by side: each has a server of its own, and waits
        nursery.start_soon(probe, b"")
        nursery.start_soon(probe, text("half a frame")[:-5])


async def test_slow_handshakes() -> None:
    """By our own limit: hypercorn's are longer than the clients' patience."""
    longer = ("--keep-alive", "60")
    hurried = partial(slow_handshakes, serve=longer, pace=0.2, patience=8.0)
    figures = await figures_of(hurried, 20, replace(ONE_PROCESS, app="tests.apps.hasty:app"))
    assert (figures["cut"], figures["left"]) == (20, 0)
    assert figures["served"] > 0


PROBES = [
    Probe(
        "{n} peers that read nothing while the server sends without end: each is dropped within the send time-out "
        "(10 s), and costs 1 MiB and 64 KiB at most",
        deaf,
        100,
        "{dropped} dropped, {each_kib:.0f} KiB each",
        lambda f: f["dropped"] == f["slow"] == 100 and f["each_bytes"] <= PEER_BYTES and f["left"] == 0,
    ),
    Probe(
        "{n} clients that ask for 50 MB over plain HTTP and read nothing: no task and no descriptor is left within "
        "1.5 times the time given to them (here 2 s); one that reads slowly gets all",
        deaf_downloads,
        100,
        "{left} left after {seconds:.1f} s; the slow one got {whole}",
        lambda f: f["begun"] and f["left"] == 0 and f["seconds"] <= 3.5 and f["slow_bytes"] == SLOW_BYTES,
    ),
    Probe(
        "A time-out of 1 s around a send to such a peer returns within 1.1 s, {n} of {n}",
        impatient,
        20,
        "{returned} returned, {seconds:.2f} s at most",
        lambda f: f["returned"] == 20 and f["seconds"] <= 1.1,
    ),
    Probe(
        "SIGTERM while {n} peers read nothing: exit code 0 within 3 s",
        stop_with_deaf,
        100,
        "exit code {exit_code}, {seconds:.1f} s",
        lambda f: f["exit_code"] == 0 and f["seconds"] <= 3,
    ),
    Probe(
        "One stalled member in a room of {n}: the others get all 100 messages of 20 KB, and the time until the last "
        "has one doubles at most",
        stalled_member,
        1000,
        "{heard} of {expected} deliveries; {quiet_ms:.0f} ms without it, {p99_ms:.0f} ms with it; "
        "{mib:.0f} MiB, {left} left",
        lambda f: f["heard"] == f["expected"] and f["p99_ms"] <= 2 * f["quiet_ms"] and f["left"] == 0,
        limit=120,
    ),
    Probe(
        "{n} peers that go silent without FIN are dropped within ping interval and time-out (here 2 and 4 s)",
        silent,
        100,
        "{dropped} of 100, {seconds:.1f} s, {left} left",
        lambda f: f["dropped"] == 100 and f["seconds"] <= 6 and f["left"] == 0,
    ),
    Probe(
        "{n} peers that go silent within a frame: the same",
        partial(silent, first=text("half a frame")[:-5]),
        100,
        "{dropped} of 100, {seconds:.1f} s, {left} left",
        lambda f: f["dropped"] == 100 and f["seconds"] <= 6 and f["left"] == 0,
    ),
    Probe(
        "{n} slow handshakes: each is cut within 10 s, while new clients connect within 200 ms",
        slow_handshakes,
        500,
        "{cut} cut within {seconds:.1f} s; {served} served, {connect_ms:.0f} ms at most; {left} left",
        lambda f: f["cut"] == 500 and f["seconds"] <= 10 and f["connect_ms"] <= 200 and f["left"] == 0,
    ),
]
