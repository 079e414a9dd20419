"""Who may import whom. Imports go down the table, never up, so there can be no circle.

`TYPE_CHECKING` imports and imports within functions count: a module that has to know another's types knows the other.
"""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterator
from functools import cache
from pathlib import Path

import pytest

import verbtrio
from tests.support.contract import LISTED_NAMES

FOLDER = Path(verbtrio.__file__).parent

# From the ground up. A module may import those of the packages below its own, and those before it in its own.
LAYERS: dict[str, list[str]] = {
    "contract": ["uses", "hypercorn", "check", "needed"],
    # `limits` guards, but it is data, and the wire has to keep to it.
    "base": [
        "checks",
        "close",
        "counters",
        "position",
        "errors",
        "types",
        "limits",
        "threads",
        "habits",
        "mistakes",
        "logs",
        "calls",
        "attempt",
        "timers",
        "restart",
        "signatures",
    ],
    "messages": ["frame", "published", "waiting", "collisions", "custom", "decoder"],
    "wire": [
        "events",
        "protocol",
        "codec",
        "message_deadline",
        "tcp_info",
        "transport",
        "asgi_transport",
        "tls",
        "stream_transport",
        "poller",
        "reader",
        "handshake",
    ],
    "brokers": ["records", "base", "memory_history", "memory_presence", "memory", "__init__"],
    "brokers.redis": [
        "names",
        "fields",
        "items",
        "records",
        "settings",
        "script",
        "message_scripts",
        "presence_scripts",
        "process_scripts",
        "scripts",
        "epochs",
        "slots",
        "dialing",
        "servers",
        "reply",
        "pipe",
        "echoes",
        "listening",
        "ordering",
        "link",
        "marks",
        "room",
        "subscriptions",
        "outgoing",
        "gaps",
        "presence",
        "leases",
        "requests",
        "forwards",
        "incoming",
        "liveness",
        "upkeep",
        "session",
        "broker",
        "__init__",
    ],
    "protocols": ["codes", "commands", "replies", "encoding", "json_encoding", "client_pb2", "protobuf_encoding"],
    "rooms": [
        "member",
        "local",
        "stand_in",
        "catch_up",
        "settling",
        "picture",
        "presence",
        "room_task",
        "gap_hook",
        "leases",
        "task_run",
        "supervision",
        "task_table",
        "patterns",
        "settings",
        "rules",
        "naming",
        "joins",
        "host",
        "room",
    ],
    "http": ["link", "writer", "streaming", "sse", "event_subscriber", "subscriber_response"],
    "guards": [
        "environment",
        "refusals",
        "origin",
        "proxies",
        "rate",
        "quotas",
        "middleware",
        "csrf",
        "security_headers",
        "cross_origin",
    ],
    "auth": ["jwks", "centrifuge_claims", "jwt", "__init__"],
    "connection": [
        "heartbeat",
        "inbox",
        "backlog",
        "outbox",
        "membership",
        "answers",
        "dialect",
        "peer",
        "websocket",
        "annotations",
        "conversion",
        "parameters",
        "dispatch",
        "handler",
        "handler_kinds",
        "tokens",
        "screening",
        "handler_nursery",
        "ending",
        "registry",
        "deadlines",
        "lifecycle",
    ],
    "multiplex": [
        "carrier",
        "peer",
        "data",
        "calls",
        "news",
        "present_clients",
        "settings",
        "intake",
        "client",
        "subscription_handler",
        "tokens",
        "recovery",
        "seat",
        "life",
        "setbacks",
        "subscriptions",
        "server_side",
        "room_commands",
        "admission",
        "running_calls",
        "pulse",
        "clock",
        "application_side",
        "pace",
        "session",
        "websocket",
        "streamed",
        "emulation",
        "stream_response",
    ],
    "hub": ["statistics", "users", "gaps", "process", "flusher", "drain", "hub"],
    "server.tasks": ["supervised", "family", "background"],
    "server.debug": ["frames", "loop_watch", "interrupts", "debugging"],
    "server": [
        "unwind",
        "host",
        "asgi_messages",
        "asgi_closing",
        "asgi_websocket",
        "session",
        "workers",
        "serve",
        "not_trio",
        "lifespan",
    ],
    "server.takeover": [
        "logs",
        "linger",
        "stalled",
        "hangup",
        "addresses",
        "clients",
        "settings",
        "hypercorn_settings",
        "targets",
        "incoming",
        "http2_frames",
        "http2_buffers",
        "requests",
        "http1_heads",
        "http1_upgrade",
        "http1",
        "http2_heads",
        "http2_credit",
        "http2_resets",
        "http2_responses",
        "http2_tunnel",
        "http2",
        "negotiation",
        "websocket",
        "connection",
        "install",
    ],
    "routes": [
        "http_endpoint",
        "settings",
        "websocket_route",
        "event_stream_route",
        "asyncapi",
        "channels",
        "mounted",
        "groups",
        "http_routes",
        "routing",
        "paths",
        "rooms",
        "client_endpoint",
        "streamed_endpoint",
        "centrifuge",
        "health",
    ],
    # The doors: what applications import.
    "": ["environment", "middleware", "security", "app", "metrics", "__init__"],
    "testing": [
        "recording",
        "broker_checks",
        "broker_messages",
        "broker_histories",
        "broker_presence",
        "broker_connections",
        "broker_users",
        "broker_forwards",
        "broker_leases",
        "broker_sessions",
        "broker_cancellation",
        "brokers",
    ],
}
PACKAGES = [f"{package}.__init__" for package, modules in LAYERS.items() if "__init__" not in modules]
ORDER = [f"{package}.{module}".removeprefix(".") for package, modules in LAYERS.items() for module in modules]

# Neighbours that have nothing to do with each other, although the order would let them: modules, or whole packages.
STRANGERS = [
    # The wire, rooms and streams carry frames; only a connection decodes.
    ("wire", "messages.decoder"),
    ("http", "messages.decoder"),
    ("rooms", "messages.decoder"),
    ("rooms", "wire"),
    ("rooms", "http"),
    ("rooms", "guards"),
    ("http", "wire"),
    ("guards", "wire"),
    ("guards", "http"),
    ("connection", "http"),
    ("connection.inbox", "wire"),
    ("connection.heartbeat", "wire.codec"),
    ("connection.backlog", "wire.codec"),
    ("connection.outbox", "wire.codec"),
    ("connection.websocket", "wire.codec"),
    ("wire.transport", "wire.handshake"),
    ("wire.handshake", "wire.transport"),
    ("hub", "server"),
    ("server.serve", "server.takeover"),
    ("routes", "server.takeover"),
]

# No Trio, no clock: the time is a parameter, so that Hypothesis can have them.
PURE = [
    "base.checks",
    "base.position",
    "brokers.records",
    "brokers.memory_history",
    "brokers.memory_presence",
    "base.close",
    "base.counters",
    "base.errors",
    "base.limits",
    "base.habits",
    "base.mistakes",
    "base.restart",
    "base.signatures",
    "base.types",
    "messages.collisions",
    "messages.custom",
    "messages.decoder",
    "messages.frame",
    "messages.published",
    "messages.waiting",
    "protocols.codes",
    "protocols.commands",
    "protocols.replies",
    "protocols.encoding",
    "protocols.json_encoding",
    "protocols.client_pb2",
    "protocols.protobuf_encoding",
    "multiplex.setbacks",
    "wire.events",
    "wire.protocol",
    "wire.codec",
    "wire.transport",
    "wire.handshake",
    "wire.message_deadline",
    "auth.centrifuge_claims",
    "guards.origin",
    "guards.proxies",
    "guards.quotas",
    "guards.rate",
    "guards.refusals",
    "rooms.patterns",
    "rooms.naming",
    "rooms.member",
    "rooms.local",
    "rooms.room_task",
    "rooms.gap_hook",
    "rooms.picture",
    "rooms.settings",
    "rooms.rules",
    "hub.statistics",
    "connection.heartbeat",
    "connection.backlog",
    "connection.dialect",
    "routes.settings",
    "routes.asyncapi",
    "server.asgi_messages",
    "server.takeover.http1_heads",
    "server.takeover.http2_credit",
    "server.takeover.http2_frames",
    "server.takeover.http2_heads",
    "server.takeover.targets",
]
IMPURE = {"trio", "anyio", "asyncio", "time", "datetime", "threading", "socket", "select", "random", "hypercorn"}

# hypercorn's insides are known to the take-over alone, which is imported when all of them have been found, and PyJWT is
# loaded only by those who import `verbtrio.auth`. (A package stands for all of its modules.)
ONLY_IN = {
    "hypercorn": {"server.takeover", "server.workers", "server.serve"},
    "h11": {"server.takeover"},
    "h2": {"server.takeover"},
    "jwt": {"auth"},
    "prometheus_client": {"metrics"},
    # Imported by who asks for the encoding: it is an extra.
    "google": {"protocols.protobuf_encoding", "protocols.client_pb2"},
}

# By protoc: it has no author to hold to the rules of style.
GENERATED = ["protocols.client_pb2"]

MAX_LINES = 400
MAX_CLASS_LINES = 250

# Names of Python's own that begin with "_".
PYTHONS = {"_replace", "_getframe", "_current_frames"}


def source(module: str) -> str:
    return FOLDER.joinpath(*module.split(".")).with_suffix(".py").read_text()


@cache
def parsed(module: str) -> ast.Module:
    return ast.parse(source(module))


def is_in(module: str, places: Collection[str]) -> bool:
    """Whether `module` is one of `places`, or in one of them."""
    return any(module == place or module.startswith(f"{place}.") for place in places)


def imports(module: str) -> Iterator[str]:
    """The full names of what `module` imports, anywhere in it."""
    for node in ast.walk(parsed(module)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} has a relative import: the package's are absolute"
            assert node.module is not None
            # `from verbtrio import server` imports a module, `from verbtrio.server.serve import serve` a name of one.
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@cache
def own_imports(module: str) -> frozenset[str]:
    """The modules of the package that `module` imports; `__init__` where it imports from the package itself."""
    found = set()
    for name in imports(module):
        package, _, rest = name.partition(".")
        if package == "verbtrio":
            steps = rest.split(".")
            ways = [".".join(steps[:count]) for count in range(len(steps), 0, -1)]
            found.add(
                next((way for way in ways if way in ORDER), f"{steps[0]}.__init__" if len(steps) > 1 else "__init__")
            )
    return frozenset(found)


def test_every_module_has_its_place() -> None:
    """One that is new gets one; one that is gone leaves none."""
    modules = [".".join(path.relative_to(FOLDER).with_suffix("").parts) for path in FOLDER.rglob("*.py")]
    assert sorted(ORDER) == sorted(set(modules) - set(PACKAGES))


@pytest.mark.parametrize("module", PACKAGES)
def test_a_package_says_what_it_is(module: str) -> None:
    """And does nothing: to import one of its modules imports no other."""
    (docstring,) = parsed(module).body
    assert isinstance(docstring, ast.Expr)


@pytest.mark.parametrize("module", ORDER)
def test_imports_go_down(module: str) -> None:
    above = {other for other in own_imports(module) if ORDER.index(other) >= ORDER.index(module)}
    assert not above, f"{module} imports upwards"


@pytest.mark.parametrize(("module", "other"), STRANGERS)
def test_strangers(module: str, other: str) -> None:
    users = [user for user in ORDER if is_in(user, [module]) and not is_in(user, [other])]
    assert users
    assert not [(user, found) for user in users for found in own_imports(user) if is_in(found, [other])]


@pytest.mark.parametrize("module", PURE)
def test_pure_modules(module: str) -> None:
    assert not {name.partition(".")[0] for name in imports(module)} & IMPURE
    assert own_imports(module) <= set(PURE), "what a pure module imports is pure"


def test_auth_is_nobodys() -> None:
    outside = [module for module in ORDER if not is_in(module, ["auth"])]
    assert not [module for module in outside if any(is_in(found, ["auth"]) for found in own_imports(module))]


@pytest.mark.parametrize(("package", "modules"), ONLY_IN.items())
def test_kept_in_one_place(package: str, modules: set[str]) -> None:
    users = {module for module in ORDER if package in {name.partition(".")[0] for name in imports(module)}}
    assert users
    assert not [module for module in users if not is_in(module, modules)]


@pytest.mark.parametrize("module", ORDER)
def test_no_module_level_state(module: str) -> None:
    """What stands at the top of a module does not change: no `global`, no empty container to fill."""
    tree = parsed(module)
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.Global)]
    values = [node.value for node in tree.body if isinstance(node, ast.Assign | ast.AnnAssign)]
    empty = [ast.unparse(value) for value in values if value is not None]
    assert not {"[]", "{}", "set()", "dict()", "list()", "deque()", "Counter()"} & set(empty)


@pytest.mark.parametrize("module", ORDER)
def test_can_be_read_in_one_sitting(module: str) -> None:
    assert len(source(module).splitlines()) < MAX_LINES


@pytest.mark.parametrize("module", ORDER)
def test_classes_can_be_read_in_one_sitting(module: str) -> None:
    classes = [node for node in ast.walk(parsed(module)) if isinstance(node, ast.ClassDef)]
    lengths = {node.name: (node.end_lineno or 0) - node.lineno + 1 for node in classes}
    assert not {name: lines for name, lines in lengths.items() if lines > MAX_CLASS_LINES}


def private_names(module: str) -> tuple[set[str], set[str]]:
    """The names with an underscore that `module` defines, and those it looks up in what is not its own: on anything but
    `self`, `cls` and `super()`, or by an import."""
    defined, used = set(), set()
    for node in ast.walk(parsed(module)):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                defined.add(name)
            case ast.Attribute(value=ast.Name(id="self" | "cls"), attr=name):
                defined.add(name)
            case ast.Attribute(value=ast.Call(func=ast.Name(id="super"))):
                pass
            case ast.Attribute(attr=name):
                used.add(name)
            case ast.ImportFrom(module=str(path), names=names) if path.partition(".")[0] == "verbtrio":
                used |= {alias.name for alias in names}
            case ast.Constant(value=str(name)) if name.isidentifier():  # `__slots__`
                defined.add(name)
            case _:
                pass
    return defined, {name for name in used if name.startswith("_") and not name.startswith("__")}


@pytest.mark.parametrize("module", [module for module in ORDER if module not in GENERATED])
def test_private_names_are_private(module: str) -> None:
    """No module looks up another's names with an underscore; those of other packages only if `contract` lists them."""
    defined, used = private_names(module)
    assert used - defined - PYTHONS - LISTED_NAMES == set()
