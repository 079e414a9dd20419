"""A server's process: on a core of its own, watched from outside (CPU, memory), always ended."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
START_SECONDS = 15.0
STOP_SECONDS = 5.0
SETTLE_SECONDS = 3.0
SERVER_CORE = 0
LOAD_CORE = 1 if (os.cpu_count() or 1) > 1 else 0
PR_SET_PDEATHSIG = 1


class ServerError(Exception):
    """The server did not start, died or hung."""


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def pin(core: int) -> None:
    """Keep this process on one core, where the system lets us."""
    with contextlib.suppress(OSError, AttributeError):
        os.sched_setaffinity(0, {core})


def _in_child() -> None:
    """On its core, with all the descriptors there are, and gone with us: a killed run leaves no servers behind."""
    pin(SERVER_CORE)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class Process:
    """A server and the processes it starts: a process group."""

    def __init__(self, command: Sequence[str], port: int, environment: dict[str, str]) -> None:
        self.port = port
        self._paused = False
        self._known: list[int] = []
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 -- closed by `stop`
        self._process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=_in_child,
        )

    def wait_until_ready(self, seconds: float = START_SECONDS) -> None:
        """Wait until it accepts connections.

        Raises:
            ServerError: it has ended, or does not listen within `seconds`.
        """
        deadline = time.monotonic() + seconds
        while True:
            if not self.alive:
                raise ServerError(f"did not start: {self.last_words()}")
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                self.look_around()
                return
            except OSError:
                if time.monotonic() > deadline:
                    raise ServerError(f"does not listen: {self.last_words()}") from None
                time.sleep(0.02)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def last_words(self) -> str:
        """The last line it has written."""
        size = os.fstat(self._log.fileno()).st_size
        lines = os.pread(self._log.fileno(), 4096, max(0, size - 4096)).decode(errors="replace").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "it says nothing")

    def settle(self) -> None:
        """Wait until it has nothing to do any more: thousands of connections that have gone take their time."""
        deadline = time.monotonic() + SETTLE_SECONDS
        before = self.cpu_seconds()
        while time.monotonic() < deadline:
            time.sleep(0.05)
            now = self.cpu_seconds()
            if now - before < 0.005:
                return
            before = now

    def pause(self) -> None:
        """Stop it where it is, so that its timers don't disturb the one that is measured."""
        self._signal(signal.SIGSTOP)
        self._paused = True

    def resume(self) -> None:
        if self._paused:
            self._signal(signal.SIGCONT)
            self._paused = False

    def stop(self) -> None:
        self.resume()
        self._signal(signal.SIGTERM)
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            pass
        self._signal(signal.SIGKILL)
        self._process.wait()
        self._log.close()

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)

    def look_around(self) -> None:
        """Find the group's processes. Takes some milliseconds: not to be done while the load is measured."""
        self._known = list(self._pids())

    def _pids(self) -> Iterator[int]:
        for folder in Path("/proc").iterdir():
            if folder.name.isdigit():
                with contextlib.suppress(OSError):
                    fields = (folder / "stat").read_text().rpartition(")")[2].split()
                    if int(fields[2]) == self._process.pid:
                        yield int(folder.name)

    def cpu_seconds(self) -> float:
        """CPU time used so far, all threads of all processes."""
        total = 0
        for pid in self._known:
            with contextlib.suppress(OSError):  # it has ended
                for task in Path(f"/proc/{pid}/task").iterdir():
                    total += int((task / "schedstat").read_text().split()[0])
        return total / 1e9

    def memory_bytes(self) -> int:
        """Memory in use: the proportional set size, so what processes share is counted once."""
        total = 0
        for pid in self._known:
            with contextlib.suppress(OSError):
                for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                    if line.startswith("Pss:"):
                        total += int(line.split()[1]) * 1024
        return total
