"""Who may import whom. The table is DESIGN's; imports go down it, never up, so there can be no circle.

`TYPE_CHECKING` imports and imports within functions count: a module that has to know another's types knows the other.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import verbtrio

FOLDER = Path(verbtrio.__file__).parent

# From the ground up. A module may import those in the layers below it, and those before it in its own.
LAYERS: dict[str, list[str]] = {
    # `limits` guards, but it is data, and the wire has to keep to it.
    "ground": ["closing", "counts", "errors", "types", "limits", "threads", "mistakes", "logs"],
    "wire": [
        "events",
        "collisions",
        "custom",
        "messages",
        "codec",
        "unfinished",
        "progress",
        "transports",
        "tls",
        "streams",
        "poller",
        "readers",
        "handshake",
        "streaming",
        "sse",
        "asyncapi",
    ],
    "guards": [
        "heartbeat",
        "environment",
        "origin",
        "proxies",
        "rate",
        "places",
        "middleware",
        "security",
        "jwks",
        "auth",
    ],
    "fan-out": ["timers", "inbox", "outbox", "member", "rooms"],
    "connection": [
        "calls",
        "membership",
        "answers",
        "websocket",
        "listener",
        "parameters",
        "dispatch",
        "hooks",
        "gate",
        "handling",
        "parting",
        "registry",
        "connection",
        "foreign",
        "asgi",
    ],
    "hub": ["hub"],
    "edge": [
        "_uses",
        "_contract_hypercorn",
        "_contract",
        "_needed",
        "unwind",
        "endpoint",
        "listening",
        "channels",
        "groups",
        "routing",
        "paths",
        "_hypercorn_logs",
        "_hypercorn_linger",
        "_hypercorn_patience",
        "_hypercorn_watch",
        "_hypercorn_frames",
        "_hypercorn_buffers",
        "_hypercorn_tasks",
        "_hypercorn_targets",
        "_hypercorn_heads",
        "_hypercorn_upgrade",
        "_hypercorn_h1",
        "_hypercorn_responses",
        "_hypercorn_tunnel",
        "_hypercorn_h2",
        "_hypercorn_protocols",
        "_hypercorn_clients",
        "_hypercorn_terms",
        "workers",
        "_hypercorn",
        "server",
        "background",
        "not_trio",
        "debugging",
        "app",
        "metrics",
        "__init__",
    ],
}
ORDER = [module for modules in LAYERS.values() for module in modules]

# Neighbours that have nothing to do with each other, although the order would let them.
STRANGERS = [
    ("rooms", "outbox"),
    ("rooms", "transports"),
    ("rooms", "codec"),
    ("inbox", "transports"),
    ("transports", "handshake"),
    ("handshake", "transports"),
    ("heartbeat", "codec"),
    ("outbox", "codec"),
    ("middleware", "asgi"),
    ("websocket", "codec"),
    ("hub", "asgi"),
    ("hub", "foreign"),
    ("server", "_hypercorn"),
]

# No Trio, no clock: the time is a parameter, so that Hypothesis can have them.
PURE = [
    "asyncapi",
    "closing",
    "counts",
    "errors",
    "types",
    "events",
    "collisions",
    "custom",
    "messages",
    "codec",
    "handshake",
    "heartbeat",
    "limits",
    "mistakes",
    "unfinished",
    "member",
    "rooms",
    "origin",
    "proxies",
    "rate",
    "places",
    "_hypercorn_frames",
    "_hypercorn_heads",
    "_hypercorn_targets",
]
IMPURE = {"trio", "anyio", "asyncio", "time", "datetime", "threading", "socket", "select", "random", "hypercorn"}

# hypercorn's insides are known to the take-over alone, which is imported when all of them have been found, and PyJWT is
# loaded only by those who import `verbtrio.auth`.
ONLY_IN = {
    "hypercorn": {
        "_hypercorn_linger",
        "_hypercorn_buffers",
        "_hypercorn_clients",
        "_hypercorn_logs",
        "_hypercorn_tasks",
        "_hypercorn_protocols",
        "_hypercorn_terms",
        "workers",
        "_hypercorn",
        "_hypercorn_h1",
        "_hypercorn_upgrade",
        "_hypercorn_h2",
        "_hypercorn_responses",
        "_hypercorn_tunnel",
        "server",
    },
    "h11": {"_hypercorn_protocols", "_hypercorn_heads", "_hypercorn_upgrade", "_hypercorn_h1"},
    "h2": {"_hypercorn_h2", "_hypercorn_responses", "_hypercorn_targets", "_hypercorn_tunnel"},
    "jwt": {"auth", "jwks"},
    "prometheus_client": {"metrics"},
}

MAX_LINES = 400


def source(module: str) -> str:
    return (FOLDER / f"{module}.py").read_text()


def imports(module: str) -> Iterator[str]:
    """The full names of what `module` imports, anywhere in it."""
    for node in ast.walk(ast.parse(source(module))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} has a relative import: the package's are absolute"
            assert node.module is not None
            # `from verbtrio import server` imports a module, `from verbtrio.server import serve` a name of one.
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def own_imports(module: str) -> set[str]:
    """The modules of the package that `module` imports; `__init__` where it imports from the package itself."""
    found = set()
    for name in imports(module):
        package, _, rest = name.partition(".")
        if package == "verbtrio":
            first = rest.partition(".")[0]
            found.add(first if first in ORDER else "__init__")
    return found


def test_every_module_has_its_place() -> None:
    """One that is new gets one; one that is gone leaves none."""
    modules = [".".join(path.relative_to(FOLDER).with_suffix("").parts) for path in FOLDER.rglob("*.py")]
    assert sorted(ORDER) == sorted(modules)


@pytest.mark.parametrize("module", ORDER)
def test_imports_go_down(module: str) -> None:
    above = {other for other in own_imports(module) if ORDER.index(other) >= ORDER.index(module)}
    assert not above, f"{module} imports upwards"


@pytest.mark.parametrize(("module", "other"), STRANGERS)
def test_strangers(module: str, other: str) -> None:
    assert other not in own_imports(module)


@pytest.mark.parametrize("module", PURE)
def test_pure_modules(module: str) -> None:
    assert not {name.partition(".")[0] for name in imports(module)} & IMPURE
    assert own_imports(module) <= set(PURE), "what a pure module imports is pure"


def test_auth_is_nobodys() -> None:
    assert not [module for module in ORDER if "auth" in own_imports(module)]


@pytest.mark.parametrize(("package", "modules"), ONLY_IN.items())
def test_kept_in_one_place(package: str, modules: set[str]) -> None:
    users = {module for module in ORDER if package in {name.partition(".")[0] for name in imports(module)}}
    assert users
    assert users <= modules


@pytest.mark.parametrize("module", ORDER)
def test_no_module_level_state(module: str) -> None:
    """DESIGN section 3. What stands at the top of a module does not change: no `global`, no empty container to fill."""
    tree = ast.parse(source(module))
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.Global)]
    values = [node.value for node in tree.body if isinstance(node, ast.Assign | ast.AnnAssign)]
    empty = [ast.unparse(value) for value in values if value is not None]
    assert not {"[]", "{}", "set()", "dict()", "list()", "deque()", "Counter()"} & set(empty)


@pytest.mark.parametrize("module", ORDER)
def test_can_be_read_in_one_sitting(module: str) -> None:
    assert len(source(module).splitlines()) < MAX_LINES
