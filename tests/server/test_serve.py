"""Serving inside a Trio program and as a script."""

from __future__ import annotations

import errno
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
import trio
import trustme

from tests.conftest import Servers
from tests.support.peers import Refused, connect
from tests.support.process import ROOT, free_port, running
from verbtrio import App, WebSocket
from verbtrio.server.serve import config


def chat(**settings: Any) -> tuple[App, list[tuple[int, str]]]:
    app = App(**settings)
    closes: list[tuple[int, str]] = []

    @app.ws("/ws")
    class Chat:
        async def message(self, ws: WebSocket, message: str) -> None:
            await ws.send(message)

        async def close(self, ws: WebSocket, code: int, reason: str) -> None:
            await trio.sleep(0.01)  # a hook may wait, even now
            closes.append((code, reason))

    return app, closes


async def test_serve_in_a_nursery() -> None:
    app, closes = chat()
    async with trio.open_nursery() as nursery:
        (url,) = await nursery.start(app.serve, 0)
        async with connect(url.replace("http", "ws") + "/ws") as peer:
            await peer.send({"a": 1})
            assert await peer.receive() == {"a": 1}
            assert app.statistics().connections == 1
        nursery.cancel_scope.cancel()
    assert closes == [(1000, "")]


async def test_leaving_the_scope_drains() -> None:
    """A cancelled `serve` drains first: clients get 1012, and hooks run. It waits for nothing else."""
    app, closes = chat(drain_timeout=60)
    with trio.move_on_after(30) as patience:
        async with trio.open_nursery() as clients, trio.open_nursery() as nursery:
            (url,) = await nursery.start(app.serve, 0)
            got: list[tuple[int, str]] = []

            async def client(task_status: trio.TaskStatus[None]) -> None:
                async with connect(url.replace("http", "ws") + "/ws") as peer:
                    await peer.send({"a": 1})
                    await peer.receive()
                    task_status.started()
                    got.append(await peer.closed())

            await clients.start(client)
            nursery.cancel_scope.cancel()
    assert not patience.cancel_called, "it must not wait for its deadline"
    assert got == closes == [(1012, "The server is restarting")]


async def test_leaving_the_scope_lets_the_application_shut_down() -> None:
    """Its own lifespan may wait for things on the way out, too."""
    steps: list[str] = []

    @asynccontextmanager
    async def lifespan(app: App) -> AsyncIterator[None]:
        yield
        await trio.sleep(0.05)
        steps.append("shut down")

    async with trio.open_nursery() as nursery:
        await nursery.start(App(lifespan=lifespan).serve, 0)
        nursery.cancel_scope.cancel()
    assert steps == ["shut down"]


async def test_two_apps_in_one_program() -> None:
    """Side by side, each has its own hub, and its own end."""
    (one, _), (two, _) = chat(), chat()
    async with trio.open_nursery() as nursery:
        (first,) = await nursery.start(one.serve, 0)
        (second,) = await nursery.start(two.serve, 0)
        async with (
            connect(first.replace("http", "ws") + "/ws") as a,
            connect(second.replace("http", "ws") + "/ws") as b,
        ):
            for peer in (a, b):
                await peer.send({"a": 1})
                assert await peer.receive() == {"a": 1}
            assert (one.statistics().connections, two.statistics().connections) == (1, 1)
        nursery.cancel_scope.cancel()


async def test_cancelled_before_it_has_started() -> None:
    """There is nothing to drain yet: it stops at once."""

    @asynccontextmanager
    async def slow(app: App) -> AsyncIterator[None]:
        await trio.sleep(60)
        yield

    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(App(lifespan=slow).serve, 0)
            await trio.sleep(0.2)
            nursery.cancel_scope.cancel()


async def test_an_app_that_stops_while_another_starts() -> None:
    """The second still takes its connections over."""
    starting, stopped = trio.Event(), trio.Event()

    @asynccontextmanager
    async def slow(app: App) -> AsyncIterator[None]:
        starting.set()
        await stopped.wait()
        yield

    (one, _), (two, closes) = chat(), chat(lifespan=slow)
    async with trio.open_nursery() as nursery:
        async with trio.open_nursery() as first:
            await first.start(one.serve, 0)
            ready: list[str] = []

            async def start() -> None:
                ready.extend(await nursery.start(two.serve, 0))

            nursery.start_soon(start)
            await starting.wait()
            first.cancel_scope.cancel()
        stopped.set()
        with trio.fail_after(10):
            while not ready:
                await trio.sleep(0.01)
        async with connect(ready[0].replace("http", "ws") + "/ws") as peer:
            await peer.close(4001, "bye")
        with trio.fail_after(10):
            while not closes:
                await trio.sleep(0.01)
        nursery.cancel_scope.cancel()
    assert closes == [(4001, "bye")]  # plain ASGI would know 1006 only


async def test_serve_over_tls(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("tls")
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    certificate.cert_chain_pems[0].write_to_path(folder / "cert.pem")
    certificate.private_key_pem.write_to_path(folder / "key.pem")
    trust = ssl.create_default_context()
    authority.configure_trust(trust)
    app, _ = chat()
    async with trio.open_nursery() as nursery:
        serve = app.serve

        async def start(task_status: trio.TaskStatus[list[str]]) -> None:
            await serve(0, certfile=str(folder / "cert.pem"), keyfile=str(folder / "key.pem"), task_status=task_status)

        (url,) = await nursery.start(start)
        assert url.startswith("https://")
        async with connect(url.replace("http", "ws") + "/ws", tls=trust) as peer:
            await peer.send({"a": 1})
            assert await peer.receive() == {"a": 1}
        nursery.cancel_scope.cancel()


SCRIPT = """
import sys
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from verbtrio import App
from verbtrio.security import SecurityHeaders
app = App(middleware=[Middleware(SecurityHeaders)])
app.ws("/ws", message=lambda ws, message: ws.send_nowait(message))
@app.get("/")
async def page(request):
    return PlainTextResponse("hello")
app.listen(certfile=sys.argv[1], keyfile=sys.argv[2])
"""


async def test_listen_over_tls(servers: Servers) -> None:
    """From a script, as docs/security.md describes it: pages and sockets of one origin, and HSTS."""
    trust = ssl.create_default_context()
    servers.authority.configure_trust(trust)
    port = free_port()
    command = [sys.executable, "-c", SCRIPT, str(servers.certfile), str(servers.keyfile)]
    with running(command, port, tls=True, PORT=str(port)) as server:
        address = f"wss://127.0.0.1:{port}/ws"
        async with connect(address, tls=trust, extra_headers=[(b"Origin", server.url.encode())]) as peer:
            await peer.send({"a": 1})
            assert await peer.receive() == {"a": 1}
        plain = [(b"Origin", f"http://127.0.0.1:{port}".encode())]
        with pytest.RaisesGroup(Refused, flatten_subgroups=True, allow_unwrapped=True):
            async with connect(address, tls=trust, extra_headers=plain):
                pass
        async with httpx.AsyncClient(verify=trust) as client:
            response = await client.get(server.url)
        assert response.headers["strict-transport-security"] == "max-age=31536000"
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            await stream.send_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert b"hello" not in await stream.receive_some(), "without TLS there is nothing"
        assert f"Listening on https://127.0.0.1:{port}" in server.log_text()


def test_a_certificate_needs_its_key(servers: Servers) -> None:
    """hypercorn would serve without TLS, and without a warning."""
    certificate, key, missing = str(servers.certfile), str(servers.keyfile), "/nowhere/cert.pem"
    for half in ({"certfile": certificate}, {"keyfile": key}):
        with pytest.raises(ValueError, match="certfile and keyfile"):
            config(0, **half)
    for settings in ({"certfile": missing, "keyfile": key}, {"certfile": certificate, "keyfile": missing}):
        with pytest.raises(ValueError, match=f"no such file: '{missing}'"):
            config(0, **settings)


@pytest.mark.parametrize("name", ["echo", "broadcast", "rooms", "auth", "heartbeat", "demo"])
def test_every_example_runs_as_a_script(name: str) -> None:
    port = free_port()
    with running([sys.executable, f"examples/{name}.py"], port, PORT=str(port)) as server:
        page = httpx.get(f"{server.url}/")
        assert page.status_code == 200
        assert page.headers["content-type"].startswith("text/html")
        assert httpx.get(f"{server.url}/pages/page.js").status_code == 200
        assert f"Listening on http://127.0.0.1:{port}" in server.log_text()
        assert server.stop(signal.SIGTERM) == 0
        assert "Traceback" not in server.log_text()


def test_ctrl_c_ends_a_script() -> None:
    port = free_port()
    with running([sys.executable, "examples/echo.py"], port, PORT=str(port)) as server:
        assert server.stop(signal.SIGINT) == 0


async def test_a_second_signal_does_not_cut_the_drain_short() -> None:
    program = """
import trio
from verbtrio import App
app = App()
@app.ws("/ws")
class Handler:
    async def close(self, ws, code, reason):
        print("the hook begins", flush=True)
        await trio.sleep(0.5)
        print("the hook ends", flush=True)
app.listen()
"""
    port = free_port()
    with running([sys.executable, "-c", program], port, PORT=str(port)) as server:
        async with connect(f"ws://127.0.0.1:{port}/ws") as peer:
            server.process.send_signal(signal.SIGINT)
            assert (await peer.closed())[0] == 1012
            with trio.fail_after(10):
                while "begins" not in server.log_text():
                    await trio.sleep(0.01)
            exit_code = await trio.to_thread.run_sync(server.stop, signal.SIGINT)
        assert exit_code == 0
        assert "the hook ends" in server.log_text()


def test_where_it_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PORT", raising=False)
    assert config().bind == ["127.0.0.1:3000"]
    monkeypatch.setenv("PORT", "8080")
    assert config().bind == ["127.0.0.1:8080"]
    assert config(9000, host="::1").bind == ["[::1]:9000"]


@pytest.mark.parametrize("port", [-1, 65536, 10**20])
def test_a_port_that_is_not_valid(port: int) -> None:
    with pytest.raises(ValueError, match=f"port is {port}, which is not a port"):
        config(port)


def test_a_port_of_another_type() -> None:
    for port in ("3000", 3000.0, True):
        wrong: Any = port
        with pytest.raises(TypeError, match="port is an int, like 3000, not "):
            config(wrong)


class TestAnAddressThatCannotBeHad:
    """The error is one sentence, with the address and what to do."""

    async def test_serve(self) -> None:
        """`nursery.start` raises the `OSError` by itself, not in a group; the app can be served again."""
        (one, _), (two, _) = chat(), chat()
        async with trio.open_nursery() as nursery:
            (url,) = await nursery.start(one.serve, 0)
            port = int(url.rpartition(":")[2])
            for _ in range(2):
                with pytest.raises(
                    OSError, match=f"can't listen on 127.0.0.1:{port}: Address already in use"
                ) as caught:
                    await nursery.start(two.serve, port)
                assert caught.value.errno == errno.EADDRINUSE
                assert caught.value.__context__ is None or caught.value.__suppress_context__
            await nursery.start(two.serve, 0)
            nursery.cancel_scope.cancel()

    async def test_serve_without_waiting_for_the_start(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            app, _ = chat()
            with pytest.raises(OSError, match="Address already in use"):
                await app.serve(taken.getsockname()[1])

    @pytest.mark.parametrize(
        ("host", "advice"),
        [
            ("192.0.2.1", "host is an address of this machine"),
            ("nowhere.invalid", "host is an address of this machine"),
        ],
    )
    async def test_a_host_that_is_not_this_machine(self, host: str, advice: str) -> None:
        app, _ = chat()
        with pytest.raises(OSError, match=rf"can't listen on .*: .* \({advice}") as caught:
            await app.serve(3000, host=host)
        assert "attempting" not in str(caught.value)

    async def test_a_port_that_needs_a_privilege(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """And another problem, for which there is no advice. (Simulated: the tests may run with the privilege.)"""

        def refusing(number: int) -> Any:
            def create_server(*args: Any, **options: Any) -> socket.socket:
                raise OSError(number, os.strerror(number))

            return create_server

        app, _ = chat()
        for number, problem in (
            (errno.EACCES, r"Permission denied \(ports below 1024 need a privilege"),
            (errno.EMFILE, "Too many open files$"),
        ):
            monkeypatch.setattr(socket, "create_server", refusing(number))
            with pytest.raises(OSError, match=rf"can't listen on 127\.0\.0\.1:80: {problem}"):
                await app.serve(80)

    async def test_an_error_of_the_applications_own_is_left_alone(self) -> None:
        """Its lifespan may open a listening socket, too."""

        @asynccontextmanager
        async def lifespan(app: App) -> AsyncIterator[None]:
            with socket.create_server(taken.getsockname()):
                yield

        with socket.create_server(("127.0.0.1", 0)) as taken:
            with pytest.raises(BaseException) as caught:  # noqa: PT011 -- whatever hypercorn makes of it
                await App(lifespan=lifespan).serve(0)
        assert "can't listen" not in repr(caught.value)

    @pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
    async def test_one_that_can(self, host: str) -> None:
        app, _ = chat()
        async with trio.open_nursery() as nursery:
            try:
                (url,) = await nursery.start(lambda task_status: app.serve(0, host=host, task_status=task_status))
            except OSError:
                assert host == "::1"
                pytest.skip("there is no IPv6 here")
            async with connect(url.replace("http", "ws") + "/ws") as peer:
                await peer.send({"a": 1})
                assert await peer.receive() == {"a": 1}
            nursery.cancel_scope.cancel()

    def test_a_script(self) -> None:
        """Exit code 1 and the sentence, without a traceback."""
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = str(taken.getsockname()[1])
            second = self.run(PORT=port)
        problem = (
            f"can't listen on 127.0.0.1:{port}: Address already in use (for another port: PORT=...; 0 takes a free one)"
        )
        assert (second.returncode, second.stderr) == (1, f"{problem}\n")

    @pytest.mark.parametrize("port", ["abc", "65536"])
    def test_a_script_whose_port_is_not_valid(self, port: str) -> None:
        result = self.run(PORT=port)
        assert result.returncode == 1
        assert re.fullmatch(f"PORT is '?{port}'?, which is not a .*\n", result.stderr)

    def run(self, **environment: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "examples/echo.py"]
        return subprocess.run(
            command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, check=False
        )
