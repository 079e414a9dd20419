"""What a received message passes before it is the handler's: the limit on how fast the peer may send."""

from __future__ import annotations

from typing import Any

from verbtrio.closing import POLICY_VIOLATION, Cause, CloseInfo
from verbtrio.messages import encode
from verbtrio.rate import END, PASS, Bucket
from verbtrio.websocket import WebSocket


class Gate:
    """One connection's gate, where there is need of one (see `gate_for`)."""

    def __init__(self, ws: WebSocket[Any], bucket: Bucket) -> None:
        self._ws = ws
        self._bucket = bucket
        self._warned = False
        self.is_flooded = False
        """The connection has ended because its peer floods it: there is no use in reading any more of that."""

    def passes(self, message: str | bytes, now: float) -> bool:
        """Whether `message`, received at `now`, goes on to the handler. Synchronous; answers the peer if not."""
        verdict = self._bucket.take(now)
        if verdict is PASS:
            self._warned = False
            return True
        if verdict is END:
            self.is_flooded = True
            self._ws._end(CloseInfo(Cause.RATE, POLICY_VIOLATION, "Too many messages"))
        elif not self._warned and self._ws.closed is None:
            self._warned = True  # once: answering each would be a flood of our own
            rate = self._ws._limits.max_messages_per_second
            self._ws._put(encode({"type": "error", "message": f"Too many messages: at most {rate:g} a second"}))
        return False


def gate_for(ws: WebSocket[Any]) -> Gate | None:
    """The gate of a connection; `None` where all may pass, so that it costs nothing there."""
    limits = ws._limits
    if limits.max_messages_per_second is None:
        return None
    return Gate(ws, Bucket(limits.max_messages_per_second, limits.message_burst))
