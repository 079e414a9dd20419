"""One subscription, from the client's subscribe until nothing of it is left.

    SubscriptionLife.run       a task of the client's nursery, where there is something to wait for
    └─ handler's nursery       `sub.nursery`: the handler, and the tasks it starts; cancelled with the subscription

The client is in the room from the beginning, but what is said there waits until its reply has gone out (see `Seat`). So
nothing is missed between the reading of the history and the reply, and nothing comes before it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

import msgspec
import trio
from msgspec import Raw

from verbtrio.base.calls import single
from verbtrio.base.close import CANCEL_GRACE, Cause, CloseInfo
from verbtrio.base.errors import (
    BrokerUnavailable,
    CallError,
    ConnectionClosed,
    Denied,
    LimitExceeded,
    MessageError,
    RoomUnavailable,
)
from verbtrio.base.position import Position
from verbtrio.base.types import Data
from verbtrio.guards.quotas import user_key
from verbtrio.multiplex.calls import error_of
from verbtrio.multiplex.client import Subscription
from verbtrio.multiplex.intake import Intake
from verbtrio.multiplex.peer import ClientPeer
from verbtrio.multiplex.recovery import NOTHING, Recovery, recover
from verbtrio.multiplex.seat import Seat
from verbtrio.multiplex.settings import App, ClientSettings
from verbtrio.multiplex.tokens import Expiry, subscription_claims
from verbtrio.protocols import codes
from verbtrio.protocols.codes import ProtocolError, Refused
from verbtrio.protocols.commands import SubscribeRequest
from verbtrio.protocols.replies import Push, SubscribeResult, UnsubscribePush
from verbtrio.rooms.rules import RoomRule

logger = logging.getLogger("verbtrio.subscriptions")

LOST = CloseInfo(Cause.DENIED, codes.INSUFFICIENT_STATE)
"""How a client leaves a room that counts on all messages and has lost some: it comes again, and recovers."""
NOT_WANTED = ProtocolError(codes.INTERNAL.code, "the subscription has ended", temporary=True)


class Answer(Protocol):
    """Whom to tell how a subscribe comes out. One of the two is called, once."""

    def tell(self, life: SubscriptionLife, result: SubscribeResult) -> None:
        """The client is accepted. No checkpoint is between the reading of the history and this call."""

    def refuse(self, error: ProtocolError) -> None:
        """The client can't be in the room."""


class Owner(Protocol):
    """Where it is kept. (Two callbacks would be 128 bytes more for each subscription.)"""

    def forget(self, life: SubscriptionLife) -> None:
        """It has ended, at this moment."""

    def task_ended(self) -> None:
        """`life.run` has."""


class SubscriptionLife(Seat):
    """What the framework keeps about one subscription.

    Args:
        request, rule, peer, app, settings: as in `Seat`.
        answer: told how it comes out.
        owner: where it is kept.
        is_server_side: whether the server makes it.
        given: the data and the public info that the server makes it with, unless a handler accepts it with others.

    Attributes:
        nursery: the handler's, while that runs.
        intake: what the client has published and the handler has not taken; `None` without a handler.
        is_accepted: the client has been told that it is in the room, or is about to be.
        is_recovered: it came back, and was sent all that it had missed.
        is_over: it has ended.
        has_failed: its handler has, and the client is told to subscribe again.
    """

    __slots__ = (
        "_after",
        "_answer",
        "_decided",
        "_given",
        "_is_accepting",
        "_is_told",
        "_owner",
        "_presence",
        "_scope",
        "has_failed",
        "intake",
        "is_accepted",
        "is_over",
        "is_recovered",
        "is_server_side",
        "nursery",
    )

    def __init__(
        self,
        request: SubscribeRequest,
        rule: RoomRule | None,
        peer: ClientPeer,
        app: App,
        settings: ClientSettings,
        answer: Answer,
        owner: Owner,
        *,
        is_server_side: bool = False,
        given: tuple[Data, Any] = (None, None),
    ) -> None:
        super().__init__(request, rule, peer, app, settings)
        self.nursery: trio.Nursery | None = None
        self.is_server_side = is_server_side
        self.is_accepted = self.is_over = self.is_recovered = self.has_failed = False
        self._answer = answer  # until it has told the client that it is accepted
        self._owner = owner
        self._given = given
        self._is_accepting = self._is_told = False
        self._decided: trio.Event | None = None  # made by a task that waits for another one to accept
        self._after: Position | None = None
        self._presence: Any = None
        self._scope: trio.CancelScope | None = None
        self.intake = None if self.handler is None else Intake(peer.limits, peer)

    # Its course

    def accept_nowait(self) -> None:
        """Accept a subscription that has nothing to wait for.

        Raises:
            Denied, LimitExceeded, RoomUnavailable: the room does not let the client in.
        """
        form, info = forms(self._peer, *self._given)
        self.join_room()
        self._accepted(NOTHING, form, info)

    async def run(self) -> None:
        """Do what has to be waited for, and run the handler. Raises no `Exception`. If cancelled, the subscription
        ends."""
        try:
            async with trio.open_nursery() as nursery:  # all in one coroutine: a frame more costs memory while it waits
                self._scope = nursery.cancel_scope
                if self._request.token and not self.is_over:
                    user = user_key(self.client.user) or ""
                    claims = await subscription_claims(self._settings.auth, self._request.token, self.name, user)
                    if not self.is_over:
                        self.take_token(claims)
                if not self.is_over:
                    self.join_room()
                    await self._app.host.joins.wait_ready(self.name, self.rule)
                if (handler := self.handler) is not None and not self.is_over:
                    self.nursery = nursery
                    await handler.run(Subscription(self), self.name, self.rule)
                    if not self.is_accepted:
                        await self.accept_as_given()
                elif not self.is_over:
                    await self.accept_as_given()
        except Exception as error:
            self._failed(single(error))
        finally:
            self._scope = self.nursery = None
            if self.intake is not None:
                self.intake.close(discard=True)  # from now on the client is told that it may not publish
            if not self.is_accepted:
                self.refuse(NOT_WANTED)
            self._owner.task_ended()

    async def accept_as_given(self) -> None:
        """Accept it with what the server has made it with, if that has; or wait for another task that accepts it."""
        while self._is_accepting:
            self._decided = trio.Event() if self._decided is None else self._decided
            await self._decided.wait()
        if not self.is_accepted:
            await self.accept(*self._given)

    async def accept(self, data: Data, presence: Any) -> None:
        """See `Subscription.accept`."""
        self._app.rooms.check()
        if self.is_accepted or self._is_accepting:
            raise RuntimeError(f"the subscription to {self.name!r:.100} has been accepted already")
        form, info = forms(self._peer, data, presence)
        self._is_accepting = True
        try:
            recovery = await recover(self.name, self.rule, self._request, self._app, self._peer)
        finally:
            self._is_accepting = False
            if self._decided is not None:
                self._decided.set()
                self._decided = None
        if self.is_over:
            closed = self._peer.closed
            raise Denied("The subscription has ended") if closed is None else ConnectionClosed(closed)
        self._accepted(recovery, form, info)

    def _accepted(self, recovery: Recovery, data: Raw | None, presence: Any) -> None:
        self.is_accepted = True
        self.is_recovered = recovery.is_recovered
        self._after = recovery.position
        self._presence = presence
        expiry = Expiry(self.claims, self._settings.token_slack)
        self._answer.tell(self, recovery.result(data, expiry))
        del self._answer

    def open(self) -> None:
        """The client has been told: from now on it receives what is said in the room. See `Seat.receive_from`."""
        if not self.is_over:
            self._is_told = True
            if self.receive_from(self._after, self._presence):  # and perhaps they came after what the client was told
                self._app.rooms.dismiss(self.name, (self.client,), LOST)

    # Its token

    def _expire(self) -> None:
        if self.is_server_side:
            self._peer.end(CloseInfo(Cause.EXPIRED, codes.EXPIRED_SUBSCRIPTION))
        elif not self.is_accepted:
            self.refuse(codes.TOKEN_EXPIRED)
        else:
            self.end(codes.SUBSCRIPTION_EXPIRED, "")

    # Its end

    def unsubscribe(self) -> None:
        """The client does not want it any more. What it has published before is still handled."""
        if self.is_accepted:
            self.leave(discard=False)
        else:
            self.refuse(NOT_WANTED)

    def end(self, code: int, reason: str) -> bool:
        """End it, and tell the client. Returns whether it was there.

        Raises:
            ValueError: `code` is not one for the end of a subscription.
        """
        self._app.rooms.check()
        codes.check_unsubscribe(code)
        if self.is_over:
            return False
        self.leave(discard=True)
        self._tell_ended(code, reason)
        return True

    def dismissed(self, info: CloseInfo) -> Callable[[], object]:
        """The client was removed from the room: see `Peer.dismiss`. It is told soon."""
        self._left(discard=True)
        self.vacate()
        if info.code == codes.INSUFFICIENT_STATE and self.is_server_side:  # only a connect subscribes it again
            return partial(self._peer.end, CloseInfo(info.cause, codes.LOST_TRACK))
        return partial(self._tell_ended, _code_for(info), info.reason)

    def _tell_ended(self, code: int, reason: str) -> None:
        if self._is_told:
            said = UnsubscribePush(code, reason or codes.unsubscribe_reason(code))
            self._peer.push(Push(channel=self.name, unsubscribe=said))
        elif not self.is_accepted:
            self._answer.refuse(codes.refusal(code, reason))

    def refuse(self, error: ProtocolError) -> None:
        """The client can't be in the room. Does nothing for one that has ended."""
        if not self.is_over:
            self.leave(discard=True)
            self._answer.refuse(error)

    def leave(self, *, discard: bool, may_return: bool = False) -> None:
        """It has ended: leave the room now. What runs for it is cancelled soon after. Twice does nothing.

        Args:
            discard: the handler receives nothing any more of what the client has published.
            may_return: the connection has ended, so its user may be on the way back. Unless `discard`, what the client
                has published before may still come, until `no_more_published`.
        """
        if not self.is_over:
            self._left(discard=discard, is_open=may_return and not discard)
            self.leave_room(may_return=may_return)

    def no_more_published(self) -> None:
        """The handler receives what waits for it, and no more."""
        if self.intake is not None:
            self.intake.close(discard=False)

    def _left(self, *, discard: bool, is_open: bool = False) -> None:
        self.is_over = True
        if self.intake is not None and not is_open:
            self.intake.close(discard=discard)
        if self._token is not None:
            self._token.stop()
        if self._scope is not None:
            self._scope.deadline = min(self._scope.deadline, trio.current_time() + CANCEL_GRACE)
        self._owner.forget(self)

    def _failed(self, error: Exception) -> None:
        """What runs for it has raised `error`."""
        if isinstance(error, ConnectionClosed) and error.info is self._peer.closed:
            return
        reply = error.error if isinstance(error, Refused) else error_of(error)
        if reply is None or (self.is_accepted and isinstance(error, MessageError)):
            logger.error("the handler of %r failed", Subscription(self), exc_info=error)
        if not self.is_accepted:
            self.refuse(codes.INTERNAL if reply is None else reply)
        else:
            code, reason = _end_for(error)
            self.has_failed = code >= codes.INSUFFICIENT_STATE
            self.end(code, reason)


def forms(peer: ClientPeer, data: Data, presence: Any) -> tuple[Raw | None, Any]:
    """The data as they are sent; and the public info as plain JSON, since the application may change its own object
    later."""
    form = None if data is None else peer.encoding.data(peer.encode(data))
    return form, None if presence is None else msgspec.json.decode(peer.encode({"info": presence}).payload)["info"]


def _code_for(info: CloseInfo) -> int:
    """The code with which a subscription ends whose client was removed from the room."""
    if info.code == codes.INSUFFICIENT_STATE:
        return info.code
    if info.cause is Cause.ERROR:  # the room's task has failed: it may come back
        return codes.SUBSCRIPTION_FAILED
    return codes.UNSUBSCRIBED  # (the code of a kick is one for the end of a connection)


def _end_for(error: Exception) -> tuple[int, str]:
    """The code and the reason with which a subscription ends whose handler has raised `error`."""
    if isinstance(error, BrokerUnavailable | RoomUnavailable):
        return codes.INSUFFICIENT_STATE, ""
    if isinstance(error, Denied | LimitExceeded):
        return codes.UNSUBSCRIBED, str(error)
    if isinstance(error, CallError):
        return codes.SUBSCRIPTION_FAILED if error.temporary else codes.UNSUBSCRIBED, error.message
    return codes.SUBSCRIPTION_FAILED, ""
