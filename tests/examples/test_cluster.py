"""The example cluster: four workers on one port, of which some are killed, and what clients notice of it."""

from __future__ import annotations

import os
import re
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import trio
import trio_websocket
from selenium.webdriver.common.by import By
from starlette.datastructures import Address

from examples.cluster import HOST, check, kill, redis_command
from tests.examples.test_all_pages import HARD_TO_READ, check_width
from tests.examples.test_centrifuge import Talk
from tests.support.browser import Browser
from tests.support.node import require_node
from tests.support.process import START_SECONDS, Server, free_port, running
from tests.support.redis_server import require_redis
from verbtrio import Client, Denied

PATH = "/connection/websocket"
CLIENTS = 8
NOT_THERE = (OSError, trio_websocket.HandshakeError, trio_websocket.ConnectionClosed)
READ_TABLE = """
    return [...document.querySelectorAll(`[data-role="${arguments[0]}"] tr`)].map((row) =>
        [...row.cells].map((cell) => cell.textContent));
"""


@contextmanager
def a_cluster() -> Iterator[Server]:
    """The example, run as a program; at the end nothing of it is left."""
    require_redis()
    port = free_port()
    with running([sys.executable, "examples/cluster.py"], port, PORT=str(port), REDIS_URL="") as server:
        yield server
        assert server.stop() == 0, server.log_text()
        log = server.log_text()
        (redis,) = re.findall(r"Redis: unix://(/\S+)", log)
        assert not Path(redis).exists()
        for pid in re.findall(r"\[(\d+)\] \[INFO\] Running on", log):
            assert not Path("/proc", pid).exists(), log


@pytest.fixture(scope="module")
def running_cluster() -> Iterator[Server]:
    with a_cluster() as server:
        yield server


@pytest.fixture
def cluster(running_cluster: Server) -> Server:
    """With four workers that listen. (Of those that an earlier test has killed, others have taken the place.)"""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        log = running_cluster.log_text()
        if log.count("Running on") >= 4 + 2 * log.count("has ended"):
            return running_cluster
        time.sleep(0.05)
    raise AssertionError(f"there are no four workers:\n{running_cluster.log_text()}")


# -- in a browser


def clients(browser: Browser) -> list[list[str]]:
    """Of each client: its number, worker, state, and how many messages it has, it misses, and how often it resumed."""
    rows: list[list[str]] = browser.run(READ_TABLE, "clients")
    return rows


def workers(browser: Browser) -> dict[str, list[str]]:
    """The numbers of the clients that each worker serves."""
    return {row[0]: re.findall(r"\d+", row[2]) for row in browser.run(READ_TABLE, "workers")}


def all_connected(browser: Browser) -> list[list[str]]:
    """The clients, once all are connected."""
    rows = clients(browser)
    return rows if [row[2] for row in rows] == ["live"] * CLIENTS else []


def open_page(browser: Browser, server: Server) -> None:
    """Open it, with clients at several workers: again, should all have come to one."""
    while True:
        browser.open(server.url)
        rows = browser.until(lambda: all_connected(browser), "all are connected")
        if len({row[1] for row in rows}) > 1:
            return


def test_kill_a_worker_from_the_page(browser: Browser, cluster: Server) -> None:
    """Its clients come back at others, without having missed anything."""
    require_node()
    browser.console.allow_connection_failures(cluster.port)
    open_page(browser, cluster)

    def served() -> dict[str, list[str]]:
        found = workers(browser)
        numbers = sorted(number for numbers in found.values() for number in numbers)
        return found if numbers == list("12345678") else {}

    found = browser.until(served, "it is known who serves whom")
    for row in clients(browser):
        assert row[0] in found[row[1]], "the room's presence says what the clients were told"
    victim, victims = max(found.items(), key=lambda each: len(each[1]))
    browser.driver.find_element(By.CSS_SELECTOR, f"[data-role='workers'] [data-key='{victim}'] button").click()

    def resumed() -> list[list[str]]:
        rows = all_connected(browser)
        return rows if all(int(row[5]) >= 1 for row in rows if row[0] in victims) else []

    rows = browser.until(resumed, "the clients of the worker that was killed have resumed")
    assert victim not in {row[1] for row in rows}
    said = [int(row[3]) for row in rows]
    browser.until(
        lambda: all(int(row[3]) > before for row, before in zip(clients(browser), said, strict=True)), "all hear more"
    )
    assert [row[4] for row in clients(browser)] == ["0"] * CLIENTS
    status = browser.driver.find_element(By.CSS_SELECTOR, "[data-role='status']")
    browser.until(lambda: status.text == "8 of 8 connected, nothing missing", "that is said, too")

    for dark in (False, True):
        with browser.viewport(1200, 900, dark=dark):
            check_width(browser, 1200)
            assert browser.run("return document.documentElement.scrollHeight") <= 900
            assert browser.run(HARD_TO_READ) == []
    for width in (390, 360):
        with browser.viewport(width):
            check_width(browser, width)
    loaded: list[str] = browser.run("return performance.getEntriesByType('resource').map((entry) => entry.name)")
    assert [name for name in loaded if not name.startswith(f"{cluster.url}/")] == []


# -- without a browser


class Guest(Talk):
    worker = 0
    """The process that serves it."""

    async def heard(self) -> Any:
        """What is published next, whoever comes and goes meanwhile."""
        while "pub" not in (push := await self.push()):
            pass
        return push["pub"]


Enter = Callable[[], Awaitable[Guest]]


@asynccontextmanager
async def entrance(server: Server) -> AsyncIterator[Enter]:
    """A function that connects, once there is somebody: at a process that is about to end, a connection is reset."""
    async with AsyncExitStack() as streams, trio.open_nursery() as nursery:

        async def enter() -> Guest:
            host = f"{HOST}:{server.port}"
            while True:
                # A reset within the handshake makes trio-websocket wait for ever.
                with suppress(*NOT_THERE), trio.move_on_after(2):
                    stream = await streams.enter_async_context(await trio.open_tcp_stream(HOST, server.port))
                    connection = await trio_websocket.wrap_client_stream(nursery, stream, host, PATH)
                    guest = Guest(connection)
                    answer = await guest.ask("connect")
                    guest.id, guest.worker = answer["client"], answer["data"]["worker"]
                    return guest
                await trio.sleep(0.05)

        yield enter
        nursery.cancel_scope.cancel()


def parent(pid: int) -> int:
    """The hypercorn that has started this worker."""
    return int(Path("/proc", str(pid), "stat").read_text().rpartition(")")[2].split()[1])


async def two_apart(enter: Enter) -> tuple[Guest, Guest]:
    """Clients at workers of the two hypercorns, which have one port: the kernel gives some to each."""
    first = await enter()
    while parent((second := await enter()).worker) == parent(first.worker):
        await second.close()
    return first, second


async def test_a_worker_is_killed(cluster: Server) -> None:
    """Clients of two servers hear each other. One goes on at another worker, and has all that was said meanwhile."""
    with trio.fail_after(30):
        async with entrance(cluster) as enter:
            ada, bob = await two_apart(enter)
            entered = await ada.ask("subscribe", channel="lobby")
            await bob.ask("subscribe", channel="lobby")
            present = (await ada.ask("presence", channel="lobby"))["presence"]
            for guest in (ada, bob):
                assert present[guest.id]["chan_info"] == {"worker": guest.worker}
            await bob.ask("publish", channel="lobby", data=1)
            heard = await ada.heard()
            assert (heard["data"], heard["info"]["client"]) == (1, bob.id)

            await ada.send({"id": 9, "rpc": {"method": "kill"}})
            with pytest.raises(trio_websocket.ConnectionClosed):
                await ada.next()
            for number in (2, 3):
                await bob.ask("publish", channel="lobby", data=number)
            again = await enter()
            assert again.worker != ada.worker
            position = {"epoch": entered["epoch"], "offset": heard["offset"]}
            back = await again.ask("subscribe", channel="lobby", recover=True, **position)
            assert back["recovered"] is True
            assert [publication["data"] for publication in back["publications"]] == [2, 3]


async def test_only_from_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    killed: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "kill", lambda *arguments: killed.append(arguments))
    for address in (Address("192.0.2.1", 1), None):
        with pytest.raises(Denied):
            await kill(cast("Client", SimpleNamespace(client=address)))
    assert killed == []
    await kill(cast("Client", SimpleNamespace(client=Address("127.0.0.1", 1))))
    assert killed == [(os.getpid(), signal.SIGKILL)]


def test_without_redis(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SystemExit, match=r"^No redis-server found: install it .*, or set REDIS_URL$"):
        redis_command()


def test_a_port_that_another_has() -> None:
    """The two servers share it, but not with a stranger."""
    with socket.create_server((HOST, 0), reuse_port=True) as stranger:
        port = stranger.getsockname()[1]
        with pytest.raises(SystemExit, match=rf"^Port {port} can't be had \(Address already in use\): set PORT"):
            check(port)
    check(port)


def test_without_shared_ports(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(socket, "SO_REUSEPORT")
    with pytest.raises(SystemExit, match="SO_REUSEPORT"):
        check(free_port())
