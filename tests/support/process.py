"""A real hypercorn process for a test: started, waited for, ended."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]
START_SECONDS = 30.0
STOP_SECONDS = 15.0


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


@dataclass
class Server:
    """A running server process."""

    process: subprocess.Popen[bytes]
    port: int
    log: Path
    tls: bool = False
    stopped_after: float = field(default=-1.0, init=False)
    """Seconds from SIGTERM to the exit."""

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}"

    def stop(self, sig: int = signal.SIGTERM) -> int:
        """End it; return its exit code."""
        if self.process.poll() is None:
            begin = time.monotonic()
            self.process.send_signal(sig)
            try:
                self.process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
                raise AssertionError(
                    f"the server did not stop within {STOP_SECONDS:g} s\nits log:\n{self.log_text()}"
                ) from None
            self.stopped_after = time.monotonic() - begin
        return self.process.returncode

    def log_text(self) -> str:
        return self.log.read_text(errors="replace")


@contextmanager
def running(command: list[str], port: int, *, tls: bool = False, **environment: str) -> Iterator[Server]:
    """Run `command` until it accepts connections on `port`, and end it afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                command,
                cwd=ROOT,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **environment},
                process_group=0,
            )
        server = Server(process, port, log, tls)
        try:
            deadline = time.monotonic() + START_SECONDS
            while True:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise AssertionError(f"{command} did not start:\n{server.log_text()}")
                try:
                    socket.create_connection(("127.0.0.1", port), 1).close()
                    break
                except OSError:
                    time.sleep(0.02)
            yield server
        finally:
            try:
                server.stop()
            finally:
                end_group(process.pid)


def end_group(group: int) -> None:
    """End what a server has left behind: a worker of hypercorn's whose parent is killed spins for ever."""
    with suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


@contextmanager
def hypercorn(app: str, *options: str, port: int | None = None, tls: bool = False) -> Iterator[Server]:
    """`hypercorn -k trio app`, on loopback."""
    port = port or free_port()
    command = [sys.executable, "-m", "hypercorn", "-k", "trio", "-b", f"127.0.0.1:{port}", *options, app]
    with running(command, port, tls=tls) as server:
        yield server
