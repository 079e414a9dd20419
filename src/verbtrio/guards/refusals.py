"""Log lines about refused requests, which clients can't fill the log with. Pure."""

from __future__ import annotations

import logging
from collections.abc import Callable

MAX_SHOWN = 100
"""How many characters of a header's value, or of a path, a log line shows."""
MAX_WARNINGS = 20
"""How many different refusals `Refusals` warns of."""


class Refusals:
    """Logs refusals: a warning for each of the first `MAX_WARNINGS` different ones, all others at DEBUG.

    A refusal deserves a warning, since a setting may be missing. But clients must not be able to fill the log.
    """

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        self._warned: set[str] = set()  # MAX_WARNINGS at most

    def tell(self, text: str, more: Callable[[], str] = str) -> None:
        """Log `text`; in a warning, with what `more` returns."""
        if text not in self._warned and len(self._warned) < MAX_WARNINGS:
            self._warned.add(text)
            self._logger.warning("%s%s", text, more())
        else:
            self._logger.debug("%s", text)
