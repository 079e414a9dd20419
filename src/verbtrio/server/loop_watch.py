"""`App(debug=True)`: whoever holds the event loop is named, and Ctrl+C gets a handler out of a computation.

All connections of a worker have their turns in one thread. A handler that computes, or calls something that blocks,
holds up the others, the pings and the shutdown; and a signal only says that the program should end, which a handler in
an endless loop never sees.

`LoopWatch` is a Trio instrument: it measures each turn (a task's step). Where the time goes, nobody can tell when the
turn is over: the function has returned. So a thread looks at the stack in the meantime (`looking`), and the line in the
log names the function and the line it was at. Without debug there is no instrument, no thread and no signal handler.
"""

from __future__ import annotations

import logging
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from types import FrameType
from typing import Any

import trio

from verbtrio.connection.websocket import handled_by

logger = logging.getLogger("verbtrio.debugging")

HELD_SECONDS = 0.1
"""A turn that takes longer is warned of."""
LOOK_SECONDS = 0.025
"""How often the thread looks. It notes what has been going on for half of the time above: what takes all of it has been
seen at least once, unless it is one call into C that keeps the interpreter's lock."""
AGAIN_SECONDS = 10.0
"""How often one function is named, at most."""
MAX_NAMED = 100
"""Functions remembered for that; the oldest is forgotten first."""

_FRAMEWORK = frozenset(
    ("anyio", "fastapi", "h11", "h2", "hpack", "hypercorn", "outcome", "starlette", "trio", "verbtrio", "websockets")
)
"""Packages around an application's functions."""

_watched: trio.lowlevel.RunVar[bool] = trio.lowlevel.RunVar("verbtrio.debugging", default=False)
"""One watch is enough for a run: apps may be mounted in each other."""


class LoopWatch(trio.abc.Instrument):
    """Warns of turns that take `HELD_SECONDS` or more. Made in the thread that runs Trio.

    Attributes:
        clock: tells the time in seconds.
        is_interrupted: SIGINT has come while the turn was in the framework's code: the thread sends it again, until it
            comes upon the application's.
        is_sent_again: the next one is such a one.
    """

    clock: Callable[[], float] = staticmethod(time.perf_counter)

    def __init__(self) -> None:
        self._thread = threading.get_ident()
        self._turn: tuple[float, trio.lowlevel.Task] | None = None  # when it began, and whose it is
        self._seen: tuple[object, str, str] | None = None  # in which turn; a function, and where it was
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
        """Whether a turn has been going on for `HELD_SECONDS`."""
        turn = self._turn
        return turn is not None and self.clock() - turn[0] >= HELD_SECONDS

    def look(self) -> None:
        """Note where a turn is that has been going on for long. May be called in any thread."""
        turn = self._turn
        if self.is_interrupted and self.is_held and hasattr(signal, "pthread_kill"):
            self.is_sent_again = True
            signal.pthread_kill(self._thread, signal.SIGINT)
        if turn is None or self.clock() - turn[0] < HELD_SECONDS / 2:
            return
        frame = sys._current_frames().get(self._thread)
        found = _function(_frames_of(frame, turn[1]))
        if found is not None and self._turn is turn:  # else the frames may be another's
            self._seen = (turn, *found)

    def may_interrupt(self, frame: FrameType | None) -> bool:
        """Whether the task that is at `frame` has held the loop for long, and is in the application's code: not in the
        middle of something of the framework's (a broadcast, say), which would be left half done."""
        turn = self._turn
        if turn is None or not self.is_held:
            return False
        for one, _ in _frames_of(frame, turn[1]):
            if (package := _package(one)) not in sys.stdlib_module_names:
                return package not in _FRAMEWORK
        return False

    def _whose(self, turn: object, task: trio.lowlevel.Task) -> tuple[str, str]:
        """A function and where it was: what the thread has seen, else where the task waits now, else the task."""
        if self._seen is not None and self._seen[0] is turn:
            return self._seen[1:]
        waiting = _function(reversed([*task.iter_await_frames()]))
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
            "%s held the event loop for %.0f ms, %s: nobody else had a turn. Do in a thread what computes or blocks: "
            "await trio.to_thread.run_sync(function, argument)",
            *(function, took * 1000, where),
        )


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


@contextmanager
def interruptible(watch: LoopWatch) -> Iterator[None]:
    """Have SIGINT raise `KeyboardInterrupt` in a function that holds the loop, until the block is left.

    Whatever the signal does otherwise it still does, first: that is how the program learns that it should end, by
    Trio's own handler, by `app.listen`, by hypercorn (whose workers ignore the signal: their parent tells them). Here
    it is only seen to that it gets a turn to do so. The interrupt ends its connection, and the worker in order.
    (Over plain ASGI, `App(take_over=False)`, hypercorn has no such order: there it ends the worker at once.)

    In any other than the main thread, where Python handles no signals, and where SIGINT has its default action, which
    ends the process, nothing is changed.
    """
    before: Any = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or before in (None, signal.SIG_DFL):
        yield
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        is_new, watch.is_sent_again = not watch.is_sent_again, False
        if is_new and callable(before):
            before(number, frame)
        may_interrupt = watch.may_interrupt(frame)
        watch.is_interrupted = watch.is_held and not may_interrupt
        if may_interrupt:
            raise KeyboardInterrupt

    signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGINT) is interrupt:  # else somebody has replaced it
            signal.signal(signal.SIGINT, before)


def _remove(watch: LoopWatch) -> None:
    with suppress(KeyError):  # Trio has removed it already, where it raised
        trio.lowlevel.remove_instrument(watch)


def _frames_of(frame: FrameType | None, task: trio.lowlevel.Task) -> Iterator[tuple[FrameType, int]]:
    """The frames of a task that is at `frame`, and the lines they are at, from the innermost on. Below them is what has
    called Trio, the program's main module."""
    root = getattr(task.coro, "cr_frame", None)
    while frame is not None:
        yield frame, frame.f_lineno
        if frame is root:
            return
        frame = frame.f_back


def _function(frames: Iterable[tuple[FrameType, int]]) -> tuple[str, str] | None:
    """The application's function that the framework has called last, and where its code is: in it, or in what it has
    called. `None`: none of the frames, from the innermost on, is the application's."""
    handler: str | None = None
    where = ""
    for frame, line in frames:
        package = _package(frame)
        code = frame.f_code
        if _is_applications(package):
            handler = f"{frame.f_globals.get('__name__')}.{code.co_qualname}"
            where = where or f"at {code.co_filename}:{line}"
        elif package in _FRAMEWORK and handler is not None:
            break
    return None if handler is None else (handler, where)


def _package(frame: FrameType) -> str:
    name = frame.f_globals.get("__name__")
    return name.partition(".")[0] if isinstance(name, str) else ""


def _is_applications(package: str) -> bool:
    return package not in _FRAMEWORK and package not in sys.stdlib_module_names
