"""Handshakes and frame streams at random, with a seed: nothing dies, nothing is logged with a traceback, nothing stays.

One in twenty goes over TCP to a real worker. The others go through hypercorn's own server, with the take-over in place,
within processes that have no network (tests/robustness/fuzz_share.py): half over socket pairs, which the poller reads,
half over memory streams. Of HTTP/2's (http2_sequences.py), some go over TLS there.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import random
import ssl
import sys
import time
from collections.abc import AsyncIterator, Callable
from functools import cache, partial

import pytest
import trio
import trio.testing
import trustme
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from tests.apps import recorder
from tests.robustness.http2_sequences import http2
from tests.robustness.probes import STOCK, Figures, Probe, Target, figures_of, leaked, repeat, served, settled, warm
from tests.support.http2_frames import ATTACKS
from tests.support.memory import serving, socket_stream_pair
from tests.support.process import ROOT
from tests.support.wire import CONTINUATION, FIN, HEADERS, TEXT, close, frame, plain, request, send_and_read, text
from verbtrio import App, Limits, Stream, WebSocket

SEED = 2026
WIRE_SHARE = 20
"""One in so many goes over TCP."""
PROCESSES = os.cpu_count() or 1
"""That many do the rest of a full number."""
STEP_MILLISECONDS = 50
"""What a step of the event loop may take, of the processor's time: 64 KiB come in many."""
FEW = 1000
"""Below this, one process does."""

HEADER_LINES = [
    *(line + "\r\n" for line in HEADERS.strip().split("\r\n")),
    "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n",
    "Sec-WebSocket-Protocol: a, b\r\n",
    "Content-Length: 5\r\n",
    "Transfer-Encoding: chunked\r\n",
    "HTTP2-Settings: AAMAAABkAAQAAP__\r\n",
    "Upgrade: h2c\r\n",
    "Expect: 100-continue\r\n",
    "Origin: http://x\r\n",
    "Cookie: a=b; c\r\n",
    "X: y\r\n",
]
METHODS = ["GET", "GET", "GET", "get", "POST", "CONNECT", "PRI", "", "G\xc9T"]
TARGETS = ["/ws", "/ws", "/ws", "/deflate", "/nowhere", "/ws?token=1", "*", "http://x/ws", "/%ff%00", "/\xe9", ""]
VERSIONS = ["HTTP/1.1", "HTTP/1.1", "HTTP/1.1", "HTTP/1.0", "HTTP/2.0", "HTTP/9.9", "http/1.1", ""]
HTTP2 = list(ATTACKS.values())


def handshake(chance: random.Random) -> bytes:
    """A request, more or less like an upgrade, and perhaps more behind it."""
    if chance.random() < 0.1:
        data = b"".join(chance.choice(HTTP2))
    else:
        lines = HEADER_LINES[:5] if chance.random() < 0.6 else []
        lines = lines + chance.sample(HEADER_LINES, chance.randrange(4))
        if chance.random() < 0.2:
            chance.shuffle(lines)
        first = f"{chance.choice(METHODS)} {chance.choice(TARGETS)} {chance.choice(VERSIONS)}\r\n"
        data = (first + "".join(lines) + "\r\n").encode("latin-1")
        if chance.random() < 0.3:
            data += frames(chance)
    return garbled(data, chance) if chance.random() < 0.5 else data


def frames(chance: random.Random) -> bytes:
    """Some frames, valid or not."""
    kinds: tuple[Callable[[], bytes], ...] = (
        lambda: text("hello"),
        lambda: frame(chance.randrange(256), chance.randbytes(chance.choice((0, 1, 5, 125, 126, 300)))),
        lambda: frame(TEXT, b"part") + frame(FIN | CONTINUATION, b"rest"),
        lambda: frame(FIN | TEXT | 0x40, chance.randbytes(20)),
        lambda: frame(FIN | chance.randrange(16), chance.randbytes(5), mask=False),
        lambda: close(chance.choice((1000, 1001, 1005, 4000, 0, 65535)), chance.randbytes(chance.randrange(130))),
        lambda: chance.randbytes(chance.randrange(60)),
        lambda: text("x" * 70_000),
    )
    weights = (4, 4, 2, 2, 1, 1, 1, 0.1)
    return b"".join(kind() for kind in chance.choices(kinds, weights, k=chance.randrange(8)))


def garbled(data: bytes, chance: random.Random) -> bytes:
    """Bytes changed, left out, doubled, or cut off."""
    garbled = bytearray(data)
    for _ in range(chance.randrange(1, 4)):
        if not garbled:
            break
        at = chance.randrange(len(garbled))
        match chance.randrange(4):
            case 0:
                garbled[at] = chance.randrange(256)
            case 1:
                del garbled[at : at + chance.randrange(1, 9)]
            case 2:
                garbled[at:at] = garbled[at : at + chance.randrange(1, 30)]
            case _:
                del garbled[at:]
    return bytes(garbled)


def conversation(chance: random.Random) -> bytes:
    """A valid handshake, and a stream of frames behind it."""
    path = chance.choice(("/ws", "/deflate"))
    extensions = "Sec-WebSocket-Extensions: permessage-deflate\r\n" if path == "/deflate" else ""
    return request(path, extensions) + frames(chance)


def cut(data: bytes, chance: random.Random) -> list[bytes]:
    """`data` in up to five pieces."""
    edges = sorted(chance.randrange(len(data) + 1) for _ in range(chance.randrange(5)))
    return [data[start:stop] for start, stop in zip([0, *edges], [*edges, len(data)], strict=True)]


GENERATORS = {"handshake": handshake, "conversation": conversation, "http2": http2}
TLS_SHARE = 20
"""One in so many of HTTP/2's goes over TLS, within processes."""


def fuzzed() -> App:
    """What is fuzzed within processes: an echo, with compression and without, and what HTTP has."""
    limits = Limits(max_message_bytes=65536, close_timeout=0.5, http_send_timeout=2, http_receive_timeout=2)
    app = App(limits=limits, heartbeat=None, http2_cleartext=True, http2_websockets=True)
    app.sse("/room/:room")

    async def echo(ws: WebSocket) -> None:
        async with ws.join("room") as members:
            async for message in ws:
                await ws.send(message)
                members.broadcast(message, exclude=ws)

    app.ws("/ws")(echo)
    app.ws("/deflate", compression=True)(echo)

    @app.get("/")
    async def here(request: Request) -> Response:
        return PlainTextResponse("here")

    @app.get("/big")
    async def big(request: Request) -> Response:
        return Response(bytes(200_000))

    @app.get("/stream")
    async def stream(request: Request) -> Response:
        return Stream(ticks())

    app.post("/body")(recorder.body)
    app.post("/ignored")(recorder.ignored)
    return app


async def ticks() -> AsyncIterator[str]:
    while True:
        yield "tick"
        await trio.sleep(0.5)


class Tracebacks(logging.Handler):
    """Counts the records that have one."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.count = 0

    def emit(self, record: logging.LogRecord) -> None:
        self.count += record.exc_info is not None


class Steps(trio.abc.Instrument):
    """Measures the event loop's longest step for a client's sake, in seconds of processor time."""

    def __init__(self) -> None:
        self.longest = 0.0
        self._begin = 0.0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self._begin = time.thread_time()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        took = time.thread_time() - self._begin
        if took > self.longest and not task.name.startswith("tests."):  # the clients' own are not meant
            self.longest = took


@cache
def contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A client's and the server's, which agree on HTTP/2."""
    authority = trustme.CA()
    client, server = ssl.create_default_context(), ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.configure_trust(client)
    authority.issue_cert("x").configure_cert(server)
    for context in (client, server):
        context.set_alpn_protocols(["h2"])
    return client, server


def secure_pair() -> tuple[trio.SocketStream, trio.SSLStream[trio.SocketStream]]:
    client, server = socket_stream_pair()
    return client, trio.SSLStream(server, contexts()[1], server_side=True)


async def within(name: str, numbers: range) -> Figures:
    """Those with these numbers within this process: how many tracebacks were logged, and the longest step. That nothing
    is left, `serving` asserts."""
    seen, steps = Tracebacks(), Steps()
    logging.getLogger().addHandler(seen)
    trio.lowlevel.add_instrument(steps)
    try:
        async with serving(fuzzed()) as service:

            async def one(index: int) -> None:
                chance = random.Random(f"{SEED} {numbers[index]}")
                pieces = cut(GENERATORS[name](chance), chance)
                stream: trio.abc.Stream
                if name == "http2" and index % TLS_SHARE == 0:
                    stream = trio.SSLStream(service.open_stream(secure_pair), contexts()[0], server_hostname="x")
                else:
                    stream = service.open_stream(socket_stream_pair if index % 2 else None)
                await send_and_read(stream, pieces, seconds=10, hang_up=chance.random() < 0.3)
                if index % 500 == 0:
                    service._opened.clear()  # else it keeps all of them, to close them in the end

            await repeat(len(numbers), one, at_once=10)
    finally:
        trio.lowlevel.remove_instrument(steps)
        logging.getLogger().removeHandler(seen)
    return {"tracebacks": seen.count, "longest_ms": steps.longest * 1000}


async def share(name: str, numbers: range, figures: Figures) -> None:
    """Those with these numbers in a process of its own. Cancelled, it ends the process."""
    command = [sys.executable, "-m", "tests.robustness.fuzz_share", name, str(numbers.start), str(numbers.stop)]
    done = await trio.run_process(command, cwd=ROOT, capture_stdout=True, capture_stderr=True, check=False)
    if done.returncode:
        raise AssertionError(f"{name}s {numbers}: {done.stderr.decode().strip().splitlines()[-1:]}")
    figures["tried"] += len(numbers)
    found = json.loads(done.stdout)
    figures["tracebacks"] += found["tracebacks"]
    figures["longest_ms"] = max(figures["longest_ms"], found["longest_ms"])


async def one_on_the_wire(port: int, pieces: list[bytes], *, hang_up: bool) -> None:
    async with plain(port) as wire:
        for piece in pieces:
            await wire.send(piece)
        if hang_up:
            wire.reset()
            return
        with trio.move_on_after(1):
            with contextlib.suppress(trio.BrokenResourceError):
                await wire.stream.send_eof()
            await wire.to_end()


async def fuzz(target: Target, n: int, figures: Figures, *, name: str) -> None:
    """`n` of a kind: one in twenty over TCP (all of them where it is stock hypercorn), the rest meanwhile within
    processes."""
    figures.update(tried=0, tracebacks=0, longest_ms=0.0)
    on_the_wire = n if target is STOCK else n // WIRE_SHARE
    async with trio.open_nursery() as nursery:
        step = n - on_the_wire if n <= FEW else -(-(n - on_the_wire) // PROCESSES)
        for start in range(on_the_wire, n, step or 1):
            nursery.start_soon(share, name, range(start, min(start + step, n)), figures)
        await over_tcp(target, on_the_wire, figures, name=name)


async def over_tcp(target: Target, n: int, figures: Figures, *, name: str) -> None:
    """The first `n` over TCP."""
    async with target.serve() as server:
        before = await warm(server)

        async def one(number: int) -> None:
            chance = random.Random(f"{SEED} {number}")
            pieces = cut(GENERATORS[name](chance), chance)
            await one_on_the_wire(server.port, pieces, hang_up=chance.random() < 0.3)
            figures["tried"] += 1

        await repeat(n, one)
        figures["left"] = leaked(before, await settled(server))
        figures["served"] = await served(server)
        figures["tracebacks"] += server.log_text().count("Traceback")


@pytest.mark.parametrize("name", GENERATORS)
async def test_fuzz(name: str) -> None:
    n = 1000
    figures = await figures_of(partial(fuzz, name=name), n)
    del figures["longest_ms"]
    assert figures == {"tried": n, "tracebacks": 0, "left": 0, "served": True}


def test_the_generator_makes_what_is_worth_trying() -> None:
    """Some are valid, most are not, none is the same as another."""
    made = [handshake(random.Random(f"{SEED} {number}")) for number in range(500)]
    assert len(set(made)) > 400
    assert 10 < sum(data.startswith(b"GET /ws HTTP/1.1\r\n") for data in made) < 400


PROBES = [
    Probe(
        f"{{n}} {name}, at random, cut at random, one in {WIRE_SHARE} over TCP, the rest in-process over socket pairs "
        "and memory streams (stock hypercorn: all over TCP): no death, no traceback, nothing left",
        partial(fuzz, name=kind),
        100_000,
        "{tried} tried, {tracebacks} tracebacks, {left} left",
        lambda f: f["tried"] == 100_000 and f["tracebacks"] == f["left"] == 0 and f["served"],
        limit=400,
    )
    for name, kind in (("handshakes", "handshake"), ("frame streams behind a valid one", "conversation"))
]
PROBES.append(
    Probe(
        f"{{n}} sequences of HTTP/2 frames of 64 KiB at most, the same way, and one in {TLS_SHARE} in-process over "
        "TLS: no death, no traceback, nothing left, and no step of the event loop takes 50 ms of processor time",
        partial(fuzz, name="http2"),
        100_000,
        "{tried} tried, {tracebacks} tracebacks, {left} left, the longest step {longest_ms:.0f} ms",
        lambda f: (
            f["tried"] == 100_000
            and f["tracebacks"] == f["left"] == 0
            and f["served"]
            and f["longest_ms"] < STEP_MILLISECONDS
        ),
        limit=600,
    )
)


@pytest.mark.parametrize("numbers", [range(79506, 79508), range(95848, 95850)])
async def test_what_was_found(autojump_clock: trio.testing.MockClock, numbers: range) -> None:
    """Behind requests that a client had sent ahead and gone, a connection once waited for an answer for ever."""
    assert (await within("handshake", numbers))["tracebacks"] == 0
