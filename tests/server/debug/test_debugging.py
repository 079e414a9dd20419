"""`App(debug=True)`: the watch, its thread and its signal handler are there as long as the app lives, and only then."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from typing import Any

import pytest
import trio
import trio.testing
from starlette.applications import Starlette
from starlette.routing import Mount

from verbtrio import App
from verbtrio.server.debug.loop_watch import LoopWatch


@pytest.fixture
def instruments(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The instruments of the run, as they are added and removed."""
    present: list[Any] = []
    add, remove = trio.lowlevel.add_instrument, trio.lowlevel.remove_instrument

    def adding(instrument: Any) -> None:
        present.append(instrument)
        add(instrument)

    def removing(instrument: Any) -> None:
        present.remove(instrument)
        remove(instrument)

    monkeypatch.setattr(trio.lowlevel, "add_instrument", adding)
    monkeypatch.setattr(trio.lowlevel, "remove_instrument", removing)
    return present


def looking_threads() -> int:
    return sum(thread.name == "verbtrio.debugging" for thread in threading.enumerate())


async def test_nothing_without_debug(instruments: list[Any]) -> None:
    before = signal.getsignal(signal.SIGINT)
    async with App().lifespan():
        assert instruments == []
        assert looking_threads() == 0
        assert signal.getsignal(signal.SIGINT) is before


def mounted_in_debug() -> Any:
    outer = App(debug=True)
    outer.mount("/inner", App(debug=True))
    return outer.lifespan()


def only_mounted_in_debug() -> Any:
    outer = App()
    outer.mount("/inner", App(debug=True))
    return outer.lifespan()


def in_starlette() -> Any:
    app = App(debug=True)
    return Starlette(routes=[Mount("/inner", app)], lifespan=app.lifespan).router.lifespan_context(None)


@pytest.mark.parametrize(
    "make", [lambda: App(debug=True).lifespan(), mounted_in_debug, only_mounted_in_debug, in_starlette]
)
async def test_one_watch_as_long_as_the_app_lives(make: Callable[[], Any], instruments: list[Any]) -> None:
    before = signal.getsignal(signal.SIGINT)
    for _ in range(2):
        async with make():
            assert [type(instrument) for instrument in instruments] == [LoopWatch]
            assert looking_threads() == 1
        assert instruments == []
        assert looking_threads() == 0
        assert signal.getsignal(signal.SIGINT) is before


async def test_a_watch_that_trio_has_removed(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Trio removes an instrument that raises, with its traceback in the log."""
    async with App(debug=True).lifespan():
        monkeypatch.setattr(LoopWatch, "before_task_step", None)
        await trio.lowlevel.checkpoint()
    assert any("nstrument" in record.getMessage() for record in caplog.records)
