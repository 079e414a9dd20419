"""Slow clients of every kind, more of them than there are descriptors: those who come later are served all the same."""

from __future__ import annotations

import resource
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeAlias

import trio
from hyperframe.frame import SettingsFrame

from tests.robustness.probes import (
    Figures,
    Probe,
    Target,
    WorkerDied,
    figures_of,
    leaked,
    left,
    serve_secure,
    served,
    settled,
    warm,
    with_app,
)
from tests.robustness.test_slow_peers import small_stream
from tests.support.http2_frames import GET, PREFACE, headers, replaced
from tests.support.wire import Wire, open_wire, text

Slow: TypeAlias = Callable[[Wire], Awaitable[None]]

DRIP_SECONDS = 0.3
TELL_SECONDS = 0.1
NEWS = text("x" * 60_000)
"""What those who listen are sent, every tenth of a second."""
ALLOWED = 128
"""Descriptors that a server has."""
KEEP_ALIVE = 2
KEPT_SECONDS = 15.0


async def drip(wire: Wire) -> None:
    """A byte now and then, until the server hangs up."""
    while await wire.send(b"x"):
        await trio.sleep(DRIP_SECONDS)


async def head(wire: Wire) -> None:
    await wire.send(b"GET / HTTP/1.1\r\nHost: x\r\nX: ")
    await drip(wire)


async def second_head(wire: Wire) -> None:
    await wire.send(b"GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n")
    await wire.head()
    await head(wire)


async def body(wire: Wire) -> None:
    await wire.send(b"POST /body HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n")
    await drip(wire)


async def response(wire: Wire) -> None:
    await wire.send(b"GET /download HTTP/1.1\r\nHost: x\r\n\r\n")
    await trio.sleep_forever()


async def window(wire: Wire) -> None:
    settings = SettingsFrame(0, settings={4: 0}).serialize()
    await wire.send(PREFACE + settings + headers(replaced(GET, b":path", b"/download")))
    await trio.sleep_forever()


async def tls(wire: Wire) -> None:
    await wire.send(b"\x16\x03\x01\x02\x00\x01")
    await trio.sleep_forever()


async def event_stream(wire: Wire) -> None:
    await wire.send(b"GET /room/a HTTP/1.1\r\nHost: x\r\n\r\n")
    await trio.sleep_forever()


KINDS: dict[str, Slow] = {
    "heads": head,
    "second heads": second_head,
    "bodies": body,
    "responses": response,
    "HTTP/2 windows": window,
    "TLS handshakes": tls,
    "event streams": event_stream,
}


async def slow(target: Target, n: int, figures: Figures, *, kind: str, allowed: int, patience: float) -> None:
    """`n` clients of one kind: how long others have to wait, and what is left."""
    options = ("--keep-alive", f"{KEEP_ALIVE}")
    async with serve_secure(with_app(target, "tests.apps.slow:app"), *options) as (server, secure):
        before = await warm(server)
        teller = await open_wire(server.port, "/tell")
        resource.prlimit((await left(server))["pid"], resource.RLIMIT_NOFILE, (allowed, allowed))

        async def one() -> None:
            stream = await small_stream(secure.port if kind == "TLS handshakes" else server.port)
            try:
                await KINDS[kind](Wire(stream))
            except trio.BrokenResourceError:
                pass  # the server has hung up
            finally:
                await trio.aclose_forcefully(stream)

        async def tell() -> None:
            while await teller.send(NEWS):
                await trio.sleep(TELL_SECONDS)

        async with trio.open_nursery() as nursery:
            if kind == "event streams":
                nursery.start_soon(tell)
            begin = trio.current_time()
            for _ in range(n):
                nursery.start_soon(one)
            await trio.sleep(0.5)
            figures["served"] = False
            with trio.move_on_after(patience):
                while not figures["served"]:
                    figures["served"] = await served(server)
            figures["seconds"] = trio.current_time() - begin
            nursery.cancel_scope.cancel()
        await trio.aclose_forcefully(teller.stream)
        figures["left"] = leaked(before, await settled(server))


async def slow_of_every_kind(
    target: Target, n: int, figures: Figures, *, allowed: int = ALLOWED, patience: float = KEPT_SECONDS
) -> None:
    """`n` clients of each kind, each kind with a server of its own, side by side."""
    found: dict[str, Figures] = {kind: {} for kind in KINDS}

    async def one(kind: str) -> None:
        try:
            await slow(target, n, found[kind], kind=kind, allowed=allowed, patience=patience)
        except* (OSError, AssertionError, WorkerDied, trio.BrokenResourceError, trio.TooSlowError):
            found[kind]["ended"] = True

    async with trio.open_nursery() as nursery:
        for kind in KINDS:
            nursery.start_soon(one, kind)
    figures["kinds"] = len(KINDS)
    figures["served"] = sum(figure.get("served", False) for figure in found.values())
    figures["seconds"] = max(figure.get("seconds", 0.0) for figure in found.values())
    figures["left"] = sum(figure.get("left", 0) for figure in found.values())
    figures["failed"] = [k for k, f in found.items() if "ended" in f or not f["served"] or f["left"]]
    figures["kept"] = len(KINDS) - len(figures["failed"])
    figures["failing"] = f" (not: {', '.join(figures['failed'])})" if figures["failed"] else ""
    figures["each"] = found


async def test_slow_clients_of_every_kind() -> None:
    figures = await figures_of(partial(slow_of_every_kind, allowed=40, patience=40.0), 45)
    assert figures["failed"] == [], figures
    assert (figures["served"], figures["left"]) == (len(KINDS), 0)


PROBES = [
    Probe(
        f"{{n}} slow clients where {ALLOWED} descriptors are allowed, of each of {len(KINDS)} kinds (heads, second "
        "heads and bodies that never end, responses, HTTP/2 windows and event streams that nobody reads, TLS "
        f"handshakes; time limits of 2 s): later ones are served within {KEPT_SECONDS:.0f} s, and nothing is left",
        slow_of_every_kind,
        200,
        "{kept} of {kinds} kinds{failing}, served after {seconds:.1f} s at most, {left} left",
        lambda f: f["served"] == f["kinds"] and not f["failed"],
        limit=120,
    ),
]
