"""What holds for WebSocket routes that are not verbtrio's: hypercorn's own settings, where they were made."""

from __future__ import annotations

import dataclasses
from typing import Any

from hypercorn.config import Config

from verbtrio.base.limits import Limits
from verbtrio.connection.heartbeat import Heartbeat


def terms(config: Config, limits: Limits, heartbeat: Heartbeat | None) -> tuple[Limits, Heartbeat | None]:
    """The limits and the heartbeat of a connection: the app's, but for what hypercorn was told.

    `websocket_max_message_size` takes the place of `Limits.max_message_bytes`, `websocket_ping_interval` that of
    `Heartbeat.interval`. hypercorn lets no unanswered ping end anything; here the app's time-out holds, or twice the
    interval, whichever is longer. A setting that is not over 0 says nothing.
    """
    size = _set(config, "websocket_max_message_size")
    if size is not None:
        limits = dataclasses.replace(limits, max_message_bytes=size)
    interval = _set(config, "websocket_ping_interval")
    if interval is not None:
        heartbeat = heartbeat or Heartbeat()
        timeout = max(heartbeat.timeout, 2 * interval)
        heartbeat = dataclasses.replace(heartbeat, interval=interval, timeout=timeout)
    return limits, heartbeat


def _set(config: Config, name: str) -> Any:
    """What the user has set: in the configuration's instance, or in a subclass; `None` where it is hypercorn's own."""
    value = getattr(config, name)
    is_set = name in vars(config) or value != getattr(Config, name)
    return value if is_set and value is not None and value > 0 else None
