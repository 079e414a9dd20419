"""What takes its time, in real time, once: it has been waited for while the tests before were run."""

from __future__ import annotations

from concurrent.futures import Future


def test_the_first_ping_comes_after_30_s(first_ping: Future[float]) -> None:
    """(tests/examples/test_heartbeat.py has the rest of the heartbeat sample, on a virtual clock.)"""
    assert first_ping.result(60) >= 29
