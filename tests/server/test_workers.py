"""Several hypercorn workers: one warning that rooms, users and limits are per process."""

from __future__ import annotations

import multiprocessing
import time

import pytest
from hypercorn.config import Config

from tests.support.process import START_SECONDS, hypercorn
from verbtrio import App
from verbtrio.brokers import MemoryBroker

WARNING = "rooms, users and limits are per process"


def worker(number: int, workers: int) -> multiprocessing.process.BaseProcess:
    """A process like those that hypercorn starts, but not started."""
    config = Config()
    config.workers = workers
    process = multiprocessing.get_context("spawn").Process(target=print, kwargs={"config": config})
    process.name = f"SpawnProcess-{number}"
    return process


async def warnings_of(
    process: multiprocessing.process.BaseProcess,
    app: App,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> int:
    """How often an app that is started in `process` warns."""
    caplog.clear()
    with monkeypatch.context() as patch:
        patch.setattr(multiprocessing, "current_process", lambda: process)
        async with app.lifespan():
            pass
    return sum(WARNING in record.getMessage() for record in caplog.records)


async def test_one_of_each_batch_warns(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """The numbers of those that replace the first ones go on from there."""
    warned = [await warnings_of(worker(n, 3), App(), monkeypatch, caplog) for n in range(1, 10)]
    assert warned == [1, 0, 0] * 3


@pytest.mark.parametrize("number", [1, 2, 7])
async def test_one_worker_does_not(
    number: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Nor does one that has replaced another."""
    assert await warnings_of(worker(number, 1), App(), monkeypatch, caplog) == 0


async def test_a_process_that_hypercorn_has_not_started_does_not(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    others = multiprocessing.get_context("spawn").Process(target=print, kwargs={"config": {"workers": 3}})
    for process in (others, multiprocessing.current_process()):
        assert await warnings_of(process, App(), monkeypatch, caplog) == 0


async def test_over_plain_asgi_too(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    assert await warnings_of(worker(1, 2), App(take_over=False), monkeypatch, caplog) == 1


async def test_a_mounted_app_leaves_it_to_the_outer_one(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    outer = App()
    outer.mount("/inner", App())
    assert await warnings_of(worker(1, 2), outer, monkeypatch, caplog) == 1


async def test_not_where_processes_share_their_rooms(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    broker = MemoryBroker()
    monkeypatch.setattr(broker, "spans_processes", True)
    app = App(broker=broker)
    assert await warnings_of(worker(1, 2), app, monkeypatch, caplog) == 0


@pytest.mark.parametrize(("workers", "lines"), [("0", 0), ("1", 0), ("2", 1)])
def test_real_workers(workers: str, lines: int) -> None:
    with hypercorn("examples.echo:app", "-w", workers) as server:
        deadline = time.monotonic() + START_SECONDS
        while server.log_text().count("Running on") < max(int(workers), 1):  # each says so once it has started
            assert time.monotonic() < deadline, server.log_text()
            time.sleep(0.02)
        assert server.log_text().count(WARNING) == lines
        if lines:
            assert "2 workers" in server.log_text()
