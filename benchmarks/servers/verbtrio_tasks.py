"""verbtrio_bare with a reader task for each connection instead of the poller, as on platforms without epoll."""

from __future__ import annotations

from typing import Any

import verbtrio.hub.hub


def no_poller(*arguments: Any) -> None:
    """What the hub has where there is no epoll."""


verbtrio.hub.Poller = no_poller  # type: ignore[assignment, attr-defined]  # before there is a hub
from benchmarks.servers.verbtrio_bare import app as app  # noqa: E402
