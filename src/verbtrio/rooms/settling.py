"""A join that has something left to wait for: a room's task, missed messages, who is present."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import trio

from verbtrio.base.close import INTERNAL_ERROR, POLICY_VIOLATION, Cause, CloseInfo, fitting_reason
from verbtrio.base.errors import BrokerUnavailable, ConnectionClosed, Denied, HistoryGap, RoomUnavailable

REFUSALS = (BrokerUnavailable, HistoryGap, RoomUnavailable)
"""What a join may be refused by after it has taken effect."""


def refusal(error: Exception) -> CloseInfo:
    """How the membership ends of a member that can't be in the room, because of one of `REFUSALS`. The reason may be
    shown to the client: what a broker says of itself, which may have its address in it, is not a part of that."""
    if isinstance(error, BrokerUnavailable):
        return CloseInfo(Cause.ERROR, INTERNAL_ERROR, "The room is not available")
    reason = fitting_reason(str(error))
    if isinstance(error, RoomUnavailable):
        return CloseInfo(Cause.ERROR, INTERNAL_ERROR, reason)
    return CloseInfo(Cause.DENIED, POLICY_VIOLATION, reason)


class Settling:
    """What is left of one join, to be run in a task of the connection.

    Args:
        steps: does it, given this. It raises one of `REFUSALS` where the member can't be in the room.
        on_refused: called then, at once: the member has to leave.
        info: the public info with which the member will be present. It may change until then.
    """

    def __init__(
        self, steps: Callable[[Settling], Awaitable[None]], on_refused: Callable[[Exception], None], info: Any
    ) -> None:
        self.info = info
        self._steps = steps
        self._on_refused = on_refused
        self._scope = trio.CancelScope()
        self._done = trio.Event()
        self._error: Exception | None = None
        self.is_complete = False
        """Whether the member is in the room, with nothing left to wait for."""
        self.is_awaited = False
        """Whether anybody has asked for the outcome."""

    @property
    def is_over(self) -> bool:
        """Whether nothing is left to wait for."""
        return self._done.is_set()

    async def run(self) -> None:
        """Do what is left. Raises nothing but what is a bug, or `Cancelled` with the connection."""
        try:
            with self._scope:
                await self._steps(self)
                self.is_complete = not self.is_over
        except REFUSALS as error:
            self._error = error
            self._on_refused(error)  # it is not over yet: see `Membership`, which asks
        except ConnectionClosed:
            pass  # the connection's end, which its handler sees
        finally:
            self._done.set()

    def refuse(self, error: Exception) -> None:
        """The member can't be in the room: those who wait are told. Does nothing once all is done."""
        if not self._done.is_set() and self._error is None:
            self._error = error
            self.cancel()

    def cancel(self) -> None:
        """The member is not in the room any more: nothing is left to do."""
        self._scope.cancel()
        self._done.set()

    async def wait(self) -> None:
        """Wait until nothing is left. If cancelled, the rest goes on.

        Raises:
            BrokerUnavailable, Denied, HistoryGap, RoomUnavailable: the member can't be in the room.
        """
        self.is_awaited = True
        await self._done.wait()
        if self._error is not None:
            raise self._error
        if not self.is_complete:
            raise Denied("The room was left before the join was complete")
