"""The run: every server under every load, interleaved round by round."""

from __future__ import annotations

import contextlib
import random
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import generator
from benchmarks.catalogue import Place, Server
from benchmarks.loads import IDLE_HEARTBEAT, Load
from benchmarks.process import Process, ServerError, free_port
from benchmarks.quiet import OTHERS_LIMIT, disturbances
from benchmarks.verify import verify


def log(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


@dataclass
class Results:
    """What came of it. `cells` are `{"round", "load", "server", "values"}`, or `"error"` instead of the values."""

    settings: dict[str, Any]
    cells: list[dict[str, Any]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)

    def warn(self, text: str) -> None:
        log(f"warning: {text}")
        self.warnings.append(text)


@dataclass
class Run:
    servers: Sequence[Server]
    loads: Sequence[Load]
    rounds: int
    seconds: float
    results: Results
    certificate: tuple[Path, Path] | None = None
    """Files of a certificate and its key, for the TLS loads."""
    _place: Callable[[], Place] = field(init=False)

    def all_rounds(self) -> None:
        """Do all of it; `results` are complete as far as it came."""
        order = random.Random(1)  # a server doesn't always follow the same one, and a run can be repeated
        for number in range(1, self.rounds + 1):
            for text in disturbances(first=number == 1):
                self.results.warn(f"round {number}: {text}")
            loads = [load for load in self.loads if number <= load.max_rounds]
            for tls in (False, True):
                group = [load for load in loads if load.tls is tls and load.mode != "idle"]
                if group:
                    self._round(number, group, order, tls=tls)
            for load in loads:
                if load.mode == "idle":  # its memory is only telling in a fresh process
                    for server in self._shuffled(load, order):
                        with self._fleet([server], heartbeat=IDLE_HEARTBEAT) as fleet:
                            self._cell(number, load, server, fleet)

    def _round(self, number: int, loads: Sequence[Load], order: random.Random, *, tls: bool) -> None:
        servers = [server for server in self.servers if any(server.takes(load) for load in loads)]
        with self._fleet(servers, tls=tls) as fleet:
            for load in loads:
                for server in self._shuffled(load, order):
                    self._cell(number, load, server, fleet)

    def _shuffled(self, load: Load, order: random.Random) -> list[Server]:
        servers = [server for server in self.servers if server.takes(load)]
        order.shuffle(servers)
        return servers

    @contextlib.contextmanager
    def _fleet(
        self, servers: Sequence[Server], *, tls: bool = False, heartbeat: float | None = None
    ) -> Iterator[dict[str, Process]]:
        """All servers, started one after the other and paused, so that one of them can be measured at a time."""
        fleet: dict[str, Process] = {}
        cert, key = self.certificate if tls and self.certificate else (None, None)
        self._place = lambda: Place(free_port(), heartbeat, cert, key)
        try:
            for server in servers:
                try:
                    fleet[server.name] = _start_paused(server, self._place())
                except ServerError as error:
                    self.results.warn(f"{server.name}: {error}")
            yield fleet
        finally:
            for process in fleet.values():
                process.stop()

    def _cell(self, number: int, load: Load, server: Server, fleet: dict[str, Process]) -> None:
        """Measure one server under one load, once."""
        cell: dict[str, Any] = {"round": number, "load": load.name, "server": server.name}
        self.results.cells.append(cell)
        try:
            if server.name not in fleet:  # it has failed in the load before
                fleet[server.name] = _start_paused(server, self._place())
            process = fleet[server.name]
            process.resume()
            if number == 1:
                verify(load, process.port, server.prefix, own=server.own, dialect=server.dialect)
            spoken = load if server.dialect is None else server.dialect.translate(load)
            cell["values"] = values = generator.run(spoken, process, server.prefix, self.seconds, own=server.own)
            if not process.alive:
                raise ServerError(f"it died: {process.last_words()}")
            process.settle()
            process.pause()
        except ServerError as error:
            cell.pop("values", None)
            cell["error"] = str(error)
            log(f"round {number}  {load.name:<13} {server.name:<20} failed: {error}")
            if server.name in fleet:
                fleet.pop(server.name).stop()
            return
        figures = "  ".join(f"{values[metric.key]:>12,.1f}{metric.unit}" for metric in load.metrics)
        notes = _notes(load, values)
        log(f"round {number}  {load.name:<13} {server.name:<20} {figures}  {notes}")


def start(server: Server, place: Place) -> Process:
    """Start `server` and wait for it."""
    process = Process(server.command(place), place.port, place.environment)
    try:
        process.wait_until_ready()
    except BaseException:
        process.stop()
        raise
    return process


def _start_paused(server: Server, place: Place) -> Process:
    process = start(server, place)
    process.pause()
    return process


def _notes(load: Load, values: dict[str, float]) -> str:
    """What has to be known about a cell's figures."""
    notes = []
    if values.get("missing"):
        notes.append(f"{values['missing']:.0f} {load.lost}")
    if values.get("others_cpu", 0) > OTHERS_LIMIT:
        notes.append(f"others used {values['others_cpu']:.0%} of a core")
    return f"({', '.join(notes)})" if notes else ""
