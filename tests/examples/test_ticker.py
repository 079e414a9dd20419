"""The example ticker: who watches gets every price, a slow client the latest, and none are made for nobody."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio
import trio.testing
import trio_websocket
from selenium.webdriver.common.by import By
from trio.abc import Clock

from examples.ticker import LINGER_SECONDS, PAUSE_SECONDS, SYMBOLS, app
from tests.conftest import Servers
from tests.support.browser import Browser
from tests.support.http import Exchange
from tests.support.memory import Service, serving, shake_hands
from tests.support.process import ROOT
from tests.support.sse import parse

Quote = dict[str, Any]


async def status(service: Service) -> dict[str, Any]:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(service.asgi), base_url="http://test") as client:
        answer: dict[str, Any] = (await client.get("/status")).json()
    return answer


def rounds(quotes: list[Quote]) -> list[tuple[int, str]]:
    return [(quote["number"], quote["symbol"]) for quote in quotes]


def all_of(*numbers: int) -> list[tuple[int, str]]:
    return [(number, symbol) for number in numbers for symbol in SYMBOLS]


async def test_every_price_to_who_reads(autojump_clock: Clock) -> None:
    async with serving(app) as service:
        client = await service.connect()
        stream = await Exchange(service.open_stream()).request("/events")
        assert stream.headers["content-type"] == "text/event-stream; charset=utf-8"
        begin = trio.current_time()
        quotes = [json.loads(await client.get_message()) for _ in range(3 * len(SYMBOLS))]
        assert rounds(quotes) == all_of(1, 2, 3)
        assert trio.current_time() - begin == pytest.approx(2 * PAUSE_SECONDS)
        for quote in quotes:
            assert quote.keys() == {"symbol", "price", "number"}
            assert 95 < quote["price"] < 105
            assert quote["price"] == round(quote["price"], 2)
        events = parse(await stream.until(b'"number":3}\n\n'))
        heard = [json.loads(event.data) for event in events]
        assert heard == [quote for quote in quotes if quote in heard], "the same prices, in the same order"
        assert rounds(heard)[-2 * len(SYMBOLS) :] == all_of(2, 3)
        await stream.aclose()
        await client.aclose()


async def test_the_task_runs_while_somebody_watches(autojump_clock: Clock) -> None:
    async with serving(app) as service:
        assert await status(service) == {"running": False, "watching": 0, "slow": 0, "sent": 0, "dropped": 0}
        ana, ben = await service.connect(), await service.connect()
        await trio.sleep(1)
        found = await status(service)
        assert (found["running"], found["watching"]) == (True, 2)
        await ana.aclose()
        await trio.sleep(LINGER_SECONDS + 1)
        found = await status(service)
        assert (found["running"], found["watching"]) == (True, 1), "it is not the first who matters"
        await ben.aclose()
        left = trio.current_time()
        found = await status(service)
        assert (found["running"], found["watching"]) == (True, 0)
        await trio.sleep(LINGER_SECONDS - 0.01)
        assert (await status(service))["running"]
        back = await service.connect()  # in time: the prices go on
        assert json.loads(await back.get_message())["number"] > (trio.current_time() - left) / PAUSE_SECONDS
        await back.aclose()
        await trio.sleep(LINGER_SECONDS + 0.01)
        assert not (await status(service))["running"]
        again = await service.connect()  # too late: they begin anew
        assert json.loads(await again.get_message())["number"] == 1
        await again.aclose()


class Slow:
    """A client that reads only when it is told to. Until then the server waits, as for a full socket."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream

    async def read(self) -> list[Quote]:
        """What the server had written or still has queued, without what it makes next."""
        data = b""
        with trio.move_on_after(PAUSE_SECONDS / 2):
            while more := await self._stream.receive_some():
                data += more
        return list(self._messages(data))

    def _messages(self, data: bytes) -> Iterator[Quote]:
        raise NotImplementedError

    async def aclose(self) -> None:
        await trio.aclose_forcefully(self._stream)


class SlowSocket(Slow):
    def _messages(self, data: bytes) -> Iterator[Quote]:
        while data:
            assert data[0] == 0x81, "text, whole"
            size = data[1]
            assert size < 126
            yield json.loads(data[2 : 2 + size])
            data = data[2 + size :]


class SlowStream(Slow):
    """Of server-sent events, in chunks."""

    def _messages(self, data: bytes) -> Iterator[Quote]:
        body = b""
        while data:
            size, _, data = data.partition(b"\r\n")
            body, data = body + data[: int(size, 16)], data[int(size, 16) + 2 :]
        for event in parse(body):
            yield json.loads(event.data)


async def open_slow(service: Service, kind: type[Slow]) -> Slow:
    stream = service.open_stream(trio.testing.lockstep_stream_pair)
    if kind is SlowSocket:
        await shake_hands(stream, headers=b"Origin: http://x\r\n")
    else:
        await stream.send_all(b"GET /events HTTP/1.1\r\nHost: x\r\n\r\n")
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += await stream.receive_some(1)
    return kind(stream)


@pytest.mark.parametrize("kind", [SlowSocket, SlowStream])
async def test_a_slow_client_gets_the_latest(kind: type[Slow], autojump_clock: Clock) -> None:
    """What is being written while it does not read; then one price of each symbol, the newest; and nothing twice."""
    async with serving(app) as service, trio.open_nursery() as nursery:
        fast = await service.connect()
        told: list[Quote] = []

        async def listen() -> None:
            with suppress(trio_websocket.ConnectionClosed):
                while True:
                    told.append(json.loads(await fast.get_message()))

        nursery.start_soon(listen)
        slow = await open_slow(service, kind)
        got: list[Quote] = []
        await trio.sleep(0.75 * PAUSE_SECONDS)  # so that no price is made while it reads
        for being_written in (2, 53, 104, 155):
            await trio.sleep(50.5 * PAUSE_SECONDS)
            found = await slow.read()
            assert rounds(found) == all_of(being_written, told[-1]["number"])
            assert all(quote in told for quote in found)
            got += found
        figures = await status(service)
        assert figures["slow"] == 1
        assert figures["dropped"] == len(told) - len(all_of(1)) - len(got)
        await fast.aclose()
        await slow.aclose()


@contextmanager
def slow_client(url: str, output: Path) -> Iterator[Callable[[], list[int]]]:
    """examples/slow.py; gives what numbers it has received so far."""
    command = [sys.executable, str(ROOT / "examples" / "slow.py"), f"{url}/events"]
    with output.open("w") as file, subprocess.Popen(command, stdout=file) as process:
        try:
            yield lambda: [int(number) for number in re.findall(r'"number":(\d+)}', output.read_text())]
        finally:
            process.terminate()


def test_in_a_browser(browser: Browser, servers: Servers, tmp_path: Path) -> None:
    url = servers.get("examples.ticker:app").url

    def text(role: str) -> str:
        return browser.driver.find_element(By.CSS_SELECTOR, f"[data-role={role}]").text

    def number() -> int:
        """Of the first symbol's last price."""
        return int(browser.driver.find_element(By.CSS_SELECTOR, "[data-role=prices] tr").text.split()[-1])

    browser.open(url)
    browser.until(lambda: text("task") == "The task is running", "the task runs")
    browser.until(lambda: len(text("prices").splitlines()) == len(SYMBOLS), "all prices are there")
    assert [line.split()[0] for line in text("prices").splitlines()] == SYMBOLS
    assert text("status") == "Watching"
    browser.until(lambda: text("watching") == "1", "it is the only one")
    assert text("slow") == "0"
    first = number()
    browser.until(lambda: number() > first, "prices change")
    with slow_client(url, tmp_path / "events") as numbers:
        browser.until(lambda: text("slow") == "1", "one is slow")
        assert text("watching") == "2"
        assert int(text("sent")) > int(text("dropped")) > 0
        before = number()
        browser.until(lambda: number() > before, "the page is not held up")
        browser.until(lambda: any(later > earlier + 1 for earlier, later in pairwise(numbers())), "its numbers jump")
    browser.until(lambda: text("watching") == "1", "it has left")
    browser.driver.find_element(By.CSS_SELECTOR, "[data-role=watch]").click()
    assert text("status") == "Not watching"
    browser.until(lambda: text("watching") == "0", "nobody watches")
    browser.until(lambda: text("task") == "The task is not running", "nobody has watched for a while")
    reached = number()
    browser.driver.find_element(By.CSS_SELECTOR, "[data-role=watch]").click()
    browser.until(lambda: text("task") == "The task is running", "it runs again")
    browser.until(lambda: number() < reached, "the prices begin anew")
