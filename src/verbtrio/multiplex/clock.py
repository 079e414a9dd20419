"""Does what is due for one client: pings, and the ends of those that say nothing. One entry in the app's timers."""

from __future__ import annotations

import trio

from verbtrio.base.close import Cause, CloseInfo
from verbtrio.base.timers import Timer, Timers
from verbtrio.connection.inbox import Inbox
from verbtrio.multiplex.peer import ClientPeer
from verbtrio.multiplex.pulse import NEVER, Due, Pulse
from verbtrio.multiplex.settings import ClientSettings
from verbtrio.multiplex.tokens import OVER, Expiry
from verbtrio.protocols import codes

_ENDS = {
    Due.STALE: CloseInfo(Cause.UNAUTHENTICATED, codes.STALE, codes.reason_of(codes.STALE)),
    Due.NO_PONG: CloseInfo(Cause.HEARTBEAT, codes.NO_PONG),
    Due.EXPIRED: OVER,
}


class Clock:
    """One client's clock. Nothing here waits.

    Args:
        peer: the client's.
        settings: the endpoint's.
        timers: the app's.
        inbox: where its messages wait: a pong may be among them.
    """

    __slots__ = ("_inbox", "_peer", "_pulse", "_timer", "_timers")

    def __init__(self, peer: ClientPeer, settings: ClientSettings, timers: Timers, inbox: Inbox) -> None:
        self._peer = peer
        self._pulse = Pulse(settings.ping, settings.pong_timeout)
        self._timers = timers
        self._inbox = inbox
        self._timer: Timer | None = None

    def start(self) -> None:
        """From now on the client has to say who it is; or, where it was refused, to go."""
        self._pulse.stale = trio.current_time() + self._peer.limits.handshake_timeout
        self._schedule()

    def connecting(self) -> None:
        """It has said who it is. What takes its time now is the application."""
        self._pulse.stale = NEVER
        self._schedule()

    def connected(self, expiry: Expiry) -> None:
        """It is let in: from now on it is pinged."""
        self._pulse.connected(trio.current_time())
        self.expires(expiry)

    def expires(self, expiry: Expiry) -> None:
        """Its token is over then."""
        self._pulse.expires = expiry.due
        self._schedule()

    def pong(self) -> bool:
        """It has answered a ping. Returns whether there was one."""
        return self._pulse.pong()

    def stop(self) -> None:
        """It has ended."""
        if self._timer is not None:
            self._timers.cancel(self._timer)
            self._timer = None

    def _schedule(self) -> None:
        """Look again when something is due. If that is later than has been thought, look at the earlier time, too: a
        cancelled timer would stay where it is as long."""
        due = self._pulse.next
        if self._peer.closed is None and (self._timer is None or due < self._timer.when):
            self.stop()
            self._timer = self._timers.at(due, self._tick)

    def _tick(self, now: float, when: float) -> None:
        peer, self._timer = self._peer, None
        due = self._pulse.due(now, is_busy=peer.carrier.is_busy or len(self._inbox) > 0)
        if due is Due.PING:
            peer.hold(peer.encoding.ping)
        elif due is not Due.NOTHING:
            peer.end(_ENDS[due])
        self._schedule()
