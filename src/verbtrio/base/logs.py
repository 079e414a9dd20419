"""What verbtrio logs where no logging is set up: lines with their time and level, as hypercorn writes its own.

Python prints a warning that no handler takes as bare text (`logging.lastResort`), which is hard to tell from output
between hypercorn's lines. The handler here, on the logger "verbtrio", writes in that case alone. Which case it is, it
looks up for each record: logging may be set up before the import or after it, on the root logger or on one of ours, and
a record is then written by those handlers only. `lastResort` itself is Python's, for all libraries, and stays as it is.
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
    """`text` without what would begin a new line, or command a terminal."""
    return _CONTROL.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


class Escaping(logging.Formatter):
    """Writes a message on one line, and indents what follows it. An exception may have in it what a client has sent: a
    line that looks like one of ours, or commands for the terminal."""

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        if text.isprintable():
            return text
        return "\n    ".join(map(escape, text.split("\n")))


class LastResort(logging.Handler):
    """Writes to `sys.stderr` what no other handler is there for, from the level of `logging.lastResort` on: WARNING."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(Escaping(FORMAT, DATE_FORMAT))

    def emit(self, record: logging.LogRecord) -> None:
        last = logging.lastResort  # None: somebody wants nothing of the kind
        if last is None or record.levelno < last.level or sys.stderr is None or _has_handler(record.name):
            return
        try:
            sys.stderr.write(self.format(record) + "\n")
            sys.stderr.flush()
        except Exception:
            self.handleError(record)


def _has_handler(name: str) -> bool:
    """Whether the logger `name`, or one that its records go on to, has a handler beside ours. (One that writes nothing,
    a `NullHandler` or one with a higher level, is a decision, too. So it is for Python's last resort.)"""
    logger: logging.Logger | None = logging.getLogger(name)
    while logger is not None:
        if not all(isinstance(handler, LastResort) for handler in logger.handlers):
            return True
        logger = logger.parent if logger.propagate else None
    return False


def set_up() -> None:
    """Put the handler on the logger "verbtrio". Once is enough; twice is the same."""
    logger = logging.getLogger("verbtrio")
    if not any(isinstance(handler, LastResort) for handler in logger.handlers):
        logger.addHandler(LastResort())
