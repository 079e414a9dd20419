"""The loads. Messages are text of 64 bytes unless it says otherwise; they are JSON, so that every server takes them."""

from __future__ import annotations

from dataclasses import dataclass, field

MESSAGE = '{"text":"' + 53 * "x" + '"}'
TALK = '{"username":"ana","text":"' + 36 * "x" + '"}'
assert len(MESSAGE) == len(TALK) == 64
BIG = '{"text":"' + (65536 - 11) * "x" + '"}'

IDLE = 5000
"""Connections that say nothing, in the loads that have such."""
IDLE_HEARTBEAT = 5.0
"""Seconds between pings in the idle load: it is measured for as long, so each connection is pinged once."""
LATENCY_SECONDS = 2.0
"""How long echoes are timed: eight quarters of a second, of whose p99s the median is taken."""


@dataclass(frozen=True)
class Metric:
    key: str
    """Its name in the generator's answer."""
    title: str
    unit: str
    more_is_better: bool


RATE = Metric("rate", "messages", "/s", True)
DELIVERIES = Metric("rate", "deliveries", "/s", True)


@dataclass(frozen=True)
class Load:
    name: str
    title: str
    mode: str
    """The generator's mode."""
    path: str
    options: dict[str, str | int] = field(default_factory=dict)
    metrics: tuple[Metric, ...] = (RATE,)
    """The first one is compared and drawn."""
    max_rounds: int = 1000
    """What takes long and varies little needn't be repeated as often."""
    seconds: float | None = None
    """How long it is measured, where that is not the run's to say."""
    tls: bool = False
    lost: str = "messages missing"
    """What the generator's count of losses means."""
    by_default: bool = True


def chat(name: str, title: str, path: str, payload: str, *, tls: bool = False) -> Load:
    return Load(name, title, "chat", path, {"clients": 32, "payload": payload}, (DELIVERIES,), tls=tls)


def echo(name: str, title: str, *, tls: bool = False) -> Load:
    return Load(name, title, "echo", "/echo", {"clients": 50, "payload": MESSAGE}, tls=tls)


def fanout(name: str, title: str, window: int, *, by_default: bool = True) -> Load:
    options: dict[str, str | int] = {"clients": 100, "window": window, "payload": MESSAGE}
    return Load(name, title, "fanout", "/room", options, (DELIVERIES,), by_default=by_default)


LOADS = [
    echo("echo", "echo: 50 clients, one message in flight each"),
    fanout("fanout", "fan-out: 1 sender, 100 members, two messages on their way", window=2),
    fanout(
        "fanout-burst",
        "fan-out in bursts: 1 sender, 100 members, 64 messages on their way",
        window=64,
        by_default=False,
    ),
    chat("chat", "chat: 32 members, all talking", "/room", MESSAGE),
    chat("chat-json", "chat, JSON: parse, add sender and time, serialise", "/json", TALK),
    Load("big", "big: echo of 64 KiB, 10 clients", "echo", "/echo", {"clients": 10, "payload": BIG}),
    Load(
        "connect",
        "connect: handshakes, each closed cleanly, 16 at a time",
        "connect",
        "/echo",
        {"clients": 16, "payload": MESSAGE},
        (Metric("rate", "connections", "/s", True),),
        lost="not closed cleanly",
    ),
    Load(
        "latency",
        f"latency: echo at 2,000 a second beside {IDLE:,} idle connections",
        "latency",
        "/echo",
        {"clients": 50, "rate": 2000, "quiet": IDLE, "payload": MESSAGE},
        (
            Metric("typical_p99", "p99", " µs", False),
            Metric("p50", "p50", " µs", False),
            Metric("p99", "p99 of all", " µs", False),
        ),
        max_rounds=2,
        seconds=LATENCY_SECONDS,
    ),
    Load(
        "idle",
        f"idle: {IDLE:,} connections, a ping each every {IDLE_HEARTBEAT:.0f} s",
        "idle",
        "/echo",
        {"clients": IDLE, "payload": MESSAGE},
        (Metric("kilobytes", "memory", " KB a connection", False), Metric("cpu", "CPU", " % of a core", False)),
        max_rounds=1,
        seconds=IDLE_HEARTBEAT,
    ),
    echo("tls-echo", "echo over TLS", tls=True),
    chat("tls-chat", "chat over TLS", "/room", MESSAGE, tls=True),
]
BY_NAME = {load.name: load for load in LOADS}
