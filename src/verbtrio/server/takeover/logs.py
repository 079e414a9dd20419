"""What a client can make hypercorn and Trio log stays one line, and stays rare."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from hypercorn.config import Config

from verbtrio.base.logs import escape

ACCEPT_SECONDS = 1.0
"""Seconds between two lines that say that no connection can be accepted."""

ACCEPT_LOGGER = logging.getLogger("trio.serve_listeners")


class AcceptErrorLimit(logging.Filter):
    """While no descriptors are left, Trio's accept loop tries ten times a second, and logs 150 lines a second with its
    tracebacks. This filter leaves one line a second."""

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
    """Escapes what hypercorn's access log shows: a path is decoded, and headers are as they came. `%0a` in the path
    would forge a line, and an ESC in a header would control the terminal."""

    def filter(self, record: logging.LogRecord) -> bool:
        atoms: Any = record.args
        if isinstance(atoms, dict):
            for name, value in atoms.items():
                if isinstance(value, str):
                    atoms[name] = escape(value)
        return True


_ESCAPING = Escaping()


def escape_access_log(config: Config) -> None:
    """Have the access log escaped, if there is one. (A logger takes the same filter once.)"""
    access_logger = getattr(config.log, "access_logger", None)
    if access_logger is not None:
        access_logger.addFilter(_ESCAPING)


@contextmanager
def limiting_accept_errors() -> Iterator[None]:
    """Apply `AcceptErrorLimit` while the block is entered."""
    limit = AcceptErrorLimit()
    ACCEPT_LOGGER.addFilter(limit)
    try:
        yield
    finally:
        ACCEPT_LOGGER.removeFilter(limit)
