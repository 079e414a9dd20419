"""From cells to tables: medians, the ratio within a round, and its spread."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks import chart, pages, report, targets
from benchmarks.__main__ import names
from benchmarks.loads import BY_NAME

ECHO, LATENCY = BY_NAME["echo"], BY_NAME["latency"]


def cells(load: str, key: str, **figures: list[float]) -> list[dict[str, Any]]:
    return [
        {"round": number, "load": load, "server": server, "values": {"p50": 0.0, "p99": 0.0, key: value}}
        for server, values in figures.items()
        for number, value in enumerate(values, 1)
    ]


def test_ratios_are_taken_within_a_round() -> None:
    """The machine was half as fast in the second round: the ratio doesn't notice."""
    found = cells("echo", "rate", verbtrio=[100, 50, 100], aiohttp=[120, 60, 130], uvicorn=[50, 20, 50])
    best, own, last = report.rows(found, ECHO)
    assert (best.server, best.values, best.ratio, best.low, best.high) == ("aiohttp", {"rate": 120}, 1.2, 1.2, 1.3)
    assert (own.server, own.values, own.ratio, own.low, own.high) == ("verbtrio", {"rate": 100}, 1, 1, 1)
    assert (last.server, last.values, last.ratio, last.low, last.high) == ("uvicorn", {"rate": 50}, 0.5, 0.4, 0.5)


def test_targets_are_met_against_the_fastest_of_all() -> None:
    others = {"uvicorn": [50.0, 60.0], "granian": [40.0, 100.0], "websockets": [20.0, 20.0]}
    found = cells("echo", "rate", verbtrio=[100, 90], **others)
    (verdict,) = targets.verdicts(found)
    assert verdict.measured == "1.45 (0.90 to 2.00)"
    assert verdict.kept
    without = [cell for cell in found if cell["server"] != "granian"]
    assert targets.verdicts(without) == [], "nobody knows who would have been the fastest"


def test_a_round_in_which_no_rival_got_anything_done_says_nothing() -> None:
    others = {"uvicorn": [50.0, 0.0], "granian": [40.0, 0.0], "websockets": [20.0, 0.0]}
    (verdict,) = targets.verdicts(cells("echo", "rate", verbtrio=[100, 90], **others))
    assert verdict.measured == "2.00 (2.00 to 2.00)"


def test_less_is_better_for_times() -> None:
    table = report.rows(cells("latency", "typical_p99", verbtrio=[100], aiohttp=[120]), LATENCY)
    assert [row.server for row in table] == ["verbtrio", "aiohttp"]


def test_failures_are_told_and_don_t_count() -> None:
    failed = {"round": 1, "load": "echo", "server": "uvicorn", "error": "it died"}
    found = [*cells("echo", "rate", verbtrio=[100]), failed]
    assert [row.server for row in report.rows(found, ECHO)] == ["verbtrio"]
    told = report.text({"cells": found, "skipped": {"bun": "no bun"}, "warnings": []})
    assert "failed: echo, uvicorn: it died" in told
    assert "skipped: bun: no bun" in told


def test_a_generator_at_its_limit_is_told() -> None:
    found = cells("echo", "rate", verbtrio=[100], minimal=[900])
    found[1]["values"]["load_cpu"] = 0.97
    notes = {row.server: row.notes for row in report.rows(found, ECHO)}
    assert notes == {"minimal": "at the generator's limit", "verbtrio": ""}


def test_the_chart_has_a_bar_for_each() -> None:
    results = {"cells": cells("echo", "rate", verbtrio=[100, 110], minimal=[900, 905], uvicorn=[50, 51])}
    svg = chart.bars(results, ECHO)
    assert svg is not None
    assert svg.count("<rect") == 3
    assert 'class="own"' in svg
    assert chart.bars(results, LATENCY) is None


def test_the_page_s_table_is_replaced() -> None:
    page = "before\n<!-- medians -->\nold\n<!-- /medians -->\nafter\n"
    assert pages.replaced(page, "medians", "new") == (page.replace("old", "new"), 1)


def test_the_pages_have_their_places() -> None:
    for page, markers in (
        (pages.PAGE, ["targets", "medians", "scale", "rooms", "clients"]),
        (pages.README, ["charts"]),
    ):
        for marker in markers:
            assert pages.replaced(page.read_text(), marker, "")[1] == 1


def test_unknown_names_are_refused() -> None:
    parse = names(["echo", "chat"], "load")
    assert parse("chat,echo") == ["chat", "echo"]
    with pytest.raises(Exception, match="no such load: talk"):
        parse("echo,talk")
