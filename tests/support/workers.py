"""Several real hypercorn processes of one app, for tests of what holds between processes: killed, frozen, brought back.

Each is one process (`-w 0`) with a port of its own, so a test knows which of them a client is at, and can end one
without hypercorn ending the others.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from tests.support.process import START_SECONDS, Server, running
from tests.support.redis_server import server_port


class Worker:
    """One process, whose port stays the same, whatever becomes of the process.

    Its functions block: `start` for a second. Where clients of the same test go on meanwhile, it is run in a thread
    (`await trio.to_thread.run_sync(worker.start)`).
    """

    def __init__(self, app: str, options: tuple[str, ...], environment: dict[str, str]) -> None:
        self.port = server_port()
        self._command = [sys.executable, "-m", "hypercorn", "-k", "trio", "-w", "0", "-b", f"127.0.0.1:{self.port}"]
        self._command += [*options, app]
        self._environment = environment
        self._stack = ExitStack()
        self._server: Server | None = None

    @property
    def server(self) -> Server:
        """The process, its URL and its log, which begins anew with each start."""
        assert self._server is not None, "the worker has not been started, or has ended"
        return self._server

    @property
    def pid(self) -> int:
        return self.server.process.pid

    @property
    def is_running(self) -> bool:
        """Whether there is a process; a frozen one is."""
        return self._server is not None and self._server.process.poll() is None

    def start(self, *, wait: bool = True) -> None:
        """Start it, and `wait` until it answers."""
        assert not self.is_running, "the worker runs already"
        self._server = self._stack.enter_context(running(self._command, self.port, tls=False, **self._environment))
        if wait:
            self.wait_ready()

    def wait_ready(self) -> None:
        """Block until it answers a request, whatever that is. It accepts connections long before, and its app is not
        loaded then."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), START_SECONDS) as sock:
                sock.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                assert sock.recv(1), "the worker hung up"
        except OSError as error:
            raise AssertionError(f"the worker did not start ({error}):\n{self.server.log_text()}") from error

    def stop(self) -> None:
        """SIGINT, and wait for its end: it drains (at SIGTERM it would just end, under `-w 0`). A frozen one goes on
        first. Again does nothing."""
        try:
            if self.is_running:
                self.thaw()
                self.server.stop(signal.SIGINT)
        finally:
            self._server = None
            self._stack.close()

    def kill(self) -> None:
        """SIGKILL: it dies without a word. Again does nothing."""
        if self.is_running:
            self.server.process.kill()
            self.server.process.wait()
        self.stop()

    def freeze(self) -> None:
        """SIGSTOP: the kernel holds its connections, and it does nothing."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT: it goes on, and finds that time has passed."""
        os.kill(self.pid, signal.SIGCONT)


@contextmanager
def workers(app: str, count: int, *options: str, **environment: str) -> Iterator[list[Worker]]:
    """`count` workers of `app` (`module:app`) that answer; at the end those that still run are stopped.

    Args:
        options: more of hypercorn's own.
        environment: variables that the app reads, in addition to this process's: `REDIS_URL=redis.url`.
    """
    with ExitStack() as stack:
        started = [Worker(app, options, environment) for _ in range(count)]
        for worker in started:
            stack.callback(worker.stop)
            worker.start(wait=False)
        for worker in started:
            worker.wait_ready()
        yield started
