"""hypercorn's own WebSocket settings, which hold for WebSocket routes that are not verbtrio's."""

from __future__ import annotations

import dataclasses
from typing import Any

from hypercorn.config import Config

from verbtrio.base.limits import Limits
from verbtrio.connection.heartbeat import Heartbeat


def websocket_settings(config: Config, limits: Limits, heartbeat: Heartbeat | None) -> tuple[Limits, Heartbeat | None]:
    """The limits and the heartbeat of a connection: the app's, with what the user has set in hypercorn's `config`.

    `websocket_max_message_size` replaces `Limits.max_message_bytes`, and `websocket_ping_interval` replaces
    `Heartbeat.interval`. hypercorn ends nothing when a ping is not answered; here the app's timeout holds, or twice the
    interval if that is longer. A setting of 0 or less is ignored.
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
    """What the user has set, on the instance or in a subclass; `None` where the value is hypercorn's default."""
    value = getattr(config, name)
    is_set = name in vars(config) or value != getattr(Config, name)
    return value if is_set and value is not None and value > 0 else None
