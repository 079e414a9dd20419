"""What clients of the Centrifuge protocol cost: their subscriptions and calls beside plain rooms and echoes, and beside
Socket.IO on Node; and the memory of idle ones."""

from __future__ import annotations

import statistics
from collections.abc import Iterator

from benchmarks import generator, loads, report, targets
from benchmarks.catalogue import BY_NAME, Place
from benchmarks.dialects import MARK, Centrifuge
from benchmarks.growth import Finding
from benchmarks.loads import MESSAGE, Load
from benchmarks.process import ServerError, free_port
from benchmarks.run import Results, Run, start

CLIENTS = "verbtrio-clients"
SERVERS = ("verbtrio", CLIENTS, "verbtrio-history", f"{CLIENTS}-history", f"{CLIENTS}-plain", "socketio")
LOADS = {
    "fanout": "deliveries a second, 1 sender, 100 members",
    "chat": "deliveries a second, 32 members, all talking",
    "echo": "calls (acknowledgements, echoes) a second, 50 clients",
    "connect": "connections a second, each with a subscription (plain: without)",
}
CONNECTIONS = 4000
"""Idle, in the measurement of the memory."""
FIRST = 10
"""Come and go before that: what is imported, and made once, with the first connection takes 14 MB."""
FURTHER = 10
"""Subscriptions of each beyond the first, in rooms that all of them share."""
KILOBYTES = {"handled": (18.0, 5.0), "open": (None, 1.2)}
"""What a connection with one subscription may cost, and each further one, by the rooms of servers/verbtrio_clients.py:
with a handler, and without."""
IDLE_SECONDS = 0.5


def compared(seconds: float, rounds: int) -> Iterator[Finding]:
    """All servers in turns, as in `nox -s bench`.

    Raises:
        ServerError: one of them failed.
    """
    servers = []
    for server in (BY_NAME[name] for name in SERVERS):
        if (why := server.missing()) is None:
            servers.append(server)
        else:
            yield Finding(server.title, f"not measured: {why}", "", None)
    results = Results(settings={})
    Run(servers, [loads.BY_NAME[name] for name in LOADS], rounds, seconds, results).all_rounds()
    if failed := [cell for cell in results.cells if "error" in cell]:
        raise ServerError(f"{failed[0]['load']}, {failed[0]['server']}: {failed[0]['error']}")
    for load, title in LOADS.items():
        rates = {
            server.name: statistics.median(
                cell["values"]["rate"]
                for cell in results.cells
                if (cell["load"], cell["server"]) == (load, server.name)
            )
            for server in servers
            if server.takes(loads.BY_NAME[load])
        }
        measured = ", ".join(f"{name} {report.number(rate)}" for name, rate in rates.items())
        yield Finding(f"{load}: {title}", measured, "", None)
    for verdict in targets.verdicts(results.cells):
        if CLIENTS in verdict.what:
            yield Finding(verdict.what, verdict.measured, verdict.wanted, verdict.kept)


def idle() -> Iterator[Finding]:
    """KB of an idle connection with a subscription, and of each further one: the growth of a fresh process."""
    for kind, title in (("handled", "with a handler"), ("open", "without a handler")):
        first = _kilobytes(kind, 1)
        further = (_kilobytes(kind, 1 + FURTHER) - first) / FURTHER
        for what, measured, limit in zip(
            (f"an idle connection with one subscription {title}: memory", f"each further one {title}"),
            (first, further),
            KILOBYTES[kind],
            strict=True,
        ):
            text, kept = ("", None) if limit is None else (f"{limit:g} KB", measured <= limit)
            yield Finding(what, f"{measured:.2f} KB", text, kept)


def _kilobytes(kind: str, subscriptions: int) -> float:
    """What one connection takes that has so many subscriptions."""
    server = BY_NAME[CLIENTS]
    options: dict[str, str | int] = {
        "payload": MESSAGE,
        "mark": MARK,
        "hello": Centrifuge.subscribing([f"{kind}:{number}" for number in range(subscriptions)]),
        "ready": f'"id":{subscriptions + 1},',  # the last one's reply
    }
    process = start(server, Place(free_port()))
    try:
        for connections in (FIRST, CONNECTIONS):
            load = Load("idle", "", "idle", Centrifuge().path, {**options, "clients": connections})
            values = generator.run(load, process, server.prefix, IDLE_SECONDS)
            process.settle()
        return values["kilobytes"]
    finally:
        process.stop()
