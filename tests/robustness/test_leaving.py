"""Clients that leave behind a byte, and bodies that do not come: what a server notices only if it looks."""

from __future__ import annotations

from functools import partial
from typing import Any

import trio

from tests.robustness.probes import (
    Figures,
    Probe,
    Target,
    events,
    figures_of,
    leaked,
    repeat,
    serve_secure,
    served,
    settled,
    warm,
)
from tests.robustness.test_slow_peers import PAUSE_SECONDS
from tests.support.http2_frames import HELLO, OPEN, POST, Answers, headers, replaced
from tests.support.wire import Wire, plain

WAYS = [
    (path, reset, secure)
    for path in ("/longpoll", "/ticks", "/clock")
    for reset in (False, True)
    for secure in (False, True)
]
"""What a client waits for, whether it leaves with RST, and whether over TLS."""
AT_ONCE = 50


async def leave_behind_a_byte(
    target: Target, n: int, figures: Figures, *, held: float = 0.2, patience: float = 10.0
) -> None:
    """`n` clients that ask for what has no end, send a byte more, and leave: whether their handlers are told, and
    whether anything stays."""
    async with serve_secure(target) as (server, secure):
        before = await warm(server)
        asked = 0

        async def have_begun() -> None:
            """Wait until the handlers of long polls have: one that is reset before it has read has none."""
            expected = asked
            with trio.move_on_after(patience):
                while (await events(server)).count(["waiting"]) < expected:
                    await trio.sleep(0.02)

        async def one(number: int) -> None:
            nonlocal asked
            path, reset, is_secure = WAYS[number % len(WAYS)]
            tcp = await trio.open_tcp_stream("127.0.0.1", secure.port if is_secure else server.port)
            wire = Wire(tcp)
            stream: Any = tcp
            try:
                if is_secure:
                    stream = trio.SSLStream(tcp, secure.context, server_hostname="127.0.0.1")
                await stream.send_all(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
                if path == "/longpoll":
                    asked += 1
                    await have_begun()
                else:
                    received = b""
                    while b"tick" not in received:
                        received += await stream.receive_some()
                await trio.sleep(held)
                await stream.send_all(b"x")
                await trio.sleep(held)
                if reset:
                    wire.reset()
            finally:
                await trio.aclose_forcefully(tcp)

        await repeat(n, one, at_once=AT_ONCE)
        begin = trio.current_time()
        with trio.move_on_after(patience):
            while (await events(server)).count(["told"]) < n:
                await trio.sleep(0.05)
        figures["seconds"] = trio.current_time() - begin
        figures["told"] = (await events(server)).count(["told"])
        figures["left"] = leaked(before, await settled(server))


UPLOAD = b"POST /body HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n"
STREAMS = 100
"""Requests on one HTTP/2 connection."""
BODY_SECONDS = 2.0
"""What a body has in the recorder."""


async def bodies(
    target: Target, n: int, figures: Figures, *, http2: bool, patience: float = 6.0, keep_alive: float = 30.0
) -> None:
    """`n` requests whose bodies never come; over HTTP/2, a hundred on each connection."""
    figures.update(gone=0, hung=0, seconds=0.0)
    async with target.serve("--keep-alive", f"{keep_alive:g}") as server:
        before = await warm(server)

        async def one(number: int) -> None:
            await trio.sleep(number * PAUSE_SECONDS)
            begin = trio.current_time()
            async with plain(server.port) as wire:
                with trio.move_on_after(patience) as limit:
                    await (over_http2 if http2 else over_http1)(wire, figures, min(n, STREAMS))
                    figures["seconds"] = max(figures["seconds"], trio.current_time() - begin)
                    if not http2:
                        await wire.to_end()
                figures["hung"] += limit.cancelled_caught

        count = n // min(n, STREAMS) if http2 else n
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(repeat, count, one, at_once=count))
            await trio.sleep(0.5)
            figures["served_meanwhile"] = await served(server)
        figures["served"] = await served(server)
        figures["left"] = leaked(before, await settled(server))


async def over_http1(wire: Wire, figures: Figures, _: int) -> None:
    await wire.send(UPLOAD)
    answer = await wire.head()
    figures["gone"] += answer.startswith(b"HTTP/1.1 408 ")


async def over_http2(wire: Wire, figures: Figures, count: int) -> None:
    fields = [*replaced(POST, b":path", b"/body"), (b"content-length", b"5")]
    await wire.send(HELLO + b"".join(headers(fields, stream=n, flags=OPEN) for n in range(1, 2 * count, 2)))
    answers = Answers()
    done = 0
    while done < count:
        received = await wire.receive()
        if not received:
            break
        answers.receive(received)
        now = sum(status == b"408" for status in answers.statuses.values())
        figures["gone"] += now - done
        done = now


async def test_who_leaves_behind_a_byte() -> None:
    n = len(WAYS) * 2
    figures = await figures_of(partial(leave_behind_a_byte, held=0.05), n)
    assert (figures["told"], figures["left"]) == (n, 0)


async def test_bodies_that_do_not_come() -> None:
    async def probe(n: int, *, http2: bool) -> None:
        figures = await figures_of(partial(bodies, http2=http2, patience=30.0), n)
        assert (figures["gone"], figures["hung"], figures["left"]) == (n, 0, 0)
        assert (figures["served"], figures["served_meanwhile"]) == (True, True)

    async with trio.open_nursery() as nursery:  # side by side: each has a server of its own, and waits
        nursery.start_soon(partial(probe, 20, http2=False))
        nursery.start_soon(partial(probe, 50, http2=True))


def all_gone(figures: Figures, *, n: int) -> bool:
    in_time = figures["gone"] == n and not figures["hung"] and figures["seconds"] <= 1.5 * BODY_SECONDS
    return bool(in_time and figures["served"] and figures["served_meanwhile"] and figures["left"] == 0)


PROBES = [
    Probe(
        "{n} clients that wait for a long poll, a stream or an event stream, send a byte more and leave, by FIN or "
        "RST, half of them over TLS: each handler is told, and nothing is left",
        leave_behind_a_byte,
        600,
        "{told} told, {left} left",
        lambda f: f["told"] == 600 and f["left"] == 0,
    ),
    *(
        Probe(
            f"{{n}} requests{where} whose bodies never come are answered within 1.5 times the time given to them (here "
            "2 s), and others are served meanwhile",
            partial(bodies, http2=http2),
            n,
            "{gone} answered within {seconds:.1f} s, {left} left",
            partial(all_gone, n=n),
        )
        for where, http2, n in ((" over HTTP/1.1", False, 200), (" on 5 HTTP/2 connections", True, 500))
    ),
]
