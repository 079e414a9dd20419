"""An `App` on asyncio: one sentence says what to use instead, wherever the mistake shows first."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount

from tests.support.process import ROOT, free_port, running
from verbtrio import App, NotRunning, WebSocket
from verbtrio.server.not_trio import is_asyncio, sentence

with warnings.catch_warnings():  # that httpx2 is to replace httpx
    warnings.simplefilter("ignore")
    from starlette.testclient import TestClient

COMMAND = "this App needs Trio, and this server runs it by asyncio: use `hypercorn -k trio {}`"
IN_A_TEST = 'this App needs Trio, and TestClient runs it by asyncio: use `TestClient(app, backend="trio")`'


def chat() -> App:
    app = App()

    @app.ws("/ws/:room")
    async def talk(ws: WebSocket[str], room: str) -> None:
        async with ws.join(room) as members:
            async for message in ws:
                members.broadcast(message)

    @app.get("/count/{room}")
    async def count(request: Request) -> Response:
        return PlainTextResponse(str(len(app.room(request.path_params["room"]))))

    @app.get("/plain")
    async def plain(request: Request) -> Response:
        return PlainTextResponse("here")

    return app


def mounted() -> Starlette:
    app = chat()
    return Starlette(routes=[Mount("/chat", app=app)], lifespan=app.lifespan)


async def call(app: Any, scope: dict[str, Any], *received: dict[str, Any]) -> list[Any]:
    """Call an application as a server does; return what it has sent."""
    sent: list[Any] = []
    messages = iter(received)

    async def receive() -> Any:
        return next(messages)

    async def send(message: Any) -> None:
        sent.append(message)

    with contextlib.suppress(NotRunning):
        await app(scope, receive, send)
    return sent


def request(kind: str, path: str, **more: Any) -> dict[str, Any]:
    return {"type": kind, "path": path, "method": "GET", "headers": [], "query_string": b"", "state": {}, **more}


# By ASGI, as any asyncio server calls it


def test_a_start_fails_with_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/usr/bin/granian", "--port", "8000", "chat:app"])
    scope = {"type": "lifespan", "state": {}}
    sent = asyncio.run(call(chat(), scope, {"type": "lifespan.startup"}))
    assert sent == [{"type": "lifespan.startup.failed", "message": COMMAND.format("chat:app")}]


def test_a_start_raises_behind_the_failure() -> None:
    """Otherwise a caller that expects an exception (TestClient) would take the application for started."""

    async def nothing(*_: Any) -> Any: ...

    with pytest.raises(NotRunning, match="hypercorn -k trio"):
        asyncio.run(chat()({"type": "lifespan", "state": {}}, nothing, nothing))


@pytest.mark.parametrize("path", ["/plain", "/count/lobby", "/nothing"])
def test_a_request_without_a_start(path: str, caplog: pytest.LogCaptureFixture) -> None:
    start, body = asyncio.run(call(chat(), request("http", path)))
    assert (start["status"], body["body"]) == (500, b"Internal Server Error")
    assert [record.getMessage() for record in caplog.records] == [sentence()]


@pytest.mark.parametrize("can_deny", [True, False])
def test_an_upgrade_without_a_start(can_deny: bool, caplog: pytest.LogCaptureFixture) -> None:
    extensions: dict[str, Any] = {"websocket.http.response": {}} if can_deny else {}
    scope = request("websocket", "/ws/lobby", extensions=extensions)
    sent = asyncio.run(call(chat(), scope, {"type": "websocket.connect"}))
    if can_deny:
        assert (sent[0]["type"], sent[0]["status"]) == ("websocket.http.response.start", 500)
    else:
        assert sent == [{"type": "websocket.close"}]
    assert [record.getMessage() for record in caplog.records] == [sentence()]


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (["-b", "127.0.0.1:3000", "-w", "2", "src.chat:app"], "src.chat:app"),
        (["chat:make_app", "--factory", "-b", "localhost:80"], "chat:make_app"),
        (["--fd", "3"], "module:app"),
        ([], "module:app"),
    ],
)
def test_the_command_names_the_application(arguments: list[str], name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["server", *arguments])
    assert sentence() == COMMAND.format(name)


# What can be called in an asyncio program


async def enter(app: App) -> None:
    async with app.lifespan():
        pass


async def serve(app: App) -> None:
    await app.serve(0)


async def look(app: App) -> None:
    app.room("lobby")


@pytest.mark.parametrize(
    ("use", "expected"), [(enter, "hypercorn -k trio"), (serve, "trio.run"), (look, "hypercorn -k trio")]
)
def test_in_an_asyncio_program(use: Callable[[App], Any], expected: str) -> None:
    with pytest.raises(NotRunning, match=expected):
        asyncio.run(use(App()))


def test_a_lifespan_may_be_made_anywhere() -> None:
    """What counts is where it is entered."""

    async def made_in_asyncio(app: App) -> Any:
        return app.lifespan()

    async def main(lifespan: Any) -> bool:
        async with lifespan:
            return not is_asyncio()

    assert trio.run(main, asyncio.run(made_in_asyncio(App())))


def test_trio_as_asyncios_guest() -> None:
    """Both run in that thread; the app runs on Trio."""

    async def guest() -> str:
        app = chat()
        async with app.lifespan():
            transport = httpx.ASGITransport(app)
            async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
                return (await client.get("/count/lobby")).text

    async def host() -> Any:
        loop = asyncio.get_running_loop()
        done = loop.create_future()
        trio.lowlevel.start_guest_run(
            guest, run_sync_soon_threadsafe=loop.call_soon_threadsafe, done_callback=done.set_result
        )
        return (await done).unwrap()

    assert asyncio.run(host()) == "0"


# Starlette's TestClient


@pytest.mark.parametrize("make", [chat, mounted])
def test_a_test_client_with_asyncio(make: Callable[[], Starlette]) -> None:
    with pytest.raises(NotRunning) as caught:
        with TestClient(make()):
            pass
    assert str(caught.value).startswith(IN_A_TEST)


def test_requests_of_a_test_client_with_asyncio() -> None:
    client = TestClient(chat())
    with pytest.raises(NotRunning) as caught:
        client.get("/plain")
    assert str(caught.value).startswith(IN_A_TEST)
    with pytest.raises(NotRunning) as caught:
        with client.websocket_connect("/ws/lobby"):
            pass
    assert str(caught.value).startswith(IN_A_TEST)


@pytest.mark.parametrize(("make", "prefix"), [(chat, ""), (mounted, "/chat")])
def test_what_the_sentence_says_works(make: Callable[[], Starlette], prefix: str) -> None:
    with TestClient(make(), backend="trio") as client:
        with (
            client.websocket_connect(f"{prefix}/ws/lobby") as one,
            client.websocket_connect(f"{prefix}/ws/lobby") as two,
        ):
            one.send_text("hello")
            assert (one.receive_text(), two.receive_text()) == ("hello", "hello")
            assert client.get(f"{prefix}/count/lobby").text == "2"
        assert client.get(f"{prefix}/plain").text == "here"


def test_a_test_client_without_a_with_block() -> None:
    client = TestClient(chat(), backend="trio")
    assert client.get("/plain").text == "here"


# Real servers


def run(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a server that can't start."""
    return subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_uvicorn() -> None:
    ended = run("-m", "uvicorn", "--port", str(free_port()), "examples.echo:app")
    assert ended.returncode == 3, "uvicorn's exit code for an application that has not started"
    lines = ended.stderr.splitlines()
    assert f"ERROR:    {COMMAND.format('examples.echo:app')}" in lines
    assert [line for line in lines if not line.startswith(("INFO:", "ERROR:"))] == []
    assert len(lines) == 4, "the process id, the wait for the startup, the sentence, and the exit"


def test_uvicorn_with_the_app_mounted() -> None:
    """Starlette sends the traceback; our part is that it is short, and ends with the sentence."""
    ended = run("-m", "uvicorn", "--port", str(free_port()), "tests.apps.mounted:app")
    assert ended.returncode == 3
    assert COMMAND.format("tests.apps.mounted:app") in ended.stderr
    assert "RunContext" not in ended.stderr
    assert len(ended.stderr.splitlines()) < 20


def test_uvicorn_without_a_lifespan() -> None:
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "--lifespan", "off", "--port", str(port), "examples.echo:app"]
    with running(command, port) as server:
        assert httpx.get(server.url).status_code == 500
        assert server.log_text().count(COMMAND.format("examples.echo:app")) == 1
        assert "Traceback" not in server.log_text()


@pytest.mark.parametrize("app", ["examples.echo:app", "tests.apps.mounted:app"])
@pytest.mark.parametrize("command", [["-m", "hypercorn"], [str(Path(sys.executable).with_name("hypercorn"))]])
def test_hypercorn_without_the_trio_worker(command: list[str], app: str) -> None:
    ended = run(*command, "-w", "0", "-b", "127.0.0.1:0", app)
    assert (ended.returncode, ended.stderr) == (1, COMMAND.format(app) + "\n")


def test_hypercorns_worker_processes_without_trio() -> None:
    """Their parent's exit code is hypercorn's: 0, whatever their own is."""
    ended = run("-m", "hypercorn", "-b", "127.0.0.1:0", "examples.echo:app")
    assert ended.stderr == COMMAND.format("examples.echo:app") + "\n"


def test_hypercorn_inside_an_asyncio_program() -> None:
    """That program must not be ended: hypercorn raises an exception there."""
    program = """
import asyncio
from hypercorn.asyncio import serve
from hypercorn.config import Config
from hypercorn.utils import LifespanFailureError
from verbtrio import App
config = Config()
config.bind = ["127.0.0.1:0"]
try:
    asyncio.run(serve(App(), config))
except LifespanFailureError as error:
    print(error)
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=True)
    assert COMMAND.format("module:app") in ended.stdout
