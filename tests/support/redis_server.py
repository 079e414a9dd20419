"""Real Redis servers for tests: started on free ports of loopback, killed, frozen, brought back, ended.

All of it is plain functions, which block for the few milliseconds that they take: fixtures and Trio tests use the same.
The server is the one that `REDIS_SERVER` names, or Debian's redis-server, or a valkey-server.
"""

from __future__ import annotations

import itertools
import os
import random
import re
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

import pytest
import trustme

from tests.support import resp

VARIABLE = "REDIS_SERVER"
"""The environment variable that names the command to use: a Valkey, an older Redis."""
COMMANDS = ("redis-server", "valkey-server")
START_SECONDS = 15.0
PORTS = range(10_000, 20_000)
"""Below those that Linux gives to clients (from 32768 on), as are the ports of a cluster's bus, 10,000 higher. A client
that connects again and again to a port of those while no server has it connects to itself in the end, and the server
can't have its port back."""


def find_redis() -> str | None:
    """The command, if there is one."""
    named = os.environ.get(VARIABLE)
    return shutil.which(named) if named else next(filter(None, map(shutil.which, COMMANDS)), None)


def require_redis() -> str:
    """The command. Skip where there is none; but where CI promises one, a skip would pass for success."""
    command = find_redis()
    if command is None:
        without("not installed (Debian: redis-server)")
    return command


def without(reason: str) -> NoReturn:
    """Skip a test that needs Redis, loudly; fail it where CI promises a Redis."""
    named = os.environ.get(VARIABLE)
    text = f"THE TESTS WITH REDIS DID NOT RUN: {named or 'redis-server'} {reason}"
    # A build that somebody has chosen may lack what it lacks.
    if os.environ.get("CI") == "true" and named is None:
        pytest.fail(text)
    pytest.skip(text)


def shuffled_ports() -> Iterator[int]:
    """All of `PORTS` that are this process's, of those that pytest-xdist runs side by side; over and over."""
    number = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    own = list(PORTS[number :: int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))])
    random.shuffle(own)
    return itertools.cycle(own)


ports = shuffled_ports()


def server_port() -> int:
    """A port for a server, free now, that no client is given by chance, and no other test. The one 10,000 above it is
    free as well."""
    for port in ports:
        with suppress(OSError), socket.socket() as sock, socket.socket() as bus:
            sock.bind(("127.0.0.1", port))
            bus.bind(("127.0.0.1", port + 10_000))
            return port
    raise AssertionError("there is always a next port")


class RedisServer:
    """One server, whose port, folder and password stay the same, whatever becomes of its process.

    Attributes:
        port: where it listens, on 127.0.0.1.
        folder: its working directory; with `log`, what it has said.
        ca_file: the certificate of the authority that has issued its own; `None` without TLS.
    """

    def __init__(self, folder: Path, arguments: list[str], *, tls: bool = False, password: str | None = None) -> None:
        self.command = require_redis()
        self.port = server_port()
        self.folder = folder
        self.password = password
        self.log = folder / "log"
        self.ca_file: Path | None = None
        self._context: ssl.SSLContext | None = None
        self._arguments = arguments
        self._process: subprocess.Popen[bytes] | None = None
        if tls:
            self._arguments = [*arguments, *self._issue_certificate()]
        if password:
            self._arguments = [*self._arguments, "--requirepass", password]

    @property
    def url(self) -> str:
        """`redis://` or `rediss://`, with the password."""
        secret = f":{self.password}@" if self.password else ""
        return f"{'rediss' if self.ca_file else 'redis'}://{secret}127.0.0.1:{self.port}"

    @property
    def client_context(self) -> ssl.SSLContext | None:
        """For a client: trusts the server's authority, and no other. `None` without TLS."""
        return self._context

    @property
    def pid(self) -> int:
        assert self._process is not None, "the server has not been started, or it is killed"
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether there is a process; a frozen one is."""
        return self._process is not None and self._process.poll() is None

    def add_arguments(self, *arguments: str) -> None:
        """More options for its next start."""
        self._arguments = [*self._arguments, *arguments]

    def start(self, *, wait: bool = True) -> None:
        """Start it, on its port; and `wait` until it answers, which takes some 20 ms."""
        assert not self.is_running, "the server runs already"
        ports = ["--port", "0", "--tls-port", str(self.port)] if self.ca_file else ["--port", str(self.port)]
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                [self.command, *self._arguments, *ports],
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                process_group=0,
            )
        if wait:
            self.wait_ready()

    def wait_ready(self) -> None:
        """Block until it answers."""
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            if not self.is_running or time.monotonic() > deadline:
                if re.search(r"Failed finding TLS support|tls-.*\n.*Bad directive", self.log_text()):
                    without("has been built without TLS")
                raise AssertionError(f"{self.command} did not start on port {self.port}:\n{self.log_text()}")
            time.sleep(0.005)

    def wait_for(self, check: Callable[[RedisServer], bool], what: str) -> None:
        """Block until `check` is true of it."""
        deadline = time.monotonic() + START_SECONDS
        while not check(self):
            if time.monotonic() > deadline:
                raise AssertionError(f"the server on port {self.port} is not {what}:\n{self.log_text()}")
            time.sleep(0.02)

    def kill(self) -> None:
        """SIGKILL: what it has not written is lost, and its connections are reset. Again does nothing."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def restart(self) -> None:
        """Kill it, and start it on the same port. Without `persistent` it has forgotten all."""
        self.kill()
        self.start()

    def freeze(self) -> None:
        """SIGSTOP: its connections stay open, the kernel accepts new ones, and nobody answers."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT: it goes on with all that has arrived meanwhile."""
        os.kill(self.pid, signal.SIGCONT)

    def ask(self, *words: str | int) -> Any:
        """Send it one command, past the client that is tested; see `resp.ask`."""
        return resp.ask(self.port, *words, password=self.password, context=self._context)

    def flush(self) -> None:
        """Delete all keys, and the functions and scripts it has been given."""
        self.ask("FLUSHALL")
        self.ask("SCRIPT", "FLUSH")
        with suppress(resp.ReplyError):  # before Redis 7 there are none
            self.ask("FUNCTION", "FLUSH")

    def info(self, section: str) -> dict[str, str]:
        """A section of `INFO`."""
        lines = self.ask("INFO", section).splitlines()
        return {key: value for key, found, value in (line.partition(":") for line in lines) if found}

    def connections(self) -> list[dict[str, str]]:
        """The connections it has, without the one that asks: `name`, `cmd`, `sub`, ... of `CLIENT LIST`."""
        lines = self.ask("CLIENT", "LIST").splitlines()
        clients = [dict(field.partition("=")[::2] for field in line.split(" ")) for line in lines]
        asking = max(int(client["id"]) for client in clients if client["cmd"] in {"client", "client|list"})
        return [client for client in clients if int(client["id"]) != asking]

    def log_text(self) -> str:
        return self.log.read_text(errors="replace")

    def _answers(self) -> bool:
        try:
            return bool(self.ask("PING") == "PONG")
        except (OSError, resp.ReplyError):  # it loads its data still
            return False

    def _issue_certificate(self) -> list[str]:
        """An authority and a certificate; the server's options."""
        authority = trustme.CA()
        certificate = authority.issue_cert("127.0.0.1")
        self.ca_file, chain, key = (self.folder / f"{name}.pem" for name in ("ca", "cert", "key"))
        authority.cert_pem.write_to_path(self.ca_file)
        certificate.cert_chain_pems[0].write_to_path(chain)
        certificate.private_key_pem.write_to_path(key)
        self._context = ssl.create_default_context(cafile=self.ca_file)
        files = {"--tls-cert-file": chain, "--tls-key-file": key, "--tls-ca-cert-file": self.ca_file}
        return [*(str(word) for pair in files.items() for word in pair), "--tls-auth-clients", "no"]


@contextmanager
def redis_server(
    *options: str, tls: bool = False, password: str | None = None, persistent: bool = False
) -> Iterator[RedisServer]:
    """A server that answers, and that is gone afterwards, with its files.

    Where there is none, this skips the test. A Trio test takes it from a plain fixture: of a skip within the test,
    pytest-trio loses the reason.

    Args:
        options: more of its own, as on its command line: `"--maxclients", "5"`.
        tls: whether it speaks TLS, and nothing else. The certificate is for 127.0.0.1.
        password: what clients have to give.
        persistent: whether what it has answered survives `kill` (an append-only file, written before the answer).
    """
    with tempfile.TemporaryDirectory() as folder:
        arguments = ["--bind", "127.0.0.1", "--save", "", "--appendonly", "yes" if persistent else "no", *options]
        server = RedisServer(Path(folder), arguments, tls=tls, password=password)
        try:
            server.start()
            yield server
        finally:
            server.kill()


def has_its_primary(server: RedisServer) -> bool:
    """Whether it is a replica that has its primary's data, and hears from it."""
    return server.info("replication").get("master_link_status") == "up"


def start_together(servers: list[RedisServer]) -> None:
    """Start servers whose ports are written down already, and wait for all of them."""
    for server in servers:
        server.start(wait=False)
    for server in servers:
        server.wait_ready()
