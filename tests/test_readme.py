"""What the README says is true: its commands are the ones CI runs, its program works, its links lead somewhere."""

from __future__ import annotations

import dataclasses
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypercorn.config import Config
from trio.abc import Clock

from tests.support.browser import Browser, chromium, require_browser
from tests.support.memory import serving
from tests.support.process import ROOT, Server, free_port, running
from verbtrio import App, Limits
from verbtrio.guards.rate import MAX_WAITING
from verbtrio.server.takeover.http1 import EVENTS_AT_ONCE
from verbtrio.server.takeover.http2 import IN_PROGRESS
from verbtrio.server.takeover.http2_buffers import HELD_BYTES
from verbtrio.server.takeover.http2_frames import (
    BURST,
    MAX_SETTINGS,
    MAX_SETTINGS_FRAMES,
    PER_REQUEST,
    PER_SECOND,
    PER_SENT_FRAME,
    SLICE_BYTES,
    SLICE_FRAMES,
)
from verbtrio.server.takeover.incoming import BODY_BYTES, PROGRESS_BYTES
from verbtrio.wire.poller import TURN_BYTES

README = (ROOT / "README.md").read_text()
FIRST_SCREEN = "\n".join(README.splitlines()[:20])
TEST_COMMAND = "python3 -m venv .venv && .venv/bin/pip install nox && .venv/bin/nox"


def test_the_two_commands_are_on_the_first_screen() -> None:
    lines = FIRST_SCREEN.splitlines()
    assert TEST_COMMAND in lines
    assert f"{TEST_COMMAND} -s demo" in lines


def test_ci_runs_the_test_command() -> None:
    script = (ROOT / ".ci" / "run").read_text()
    assert TEST_COMMAND in script.splitlines()


def chat() -> str:
    """The program."""
    found = re.search(r"```python\n(from typing.*?)```", README, re.DOTALL)
    assert found is not None
    return found[1]


async def test_the_chat_works(autojump_clock: Clock) -> None:
    names: dict[str, Any] = {"__name__": "chat"}
    exec(chat(), names)
    app = names["app"]
    assert isinstance(app, App)
    async with serving(app) as service:
        ana, ben = await service.connect("/ws/red"), await service.connect("/ws/red")
        assert json.loads(await ana.get_message()) == {"type": "welcome", "room": "red", "userCount": 1}
        assert json.loads(await ben.get_message()) == {"type": "welcome", "room": "red", "userCount": 2}
        await ana.send_message('{"text": "hi"}')
        assert json.loads(await ben.get_message()) == {"type": "message", "text": "hi"}
        await ana.aclose()
        await ben.aclose()


class TestTheTrialInTheConsole:
    """In a real browser, as somebody who reads on does it: on the server's own page, since WebSockets are
    same-origin."""

    @pytest.fixture
    def server(self, tmp_path: Path) -> Iterator[Server]:
        require_browser()
        file, port = tmp_path / "chat.py", free_port()
        file.write_text(chat())
        with running([sys.executable, str(file)], port, PORT=str(port)) as server:
            yield server

    @pytest.fixture
    def browser(self) -> Iterator[Browser]:
        require_browser()
        with chromium() as browser:
            yield browser

    def test_two_tabs(self, server: Server, browser: Browser) -> None:
        script = re.search(r"```js\n(.*?)```", README, re.DOTALL)
        assert script is not None
        connect, say = script[1].splitlines()
        tabs = []
        for _ in range(2):
            browser.driver.switch_to.new_window("tab")
            tabs.append(browser.driver.current_window_handle)
            browser.open(server.url)
            assert "console" in browser.run("return document.body.textContent")
            browser.run("window.logged = []; console.log = (line) => logged.push(line)")
            browser.run(connect)
            browser.until(lambda: browser.run("return ws.readyState") == 1, "the WebSocket is open")
        browser.run(say)
        browser.driver.switch_to.window(tabs[0])
        browser.until(lambda: len(browser.run("return logged")) == 2, "the other tab is heard")
        assert [json.loads(line) for line in browser.run("return logged")] == [
            {"type": "welcome", "room": "lobby", "userCount": 1},
            {"type": "message", "text": "hello"},
        ]

    def test_on_another_page(self, server: Server, browser: Browser) -> None:
        """Why it has to be that page. (This one has another host.)"""
        browser.open(f"http://localhost:{server.port}")
        browser.run(f"ws = new WebSocket('ws://127.0.0.1:{server.port}/ws/lobby')")
        browser.until(lambda: browser.run("return ws.readyState") == 3, "the WebSocket is refused")
        browser.console.wait_for("403")


def test_the_security_page_is_a_program(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its parts run, one after the other."""
    monkeypatch.setenv("SECRET_KEY", "a secret of thirty-two bytes, or more")
    page = (ROOT / "docs" / "security.md").read_text()
    parts = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len(parts) >= 10
    names: dict[str, Any] = {"__name__": "page"}
    for part in parts:
        exec(part, names)
    assert [route.path for route in names["app"].routes][-1] == "/safe"


def test_the_security_page_has_every_limit() -> None:
    page = (ROOT / "docs" / "security.md").read_text()
    table = page[page.index("## Limits") : page.index("## Behind a reverse proxy")]
    assert not [field.name for field in dataclasses.fields(Limits) if f"`{field.name}`" not in table]


def test_the_threat_model_has_every_bound() -> None:
    page = (ROOT / "docs" / "threat-model.md").read_text()
    table = page[page.index("## What is bounded") : page.index("## What is refused")]
    names = re.findall(r"[a-z0-9]+(?:_[a-z0-9]+)+", " ".join(re.findall(r"`([^`]*)`", table)))
    assert not [field.name for field in dataclasses.fields(Limits) if field.name not in names]
    config = Config()
    for name in names:
        assert name in Limits.__slots__ or hasattr(config, name) or name == "max_body_size", f"there is no {name}"
    sizes = [f"{BODY_BYTES // 1024} KiB", f"{PROGRESS_BYTES // 1024} KiB more", f"{HELD_BYTES // 1024**2} MiB"]
    rates = [f"{BURST:,.0f} at once, {PER_SECOND:.0f} a second", f"{PER_REQUEST:.0f} for each request"]
    counts = [
        f"{PER_SENT_FRAME:.0f} for each DATA frame",
        f"{MAX_SETTINGS} parameters",
        f"{MAX_SETTINGS_FRAMES} frames",
    ]
    slices = [f"{EVENTS_AT_ONCE} events", f"{SLICE_FRAMES} frames or {SLICE_BYTES // 1024} KiB", f"{MAX_WAITING:,}"]
    slices.append(f"{TURN_BYTES // 1024} KiB of WebSockets")
    hypercorn = [
        f"{config.h11_max_incomplete_size // 1024} KiB",
        f"| {IN_PROGRESS * config.h2_max_concurrent_streams} |",
    ]
    assert not [figure for figure in sizes + rates + counts + slices + hypercorn if figure not in table]


PAGES = ["README.md", "CHANGELOG.md", *(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("page", sorted(PAGES))
def test_links_lead_somewhere(page: str) -> None:
    """To a file, and to a heading where they name one."""
    text = (ROOT / page).read_text()
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in target:
            continue
        path, _, fragment = target.partition("#")
        file = (ROOT / page).parent / path if path else ROOT / page
        assert file.exists(), target
        if fragment:
            assert fragment in anchors(file.read_text()), target


def anchors(text: str) -> set[str]:
    """The headings of a page, as GitHub names them."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
