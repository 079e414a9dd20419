"""The servers: how each is started, as its documentation says is fastest, without compression and access logs."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import build
from benchmarks.dialects import Centrifuge, Dialect, SocketIO
from benchmarks.loads import Load

FOLDER = Path(__file__).parent / "servers"
PACKAGE = "benchmarks.servers"


@dataclass(frozen=True)
class Place:
    """Where and how one process of a server is to run."""

    port: int
    heartbeat: float | None = None
    """Seconds between pings; `None` leaves the server's default."""
    cert: Path | None = None
    key: Path | None = None

    @property
    def environment(self) -> dict[str, str]:
        """The settings as benchmarks/servers/common.py reads them."""
        values = {"BENCH_PORT": self.port, "BENCH_HEARTBEAT": self.heartbeat, "BENCH_CERT": self.cert}
        values["BENCH_KEY"] = self.key
        return {name: str(value) for name, value in values.items() if value is not None}


Command = Callable[[Place], Sequence[str]]


@dataclass(frozen=True)
class Server:
    name: str
    title: str
    command: Command
    needs: tuple[str, ...] = ()
    """Python packages that have to be importable."""
    prefix: str = ""
    """Before the paths `/echo`, `/room` and `/json`."""
    loads: frozenset[str] | None = None
    """The loads it can be put under; `None`: all."""
    tls: bool = False
    own: bool = False
    """Its rooms send a message back to who sent it, too."""
    dialect: Dialect | None = None
    """The protocol that its clients speak within the messages; `None`: the messages are the load's."""
    tool: Callable[[], str | None] = lambda: None
    """What else is missing, as a sentence."""

    def missing(self) -> str | None:
        """Why it can't be run here; `None` if it can."""
        absent = [module for module in self.needs if importlib.util.find_spec(module) is None]
        return f"not installed: {', '.join(absent)}" if absent else self.tool()

    def takes(self, load: Load) -> bool:
        if load.tls and not self.tls:
            return False
        return self.loads is None or load.name in self.loads


def hypercorn(app: str) -> Command:
    def command(place: Place) -> Sequence[str]:
        options = ["-k", "trio", "-b", f"127.0.0.1:{place.port}", "--backlog", "4096"]
        if place.heartbeat:
            options += ["--websocket-ping-interval", str(int(place.heartbeat))]
        if place.cert:
            options += ["--certfile", str(place.cert), "--keyfile", str(place.key)]
        return [sys.executable, "-m", "hypercorn", *options, app]

    return command


def module(name: str) -> Command:
    return lambda place: [sys.executable, "-m", f"{PACKAGE}.{name}"]


def uvicorn(place: Place) -> Sequence[str]:
    options = ["--host", "127.0.0.1", "--port", str(place.port), "--loop", "uvloop", "--http", "httptools"]
    options += ["--ws", "websockets-sansio", "--ws-per-message-deflate", "false"]
    options += ["--no-access-log", "--log-level", "warning", "--backlog", "4096"]
    if place.heartbeat:
        options += ["--ws-ping-interval", str(place.heartbeat)]
    if place.cert:
        options += ["--ssl-certfile", str(place.cert), "--ssl-keyfile", str(place.key)]
    return [sys.executable, "-m", "uvicorn", *options, f"{PACKAGE}.starlette_app:app"]


def granian(place: Place) -> Sequence[str]:
    options = ["--host", "127.0.0.1", "--port", str(place.port), "--interface", "asgi", "--loop", "uvloop"]
    options += ["--runtime-mode", "st", "--http", "1", "--no-access-log", "--log-level", "warning"]
    options += ["--backlog", "16384", "--backpressure", "16384"]  # its default takes 1,024 connections
    if place.cert:
        options += ["--ssl-certificate", str(place.cert), "--ssl-keyfile", str(place.key)]
    return [sys.executable, "-m", "granian", *options, f"{PACKAGE}.starlette_app:app"]


def npm_folder() -> Path | None:
    value = os.environ.get("BENCH_NPM")
    return Path(value) / "node_modules" if value else None


def bun_package() -> str:
    """The npm package that holds Bun's binary for this machine."""
    if platform.machine() in ("aarch64", "arm64"):
        return "@oven/bun-linux-aarch64"
    cpu = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    return "@oven/bun-linux-x64" if " avx2 " in cpu else "@oven/bun-linux-x64-baseline"


def bun_binary() -> str | None:
    folder = npm_folder()
    path = folder / bun_package() / "bin" / "bun" if folder else None
    return str(path) if path and path.exists() else shutil.which("bun")


def bun(script: str) -> Command:
    return lambda place: [bun_binary() or "bun", "run", str(FOLDER / script)]


def no_bun() -> str | None:
    return None if bun_binary() else "no bun (npm brings it)"


def node(script: str) -> Command:
    return lambda place: ["env", f"NODE_PATH={npm_folder()}", "node", str(FOLDER / script)]


def no_node(package: str) -> Callable[[], str | None]:
    def missing() -> str | None:
        if shutil.which("node") is None:
            return "no node"
        folder = npm_folder()
        return None if folder and (folder / package).exists() else f"no {package} (npm brings it)"

    return missing


def minimal(place: Place) -> Sequence[str]:
    binary = build.minimal()
    assert binary is not None, "asked for before"
    return [str(binary), str(place.port)]


def no_minimal() -> str | None:
    return None if build.minimal() else "no C compiler"


BARE = hypercorn(f"{PACKAGE}.verbtrio_bare:app")
FULL = hypercorn(f"{PACKAGE}.verbtrio_full:app")
GUARDS = hypercorn(f"{PACKAGE}.verbtrio_guards:app")
ROOMS = hypercorn(f"{PACKAGE}.verbtrio_rooms:app")
CLIENTS = hypercorn(f"{PACKAGE}.verbtrio_clients:app")
VERBTRIO = ("verbtrio",)
REFERENCE = "verbtrio"
"""The server that the others are compared with."""
SAMPLE_ONLY = frozenset({"chat-json"})
FEATURES = frozenset({"echo", "chat", "chat-json"})
"""What the price of all features shows in."""
GUARDED = frozenset({"echo", "connect", "latency", "idle", "big"})
IN_A_ROOM = frozenset({"chat", "fanout", "fanout-burst"})
"""What the price of a history and of presence shows in."""
SUBSCRIBED = frozenset({"echo", "chat", "fanout", "fanout-burst", "connect"})
"""What shows the price of subscriptions and calls. (A connection subscribes, too.)"""
NO_SAMPLE = frozenset({"echo", "fanout", "fanout-burst", "chat", "connect", "latency", "big", "idle"})

SERVERS = [
    Server("verbtrio", "verbtrio", BARE, VERBTRIO, tls=True),
    Server("verbtrio-hooks", "verbtrio, plain functions", BARE, VERBTRIO, prefix="/hooks", tls=True),
    Server("verbtrio-full", "verbtrio, all features", FULL, VERBTRIO, loads=FEATURES),
    Server("verbtrio-hooks-full", "verbtrio, plain functions, all features", FULL, VERBTRIO, "/hooks", FEATURES),
    Server("verbtrio-guards", "verbtrio, all guards", GUARDS, VERBTRIO, loads=GUARDED),
    # What is published comes back to its sender, too: that is how all members see one order.
    Server("verbtrio-history", "verbtrio, history", ROOMS, VERBTRIO, "/history", IN_A_ROOM, own=True),
    Server("verbtrio-presence", "verbtrio, presence", ROOMS, VERBTRIO, "/presence", IN_A_ROOM),
    Server("verbtrio-both", "verbtrio, history and presence", ROOMS, VERBTRIO, "/both", IN_A_ROOM, own=True),
    Server(
        "verbtrio-clients",
        "verbtrio, Centrifuge protocol",
        CLIENTS,
        VERBTRIO,
        "",
        SUBSCRIBED,
        own=True,
        dialect=Centrifuge(),
    ),
    Server(
        "verbtrio-clients-plain",
        "verbtrio, Centrifuge protocol, plain functions",
        CLIENTS,
        VERBTRIO,
        "",
        frozenset({"echo"}),
        own=True,
        dialect=Centrifuge(call="ask"),
    ),
    Server(
        "verbtrio-clients-history",
        "verbtrio, Centrifuge protocol, history",
        CLIENTS,
        VERBTRIO,
        "",
        IN_A_ROOM,
        own=True,
        dialect=Centrifuge("remembered"),
    ),
    Server("hypercorn", "hypercorn (trio), bare ASGI", hypercorn(f"{PACKAGE}.bare_asgi:app"), ("hypercorn",), tls=True),
    Server("quart-trio", "quart-trio", hypercorn(f"{PACKAGE}.quart_trio_app:app"), ("quart_trio",)),
    Server("trio-websocket", "trio-websocket", module("trio_websocket_server"), ("trio_websocket",)),
    Server("websockets", "websockets (uvloop)", module("websockets_asyncio"), ("websockets", "uvloop"), tls=True),
    Server("websockets-trio", "websockets (trio)", module("websockets_trio"), ("websockets", "trio")),
    Server("uvicorn", "uvicorn + Starlette", uvicorn, ("uvicorn", "uvloop", "starlette", "httptools"), tls=True),
    Server("granian", "granian + Starlette", granian, ("granian", "uvloop", "starlette"), tls=True),
    Server("aiohttp", "aiohttp (uvloop)", module("aiohttp_server"), ("aiohttp", "uvloop"), tls=True),
    Server("picows", "picows (uvloop)", module("picows_server"), ("picows", "uvloop"), tls=True),
    Server("socketify", "socketify", module("socketify_server"), ("socketify",), own=True),
    Server("bun", "Bun, native publish", bun("bun_native.js"), tool=no_bun, tls=True),
    Server("bun-page", "Bun, the page's code", bun("bun_page.js"), loads=SAMPLE_ONLY, tool=no_bun),
    Server("node-ws", "Node, ws", node("node_ws.js"), tool=no_node("ws"), tls=True),
    Server(
        "socketio",
        "Node, Socket.IO",
        node("socketio.js"),
        loads=SUBSCRIBED,
        own=True,
        dialect=SocketIO(),
        tool=no_node("socket.io"),
    ),
    Server("minimal", "minimal C (the limit)", minimal, loads=NO_SAMPLE, tool=no_minimal),
]
BY_NAME = {server.name: server for server in SERVERS}

if __name__ == "__main__":
    print(bun_package(), "ws", "socket.io")  # what npm has to bring
