"""The pages about rooms: their programs do what is said, in Python and in a browser's JavaScript; their tables leave
nothing out; and each promise has its test."""

from __future__ import annotations

import ast
import json
import re
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
import trio_websocket
from trio.abc import Clock

from tests.support.browser import Browser, chromium, require_browser
from tests.support.http import Exchange
from tests.support.memory import Service, serving
from tests.support.process import ROOT, Server, free_port, running
from tests.support.sse import parse
from verbtrio import Limits
from verbtrio.auth import JWTAuth
from verbtrio.brokers import Process, Session
from verbtrio.brokers.memory import PUBLISH_TURNS
from verbtrio.brokers.memory_history import MESSAGE_BYTES, ROOM_BYTES
from verbtrio.rooms.catch_up import REPLAY_MESSAGES
from verbtrio.rooms.presence import DIFF_SECONDS, WATCH_CHANGES
from verbtrio.rooms.room_task import RoomTask
from verbtrio.rooms.rules import CACHED_LENGTH, CACHED_NAMES
from verbtrio.rooms.settings import Presence
from verbtrio.rooms.task_run import HANGING_SECONDS
from verbtrio.rooms.task_table import GIVEN_UP, MAX_REFUSED
from verbtrio.testing.brokers import BrokerConformance

PAGES = ["rooms", "history", "presence", "room-tasks", "brokers"]


def text_of(page: str) -> str:
    return (ROOT / "docs" / f"{page}.md").read_text()


def blocks(page: str, language: str = "python") -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text_of(page), re.DOTALL | re.MULTILINE)


@pytest.fixture
def names(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The names of a page's program."""
    monkeypatch.setenv("SECRET_KEY", "a secret of thirty-two bytes, or more")
    names: dict[str, Any] = {"__name__": "page"}
    for number, program in enumerate(blocks(request.param)):
        exec(compile(program, f"block {number} of docs/{request.param}.md", "exec", dont_inherit=True), names)
    return names


def page(name: str) -> Any:
    return pytest.mark.parametrize("names", [name], indirect=True, ids=[name])


async def heard(client: trio_websocket.WebSocketConnection) -> list[Any]:
    """What has come within half a second."""
    come = []
    with trio.move_on_after(0.5):
        while True:
            come.append(json.loads(await client.get_message()))
    return come


async def ask(service: Service, path: str, **options: Any) -> tuple[int, Any]:
    client = await Exchange(service.open_stream()).request(path, **options)
    body = await client.rest()
    await client.aclose()
    return client.status, json.loads(body)


@page("rooms")
class TestRooms:
    async def test_it_does_what_is_said(self, names: dict[str, Any], autojump_clock: Clock) -> None:
        async with serving(names["app"]) as service:
            client = await service.connect()
            for room in ("lobby", "garden", "cellar"):
                await client.send_message(json.dumps({"type": "join", "room": room}))
            reason = "You may not join this room"
            assert await heard(client) == [
                {"type": "joined", "room": "lobby"},
                {"type": "joined", "room": "garden"},
                {"type": "refused", "room": "cellar", "reason": reason},
            ]
            for room in ("garden", "cellar"):
                await client.send_message(json.dumps({"type": "say", "room": room, "text": "hi"}))
            assert await heard(client) == [
                {"type": "said", "room": "garden", "text": "hi"},
                {"type": "refused", "room": "cellar", "reason": "join the room first"},
            ]
            assert await ask(service, "/rooms/garden") == (200, {"here": 1, "known": 1, "everywhere": 1})
            await client.aclose()

    async def test_its_settings(self, names: dict[str, Any]) -> None:
        app = names["app"]
        async with app.lifespan():
            assert (await app.room("chat:garden").history()).messages == ()
            for plain in ("chat:lobby", "elsewhere"):
                with pytest.raises(RuntimeError, match="no history"):
                    await app.room(plain).history()

    async def test_two_apps_on_one_broker(self, names: dict[str, Any]) -> None:
        public, staff = names["public"], names["staff"]
        async with public.lifespan():  # which enters that of the mounted one
            position = await staff.room("chat:garden").publish("hello")
            (message,) = (await public.room("chat:garden").history()).messages
            assert (message.data, message.position) == ("hello", position)


@page("history")
class TestHistory:
    async def test_resume_on_a_websocket(self, names: dict[str, Any], autojump_clock: Clock) -> None:
        async with serving(names["app"]) as service:
            room = service.app.room("chat:red")
            await room.publish({"type": "said", "text": "before"})
            client = await service.connect("/chat/red")
            (first,) = await heard(client)
            assert (first["type"], first["messages"]) == ("history", [{"type": "said", "text": "before"}])
            await client.send_message("live")
            (live,) = await heard(client)
            assert live == {"type": "said", "text": "live", "at": first["at"][:-1] + "2"}
            await client.aclose()
            assert await ask(service, "/chat/red", method="POST", body=b'"missed"') == (
                200,
                {"at": live["at"][:-1] + "3"},
            )
            client = await service.connect(f"/chat/red?since={live['at']}")
            await room.publish({"type": "said", "text": "on"})
            assert [message["text"] for message in await heard(client)] == ["missed", "on"]
            await client.aclose()
            client = await service.connect("/chat/red?since=nonsense")
            (gap,) = await heard(client)
            assert [message["text"] for message in gap["messages"]] == ["before", "live", "missed", "on"]
            await client.aclose()

    async def test_pages_back(self, names: dict[str, Any], autojump_clock: Clock) -> None:
        async with serving(names["app"]) as service:
            positions = [str(await service.app.room("chat:red").publish({"n": n})) for n in range(3)]
            assert await ask(service, f"/chat/red/before/{positions[2]}") == (200, [{"n": 1}, {"n": 0}])
            assert (await ask(service, "/chat/red/before/nonsense"))[0] == 400
            assert (await ask(service, "/chat/red/before/other:1"))[0] == 410

    async def test_event_streams(self, names: dict[str, Any], autojump_clock: Clock) -> None:
        async with serving(names["app"]) as service:
            room = service.app.room("chat:red")
            first = await room.publish({"n": 1})
            await room.publish({"n": 2})
            client = await Exchange(service.open_stream()).request(
                "/chat/red/events", headers={"last-event-id": str(first)}
            )
            body = b""
            with trio.move_on_after(1):
                while (piece := await client.piece()) is not None:
                    body += piece
            (event,) = parse(body)
            assert json.loads(event.data)["n"] == 2
            await client.aclose()


@page("presence")
class TestPresence:
    async def test_it_does_what_is_said(
        self, names: dict[str, Any], autojump_clock: Clock, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level("INFO", "team")
        token = names["auth"].issue({"id": 1, "name": "Ada"})
        async with serving(names["app"]) as service:
            client = await service.connect(f"/team/red?token={token}")
            state, *_ = await heard(client)
            online = {"name": "Ada", "status": "online"}
            assert state == {"type": "presence_state", "room": "team:red", "users": {"1": online}}
            await client.send_message("away")
            (diff,) = await heard(client)
            away = {"name": "Ada", "status": "away"}
            changes = {"joins": {}, "updates": {"1": away}, "leaves": {}}
            assert diff == {"type": "presence_diff", "room": "team:red", **changes}
            assert await ask(service, "/team/red") == (200, {"1": {"info": away, "tabs": 1}})
            await client.aclose()
            await trio.sleep(1)
            assert await ask(service, "/team/red") == (200, {"1": {"info": away, "tabs": 0}})
            await trio.sleep(5)
            assert await ask(service, "/team/red") == (200, {})
        told = [
            line.partition("] ")[2] or line.rpartition(".md:")[2].partition(" ")[2] for line in caplog.text.splitlines()
        ]
        assert told == ["present: []", f"join 1 {online}", f"update 1 {away}", f"leave 1 {away}"]


@page("room-tasks")
class TestRoomTasks:
    async def test_it_does_what_is_said(self, names: dict[str, Any], autojump_clock: Clock) -> None:
        async with serving(names["app"]) as service:
            client = await service.connect("/games/7")
            await trio.testing.wait_all_tasks_blocked()
            assert list(names["moves"]) == [7]
            await client.send_message("e4")
            assert await heard(client) == [{"move": "e4"}]
            await trio.sleep(1)
            assert {"players": 1} in await heard(client)
            await client.aclose()
            await trio.sleep(9)
            assert list(names["moves"]) == [7]
            await trio.sleep(2)
            assert not names["moves"]

    async def test_given_up(
        self, names: dict[str, Any], autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def broken(room: Any) -> None:
            raise ValueError("broken")

        monkeypatch.setitem(names, "clock", broken)
        async with serving(names["app"]) as service:
            client = await service.connect("/games/7")
            with pytest.raises(trio_websocket.ConnectionClosed):
                await client.get_message()
            assert client.closed is not None
            assert (client.closed.code, client.closed.reason) == (1011, "The room's task has failed")
            refused = await service.connect("/games/7")
            with pytest.raises(trio_websocket.ConnectionClosed):
                await refused.get_message()
            assert refused.closed is not None
            assert (refused.closed.code, refused.closed.reason) == (1013, "The room's task has failed")
            await service.wait_ended(5)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    require_browser()
    with chromium() as browser:
        yield browser


@pytest.fixture
def script(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Server]:
    """A page's program as a script, with a request by which a test ends all connections."""
    page, more = request.param
    file, port = tmp_path / "program.py", free_port()
    file.write_text("\n".join([*blocks(page), more, 'if __name__ == "__main__":\n    app.listen()\n']))
    secret = "a secret of thirty-two bytes, or more"
    with running([sys.executable, str(file)], port, PORT=str(port), SECRET_KEY=secret) as server:
        yield server


DROP = """
@app.post("/drop")
async def drop(request: Request) -> JSONResponse:
    app.connections.close(1012, "The server is restarting")
    for member in app.room("chat:red").here:
        member.close_nowait(1012)
    await app.room("chat:red").publish({"type": "said", "text": "missed"})
    return JSONResponse({})


@app.post("/end/:code")
async def end(request: Request, code: int) -> JSONResponse:
    for member in app.room("chat:red").here:
        member.close_nowait(code, await request.json())
    await app.room("chat:red").publish({"type": "said", "text": f"after {code}"})
    return JSONResponse({})
"""
POST = """
const [path, body] = arguments;
fetch(path, { method: "POST", body: JSON.stringify(body) });
"""


class TestTheBrowsersSide:
    @pytest.mark.parametrize("script", [("history", DROP)], indirect=True, ids=["history"])
    def test_resume_on_a_websocket(self, script: Server, browser: Browser) -> None:
        browser.open(f"{script.url}/nothing")
        (follow, _) = blocks("history", "js")
        start = """
            Math.random = () => 0;
            window.seen = [];
            const url = location.origin.replace("http", "ws") + "/chat/red";
            follow(url, ({ text }) => seen.push(text), (messages) => seen.push(messages.length));
        """
        browser.run(follow + start)
        browser.until(lambda: browser.run("return seen") == [0], "the page is connected")
        browser.run(POST, "/chat/red", "one")
        browser.until(lambda: browser.run("return seen") == [0, "one"], "the message is there")
        browser.run(POST, "/drop", None)
        browser.until(lambda: browser.run("return seen") == [0, "one", "missed"], "what was missed is there")
        browser.run(POST, "/drop", None)
        browser.until(lambda: browser.run("return seen") == [0, "one", "missed", "missed"], "and again")

    @pytest.mark.parametrize("script", [("history", DROP)], indirect=True, ids=["history"])
    def test_resume_on_an_event_stream(self, script: Server, browser: Browser) -> None:
        browser.open(f"{script.url}/nothing")
        (_, listen) = blocks("history", "js")

        def is_last(text: str) -> bool:
            return bool(browser.run("return seen.at(-1)") == text)

        opened = "window.seen = []; const show = ({ text }) => seen.push(text), reload = () => seen.push('gap');"
        browser.run(opened + listen.replace("/lobby/", "/red/") + "window.source = source")
        browser.until(lambda: browser.run("return source.readyState") == 1, "the stream is open")
        browser.run(POST, "/chat/red", "one")
        browser.until(lambda: browser.run("return seen") == ["one"], "the message is there")
        browser.run(POST, "/drop", None)
        browser.until(lambda: browser.run("return seen") == ["one", "missed"], "what was missed is there")
        for code, reason in (1011, "The room is not available"), (1008, "Too slow: over 9 bytes behind"):
            browser.run(POST, f"/end/{code}", reason)
            browser.until(partial(is_last, f"after {code}"), "it has come back")
        browser.run(POST, "/end/1008", "Removed")
        browser.until(lambda: browser.run("return source.readyState") == 2, "it stays away")

    @pytest.mark.parametrize("script", [("presence", "")], indirect=True, ids=["presence"])
    def test_who_is_there(self, script: Server, browser: Browser) -> None:
        browser.open(f"{script.url}/nothing")
        (listen,) = blocks("presence", "js")
        auth = JWTAuth("a secret of thirty-two bytes, or more")
        ada, ben = (auth.issue({"id": number, "name": name}) for number, name in enumerate(("Ada", "Ben"), 1))
        connect = "const ws = new WebSocket(location.origin.replace('http', 'ws') + '/team/red?token=' + arguments[0]);"
        browser.run(f"{connect} {listen} window.users = users", ada)
        names = "return [...users].map(([id, { name, status }]) => `${id} ${name} ${status}`)"
        browser.until(lambda: browser.run(names) == ["1 Ada online"], "she sees herself")
        browser.run(f"{connect} window.other = ws", ben)
        browser.until(lambda: browser.run(names) == ["1 Ada online", "2 Ben online"], "she sees him come")
        browser.run("other.send('away')")
        browser.until(lambda: browser.run(names) == ["1 Ada online", "2 Ben away"], "she sees him change")
        browser.run("other.close()")
        browser.until(lambda: browser.run(names) == ["1 Ada online"], "she sees him go")


@page("brokers")
class TestBrokers:
    async def test_apps_share_it(self, names: dict[str, Any]) -> None:
        async with names["app"].lifespan(), names["admin"].lifespan():
            assert len(names["broker"].sessions) == 2

    async def test_the_tests_run(self, names: dict[str, Any], autojump_clock: Clock) -> None:
        mine = names["TestMyBroker"]
        assert issubclass(mine, BrokerConformance)
        await mine().test_each_call_is_a_checkpoint()

    def test_the_interface_is_whole(self, names: dict[str, Any]) -> None:
        for of in (Session, Process):
            (table,) = re.findall(rf"^\| `{of.__name__}` \|.*?\n\n", text_of("brokers"), re.DOTALL | re.MULTILINE)
            told = set(re.findall(r"`(\w+)`", "\n".join(row.split(" | ")[0] for row in table.splitlines()[2:])))
            assert told == {name for name in vars(of) if not name.startswith("_")}


@pytest.mark.parametrize("page", PAGES)
def test_each_page_says_what_is_promised(page: str) -> None:
    promises = text_of(page).partition("\n## What is promised\n")[2]
    for subject in ("**Cancellation.**", "**After a crash", "ound"):
        assert subject in promises or page == "rooms", subject
    assert "**Cancellation.**" in promises


def test_figures() -> None:
    """Those of the pages are those of the code."""
    limits, task = Limits(), RoomTask(_task)
    figures = {
        "rooms": [
            f"`Limits.max_rooms` ({limits.max_rooms:,})",
            f"{CACHED_NAMES:,}, of {CACHED_LENGTH} characters at most",
            f"`Limits.max_backlog_bytes`, {limits.max_backlog_bytes // 1024**2} MiB",
        ],
        "history": [
            f"in portions of {REPLAY_MESSAGES}",
            f"`Limits.max_history_bytes`, {limits.max_history_bytes // 1024**2} MiB",
            f"its bytes, and {MESSAGE_BYTES}",
            f"{ROOM_BYTES:,} bytes, and its name",
        ],
        "presence": [
            f"`grace` seconds ({Presence().grace:g} by default)",
            f"within {DIFF_SECONDS * 1000:g} ms",
            f"| {WATCH_CHANGES:,} |",
        ],
        "room-tasks": [
            f"`start_timeout`, {task.start_timeout:g} s",
            f"`linger`, {task.linger:g} s",
            f"`Restart(max={task.restart.max}, within={task.restart.within:g})`" if task.restart else "",
            f"named in the log {HANGING_SECONDS:g} s later",
            f"{MAX_REFUSED:,}",
            f'{GIVEN_UP.code} and "{GIVEN_UP.reason}"',
        ],
        "brokers": [
            f"about {MESSAGE_BYTES} bytes for each message and {ROOM_BYTES:,} for each room",
            f"every {PUBLISH_TURNS}th message",
        ],
    }
    assert list(figures) == PAGES
    for page, told in figures.items():
        text = " ".join(text_of(page).split())
        assert not [figure for figure in told if figure not in text], page


async def _task(room: Any) -> None: ...


def promised() -> Iterator[tuple[str, str]]:
    """The tests that promises.md names: their files and their names."""
    section = text_of("promises").partition("\n## Rooms\n")[2]
    yield from re.findall(r"`(tests/[\w/]+\.py)(?:::([\w.:]+))?`", section)


def test_each_promise_has_its_test() -> None:
    found = list(promised())
    assert len(found) > 25
    for path, name in found:
        tree = ast.parse((ROOT / path).read_text())
        defined = {
            node.name
            for node in ast.walk(tree)
            if isinstance(node, ast.ClassDef | ast.AsyncFunctionDef | ast.FunctionDef)
        }
        assert set(filter(None, name.split("::"))) <= defined, (path, name)
