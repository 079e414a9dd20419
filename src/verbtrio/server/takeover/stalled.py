"""The take-over's patience: how long an HTTP response waits for a client that takes nothing of it.

hypercorn 0.18 waits for ever: whoever asks for more than the buffers hold, and reads nothing, keeps a task, what the
response is made of and a descriptor. What counts here is what the client *takes*: one that is slow has all the time it
needs, however long that is; one that has taken nothing for the time it has been given is as good as gone.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import trio

from verbtrio.base.timers import Timers
from verbtrio.wire.tcp_info import acknowledged

logger = logging.getLogger("verbtrio.hypercorn")

LOOKS = 4
"""How often it is looked at within the time: a client is ended that much of it late at the most, a quarter."""
MAX_SECONDS = 60.0
"""The longest that is looked at in so many parts: of what has no time limit, too, since that may get one."""
PIECE_BYTES = 64 * 1024
"""What is written at a time. Where the kernel does not tell what has been taken, this is the least that shows; and TLS
would encrypt all it is given before the first byte is on its way."""


@contextmanager
def patience(timers: Timers, seconds: Callable[[], float], taken: Callable[[], Any]) -> Iterator[trio.CancelScope]:
    """Cancel the block, which sends something, when its client has taken nothing for `seconds()`, which may change.

    Args:
        taken: gives something else whenever the client has taken something.
    """
    last, since = taken(), trio.current_time()
    interval = min(seconds(), MAX_SECONDS) / LOOKS
    scope = trio.CancelScope()
    timer = timers.at(since + interval, lambda now, when: look(now))

    def look(now: float) -> None:
        nonlocal last, since, timer
        current = taken()
        if current != last:
            last, since = current, now
        due = since + seconds()
        if now >= due:
            scope.cancel()
        else:
            timer = timers.at(min(due, now + interval), lambda now, when: look(now))

    try:
        with scope:
            yield scope
    finally:
        timers.cancel(timer)


async def send_all(stream: trio.abc.SendStream, data: bytes, timers: Timers, seconds: Callable[[], float]) -> None:
    """Send `data` over a connection; close it where the client has taken nothing for `seconds()`.

    Raises:
        trio.BrokenResourceError: it has been closed for that, which is logged; or the client has left.
    """
    if not data:  # h11's end of a body whose length was known
        await stream.send_all(data)
        return
    pieces = 0

    def taken() -> tuple[int, int]:
        return pieces, acknowledged(stream)

    with patience(timers, seconds, taken) as limit:
        view = memoryview(data)
        for begin in range(0, len(view), PIECE_BYTES):
            await stream.send_all(view[begin : begin + PIECE_BYTES])
            pieces += 1
    if limit.cancelled_caught:
        message = f"its client has taken nothing of a response for {seconds():g} s"
        logger.warning("a connection was ended: %s", message)
        await trio.aclose_forcefully(stream)
        raise trio.BrokenResourceError(message)
