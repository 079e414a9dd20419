"""What the README and the docs say is true: the commands are the ones CI runs, the programs work, the links lead
somewhere."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
import tomllib
import warnings
from collections.abc import Iterator
from inspect import signature
from pathlib import Path
from typing import Any

import pytest
import trio
from hypercorn.config import Config
from starlette.websockets import WebSocketDisconnect
from trio.abc import Clock

from tests.support.browser import Browser, chromium, require_browser
from tests.support.memory import serving
from tests.support.process import ROOT, Server, free_port, running
from tests.test_client_pages import PAGES as CLIENT_PAGES
from tests.test_room_pages import PAGES as ROOM_PAGES
from verbtrio import App, Limits
from verbtrio.base.close import CANCEL_GRACE
from verbtrio.guards.rate import MAX_WAITING
from verbtrio.hub.drain import CUT_SECONDS
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
from verbtrio.wire.stream_transport import LINGER_BYTES
from verbtrio.wire.stream_transport import SLICE_BYTES as SLICE

with warnings.catch_warnings():  # that httpx2 is to replace httpx
    warnings.simplefilter("ignore")
    from starlette.testclient import TestClient, WebSocketDenialResponse

README = (ROOT / "README.md").read_text()
FIRST_SCREEN = "\n".join(README.splitlines()[:20])
DEVELOPING = README.partition("\n## Developing\n")[2]
TEST_COMMAND = "python3 -m venv .venv && .venv/bin/pip install nox && .venv/bin/nox"


def test_the_two_commands_are_where_one_looks_for_them() -> None:
    assert f"{TEST_COMMAND} -s demo" in FIRST_SCREEN.splitlines()
    assert TEST_COMMAND in DEVELOPING.splitlines()


def test_ci_runs_the_test_command() -> None:
    script = (ROOT / ".ci" / "run").read_text()
    assert TEST_COMMAND in script.splitlines()


def blocks(page: str, language: str = "python") -> list[str]:
    """The code blocks of a page."""
    return re.findall(rf"^```{language}\n(.*?)^```", (ROOT / page).read_text(), re.DOTALL | re.MULTILINE)


ECHO, CHAT, *ADDITIONS = blocks("README.md")


def run(*programs: str) -> dict[str, Any]:
    """The names of one module that has `programs` in it, one after the other."""
    names: dict[str, Any] = {"__name__": "program"}
    for program in programs:
        exec(compile(program, "program", "exec", dont_inherit=True), names)
    return names


@pytest.fixture
def secret_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_KEY", "a secret of thirty-two bytes, or more")


async def test_the_echo_works(autojump_clock: Clock) -> None:
    async with serving(run(ECHO)["app"]) as service:
        client = await service.connect("/ws")
        await client.send_message("hello")
        assert await client.get_message() == "hello"
        await client.aclose()


async def test_the_chat_works(autojump_clock: Clock) -> None:
    app = run(CHAT)["app"]
    assert isinstance(app, App)
    async with serving(app) as service:
        ana, ben = await service.connect("/ws/red"), await service.connect("/ws/red")
        assert await ana.get_message() == "Welcome to red. Members: 1"
        assert await ben.get_message() == "Welcome to red. Members: 2"
        await ana.send_message("hi")
        assert await ben.get_message() == "hi"
        await ana.aclose()
        await ben.aclose()


@pytest.fixture
def script(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Server]:
    """A program of the README, as a script on a free port."""
    file, port = tmp_path / "program.py", free_port()
    file.write_text(request.param)
    with running([sys.executable, str(file)], port, PORT=str(port)) as server:
        yield server


@pytest.mark.parametrize("script", [ECHO], indirect=True, ids=["echo"])
def test_the_trial_in_a_terminal(script: Server) -> None:
    (command,) = re.findall(r"^python (-m websockets) ws://127.0.0.1:3000(/ws)$", README, re.MULTILINE)
    client = [sys.executable, *command[0].split(), f"ws://127.0.0.1:{script.port}{command[1]}"]
    with subprocess.Popen(client, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write("hello\n")
        process.stdin.flush()
        assert any("< hello" in line for line in process.stdout), "the line has come back"
        process.stdin.close()
        process.stdout.read()
    assert process.returncode == 0


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    require_browser()
    with chromium() as browser:
        yield browser


@pytest.mark.parametrize("script", [CHAT], indirect=True, ids=["chat"])
class TestTheTrialInABrowser:
    LINES = "return [...document.querySelectorAll('li')].map((line) => line.textContent)"

    def test_two_tabs(self, script: Server, browser: Browser) -> None:
        tabs = []
        for here in (1, 2):
            browser.driver.switch_to.new_window("tab")
            tabs.append(browser.driver.current_window_handle)
            browser.open(script.url)
            browser.until(lambda: bool(browser.run(self.LINES)), "the page is connected")
            assert browser.run(self.LINES) == [f"Welcome to lobby. Members: {here}"]
        browser.driver.find_element("name", "text").send_keys("hello\n")
        for tab in tabs:
            browser.driver.switch_to.window(tab)
            browser.until(lambda: browser.run(self.LINES)[1:] == ["hello"], "both tabs hear it")

    def test_another_room(self, script: Server, browser: Browser) -> None:
        browser.open(f"{script.url}/?garden")
        welcome = ["Welcome to garden. Members: 1"]
        browser.until(lambda: browser.run(self.LINES) == welcome, "the query names the room")

    def test_on_another_page(self, script: Server, browser: Browser) -> None:
        """WebSockets are same-origin. (This page has another host.)"""
        browser.open(f"http://localhost:{script.port}")
        browser.run(f"other = new WebSocket('ws://127.0.0.1:{script.port}/ws/lobby')")
        browser.until(lambda: browser.run("return other.readyState") == 3, "the WebSocket is refused")
        browser.console.wait_for("403")


class TestTheAdditions:
    """The sections behind the chat add to its program."""

    @pytest.fixture
    def names(self, secret_key: None) -> dict[str, Any]:
        return run(CHAT, *ADDITIONS)

    def test_the_test_passes(self, names: dict[str, Any]) -> None:
        names["test_the_chat"]()

    def test_they_do_what_is_said(self, names: dict[str, Any]) -> None:
        auth = names["auth"]
        with TestClient(names["app"], backend="trio") as client:
            with client.websocket_connect("/hooks") as ws:
                assert ws.receive_text() == "welcome"
                ws.send_text("hello")
                assert ws.receive_text() == "HELLO"
            with client.websocket_connect("/tables/7") as ws:
                assert ws.receive_text() == "This is table 7"
                ws.send_text("hello")
                assert ws.receive_text() == "Table 7: hello"
            with pytest.raises(WebSocketDenialResponse) as denied, client.websocket_connect("/tables/x"):
                pass
            assert denied.value.status_code == 404
            with client.websocket_connect("/moves") as ws:
                ws.send_json({"x": 1})
                assert ws.receive_json()["type"] == "error"
                ws.send_json({"x": 1, "y": 2})
                assert ws.receive_json() == {"sum": 3}
            with client.websocket_connect("/ws/lobby") as ws:
                ws.receive_text()
                assert client.post("/announce/lobby").json() == {"reached": 1}
                assert ws.receive_text() == "Attention, please"
            with client.websocket_connect("/team/red") as ws:
                assert ws.receive_json() == {"present": 1}
                for text in ("one", "two"):
                    ws.send_text(text)
                one, two = ws.receive_json(), ws.receive_json()
                assert [one["text"], two["text"]] == ["one", "two"]
            with client.websocket_connect(f"/team/red?since={one['at']}") as ws:
                assert ws.receive_json() == two
                assert "present" in ws.receive_json()
            with client.websocket_connect("/connection/websocket") as ws:
                ws.send_json({"id": 1, "connect": {}})
                identity = ws.receive_json()["connect"]["client"]
                ws.send_json({"id": 2, "rpc": {"method": "whoami"}})
                assert ws.receive_json()["rpc"] == {"data": identity}
                ws.send_json({"id": 3, "subscribe": {"channel": "talk:a"}})
                assert ws.receive_json()["subscribe"]["recoverable"]
                ws.send_json({"id": 4, "publish": {"channel": "talk:a", "data": {"text": "hi"}}})
                answers: list[Any] = []
                while len(answers) < 2:
                    answers += map(json.loads, ws.receive_text().splitlines())
                assert {"id": 4, "publish": {}} in answers
                (said,) = (answer["push"]["pub"]["data"] for answer in answers if "push" in answer)
                assert said == {"text": "hi"}
            headers = {"Authorization": f"Bearer {auth.issue({'id': 5, 'roles': ['metrics', 'member']})}"}
            with client.websocket_connect("/members/red", headers=headers) as ws:
                assert ws.receive_text() == "hello, user 5"
                ws.send_text("hello")
                assert ws.receive_text() == "5: hello"
                assert client.post("/notify/5").status_code == 401
                assert client.post("/notify/5", headers=headers).json() == {"reached": 1}
                assert ws.receive_text() == "You have mail"
            assert client.get("/counter").text.count("data:") == 3
            assert client.get("/metrics").status_code == 401
            assert "verbtrio_connections 0.0" in client.get("/metrics", headers=headers).text

    async def test_it_is_served_in_a_trio_program(
        self, names: dict[str, Any], capsys: pytest.CaptureFixture[str]
    ) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(names["main"])
            with trio.fail_after(15):
                while "Listening on http://127.0.0.1:" not in capsys.readouterr().out:
                    await trio.sleep(0.01)
            nursery.cancel_scope.cancel()


class TestTheGuide:
    """It is one program."""

    @pytest.fixture
    def names(self, secret_key: None) -> dict[str, Any]:
        return run(*blocks("docs/guide.md"))

    def test_its_tests_pass(self, names: dict[str, Any]) -> None:
        tests = [thing for name, thing in names.items() if name.startswith("test_")]
        assert len(tests) >= 2
        for test in tests:
            test()

    async def test_it_is_served(self, names: dict[str, Any]) -> None:
        await names["main"]()

    def test_handlers(self, names: dict[str, Any]) -> None:
        with TestClient(names["app"], backend="trio") as client:
            with client.websocket_connect("/greet") as ws:
                assert ws.receive_text() == "What is your name?"
                ws.send_text("Ada")
                with pytest.raises(WebSocketDisconnect) as closed:
                    ws.receive_text()
                assert (closed.value.code, closed.value.reason) == (1000, "Goodbye, Ada")
            with client.websocket_connect("/functions") as ws:
                assert ws.receive_text() == "welcome"
                ws.send_text("hello")
                assert ws.receive_text() == "hello"
            with client.websocket_connect("/class") as ws:
                for count in (1, 2):
                    ws.send_text("hello")
                    assert ws.receive_json() == {"count": count}
            with client.websocket_connect("/careful") as ws:
                ws.send_text("hello")
                assert ws.receive_text() == "hello"
            with client.websocket_connect("/typed") as ws:
                ws.send_json({"type": "rename", "name": "Ada"})
                ws.send_json({"type": "say", "text": "hello"})
                assert ws.receive_json()["text"] == "Ada: hello"
            with client.websocket_connect("/hooks/red") as ana, client.websocket_connect("/hooks/red") as ben:
                ana.send_text("hello")
                assert ben.receive_text() == "hello"
            with client.websocket_connect("/tables/round/7") as ws:
                assert ws.receive_json() == {"table": "round", "seat": 7}
            with client.websocket_connect("/team/red") as ws:
                assert ws.receive_json() == {"here": 1}
                ws.send_text("hello")
                said = ws.receive_json()
                ws.send_text("missed")
                assert (said["text"], ws.receive_json()["text"]) == ("hello", "missed")
            with client.websocket_connect(f"/team/red?since={said['at']}") as ws:
                assert ws.receive_json()["text"] == "missed"
            for offered, spoken in (["chat.v1"], "chat.v1"), (["chat.v1", "chat.v2"], "chat.v2"), (["x"], None):
                with client.websocket_connect("/versions", subprotocols=offered) as ws:
                    assert ws.receive_text() == f"You speak {spoken}"
            with client.websocket_connect("/send") as ws:
                assert ws.receive_json() == {"type": "welcome"}
                assert ws.receive_bytes() == b"\x00\x01"
                assert ws.receive_json() == [1, 2, 3]
            with client.websocket_connect("/moderated") as ws:
                ws.send_text("hello")
                assert ws.receive_text() == "hello"
                ws.send_text("spam")
                with pytest.raises(WebSocketDisconnect) as closed:
                    ws.receive_text()
                assert (closed.value.code, closed.value.reason) == (4403, "No spam, please")

    def test_requests(self, names: dict[str, Any]) -> None:
        auth = names["auth"]
        with TestClient(names["app"], backend="trio") as client:
            assert client.get("/square/7").json() == 49
            assert client.get("/square/x").status_code == 404
            assert client.post("/announce/red").json() == {"reached": 0, "everybody": 0}
            assert client.get("/text").text == "0\n1\n2\n"
            assert client.get("/array").json() == ["0\n", "1\n", "2\n"]
            assert client.get("/counter", headers={"Last-Event-ID": "6"}).text.count("data:") == 3
            assert client.get("/from-a-thread").json() == {"reached": 0}
            assert client.get("/api/hello", headers={"X-Day": "Sunday"}).status_code == 503
            assert client.get("/api/hello").headers["X-Served-By"] == "guide"
            member = {"Authorization": f"Bearer {client.post('/login').json()['token']}"}
            assert client.post("/notify/1").status_code == 401
            assert client.post("/throw-out/1", headers=member).status_code == 403
            with client.websocket_connect("/members", headers=member) as ws:
                assert ws.receive_json() == {"hello": 1}
                assert client.post("/notify/1", headers=member).json() == {"reached": 1}
                assert ws.receive_json()["text"] == "You have mail"
            admin = {"Authorization": f"Bearer {auth.issue({'id': 2, 'roles': ['admin']})}"}
            assert client.post("/throw-out/1", headers=admin).json() == {"closed": 0}

    def test_the_other_apps(self, names: dict[str, Any]) -> None:
        with (
            TestClient(names["models"], backend="trio") as client,
            client.websocket_connect("/mirror") as ws,
        ):
            ws.send_json({"x": 1, "y": 2})
            assert ws.receive_json() == {"x": 2, "y": 1}
        with TestClient(names["inner"], backend="trio") as client, client.websocket_connect("/ws") as ws:
            assert ws.receive_text() == "Nursery"
        with TestClient(names["outer"], backend="trio") as client:
            assert client.get("/guide/square/2").json() == 4


PAGES = ["README.md", "CHANGELOG.md", *(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))]


def test_architecture_has_the_figures_of_the_code() -> None:
    page = " ".join((ROOT / "docs" / "architecture.md").read_text().split())
    figures = [f"A turn takes a slice ({SLICE / 1024:g} KiB, over TLS", f"{TURN_BYTES / 1024:g} KiB in all"]
    figures += [f"a deadline of {CANCEL_GRACE * 1000:g} ms"]
    figures += [f"up to {LINGER_BYTES // 1024} KiB of what the peer still sends", f"after {EVENTS_AT_ONCE} events"]
    figures += [f"slices of {SLICE_FRAMES} frames or {SLICE_BYTES // 1024} KiB", f"{BODY_BYTES // 1024} KiB of a body"]
    figures += [f"have {HELD_BYTES // 1024**2} MiB", f"given up {CUT_SECONDS:g} s later"]
    assert not [figure for figure in figures if figure not in page]


PRELUDES = {"docs/deployment.md": "", "docs/reference.md": "from verbtrio import App, Restart\napp = App()\n"}


@pytest.mark.parametrize("page", PRELUDES)
def test_the_other_pages_run(page: str) -> None:
    run(PRELUDES[page], *blocks(page))


@pytest.mark.parametrize("page", sorted(PAGES))
def test_no_page_is_left_out(page: str) -> None:
    """Of those that have programs, `from-verb.md`, `redis.md` and the pages about rooms and clients have test
    modules of their own."""
    tested = ["README.md", "docs/guide.md", "docs/security.md", "docs/from-verb.md", "docs/redis.md", *PRELUDES]
    tested += [f"docs/{other}.md" for other in (*ROOM_PAGES, *CLIENT_PAGES)]
    assert page in tested or not blocks(page)


@pytest.mark.parametrize("page", sorted(PAGES))
def test_commands_exist(page: str) -> None:
    """What is installed, by its one name and with the extras there are; and the sessions that nox is asked for."""
    text = (ROOT / page).read_text()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for extras in re.findall(r"pip install \"?verbtrio(?:\[(.*?)\]\")?", text):
        assert set(filter(None, extras.split(","))) <= set(project["optional-dependencies"])
    sessions = re.findall(r"^@nox\.session\ndef (\w+)", (ROOT / "noxfile.py").read_text(), re.MULTILINE)
    assert set(re.findall(r"nox -s (\w+)", text)) <= set(sessions)


def test_the_security_page_is_a_program(secret_key: None) -> None:
    """Its parts run, one after the other."""
    parts = blocks("docs/security.md")
    assert len(parts) >= 10
    names = run(*parts)
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
    app = {"max_body_size", "room_task", *signature(App.rooms).parameters, *signature(App.room_task).parameters}
    for name in names:
        assert name in Limits.__slots__ or hasattr(config, name) or name in app, f"there is no {name}"
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


@pytest.mark.parametrize("page", sorted(PAGES))
def test_links_lead_somewhere(page: str) -> None:
    """To a file, and to a heading where they name one."""
    text = re.sub(r"```.*?```", "", (ROOT / page).read_text(), flags=re.DOTALL)
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
