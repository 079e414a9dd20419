"""The benchmark runs and counts: every load's shape, for a moment, against verbtrio. No figure is judged here."""

from __future__ import annotations

import subprocess
import sys

import pytest

from benchmarks import catalogue, chart, generator, loads, remembering, report, scale, subscribing
from benchmarks.run import Results, Run
from benchmarks.scale import running
from tests.benchmarks.support import needs_compiler
from tests.support.process import ROOT

needs_compiler()

SERVERS = [catalogue.BY_NAME[name] for name in ("verbtrio", "verbtrio-hooks")]


NO_POLLER = """
import trio
from benchmarks.servers.verbtrio_tasks import app

async def main():
    async with app.lifespan():
        assert app._life.hub.poller is None

trio.run(main)
"""


def test_the_server_with_reader_tasks_has_no_poller() -> None:
    """In a process of its own: the server replaces the poller for whatever is served there."""
    subprocess.run([sys.executable, "-c", NO_POLLER], cwd=ROOT, check=True)


def test_rooms() -> None:
    """Two rooms of three, for `scale`: nobody hears what was said in the other one."""
    load = loads.Load("rooms", "", "rooms", "/rooms", {"clients": 6, "members": 3, "payload": loads.MESSAGE})
    with running(SERVERS[0]) as process:
        values = generator.run(load, process, "", 0.1)
    assert values["missing"] == 0
    assert values["messages"] > 0


@pytest.mark.long
def test_what_rooms_with_settings_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    """All that `scale` finds out about them, with few messages: each part has its findings."""
    monkeypatch.setattr(remembering, "REMEMBERED", 200)
    monkeypatch.setattr(remembering, "COME_AND_GO", 50)
    monkeypatch.setattr(remembering, "FORGET_SECONDS", 0.0)
    found = list(scale.findings(scale.TABLES["rooms"], SERVERS[0], 0.1, 1))
    judged = [finding.what for finding in found if finding.kept is not None]
    assert [what for what in judged if " to verbtrio" in what] == [
        f"{load}: {server} to verbtrio" for load in ("chat", "fanout") for server in remembering.SERVERS[1:]
    ]
    assert len(judged) == 6 + 2 + 2


@pytest.mark.long
def test_what_clients_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same for subscriptions and calls. (Socket.IO is compared where npm has brought it.)"""
    monkeypatch.setattr(subscribing, "CONNECTIONS", 20)
    monkeypatch.setattr(subscribing, "FURTHER", 2)
    found = list(scale.findings(scale.TABLES["clients"], SERVERS[0], 0.1, 1))
    judged = [finding.what for finding in found if finding.kept is not None]
    assert [what for what in judged if what.endswith((" to verbtrio", " to verbtrio-history"))] == [
        "fanout: verbtrio-clients to verbtrio",
        "chat: verbtrio-clients to verbtrio",
        "chat: verbtrio-clients-history to verbtrio-history",
        "echo: verbtrio-clients to verbtrio",
    ]
    assert len([what for what in judged if "memory" in what or "further" in what]) == 3


def test_only_whole_tables_are_put_into_the_docs(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        scale.main(["remembered", "--docs"])
    assert "name all of its parts" in capsys.readouterr().err


def test_a_run() -> None:
    chosen = [loads.BY_NAME[name] for name in ("echo", "fanout", "chat-json", "connect")]
    results = Results(settings={})
    Run(SERVERS, chosen, rounds=1, seconds=0.1, results=results).all_rounds()
    assert [cell for cell in results.cells if "error" in cell] == []
    assert len(results.cells) == len(chosen) * len(SERVERS)
    assert [cell for cell in results.cells if cell["values"]["missing"]] == [], "nothing is lost"
    for load in chosen:
        rows = report.rows(results.cells, load)
        assert {row.server for row in rows} == {server.name for server in SERVERS}
        assert all(row.values["rate"] > 0 for row in rows)
        assert [row.ratio for row in rows if row.server == "verbtrio"] == [1.0]
        svg = chart.bars(vars(results), load)
        assert svg is not None
        assert svg.count("<rect") == len(SERVERS)
