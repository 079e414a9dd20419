"""A worker that does die: who starts it must be able to tell. What docs/deployment.md says of exit codes, held."""

from __future__ import annotations

import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest
import trio
import trio_websocket

from tests.support.peers import Peer, connect
from tests.support.process import Server, free_port, hypercorn, running

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


@pytest.mark.parametrize("workers", ["1", "2"])
def test_hypercorn_with_worker_processes(workers: str) -> None:
    """hypercorn 0.18 loses its worker's exit code, and stops the others. Should this fail, it has been mended: then
    docs/deployment.md needs no `Restart=always` any more."""
    with hypercorn("tests.apps.dying:app", "-w", workers) as server:
        assert exit_code_of(server) == 0
        assert "RuntimeError: on purpose" in server.log_text()
