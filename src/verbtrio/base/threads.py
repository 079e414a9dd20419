"""In whose thread an app's connections, rooms and users may be changed.

They belong to the one Trio run that serves the app. A call from another thread can't wake a task of that run: it would
leave one that waits for ever, with its place, and a worker that can't be stopped. So what changes anything, or wakes
anybody, checks first. What only reads may be called anywhere: it gives what holds at that moment.
"""

from __future__ import annotations

from collections.abc import Callable
from threading import get_ident


def only_here() -> Callable[[], None]:
    """A check that raises `RuntimeError` in every thread but this one, in which the app is being served.

    It compares threads and not runs: a thread has one run at a time, and a run that is over has left nothing to wake.
    That takes two thirds of what `trio.lowlevel.in_trio_run` does: each broadcast, `send` and `receive` has one.
    """
    here = get_ident()

    def check() -> None:
        if get_ident() != here:
            raise RuntimeError(
                "connections, rooms and users belong to Trio's thread, the one in which the app is served. Starlette "
                "runs a plain function, as a route or as a BackgroundTask, in a thread of its own: make it "
                "`async def`, or call by `trio.from_thread.run_sync(...)` (in a thread that Trio has not started, "
                "with its `trio_token=`)"
            )

    return check
