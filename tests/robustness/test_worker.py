"""A worker that does die: who starts it must be able to tell. What docs/deployment.md says of exit codes, held."""

from __future__ import annotations

import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product

import httpx
import pytest
import trio
import trio_websocket
from hyperframe.frame import SettingsFrame, WindowUpdateFrame

from tests.robustness.probes import Figures, Probe, Target, figures_of, left, repeat
from tests.support.http2_frames import GET, PREFACE, headers, replaced
from tests.support.peers import Peer, connect
from tests.support.process import Server, free_port, hypercorn, running
from tests.support.wire import plain

SECONDS = 20.0


@contextmanager
def script() -> Iterator[Server]:
    port = free_port()
    with running([sys.executable, "-m", "tests.apps.dying"], port, PORT=str(port)) as server:
        yield server


def exit_code_of(server: Server) -> int:
    """Ask it to die, and wait until it has."""
    with socket.create_connection(("127.0.0.1", server.port), 5) as sock:
        sock.sendall(b"GET /die HTTP/1.1\r\nHost: x\r\n\r\n")
        return server.process.wait(SECONDS)


def test_a_script_that_dies() -> None:
    with script() as server:
        assert exit_code_of(server) == 1
        assert "RuntimeError: on purpose" in server.log_text()


def test_a_script_that_is_stopped() -> None:
    with script() as server:
        assert server.stop() == 0
        assert "Traceback" not in server.log_text()


def test_hypercorn_without_worker_processes() -> None:
    with hypercorn("tests.apps.dying:app", "-w", "0") as server:
        assert exit_code_of(server) == 1


def test_hypercorn_without_worker_processes_stopped_by_sigint() -> None:
    with hypercorn("tests.apps.dying:app", "-w", "0") as server:
        assert httpx.get(server.url).status_code == 404, "it accepts connections before it has started"
        assert server.stop(signal.SIGINT) == 0
        assert "Traceback" not in server.log_text()


async def talk_on(peer: Peer) -> None:
    while True:
        await peer.send([1])
        await peer.receive()


async def talk(server: Server, path: str, codes: list[int], *, task_status: trio.TaskStatus[None]) -> None:
    """Send and receive until the server closes; note its code. It has started once there is an answer."""
    async with connect(f"ws://127.0.0.1:{server.port}{path}") as peer:
        await peer.send([1])
        await peer.receive()
        task_status.started()
        with pytest.raises(trio_websocket.ConnectionClosed) as closed:
            await talk_on(peer)
        assert closed.value.reason is not None
        codes.append(closed.value.reason.code)


async def test_sigint_drains_whatever_is_at_work() -> None:
    """A coroutine, a hook, another framework's route, the poller: wherever it hits, everybody is told; it exits 0."""
    for _ in range(3):
        with hypercorn("tests.apps.recorder:app", "-w", "0") as server:
            codes: list[int] = []
            async with trio.open_nursery() as nursery:
                for path in ("/ws", "/deflate", "/starlette"):
                    await nursery.start(talk, server, path, codes)
                    await nursery.start(talk, server, path, codes)
                await trio.sleep(0.1)
                assert await trio.to_thread.run_sync(server.stop, signal.SIGINT) == 0
            assert codes == [1012] * 6
            assert "Traceback" not in server.log_text()


AT_WORK = list(product((1, 2), ("stream", "starlette", "computing", "thread")))
"""A version of HTTP, and what its response does when the signal comes."""
WIDE = 2**31 - 1
AT_ONCE = 4
"""Servers that run at the same time."""


async def interrupted(target: Target, n: int, figures: Figures) -> None:
    """SIGINT, in `n` servers without a worker process, while a client reads a response that is being made."""
    figures["clean"] = 0

    async def one(number: int) -> None:
        version, path = AT_WORK[number % len(AT_WORK)]
        async with target.serve("-w", "0", "--graceful-timeout", "1") as server, plain(server.port) as wire:
            await left(server)  # it has started: it listens before
            if version == 2:
                settings = SettingsFrame(0, settings={4: WIDE}).serialize()
                window = WindowUpdateFrame(0, WIDE - 65535).serialize()
                await wire.send(
                    PREFACE + settings + window + headers(replaced(GET, b":path", f"/busy/{path}".encode()))
                )
            else:
                await wire.send(f"GET /busy/{path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            async with trio.open_nursery() as nursery:
                nursery.start_soon(wire.to_end)
                await trio.sleep(0.3)
                code = await trio.to_thread.run_sync(server.stop, signal.SIGINT)
                nursery.cancel_scope.cancel()
            figures["clean"] += code == 0 and "Traceback" not in server.log_text()

    await repeat(n, one, at_once=AT_ONCE)


async def test_sigint_while_a_response_is_made() -> None:
    assert (await figures_of(interrupted, len(AT_WORK)))["clean"] == len(AT_WORK)


@pytest.mark.parametrize("workers", ["1", "2"])
def test_hypercorn_with_worker_processes(workers: str) -> None:
    """hypercorn 0.18 loses its worker's exit code, and stops the others. Should this fail, it has been mended: then
    docs/deployment.md needs no `Restart=always` any more. (It reports a worker that its SIGTERM has killed, if that
    one ends before hypercorn looks.)"""
    with hypercorn("tests.apps.dying:app", "-w", workers) as server:
        assert exit_code_of(server) in (0, 256 - signal.SIGTERM)
        assert "RuntimeError: on purpose" in server.log_text()


PROBES = [
    Probe(
        "SIGINT to a server without worker processes while a client reads a response that is being made (HTTP/1.1 and "
        "HTTP/2; a stream, Starlette's, a handler that computes, one in a thread), {n} times: exit code 0, no "
        "traceback",
        interrupted,
        8,
        "{clean} of 8",
        lambda f: f["clean"] == 8,
        limit=120,
    ),
]
