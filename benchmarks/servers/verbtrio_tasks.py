"""verbtrio_bare with a reader task for each connection instead of the poller, as on platforms without epoll."""

from __future__ import annotations

from typing import Any

from verbtrio.hub import flusher


def no_poller(*arguments: Any) -> None:
    """The poller of a hub where there is no epoll."""


flusher.Poller = no_poller  # type: ignore[assignment, attr-defined, misc]  # before there is a hub
from benchmarks.servers.verbtrio_bare import app as app  # noqa: E402
