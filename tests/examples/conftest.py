"""The browser and the demo for the examples' tests, and what is started with the first of them."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
import trio

from tests.conftest import Servers
from tests.support.browser import Browser, chromium, require_browser
from tests.support.peers import connect
from tests.support.process import Server


async def wait_for_a_ping(url: str) -> float:
    """Seconds from the welcome to the first ping."""
    async with connect(url) as peer:
        assert (await peer.receive())["type"] == "welcome"
        begin = trio.current_time()
        await trio.sleep(25)
        assert await peer.receive() == {"type": "ping"}
        return trio.current_time() - begin


@pytest.fixture(scope="session", autouse=True)
def first_ping(request: pytest.FixtureRequest, servers: Servers) -> Iterator[Future[float] | None]:
    """The heartbeat example's first ping, for tests/examples/test_waiting.py, if that is among the tests to be run. A
    thread waits for it while the other tests run."""
    if not any(item.path.name == "test_waiting.py" for item in request.session.items):
        yield None
        return
    url = servers.get("examples.heartbeat:app").url.replace("http", "ws", 1) + "/ws"
    with ThreadPoolExecutor(1) as thread:
        yield thread.submit(trio.run, wait_for_a_ping, url)


@pytest.fixture(scope="module")
def running_chromium() -> Iterator[Browser]:
    require_browser()
    with chromium() as browser:
        yield browser


@pytest.fixture
def browser(running_chromium: Browser) -> Iterator[Browser]:
    """The module's browser; afterwards the test's page is closed, and must have left no error on the console."""
    browser = running_chromium
    browser.console.clear()
    yield browser
    browser.close_page()
    assert browser.console.errors() == []


@pytest.fixture
def demo(servers: Servers) -> Server:
    return servers.get("examples.demo:app")
