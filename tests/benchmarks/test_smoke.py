"""The benchmark runs and counts: every load's shape, for a moment, against verbtrio. No figure is judged here."""

from __future__ import annotations

from benchmarks import catalogue, chart, generator, loads, report
from benchmarks.run import Results, Run
from benchmarks.scale import running
from tests.benchmarks.support import needs_compiler

needs_compiler()

SERVERS = [catalogue.BY_NAME[name] for name in ("verbtrio", "verbtrio-hooks")]


def test_rooms() -> None:
    """Two rooms of three, for `scale`: nobody hears what was said in the other one."""
    load = loads.Load("rooms", "", "rooms", "/rooms", {"clients": 6, "members": 3, "payload": loads.MESSAGE})
    with running(SERVERS[0]) as process:
        values = generator.run(load, process, "", 0.1)
    assert values["missing"] == 0
    assert values["messages"] > 0


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
