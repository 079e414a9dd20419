"""What verbtrio uses of other packages beyond what they document: all of it is listed, and can be done without.

The tests walk the lists of `verbtrio.contract.check` by themselves. A name is taken away (of a package that works on:
it has given the name up, and needs it no more), or is to be used in another way.
"""

from __future__ import annotations

import ast
import builtins
import codecs
import dis
import importlib
import inspect
import itertools
import logging
import math
import multiprocessing
import os
import re
import shutil
import socket
import ssl
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from types import FunctionType
from typing import Any

import h2.errors
import h2.events
import h2.exceptions
import h2.settings
import h11
import hypercorn
import pytest
import trio
import trio_websocket
import trustme
from h2.connection import H2Connection
from hypercorn.config import Config
from hypercorn.trio import run as hypercorn_run

import verbtrio
from tests.apps.contract import echo_app
from tests.support import contract
from tests.support.contract import BREAKING, Piece, more, moved, pieces, replaced, without
from tests.support.memory import serving
from tests.support.peers import connect
from tests.support.process import ROOT, free_port, running
from verbtrio import App, WebSocket
from verbtrio.contract import check
from verbtrio.contract.hypercorn import HYPERCORN
from verbtrio.contract.uses import Attributes, Call, Refers, find

FOLDER = Path(verbtrio.__file__).parent
ALL = contract.ALL


async def http_and_websocket(url: str, tls: ssl.SSLContext | None = None) -> None:
    """A request and its answer, a WebSocket and its echo, and each closed."""
    port = int(url.rpartition(":")[2])
    with trio.fail_after(10):
        stream: Any = await trio.open_tcp_stream("127.0.0.1", port)
        if tls is not None:
            stream = trio.SSLStream(stream, tls, server_hostname="127.0.0.1", https_compatible=True)
        async with stream:
            await stream.send_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            answer = b""
            while data := await stream.receive_some():
                answer += data
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert answer.endswith(b"here")
        async with connect(f"{url.replace('http', 'ws', 1)}/ws", tls=tls) as peer:
            for message in ({"a": 1}, {"long": "x" * 100_000}):
                await peer.send(message)
                assert await peer.receive() == message
            await peer.close()


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


class TestWithoutOne:
    @pytest.mark.parametrize("piece", pieces("TAKE_OVER", "TLS", "NURSERY", "UNWIND", "ADDRESS"), ids=str)
    async def test_one_warning_and_it_serves(
        self, piece: Piece, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        """By a real hypercorn, which goes on with whatever it has in the name's place."""

        def look(part: check.Part) -> bool:
            with without(piece):
                return check.is_available(part)

        for module in ("server.lifespan", "server.serve"):
            monkeypatch.setattr(f"verbtrio.{module}.is_available", look)
        servers = vars(hypercorn_run)["TCPServer"]
        async with trio.open_nursery() as nursery:
            (url,) = await nursery.start(echo_app().serve, 0)
            is_taken_over = vars(hypercorn_run)["TCPServer"] is not servers
            await http_and_websocket(url)
            nursery.cancel_scope.cancel()
        (warning,) = warnings_of(caplog)
        assert piece.said in warning
        assert is_taken_over == (piece.part != "TAKE_OVER")
        assert ("plain ASGI" in warning) == (piece.part == "TAKE_OVER")

    def test_nothing_that_needs_it_is_imported(self) -> None:
        """In a fresh interpreter, for each: the name stays away, and an application is served over plain ASGI."""
        run = subprocess.run(
            [sys.executable, "-m", "tests.support.contract_imports"], cwd=ROOT, capture_output=True, text=True
        )
        assert run.returncode == 0, run.stdout + run.stderr
        assert f"{len(pieces('TAKE_OVER', 'STARLETTE'))} names" in run.stdout

    def test_a_hypercorn_that_has_renamed_all_its_own(self, tmp_path: Path) -> None:
        """In earnest: a copy of hypercorn that works, without one of the private names that we know."""
        private = {
            name
            for use in HYPERCORN
            for name in (*use.path.replace(":", ".").split("."), *(getattr(use, "names", "").split()))
            if re.match(r"_[a-z]", name)
        } - {"_nursery", "_log"}
        assert len(private) > 10
        renamed = re.compile(rb"\b(%b)\b" % "|".join(sorted(private)).encode())
        copy = tmp_path / "hypercorn"
        shutil.copytree(Path(hypercorn.__file__).parent, copy)
        for file in copy.rglob("*.py"):
            file.write_bytes(renamed.sub(rb"\1_moved", file.read_bytes()))
        port = free_port()
        command = [
            sys.executable,
            "-m",
            "hypercorn",
            "-k",
            "trio",
            "-b",
            f"127.0.0.1:{port}",
            "tests.apps.contract:app",
        ]
        with running(command, port, PYTHONPATH=os.pathsep.join([str(tmp_path), str(FOLDER.parent)])) as server:
            trio.run(http_and_websocket, server.url)
            server.stop()
            log = server.log_text()
        assert server.process.returncode == 0
        assert log.count("another package is not as verbtrio knows it") == 1
        assert "hypercorn.trio.tcp_server:TCPServer._read_data is gone" in log
        assert "Traceback" not in log

    def test_nothing_is_missing(self) -> None:
        async def look() -> list[str]:
            return [fault for use in ALL for fault in use.faults()]

        assert trio.run(look) == []

    def test_a_module_that_fails_is_a_fault(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        (tmp_path / "broken_module.py").write_text("raise RuntimeError('on purpose')")
        monkeypatch.syspath_prepend(tmp_path)
        assert list(Call("broken_module:a").faults()) == [
            "broken_module:a can't be imported: RuntimeError('on purpose')"
        ]
        assert list(Call("no_module_of_that_name:a").faults()) == ["no_module_of_that_name:a is gone"]

    def test_a_package_that_has_become_another_fills_no_page(self, caplog: pytest.LogCaptureFixture) -> None:
        part = check.Part("it stands still", tuple(Call(f"hypercorn:nothing_{n}") for n in range(100)))
        assert not check.is_available(part)
        (warning,) = warnings_of(caplog)
        assert "hypercorn:nothing_4 is gone; and 95 more): it stands still." in warning
        assert "hypercorn:nothing_5" not in warning


CALLS = {use.path: use for use in ALL if isinstance(use, Call)}


class TestUsedInAnotherWay:
    @pytest.mark.parametrize("use", CALLS.values(), ids=CALLS)
    def test_a_further_optional_parameter_is_fine(self, use: Call) -> None:
        signature = inspect.signature(find(use.path))
        for by_position in (True, False):
            with replaced(use, more(signature, use, optional=True, by_position=by_position), is_async=use.is_async):
                assert list(use.faults()) == []

    @pytest.mark.parametrize("use", CALLS.values(), ids=CALLS)
    def test_anything_else_is_noticed(self, use: Call) -> None:
        for name, change in BREAKING.items():
            signature = change(inspect.signature(find(use.path)), use)
            if signature is not None:  # else it is called with nothing
                with replaced(use, signature, is_async=use.is_async):
                    faults = list(use.faults())
                assert len(faults) == 1, name
                assert use.path in faults[0]
        assert list(use.faults()) == []

    @pytest.mark.parametrize("use", [use for use in CALLS.values() if not isinstance(find(use.path), type)], ids=str)
    def test_a_coroutine_function_is_one(self, use: Call) -> None:
        with replaced(use, inspect.signature(find(use.path)), is_async=not use.is_async):
            (fault,) = use.faults()
        assert "coroutine function" in fault

    @pytest.mark.parametrize(
        "use", [use for use in ALL if isinstance(use, Attributes) and use.kinds], ids=lambda use: use.path
    )
    async def test_an_attribute_of_another_type(self, use: Attributes, monkeypatch: pytest.MonkeyPatch) -> None:
        """As h11's `_bytes_to_discard`, which was a number once."""

        class Another:
            def __getattr__(self, name: str) -> object:
                return self

        monkeypatch.setitem(vars(use), "make", Another)
        assert len(list(use.faults())) == len(use.kinds)


class TestTls:
    """Without Trio's private names, TLS goes through Trio's own stream."""

    @pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"])
    @pytest.mark.parametrize("name", [None, *check.TLS.uses[0].names.split()])  # type: ignore[attr-defined]
    async def test_a_real_client(
        self, name: str | None, version: ssl.TLSVersion, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Trio has moved one of them, and works with it as before."""
        authority = trustme.CA()
        issued = authority.issue_cert("127.0.0.1")
        issued.cert_chain_pems[0].write_to_path(tmp_path / "cert")
        issued.private_key_pem.write_to_path(tmp_path / "key")
        client = ssl.create_default_context()
        authority.configure_trust(client)
        client.minimum_version = client.maximum_version = version
        app = echo_app()

        @app.ws("/said")
        async def said(ws: WebSocket[Any]) -> None:
            ws.join("all")
            ws.nursery.start_soon(ws.send, "direct")
            async for _ in ws:
                app.room("all").broadcast("for all")
                await ws.close(4001, "enough")

        serve = partial(app.serve, 0, certfile=str(tmp_path / "cert"), keyfile=str(tmp_path / "key"))
        with nullcontext() if name is None else moved("trio._ssl", name):
            async with trio.open_nursery() as nursery:
                (url,) = await nursery.start(serve)
                await http_and_websocket(url, client)
                async with connect(f"{url.replace('http', 'ws', 1)}/said", tls=client) as peer:
                    await peer.send({"go": "on"})
                    assert await peer.closed() == (4001, "enough")
                nursery.cancel_scope.cancel()
        assert len(warnings_of(caplog)) == (name is not None)
        assert all("through Trio's own stream" in warning for warning in warnings_of(caplog))


class TestNursery:
    """Without Trio's private names, a connection ends as it would, once all tasks of its nursery have ended."""

    @pytest.mark.parametrize(
        "end", ["raises", "child raises", "child raises, and it returns", "returns", "cancels", "drained"]
    )
    @pytest.mark.parametrize("name", [None, "_pending_excs", "parent_cancellation_is_visible_to_us"])
    def test_how_it_ends(self, name: str | None, end: str) -> None:
        app = App()

        async def fail() -> None:
            raise ValueError("on purpose")

        async def linger() -> None:
            try:
                await trio.sleep_forever()
            finally:
                with trio.move_on_after(0.01, shield=True):
                    await trio.sleep_forever()

        @app.ws("/ws")
        async def handler(ws: WebSocket[Any]) -> None:
            ws.nursery.start_soon(linger)
            if end == "raises":
                raise ValueError("on purpose")
            if end.startswith("child raises"):
                ws.nursery.start_soon(fail)
            if end == "child raises, and it returns":
                with trio.CancelScope(shield=True), trio.move_on_after(0.01):
                    await trio.sleep_forever()
                return
            if end == "cancels":
                ws.nursery.cancel_scope.cancel()
            if end != "returns":
                await trio.sleep_forever()

        async def main() -> None:
            async with serving(app) as service:
                client = await service.connect()
                if end == "drained":
                    await service.shut_down()
                with pytest.raises(trio_websocket.ConnectionClosed) as caught:
                    await client.get_message()
                assert caught.value.reason is not None
                code = 1011 if "raises" in end else 1012 if end == "drained" else 1000
                assert caught.value.reason.code == code
                await service.wait_ended(10)

        with nullcontext() if name is None else moved("trio._core._run", name):
            trio.run(main)


# That nothing is forgotten

PACKAGES = {"anyio", "h11", "h2", "hpack", "hypercorn", "hyperframe", "priority", "starlette", "trio", "websockets"}

DOCUMENTED: dict[str, set[str] | None] = {
    "anyio": None,
    "anyio.abc": None,
    "h11": None,
    "h2.errors": None,
    "h2.events": None,
    "h2.exceptions": None,
    "h2.settings": None,
    "hypercorn.config": {"Config"},
    "hypercorn.trio": {"serve"},
    "starlette.applications": {"Starlette"},
    "starlette.background": {"BackgroundTask"},
    "starlette.datastructures": {"Headers"},
    "starlette.exceptions": {"HTTPException"},
    "starlette.middleware": {"Middleware"},
    "starlette.requests": {"ClientDisconnect", "HTTPConnection", "Request"},
    "starlette.responses": {"JSONResponse", "PlainTextResponse", "Response"},
    "starlette.routing": {"BaseRoute", "Mount", "Route", "WebSocketRoute"},
    "starlette.types": None,
    "trio": None,
}
"""What may be imported without being listed; `None`: all that the module has, but for what begins with "_"."""

DOCUMENTED_CLASSES = {
    "h11._connection:Connection",
    "starlette.applications:Starlette",
    "starlette.requests:HTTPConnection",
    "starlette.requests:Request",
    "trio.abc:AsyncResource",
    "trio.abc:HalfCloseableStream",
    "trio.abc:Instrument",
    "trio.abc:ReceiveStream",
    "trio.abc:SendStream",
    "trio.abc:Stream",
}
"""Classes of which everything may be used, overridden and set that does not begin with "_"."""

NOT_THEIRS = {
    "_replace": "of named tuples",
    "_getframe": "of `sys`",
    "_current_frames": "of `sys`",
    "_kwargs": "of a process of `multiprocessing`",
}
"""Names that begin with "_", and are neither verbtrio's nor those packages'."""

TREES = {
    ".".join(path.relative_to(FOLDER).with_suffix("").parts): ast.parse(path.read_text())
    for path in sorted(FOLDER.rglob("*.py"))
    if path.name != "client_pb2.py"  # generated: protoc's code uses its own runtime
}


def is_listed(path: str) -> bool:
    return any(use.path == path or use.path.startswith((f"{path}.", f"{path}:")) for use in ALL)


def own_names() -> set[str]:
    """Names that verbtrio defines itself, wherever."""
    found = set()
    for tree in TREES.values():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                found.add(node.name)
            elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
                found.add(node.attr)
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                found.add(node.id)
            elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name | ast.Attribute):
                found.add(node.target.id if isinstance(node.target, ast.Name) else node.target.attr)
    return found


OWN_NAMES = own_names()


def attributes(tree: ast.AST) -> Iterator[str]:
    """Names of attributes that are looked at, `getattr(..., "name")` among them."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id.endswith("attr"):
            for argument in node.args[1:2]:
                if isinstance(argument, ast.Constant):
                    yield str(argument.value)


def documented_names() -> set[str]:
    """What the documentation of their modules names, Python's own, and what their classes set."""
    found = {"__self__", "f_back", "f_globals"}
    for place in DOCUMENTED_MODULES:
        for name, thing in vars(place).items():
            found.add(name)
            if isinstance(thing, type) and not name.startswith("_"):
                found |= {attribute for base in thing.__mro__ for attribute in names_of(base)}
    for kind in (Config, H2Connection):
        found |= names_of(kind) & set(dir(kind))
    return {name for name in found if not name.startswith("_") or name.startswith("__")}


def names_of(kind: type) -> set[str]:
    """What a class has, and what its methods set."""
    found = {*vars(kind), *inspect.get_annotations(kind)}
    for value in vars(kind).values():
        function = inspect.unwrap(value) if callable(value) else value
        if isinstance(function, FunctionType):
            found |= {str(step.argval) for step in dis.get_instructions(function) if step.opname == "STORE_ATTR"}
    return found


WIRE = (
    "wire.codec",
    "connection.handler_nursery",
    "wire.handshake",
    "wire.stream_transport",
    "wire.tls",
    "server.unwind",
)
DOCUMENTED_MODULES = (
    *(builtins, codecs, itertools, logging, math, multiprocessing, os, re, socket, ssl, sys, time),
    *(trio, trio.abc, trio.lowlevel, trio.from_thread, trio.to_thread),
    *(h11, h2.errors, h2.events, h2.exceptions, h2.settings),
)
DOCUMENTED_NAMES = documented_names()


class TestNothingIsForgotten:
    @pytest.mark.parametrize("module", TREES)
    def test_imports(self, module: str) -> None:
        forgotten = []
        for node in ast.walk(TREES[module]):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.partition(".")[0] in PACKAGES:
                known = DOCUMENTED.get(node.module, set())
                for alias in node.names:
                    is_documented = not alias.name.startswith("_") if known is None else alias.name in known
                    path = f"{node.module}:{alias.name}"
                    if not (is_documented or is_listed(path) or is_listed(path.replace(":", "."))):
                        forgotten.append(path)
            elif isinstance(node, ast.Import):
                names = [alias.name for alias in node.names if alias.name.partition(".")[0] in PACKAGES]
                forgotten += [name for name in names if name not in DOCUMENTED]
        assert not forgotten, "used, and not in verbtrio.contract: a test there would show what happens without them"

    @pytest.mark.parametrize("module", TREES)
    def test_private_names(self, module: str) -> None:
        known = OWN_NAMES | contract.LISTED_NAMES | set(NOT_THEIRS)
        private = {name for name in attributes(TREES[module]) if re.match(r"_(?!_)", name)}
        assert not private - known, "used, and not in verbtrio.contract"

    @pytest.mark.parametrize("module", [name for name in TREES if name.startswith("server.takeover.") or name in WIRE])
    def test_attributes(self, module: str) -> None:
        """Of whatever object, in the modules that have to do with theirs: what is neither listed nor documented."""
        used = set(attributes(TREES[module])) - OWN_NAMES - contract.LISTED_NAMES - DOCUMENTED_NAMES - set(NOT_THEIRS)
        assert not used, "used, and not in verbtrio.contract"

    @pytest.mark.parametrize(
        "module", [module for module in TREES if not module.endswith("__init__") and module != "contract.needed"]
    )
    def test_what_subclasses_use(self, module: str) -> None:
        """Of a class of theirs: whatever its subclass of ours calls, looks at, sets or overrides."""
        loaded = importlib.import_module(f"verbtrio.{module}")
        forgotten = []
        for node in TREES[module].body:
            if not isinstance(node, ast.ClassDef):
                continue
            kind = getattr(loaded, node.name)
            theirs = [base for base in kind.__mro__ if base.__module__.partition(".")[0] in PACKAGES]
            used = {
                name.attr
                for name in ast.walk(node)
                if isinstance(name, ast.Attribute) and ast.unparse(name.value) in ("self", "super()")
            } | set(vars(kind))
            for base in theirs:
                path = f"{base.__module__}:{base.__qualname__}"
                for name in sorted(used & names_of(base)):
                    is_documented = path in DOCUMENTED_CLASSES and not name.startswith("_")
                    if not (is_documented or is_listed_of(path, name) or re.fullmatch("__.*__|_abc_impl", name)):
                        forgotten.append(f"{path}.{name}, by {node.name}")
        assert not forgotten, "used, and not in verbtrio.contract"

    @pytest.mark.parametrize("package", sorted({use.path.partition(".")[0].partition(":")[0] for use in ALL}))
    def test_a_bound_above(self, package: str) -> None:
        """What is private may be another thing in the next version."""
        requirements = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
        (requirement,) = [r for r in requirements if re.match(rf"{package}(\[\w+\])?>=", r)]
        assert re.fullmatch(r"[a-z0-9]+(\[trio\])?>=[0-9.]+,<[0-9.]+", requirement)


def is_listed_of(path: str, name: str) -> bool:
    """Whether a name of the class is in the list."""
    for use in ALL:
        if use.path == f"{path}.{name}":
            return True
        of_class = (
            use.path == path
            or use.path.startswith(f"{path}.")
            or use.path.rpartition(":")[2] == path.rpartition(":")[2]
        )
        if of_class and isinstance(use, Attributes | Refers) and name in use.names.split():
            return True
    return False
