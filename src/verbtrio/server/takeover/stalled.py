"""How long an HTTP response waits for a client that takes nothing of it.

hypercorn 0.18 waits for ever. A client that asks for more than the buffers hold, and reads nothing, keeps a task, the
response's memory and a descriptor. What counts here is what the client *takes*. A slow client has all the time it
needs; one that has taken nothing for the response's timeout is treated as gone.
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
"""Times that progress is looked at within the timeout: a client is ended a quarter of it late at most."""
MAX_SECONDS = 60.0
"""The longest timeout that is divided so. An infinite one counts as this: a shorter one may be set meanwhile."""
PIECE_BYTES = 64 * 1024
"""Bytes written at a time. Where the kernel does not tell what the client has taken, this is the least progress that
shows. And TLS would encrypt all it is given before the first byte is sent."""


@contextmanager
def stall_timeout(timers: Timers, seconds: Callable[[], float], taken: Callable[[], Any]) -> Iterator[trio.CancelScope]:
    """Cancel the block, which sends, when its client has taken nothing for `seconds()`, which may change.

    Args:
        taken: returns a value that changes whenever the client has taken something.
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
    """Send `data` over a connection. Close it when the client has taken nothing for `seconds()`.

    Raises:
        trio.BrokenResourceError: the connection was closed for that, which is logged, or the client has left.
    """
    if not data:  # h11's end of a body of known length
        await stream.send_all(data)
        return
    pieces = 0

    def taken() -> tuple[int, int]:
        return pieces, acknowledged(stream)

    with stall_timeout(timers, seconds, taken) as limit:
        view = memoryview(data)
        for begin in range(0, len(view), PIECE_BYTES):
            await stream.send_all(view[begin : begin + PIECE_BYTES])
            pieces += 1
    if limit.cancelled_caught:
        message = f"its client has taken nothing of a response for {seconds():g} s"
        logger.warning("a connection was ended: %s", message)
        await trio.aclose_forcefully(stream)
        raise trio.BrokenResourceError(message)
