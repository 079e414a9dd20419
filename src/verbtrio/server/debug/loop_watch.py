"""`App(debug=True)`: a function that holds the event loop is named in the log.

`LoopWatch` is a Trio instrument: it measures each turn (a task's step). Where the time has gone, nobody can tell when
the turn is over: the function has returned. So a thread looks at the stack in the meantime (`looking`), and the line in
the log names the function and the line it was at.
"""

from __future__ import annotations

import logging
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import trio

from verbtrio.connection.peer import handled_by
from verbtrio.server.debug.frames import applications_function, frames_of, is_in_application

logger = logging.getLogger("verbtrio.debugging")

HELD_SECONDS = 0.1
"""A turn that takes this long or longer is warned of."""
LOOK_SECONDS = 0.025
"""How often the thread looks. It notes a turn that has lasted for half of the time above, so one that lasts for all of
it has been seen at least once, unless it is one call into C that keeps the interpreter's lock."""
AGAIN_SECONDS = 10.0
"""How often one function is named, at most."""
MAX_NAMED = 100
"""Functions remembered for that; the oldest is forgotten first."""


class LoopWatch(trio.abc.Instrument):
    """Warns of turns that take `HELD_SECONDS` or more. Made in the thread that runs Trio.

    Attributes:
        clock: tells the time in seconds.
        is_interrupted: SIGINT has come while the turn was in the framework's code. The thread sends it again, until it
            comes in the application's.
        is_sent_again: the next SIGINT is one of those.
    """

    clock: Callable[[], float] = staticmethod(time.perf_counter)

    def __init__(self) -> None:
        self._thread = threading.get_ident()
        self._turn: tuple[float, trio.lowlevel.Task] | None = None  # when it began, and its task
        self._seen: tuple[object, str, str] | None = None  # the turn; a function, and where it was
        self._named: dict[str, float] = {}
        self.is_interrupted = False
        self.is_sent_again = False

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self._turn = (self.clock(), task)

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        turn, self._turn, self.is_interrupted = self._turn, None, False
        if turn is None:  # the watch began in the middle of it
            return
        took = self.clock() - turn[0]
        if took >= HELD_SECONDS:
            self._tell(*self._whose(turn, task), took)

    @property
    def is_held(self) -> bool:
        """Whether the present turn has lasted for `HELD_SECONDS`."""
        turn = self._turn
        return turn is not None and self.clock() - turn[0] >= HELD_SECONDS

    def look(self) -> None:
        """Note where a turn is that has lasted long. May be called in any thread."""
        turn = self._turn
        if self.is_interrupted and self.is_held and hasattr(signal, "pthread_kill"):
            self.is_sent_again = True
            signal.pthread_kill(self._thread, signal.SIGINT)
        if turn is None or self.clock() - turn[0] < HELD_SECONDS / 2:
            return
        frame = sys._current_frames().get(self._thread)
        found = applications_function(frames_of(frame, turn[1]))
        if found is not None and self._turn is turn:  # else the frames may be another's
            self._seen = (turn, *found)

    def may_interrupt(self, frame: FrameType | None) -> bool:
        """Whether the task that is at `frame` has held the loop for long, and is in the application's code: not in the
        middle of something of the framework's (a broadcast, say), which would be left half done."""
        turn = self._turn
        return turn is not None and self.is_held and is_in_application(frames_of(frame, turn[1]))

    def _whose(self, turn: object, task: trio.lowlevel.Task) -> tuple[str, str]:
        """A function and where it was: as the thread has seen it, else where the task waits now, else the task."""
        if self._seen is not None and self._seen[0] is turn:
            return self._seen[1:]
        waiting = applications_function(reversed([*task.iter_await_frames()]))
        if waiting is not None:
            return waiting[0], f"before it waited {waiting[1]}"
        mine = task.context.get(handled_by)
        ws = None if mine is None else mine()
        return f"the task {task.name}", "in a function that is over" if ws is None else f"for {ws!r}"

    def _tell(self, function: str, where: str, took: float) -> None:
        now = self.clock()
        if now - self._named.get(function, float("-inf")) < AGAIN_SECONDS:
            return
        self._named.pop(function, None)
        if len(self._named) >= MAX_NAMED:
            del self._named[next(iter(self._named))]
        self._named[function] = now
        logger.warning(
            "%s held the event loop for %.0f ms, %s: nothing else had a turn. Run what computes or blocks in a thread: "
            "await trio.to_thread.run_sync(function, argument)",
            *(function, took * 1000, where),
        )


@contextmanager
def looking(watch: LoopWatch) -> Iterator[None]:
    """Have a thread look, until the block is left."""
    over = threading.Event()

    def look() -> None:
        while not over.wait(LOOK_SECONDS):
            watch.look()

    thread = threading.Thread(target=look, name="verbtrio.debugging", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
