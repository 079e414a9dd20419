"""What the probes of this folder have in common: the servers they are run against, and what they return.

A probe is a function `async def probe(target, n, figures)`: it starts a server of its own, does something `n` times
that no client should do, and fills in figures, so that what it has found so far is kept should it have to be ended. The
tests run each against verbtrio with a small `n` and assert on counts, codes and bytes, never on times.
`python -m tests.robustness` runs them in full, against stock hypercorn too.
"""

from __future__ import annotations

import json
import ssl
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import trio
import trustme

from tests.support.process import ROOT, Server, free_port, hypercorn
from tests.support.wire import BINARY, FIN, KIB, PING, Wire, frame, plain, websocket

Figures: TypeAlias = dict[str, Any]
"""What a probe has found, by name: counts, bytes and seconds."""

LIMIT_BYTES = 64 * KIB
"""The message limit of both applications."""


@dataclass(frozen=True)
class Target:
    """A kind of server to be probed."""

    name: str
    app: str
    options: tuple[str, ...] = ()

    @asynccontextmanager
    async def serve(self, *options: str) -> AsyncIterator[Server]:
        """One of them, fresh."""
        with ExitStack() as stack:
            start = partial(stack.enter_context, hypercorn(self.app, *self.options, *options))
            server = await trio.to_thread.run_sync(start)
            try:
                yield server
            except AssertionError:
                raise  # of `stop`: it had to be killed
            except Exception as error:
                if died(server):
                    raise WorkerDied(f"the worker died, exit code {server.process.returncode}") from error
                raise
            finally:
                with trio.CancelScope(shield=True):  # `stop` has its own deadline
                    await trio.to_thread.run_sync(server.stop)


class WorkerDied(Exception):  # noqa: N818 -- a finding
    """A probe has ended its worker."""


def died(server: Server) -> bool:
    """Whether the server has ended. (hypercorn's own process needs a moment to see that its worker has.)"""
    try:
        server.process.wait(1)
    except subprocess.TimeoutExpired:
        return False
    return True


VERBTRIO = Target("verbtrio", "tests.apps.recorder:app")
ONE_PROCESS = replace(VERBTRIO, options=("-w", "0"))
"""Without a worker of its own: it starts and ends in a third of the time."""
STOCK = Target("stock hypercorn", "tests.apps.stock:app", ("-c", "tests/apps/stock.toml"))


def with_app(target: Target, app: str) -> Target:
    """verbtrio's, with another application; stock hypercorn has one that does for all."""
    return target if target.app == STOCK.app else replace(target, app=app)


@dataclass(frozen=True)
class Secure:
    """A server's door with TLS.

    Attributes:
        port: where it is.
        context: a client's, which trusts it.
    """

    port: int
    context: ssl.SSLContext


@asynccontextmanager
async def serve_secure(target: Target, *options: str) -> AsyncIterator[tuple[Server, Secure]]:
    """A server that listens twice: in clear text, and with TLS."""
    authority = trustme.CA()
    context = ssl.create_default_context()
    authority.configure_trust(context)
    certificate = authority.issue_cert("127.0.0.1")
    with tempfile.TemporaryDirectory() as folder:
        certfile, keyfile = Path(folder) / "cert.pem", Path(folder) / "key.pem"
        certificate.cert_chain_pems[0].write_to_path(certfile)
        certificate.private_key_pem.write_to_path(keyfile)
        port = free_port()
        tls = (f"--certfile={certfile}", f"--keyfile={keyfile}", f"--insecure-bind=127.0.0.1:{port}")
        async with target.serve(*tls, *options) as server:
            yield replace(server, port=port), Secure(server.port, context)


Run: TypeAlias = Callable[[Target, int, Figures], Awaitable[None]]


@dataclass(frozen=True)
class Probe:
    """A row of the table in docs/promises.md.

    Attributes:
        promise: what is promised, in Markdown; `{n}` is the full number.
        run: the probe.
        n: the full number.
        result: its figures in words, a format string.
        kept: whether the figures keep the promise, times included.
        limit: seconds after which it is ended.
    """

    promise: str
    run: Run
    n: int
    result: str
    kept: Callable[[Figures], bool]
    limit: float = 60.0


async def figures_of(run: Run, n: int, target: Target = ONE_PROCESS) -> Figures:
    """What a test calls: the probe's figures."""
    figures: Figures = {}
    await run(target, n, figures)
    return figures


async def repeat(n: int, one: Callable[[int], Awaitable[None]], *, at_once: int = 20) -> None:
    """Call `one` with 0 to `n` - 1, in `at_once` tasks."""
    numbers = iter(range(n))

    async def work() -> None:
        for number in numbers:
            await one(number)

    async with trio.open_nursery() as nursery:
        for _ in range(min(n, at_once)):
            nursery.start_soon(work)


async def get_json(server: Server, path: str) -> Any:
    """A GET, by hand: httpx would need 50 ms for its TLS settings alone."""
    with trio.fail_after(20):
        async with plain(server.port) as wire:
            await wire.send(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
            head = await wire.head()
            if not head.startswith(b"HTTP/1.1 200 "):
                raise ConnectionError(f"GET {path} was answered with {head[:100]!r}")
            return json.loads(await wire.to_end())


async def left(server: Server) -> Any:
    """What the worker holds at the moment."""
    return await get_json(server, "/left")


async def events(server: Server) -> list[Any]:
    """What the application has recorded."""
    recorded: list[Any] = (await get_json(server, "/events"))["events"]
    return recorded


LEAKABLE = ("connections", "rooms", "sessions", "tasks", "descriptors")


async def warm(server: Server) -> Any:
    """What the worker holds once whatever is made once has been made."""
    async with websocket(server.port) as wire:
        await echo(wire)
    return await settled(server, seconds=5)


async def settled(server: Server, *, seconds: float = 20.0) -> Any:
    """What the worker holds once no connection is left, or has not changed for a while."""
    last, same = None, 0
    with trio.move_on_after(seconds):
        while same < 5:
            now = await left(server)
            held = [now[name] for name in LEAKABLE]
            same = same + 1 if held == last else 0
            if now["connections"] or now["sessions"]:
                same = 0
            last = held
            await trio.sleep(0.05)
    return await left(server)


def leaked(before: Any, after: Any) -> int:
    """How many connections, rooms, sessions, tasks and descriptors more there are. (A descriptor of the asking
    client's comes and goes.)"""
    more = {name: after[name] - before[name] for name in LEAKABLE}
    more["descriptors"] = max(0, more["descriptors"] - 1)
    return sum(max(0, count) for count in more.values())


async def echo(wire: Wire, payload: bytes = b"x" * 64) -> float:
    """Send a message and wait for its echo; the seconds that took."""
    begin = trio.current_time()
    await wire.stream.send_all(frame(FIN | BINARY, payload))
    received = await answer(wire)
    if received is None or received[1] != payload:
        raise ConnectionError(f"no echo, but {received!r:.100}")
    return trio.current_time() - begin


async def answer(wire: Wire) -> tuple[int, bytes] | None:
    """The next frame that is no Ping: stock hypercorn sends one at the beginning."""
    received = await wire.frame()
    while received is not None and received[0] == FIN | PING:
        received = await wire.frame()
    return received


async def served(server: Server) -> bool:
    """Whether a new client is."""
    try:
        with trio.fail_after(5):
            async with websocket(server.port) as wire:
                await echo(wire)
    except (OSError, trio.BrokenResourceError, trio.TooSlowError):
        return False
    return True


def p99(times: list[float]) -> float:
    return sorted(times)[int(0.99 * (len(times) - 1))] if times else float("inf")


class Memory:
    """How much a worker's memory grows: at its peak, whenever that was (Linux)."""

    def __init__(self, pid: int) -> None:
        self._status = Path(f"/proc/{pid}/status")
        Path(f"/proc/{pid}/clear_refs").write_text("5")  # the peak is reckoned from now on
        self._before = self._read("VmRSS")

    def grown(self) -> int:
        """Bytes, from the beginning to the peak."""
        return self._read("VmHWM") - self._before

    def _read(self, name: str) -> int:
        (line,) = (line for line in self._status.read_text().splitlines() if line.startswith(f"{name}:"))
        return int(line.split()[1]) * KIB


async def memory(server: Server) -> Memory:
    return Memory((await left(server))["pid"])


class Observer:
    """Another client, in a process of its own (observing.py), which measures how long its echoes take."""

    def __init__(self, process: trio.Process) -> None:
        self._process = process

    async def start(self) -> None:
        """Wait until it echoes."""
        assert self._process.stdout is not None
        if not await self._process.stdout.receive_some():
            raise ConnectionError("the observing client has no connection")

    async def stop(self) -> list[tuple[float, float]]:
        """End it; its echoes, each when it was asked for (`time.perf_counter`) and how long it took, in seconds."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        await self._process.stdin.aclose()
        told = b"".join([bytes(part) async for part in self._process.stdout])
        times: list[tuple[float, float]] = [(at, took) for at, took in json.loads(told)]
        return times


@asynccontextmanager
async def observer(server: Server) -> AsyncIterator[Observer]:
    """One that echoes; it is ended when the context is left."""
    command = [sys.executable, "-m", "tests.robustness.observing", str(server.port)]
    pipe = subprocess.PIPE
    async with trio.open_nursery() as nursery:
        run = partial(trio.run_process, command, cwd=ROOT, stdin=pipe, stdout=pipe, check=False)
        observing = Observer(await nursery.start(run))
        await observing.start()
        yield observing
        nursery.cancel_scope.cancel()
