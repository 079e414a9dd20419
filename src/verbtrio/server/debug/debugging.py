"""`App(debug=True)`: a function that holds the event loop is named, and Ctrl+C gets it out of a computation.

All connections of a worker have their turns in one thread. A handler that computes, or calls something that blocks,
holds up the others, the pings and the shutdown. Without debug there is no instrument, no thread and no signal handler.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

import trio

from verbtrio.server.debug.interrupts import interruptible
from verbtrio.server.debug.loop_watch import LoopWatch, looking

_watched: trio.lowlevel.RunVar[bool] = trio.lowlevel.RunVar("verbtrio.debugging", default=False)
"""One watch is enough for a run: apps may be mounted in each other."""


@contextmanager
def debugging() -> Iterator[None]:
    """Watch the run that enters the block, until it is left. (Within another such block nothing is added.)"""
    if _watched.get():
        yield
        return
    watch = LoopWatch()
    with ExitStack() as stack:
        stack.callback(_watched.reset, _watched.set(True))
        trio.lowlevel.add_instrument(watch)
        stack.callback(_remove, watch)
        stack.enter_context(looking(watch))
        stack.enter_context(interruptible(watch))
        yield


def _remove(watch: LoopWatch) -> None:
    with suppress(KeyError):  # Trio has removed it already, where it raised
        trio.lowlevel.remove_instrument(watch)
