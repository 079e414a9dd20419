"""An application's own tasks that fail, and what the log says of them."""

from __future__ import annotations

from typing import Any

import pytest


class Failure(Exception):  # noqa: N818 -- what a task raises here
    """On purpose."""


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What was logged of tasks: the level and the text."""
    return [
        f"{record.levelname} {record.getMessage()}" for record in caplog.records if record.name == "verbtrio.background"
    ]


def errors(caplog: pytest.LogCaptureFixture) -> list[Any]:
    """What was logged with its traceback."""
    return [record.exc_info[1] for record in caplog.records if record.exc_info]
