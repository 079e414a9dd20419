"""The take-over's logging: what a client can make hypercorn and Trio log stays one line, and stays rare."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from hypercorn.config import Config

from verbtrio.base.logs import escape

ACCEPT_SECONDS = 1.0
"""How often it is said that no connection can be accepted."""

ACCEPT_LOGGER = logging.getLogger("trio.serve_listeners")


class Sparing(logging.Filter):
    """Trio's loop that accepts connections tries ten times a second while there are no descriptors left, and logs each
    time with a traceback: 150 lines. Here it is one line a second."""

    def __init__(self) -> None:
        super().__init__()
        self._last = float("-inf")

    def filter(self, record: logging.LogRecord) -> bool:
        if record.created - self._last < ACCEPT_SECONDS:
            return False
        self._last = record.created
        record.exc_info = None
        return True


class Escaping(logging.Filter):
    """hypercorn's access log shows a path decoded and headers as they came: `%0a` in the one forges a line, an ESC in
    the other talks to the terminal."""

    def filter(self, record: logging.LogRecord) -> bool:
        atoms: Any = record.args
        if isinstance(atoms, dict):
            for name, value in atoms.items():
                if isinstance(value, str):
                    atoms[name] = escape(value)
        return True


_ESCAPING = Escaping()


def escape_access_log(config: Config) -> None:
    """See to it that the access log is escaped, if there is one. (A logger takes the same filter once.)"""
    access_logger = getattr(config.log, "access_logger", None)
    if access_logger is not None:
        access_logger.addFilter(_ESCAPING)


@contextmanager
def sparing() -> Iterator[None]:
    """Log what keeps connections from being accepted sparingly while the block is entered."""
    spare = Sparing()
    ACCEPT_LOGGER.addFilter(spare)
    try:
        yield
    finally:
        ACCEPT_LOGGER.removeFilter(spare)
