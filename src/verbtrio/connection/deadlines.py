"""What is due on a connection, and when: its next ping, the end of its heartbeat's and its token's time, of a message
that has begun, and of what a peer has left unread. Together they are one entry in the worker's timers."""

from __future__ import annotations

import time
from typing import Any, Protocol

import trio

from verbtrio.base.close import ABNORMAL_CLOSURE, CANCEL_GRACE, POLICY_VIOLATION, TOKEN_EXPIRED, Cause, CloseInfo
from verbtrio.base.timers import Timer, Timers
from verbtrio.connection.heartbeat import PING_MESSAGE, Beat, Pulse
from verbtrio.connection.peer import WebSocketPeer
from verbtrio.wire.message_deadline import LATE_SECONDS, NEVER, Assembler, MessageDeadline
from verbtrio.wire.transport import Ping


class Owner(Protocol):
    """Whose deadlines they are: a connection. (A callback would be 64 bytes more for each.)"""

    def turn_away(self) -> None:
        """Read no more of a peer that has not finished a message in time."""


class Deadlines:
    """One connection's deadlines. Nothing here waits.

    Args:
        peer: the connection. It is ended when one of its deadlines has passed.
        pulse: its heartbeat, if it has one.
        owner: reads the peer.

    Attributes:
        reading: whether the peer is being read. If not, its silence is our own doing.
        unread_until: until when the handler has to take something of what a peer has left that is gone.
    """

    __slots__ = (
        "_expires",
        "_message_deadline",
        "_owner",
        "_peer",
        "_pulse",
        "_timer",
        "_timers",
        "_unread",
        "reading",
        "unread_until",
    )

    def __init__(self, peer: WebSocketPeer[Any], pulse: Pulse | None, owner: Owner) -> None:
        self._peer = peer
        self._pulse = pulse
        self._owner = owner
        self._expires = _expiry(peer)
        self._timers: Timers
        self._timer: Timer | None = None  # there is none while nothing is due
        self._unread = 0  # messages
        self._message_deadline: MessageDeadline | None = None  # from the first message on that comes in pieces
        self.reading = True
        self.unread_until = NEVER

    def start(self, timers: Timers) -> None:
        """From now on they count."""
        self._timers = timers
        self._reschedule()
        if self._peer.limits.message_timeout < NEVER:
            self._peer.transport.watch(self._begun)

    def stop(self) -> None:
        """From now on they don't."""
        if self._timer is not None:
            self._timers.cancel(self._timer)
            self._timer = None

    def renew_expiry(self) -> None:
        """Another token counts from now on."""
        self._expires = _expiry(self._peer)
        self._reschedule()

    def hung_up(self, now: float) -> None:
        """The peer is gone and has left something unread, which the handler has `CANCEL_GRACE` to take."""
        self._unread = len(self._peer.inbox)
        self.unread_until = now + CANCEL_GRACE
        self._reschedule()

    def pause(self, now: float) -> None:
        """The peer is not read any more, until `resume`."""
        self.reading = False
        if self._message_deadline is not None:
            self._message_deadline.pause(now)

    def resume(self, now: float) -> None:
        """The peer is read again."""
        if self._pulse is not None:  # the answer to a ping may stand behind what was not read
            self._pulse.heard(now)
        self.unread_until = NEVER
        self.reading = True
        if self._message_deadline is not None and self._message_deadline.resume(now) and self._peer.closed is None:
            self._reschedule()

    def _begun(self, assembler: Assembler) -> None:
        """The peer has begun a message that is not whole yet."""
        if self._message_deadline is None:
            self._message_deadline = MessageDeadline(assembler, self._peer.limits)
        if self._message_deadline.begun(trio.current_time()):
            self._reschedule()

    def _due(self) -> float:
        due = min(self._expires, self.unread_until)
        if self._message_deadline is not None:
            due = min(due, self._message_deadline.due)
        return due if self._pulse is None else min(due, self._pulse.next)

    def _reschedule(self) -> None:
        self.stop()
        if (due := self._due()) < NEVER:
            self._timer = self._timers.at(due, self._tick)

    def _tick(self, now: float, due: float) -> None:
        """Do at `now` what was due at `due`."""
        peer = self._peer
        if peer.closed is not None:
            return
        if now >= self._expires:
            peer.end(CloseInfo(Cause.EXPIRED, TOKEN_EXPIRED, "Token expired"))
        elif now >= self.unread_until and len(peer.inbox) < self._unread:
            self._unread, self.unread_until = len(peer.inbox), now + CANCEL_GRACE  # the handler is taking it
        elif now >= self.unread_until:
            self._gone_unread()
        elif self._message_deadline is not None and self._message_deadline.is_overdue(now):
            peer.end(CloseInfo(Cause.SLOW, POLICY_VIOLATION, "Too slow: a message was not finished in time"))
            self._owner.turn_away()
        elif self._pulse is not None:
            self._beat(self._pulse, now, due)
        self._reschedule()

    def _beat(self, pulse: Pulse, now: float, due: float) -> None:
        peer = self._peer
        if not self.reading or now - due > LATE_SECONDS:
            pulse.heard(now)
        pulse.look(peer.outbox.progress(), now)
        beat = pulse.due(now)
        if beat is Beat.PING:
            peer.outbox.put_nowait(PING_MESSAGE if pulse.settings.json else Ping())
        elif beat is Beat.DEAD:
            peer.end(CloseInfo(Cause.HEARTBEAT, pulse.settings.code, pulse.settings.reason))

    def _gone_unread(self) -> None:
        """The peer is gone, and the handler has taken nothing of what it left for as long as the grace lasts."""
        peer = self._peer
        peer.end(CloseInfo(Cause.GONE, ABNORMAL_CLOSURE))
        peer.outbox.shut()
        assert peer.nursery is not None, "there are deadlines only while the handler's nursery is open"
        peer.nursery.cancel_scope.cancel()


def _expiry(peer: WebSocketPeer[Any]) -> float:
    """When the token expires, on Trio's clock; `inf` without one. An `exp` is a wall-clock time (RFC 7519)."""
    expires = peer.ws.scope.get("verbtrio.expires")
    return float("inf") if expires is None else trio.current_time() + (expires - time.time())
