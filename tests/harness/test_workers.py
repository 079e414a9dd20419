"""Workers of one app, each by itself."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.workers import Worker, workers


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where each worker that shuts down in order leaves a file, named by its process."""
    return tmp_path_factory.mktemp("ended")


@pytest.fixture(scope="module")
def pair(folder: Path) -> Iterator[list[Worker]]:
    """Two that run when a test begins."""
    with workers("tests.apps.worker:app", 2, FOLDER=str(folder)) as pair:
        yield pair


def answering(worker: Worker) -> int:
    """The process that answers at the worker's port."""
    return int(httpx.get(f"http://127.0.0.1:{worker.port}/", timeout=30).json()["pid"])


def test_each_is_a_process(pair: list[Worker]) -> None:
    assert [answering(worker) for worker in pair] == [worker.pid for worker in pair]
    assert pair[0].pid != pair[1].pid


def test_one_is_killed_and_comes_back(pair: list[Worker], folder: Path) -> None:
    one, other = pair
    pids = one.pid, other.pid
    process = one.server.process
    one.kill()
    one.kill()
    assert process.returncode == -signal.SIGKILL
    assert not list(folder.iterdir())
    assert not one.is_running
    with pytest.raises(httpx.ConnectError):
        answering(one)
    assert answering(other) == pids[1]
    one.start()
    assert answering(one) == one.pid != pids[0]


def test_a_frozen_one_answers_later(pair: list[Worker]) -> None:
    one, other = pair
    one.freeze()
    with pytest.raises(httpx.ReadTimeout):
        httpx.get(f"http://127.0.0.1:{one.port}/", timeout=0.1)
    assert answering(other) == other.pid
    one.thaw()
    assert answering(one) == one.pid


def test_they_shut_down_in_order_at_the_end(tmp_path: Path) -> None:
    with workers("tests.apps.worker:app", 1, FOLDER=str(tmp_path)) as (worker,):
        pid = worker.pid
        worker.freeze()
    assert [file.name for file in tmp_path.iterdir()] == [str(pid)]
    assert not worker.is_running


def test_one_that_does_not_start_says_why() -> None:
    with pytest.raises(AssertionError, match="KeyError: 'FOLDER'"), workers("tests.apps.worker:app", 1):
        pass
