"""The one test that takes half a minute of real time. It waits while the others run: see `first_ping`."""

from __future__ import annotations

from concurrent.futures import Future


def test_the_first_ping_comes_after_30_s(first_ping: Future[float]) -> None:
    """tests/examples/test_heartbeat.py has the rest of the heartbeat example, on a virtual clock."""
    assert first_ping.result(60) >= 29
