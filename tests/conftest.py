"""Fixtures that several folders of tests share."""

from __future__ import annotations

import gc
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import trustme
from hypothesis import settings

from tests.support.process import Server, hypercorn
from tests.support.redis_server import RedisServer, redis_server
from verbtrio.contract import check

# A shell starts what it runs in the background with SIGINT ignored, and the servers would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Hypothesis's deadline for an example is an assertion on a time, which another machine, or a busy one, does not keep.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")


class Servers:
    """Server processes, each started when a test first asks for it and ended with the session. They have no worker
    process: they start and end in a third of the time, and no test waits for their drain."""

    def __init__(self, stack: ExitStack, folder: Path) -> None:
        self._stack = stack
        self._running: dict[str, Server] = {}
        self.authority = trustme.CA()
        certificate = self.authority.issue_cert("127.0.0.1")
        self.certfile, self.keyfile = folder / "cert.pem", folder / "key.pem"
        certificate.cert_chain_pems[0].write_to_path(self.certfile)
        certificate.private_key_pem.write_to_path(self.keyfile)

    def get(self, app: str, *, tls: bool = False) -> Server:
        key = f"{app} tls={tls}"
        if key not in self._running:
            options = [f"--certfile={self.certfile}", f"--keyfile={self.keyfile}"] if tls else []
            self._running[key] = self._stack.enter_context(hypercorn(app, "-w", "0", *options, tls=tls))
        return self._running[key]

    def terminate(self) -> None:
        """Tell all of them, so that they end at the same time: the stack then waits for one after the other."""
        for server in self._running.values():
            server.process.send_signal(signal.SIGTERM)


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    with ExitStack() as stack:
        servers = Servers(stack, tmp_path_factory.mktemp("tls"))
        yield servers
        servers.terminate()


@pytest.fixture(scope="session")
def redis() -> Iterator[RedisServer]:
    """A Redis that many tests share: each uses names of its own, and does nothing to the server itself."""
    with redis_server() as server:
        yield server


@pytest.fixture(scope="session", autouse=True)
def one_authority(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The only authority that is trusted by default, for nothing: to read the 140 of a usual machine takes 30 ms of
    each client of httpx and of each TLS context, and no test has to do with a server elsewhere."""
    file = tmp_path_factory.mktemp("authority") / "ca.pem"
    trustme.CA().cert_pem.write_to_path(file)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL_CERT_FILE", str(file))
        yield


@pytest.fixture(scope="module", autouse=True)
def heap() -> None:
    """Whether a connection leaves something behind, tests ask the garbage collector (tests/support/memory.py). What
    there is already when a module begins, modules, pytest's and Hypothesis's own, it need not look through each time:
    in a run of all tests that takes 0.1 s."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="module", autouse=True)
def parts_checked_once() -> Iterator[None]:
    """Other packages stay as they are while the tests run: what an application checks when it starts (15 ms, as much as
    many a test takes) is checked once a module. tests/contract, where they change, has a fixture of this name that
    changes nothing, and a part that has a fault is checked, and told, each time."""
    found: dict[str, bool] = {}

    def is_available(part: check.Part) -> bool:
        if not found.get(part.without):
            found[part.without] = check.is_available(part)
        return found[part.without]

    with pytest.MonkeyPatch.context() as patch:
        for module in ("lifespan", "serve"):
            patch.setattr(f"verbtrio.server.{module}.is_available", is_available)
        yield
