"""The example streaming, over the wire and in a browser."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import h11
import httpx
import pytest
import trio
from selenium.webdriver.common.by import By

from examples.streaming import MAX_UPLOAD_BYTES
from tests.conftest import Servers
from tests.support.browser import Browser
from tests.support.http import Exchange
from tests.support.peers import connect
from tests.support.process import hypercorn
from tests.support.sse import parse


@pytest.fixture
def url(servers: Servers) -> str:
    return servers.get("examples.streaming:app").url


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient() as client:
        yield client


async def test_the_countdown(url: str, client: httpx.AsyncClient) -> None:
    async with client.stream("GET", f"{url}/countdown/2") as response:
        assert response.headers["content-type"] == "text/plain; charset=utf-8"
        pieces = [piece async for piece in response.aiter_raw()]
    assert pieces == [b"2\n", b"1\n", b"Lift-off!\n"]


@pytest.mark.parametrize(("last", "numbers"), [(None, range(1, 11)), ("10", range(11, 21)), ("x", range(1, 11))])
async def test_the_ticks(url: str, client: httpx.AsyncClient, last: str | None, numbers: range) -> None:
    response = await client.get(f"{url}/ticks", headers={} if last is None else {"last-event-id": last})
    assert response.text.startswith("retry: 1000\n\n")
    events = parse(response.content)
    assert [event.id for event in events] == [str(number) for number in numbers]
    assert {event.event for event in events} == {"tick"}


async def test_the_squares(url: str, client: httpx.AsyncClient) -> None:
    response = await client.get(f"{url}/squares/2500")
    squares = response.json()
    assert len(squares) == 2500
    assert squares[-1] == {"number": 2499, "square": 2499**2}


async def test_up_and_down(url: str, client: httpx.AsyncClient) -> None:
    body = bytes(range(256)) * 4096

    async def pieces() -> AsyncIterator[bytes]:
        for begin in range(0, len(body), 100_000):
            yield body[begin : begin + 100_000]

    response = await client.put(f"{url}/files/a.bin", content=pieces())
    assert (response.status_code, response.json()) == (201, {"name": "a.bin", "size": len(body)})
    response = await client.get(f"{url}/files/a.bin")
    assert response.content == body
    assert response.headers["content-disposition"] == 'attachment; filename="a.bin"'
    etag = response.headers["etag"]
    for asked, first, last in (("0-9", 0, 9), ("-10", len(body) - 10, len(body) - 1), ("1000000-", 1000000, 1048575)):
        response = await client.get(f"{url}/files/a.bin", headers={"range": f"bytes={asked}", "if-range": etag})
        assert response.status_code == 206
        assert response.headers["content-range"] == f"bytes {first}-{last}/{len(body)}"
        assert response.content == body[first : last + 1]
    response = await client.get(f"{url}/files/a.bin", headers={"range": f"bytes={len(body)}-"})
    assert response.status_code == 416


async def test_up_and_down_where_it_is_mounted(servers: Servers, client: httpx.AsyncClient) -> None:
    url = servers.get("examples.demo:app").url
    assert (await client.put(f"{url}/streaming/files/b.txt", content=b"b")).status_code == 201
    assert (await client.get(f"{url}/streaming/files/b.txt")).content == b"b"


@pytest.mark.parametrize("name", [".hidden", "%2e%2e%2fetc", "a%2fb", "a%00", "-rf", "x" * 101, "a%0a"])
async def test_invalid_names(url: str, client: httpx.AsyncClient, name: str) -> None:
    for method in ("GET", "PUT"):
        assert (await client.request(method, f"{url}/files/{name}", content=b"x")).status_code in (400, 404, 405)


def files_in(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


async def test_what_is_not_complete_is_thrown_away(client: httpx.AsyncClient, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))  # where the server makes its folder
    with hypercorn("examples.streaming:app") as server:
        async with await trio.open_tcp_stream("127.0.0.1", server.port) as stream:
            large = Exchange(stream)
            await large.begin("/files/large.bin", method="PUT", headers={"transfer-encoding": "chunked"})
            for _ in range(MAX_UPLOAD_BYTES // (1024 * 1024)):
                await large.send(h11.Data(data=bytes(1024 * 1024)))
            await large.send(h11.Data(data=b"one more"))
            assert (await large.head()).status == 413
        stream = await trio.open_tcp_stream("127.0.0.1", server.port)
        await stream.send_all(b"PUT /files/cut.bin HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nbeginning")
        with trio.fail_after(5):
            while not files_in(tmp_path):
                await trio.sleep(0.01)
            await stream.aclose()
            while files_in(tmp_path):
                await trio.sleep(0.01)
        assert (await client.get(f"{server.url}/files/cut.bin")).status_code == 404
        assert "Traceback" not in server.log_text()


async def test_the_chat_is_heard(servers: Servers) -> None:
    server = servers.get("examples.streaming:app")
    async with await trio.open_tcp_stream("127.0.0.1", server.port) as stream:
        listener = await Exchange(stream).request("/events/red")
        async with connect(server.url.replace("http", "ws") + "/ws/red") as peer:
            await peer.send("hello")
            assert await peer.receive() == {"type": "message", "text": "hello"}
        assert await listener.piece() == b'data: {"type":"message","text":"hello"}\n\n'


def test_in_a_browser(browser: Browser, url: str) -> None:
    def lines(role: str) -> list[str]:
        return [line.text for line in browser.driver.find_elements(By.CSS_SELECTOR, f"[data-role={role}] li")]

    def click(role: str) -> None:
        browser.driver.find_element(By.CSS_SELECTOR, f"[data-role={role}]").click()

    browser.open(url)
    click("countdown")
    browser.until(lambda: lines("made") == ["3", "2", "1", "Lift-off!"], "the countdown")
    click("ticks")  # more than one response has: the browser asks for the rest by itself
    browser.until(lambda: len(lines("made")) > 4 + 12, "the ticks")
    click("stop")
    ticks = lines("made")[4:]
    assert ticks == [f"Tick {number}" for number in range(1, len(ticks) + 1)]
    browser.until(
        lambda: browser.driver.find_element(By.CSS_SELECTOR, "[data-role=status]").text == "Listening", "it listens"
    )
    browser.driver.find_element(By.NAME, "text").send_keys("hello\n")
    browser.until(lambda: lines("heard") == ["hello"], "the message is heard")
