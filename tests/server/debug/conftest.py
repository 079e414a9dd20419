"""Fixtures for the tests of `App(debug=True)`: a clock and looks that a test decides, and the lines in the log."""

from __future__ import annotations

import logging
import signal
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.support.holding import Bench
from verbtrio.server.debug import debugging
from verbtrio.server.debug.loop_watch import LoopWatch


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    bench = Bench()

    @contextmanager
    def looking(watch: LoopWatch) -> Iterator[None]:
        bench.watches.append(watch)
        yield
        bench.watches.remove(watch)

    monkeypatch.setattr(LoopWatch, "clock", staticmethod(lambda: bench.now))
    monkeypatch.setattr(debugging, "looking", looking)
    before = signal.signal(signal.SIGINT, lambda *_: None)  # what the signal does otherwise: nothing here
    yield bench
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def warned() -> Iterator[list[str]]:
    """The lines in the log, without those about the test itself, which moves the clock."""
    lines: list[str] = []

    class Listening(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if not record.getMessage().startswith("pytest_trio."):
                lines.append(record.getMessage())

    logger, handler = logging.getLogger("verbtrio.debugging"), Listening()
    logger.addHandler(handler)
    yield lines
    logger.removeHandler(handler)
