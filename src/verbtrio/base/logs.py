"""Logging where the program has set up none: lines with time and level, in hypercorn's format.

Python prints a warning that no handler takes as bare text (`logging.lastResort`), which is hard to tell from other
output between hypercorn's lines. The handler here, on the logger "verbtrio", writes only in that case. It checks for
each record, since logging may be set up before the import or after it, on the root logger or on one of ours; then only
those handlers write. `lastResort` itself, which serves all libraries, stays as it is.
"""

from __future__ import annotations

import logging
import re
import sys

FORMAT = "%(asctime)s [%(process)d] [%(levelname)s] %(message)s"
DATE_FORMAT = "[%Y-%m-%d %H:%M:%S %z]"
"""Both are hypercorn's."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def escape(text: str) -> str:
    """`text` with line breaks and terminal control characters escaped."""
    return _CONTROL.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


class Escaping(logging.Formatter):
    """Writes a message on one line, and indents what follows it. An exception's text may quote what a client has sent:
    a line that looks like one of ours, or escape sequences for the terminal."""

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        if text.isprintable():
            return text
        return "\n    ".join(map(escape, text.split("\n")))


class LastResort(logging.Handler):
    """Writes to `sys.stderr` what no other handler takes, from the level of `logging.lastResort` on: WARNING."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(Escaping(FORMAT, DATE_FORMAT))

    def emit(self, record: logging.LogRecord) -> None:
        last = logging.lastResort  # None: the program has turned it off
        if last is None or record.levelno < last.level or sys.stderr is None or _has_handler(record.name):
            return
        try:
            sys.stderr.write(self.format(record) + "\n")
            sys.stderr.flush()
        except Exception:
            self.handleError(record)


def _has_handler(name: str) -> bool:
    """Whether the logger `name`, or one that its records propagate to, has a handler besides ours. (A `NullHandler`, or
    a handler with a higher level, is a decision, too. Python's last resort does the same.)"""
    logger: logging.Logger | None = logging.getLogger(name)
    while logger is not None:
        if not all(isinstance(handler, LastResort) for handler in logger.handlers):
            return True
        logger = logger.parent if logger.propagate else None
    return False


def set_up() -> None:
    """Add the handler to the logger "verbtrio". A second call does nothing."""
    logger = logging.getLogger("verbtrio")
    if not any(isinstance(handler, LastResort) for handler in logger.handlers):
        logger.addHandler(LastResort())
