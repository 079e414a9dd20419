"""The check that an app's connections, rooms and users are changed in its own thread only.

They belong to the Trio run that serves the app. A call from another thread can't wake a task of that run: the task
would wait for ever, and the worker could not stop. So whatever changes something, or wakes a task, checks first. What
only reads may be called anywhere: it returns the state of that moment.
"""

from __future__ import annotations

from collections.abc import Callable
from threading import get_ident


def same_thread_check() -> Callable[[], None]:
    """Return a check that raises `RuntimeError` in every thread except this one, in which the app is being served.

    It compares threads, not runs: a thread has one run at a time, and a run that is over has no tasks to wake. It takes
    two thirds of the time of `trio.lowlevel.in_trio_run`; each broadcast, `send` and `receive` makes one check.
    """
    here = get_ident()

    def check() -> None:
        if get_ident() != here:
            raise RuntimeError(
                "connections, rooms and users belong to Trio's thread, the one in which the app is served. Starlette "
                "runs a route or a BackgroundTask that is a plain function in a thread of its own: make it "
                "`async def`, or call through `trio.from_thread.run_sync(...)` (in a thread that Trio has not started, "
                "with its `trio_token=`)"
            )

    return check
