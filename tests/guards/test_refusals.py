"""Log lines about refusals: a warning for each of the first ones, and a log that clients can't fill."""

from __future__ import annotations

import logging

import pytest

from verbtrio.guards.refusals import MAX_WARNINGS, Refusals

logger = logging.getLogger("tests.refusals")


def test_each_is_warned_of_once(caplog: pytest.LogCaptureFixture) -> None:
    refusals = Refusals(logger)
    with caplog.at_level(logging.DEBUG, logger.name):
        for _ in range(3):
            refusals.tell("no", lambda: ": it says so")
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("WARNING", "no: it says so"),
        ("DEBUG", "no"),
        ("DEBUG", "no"),
    ]


def test_so_many_are(caplog: pytest.LogCaptureFixture) -> None:
    refusals = Refusals(logger)
    with caplog.at_level(logging.DEBUG, logger.name):
        for number in range(2 * MAX_WARNINGS):
            refusals.tell(f"no {number}")
    levels = [record.levelname for record in caplog.records]
    assert levels == ["WARNING"] * MAX_WARNINGS + ["DEBUG"] * MAX_WARNINGS
