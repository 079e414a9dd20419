"""`App(debug=True)`: Ctrl+C gets a handler out of a computation.

A signal only says that the program should end, and a handler in an endless loop never sees that.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from verbtrio.server.debug.loop_watch import LoopWatch


@contextmanager
def interruptible(watch: LoopWatch) -> Iterator[None]:
    """Have SIGINT raise `KeyboardInterrupt` in a function that holds the event loop, until the block is left.

    Whatever the signal does otherwise, it still does, first: that is how the program learns that it should end, by
    Trio's own handler, by `app.listen`, or by hypercorn (whose workers ignore the signal: their parent tells them). The
    interrupt only gives the program a turn to do so. It ends the function's connection, and the worker ends in order.
    (Over plain ASGI, `App(take_over=False)`, hypercorn has no such order: there it ends the worker at once.)

    Nothing is changed in a thread other than the main one, where Python handles no signals, nor where SIGINT has its
    default action, which ends the process.
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
