"""One subscription, from the client's subscribe until nothing of it is left.

    SubscriptionLife.run       a task of the client's nursery, where there is something to wait for
    └─ handler's nursery       `sub.nursery`: the handler, and the tasks it starts; cancelled with the subscription

The client is in the room from the beginning, but what is said there waits until its reply has gone out (see `Seat`). So
nothing is missed between the reading of the history and the reply, and nothing comes before it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Protocol

import msgspec
import trio
from msgspec import Raw

from verbtrio.base.calls import single
from verbtrio.base.close import CANCEL_GRACE, Cause, CloseInfo
from verbtrio.base.errors import BrokerUnavailable, ConnectionClosed, Denied, LimitExceeded, RoomUnavailable
from verbtrio.base.position import Position
from verbtrio.base.timers import Timer
from verbtrio.base.types import Data
from verbtrio.guards.quotas import user_key
from verbtrio.multiplex.calls import error_of
from verbtrio.multiplex.client import Client, Subscription
from verbtrio.multiplex.intake import Intake
from verbtrio.multiplex.peer import ClientPeer
from verbtrio.multiplex.recovery import NOTHING, Recovery, recover
from verbtrio.multiplex.seat import Seat
from verbtrio.multiplex.settings import App, ClientSettings
from verbtrio.multiplex.tokens import Expiry, subscription_claims
from verbtrio.protocols import codes
from verbtrio.protocols.codes import ProtocolError, Refused
from verbtrio.protocols.commands import SubscribeRequest
from verbtrio.protocols.replies import ClientInfo, Push, SubscribeResult, UnsubscribePush
from verbtrio.rooms.room import Room
from verbtrio.rooms.rules import RoomRule

logger = logging.getLogger("verbtrio.subscriptions")

_NOT_WANTED = ProtocolError(codes.INTERNAL.code, "the subscription has ended", temporary=True)


class Answer(Protocol):
    """Whom to tell how a subscribe comes out. One of the two is called, once."""

    def tell(self, life: SubscriptionLife, result: SubscribeResult) -> None:
        """The client is accepted. No checkpoint is between the reading of the history and this call."""

    def refuse(self, error: ProtocolError) -> None:
        """The client can't be in the room."""


class SubscriptionLife:
    """What the framework keeps about one subscription.

    Args:
        request: what the client has asked for; for a subscription that the server makes: with its position alone.
        seat: the client's in the room.
        peer: the client's.
        app: the app's parts.
        settings: the endpoint's.
        answer: told how it comes out.
        forget: called when it has ended, at that moment.
        is_server_side: whether the server makes it.
        given: the data and the public info that the server makes it with, unless a handler accepts it with others.

    Attributes:
        claims: the token's.
        nursery: the handler's, while that runs.
        intake: what the client has published and the handler has not taken; `None` without a handler.
        is_accepted: the client has been told that it is in the room, or is about to be.
        is_recovered: it came back, and was sent all that it had missed.
        is_over: it has ended.
    """

    __slots__ = (
        "_after",
        "_answer",
        "_app",
        "_forget",
        "_given",
        "_is_accepting",
        "_peer",
        "_presence",
        "_request",
        "_scope",
        "_seat",
        "_settings",
        "_timer",
        "claims",
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
        seat: Seat,
        peer: ClientPeer,
        app: App,
        settings: ClientSettings,
        answer: Answer,
        forget: Callable[[SubscriptionLife], None],
        *,
        is_server_side: bool = False,
        given: tuple[Data, Any] = (None, None),
    ) -> None:
        self.claims: Mapping[str, Any] = {}
        self.nursery: trio.Nursery | None = None
        self.is_server_side = is_server_side
        self.is_accepted = self.is_over = self.is_recovered = False
        self._request = request
        self._seat = seat
        self._peer = peer
        self._app = app
        self._settings = settings
        self._answer = answer
        self._forget = forget
        self._given = given
        self._is_accepting = False
        self._after: Position | None = None
        self._presence: Any = None
        self._scope: trio.CancelScope | None = None
        self._timer: Timer | None = None
        limits = peer.limits
        self.intake = None if self.handler is None else Intake(limits.max_inbox_messages, limits.max_inbox_bytes)

    # What the facade asks

    @property
    def name(self) -> str:
        """The room's."""
        return self._seat.name

    @property
    def rule(self) -> RoomRule | None:
        return self._seat.rule

    @property
    def client(self) -> Client:
        return self._seat.client

    @property
    def room(self) -> Room:
        return Room(self._app.rooms, self.name)

    @property
    def data(self) -> Raw:
        return self._request.data

    @property
    def handler(self) -> Any:
        """What runs for it; `None`: nothing."""
        opening = None if self.rule is None else self.rule.settings.opening
        return None if opening is None else opening.handler

    @property
    def info(self) -> ClientInfo:
        """Who the client is, for the others in this room."""
        return self._seat.info(self.claims)

    async def publish(self, data: Data) -> Position | None:
        """See `Subscription.publish`."""
        return await self._seat.publish(data, self.claims)

    # Its course

    @property
    def waits(self) -> bool:
        """Whether there is anything to wait for; if not, `accept_nowait` will do."""
        if self._request.token or self.handler is not None:
            return True
        return self.rule is not None and (
            self.rule.settings.history is not None or not self._app.host.joins.is_ready(self.name, self.rule)
        )

    def accept_nowait(self) -> None:
        """Accept a subscription that has nothing to wait for.

        Raises:
            Denied, LimitExceeded, RoomUnavailable: the room does not let the client in.
        """
        form, info = self._forms(*self._given)
        self._seat.take()
        self._accepted(NOTHING, form, info)

    @trio.lowlevel.enable_ki_protection
    async def run(self) -> None:
        """Do what has to be waited for, and run the handler. Raises no `Exception`. If cancelled, the subscription
        ends."""
        if self.is_over:
            return
        self._scope = trio.CancelScope()
        try:
            with self._scope:
                await self._run()
        except Exception as error:
            self._failed(single(error))
        finally:
            self._scope = self.nursery = None
            if self.intake is not None:
                self.intake.close(discard=True)  # from now on the client is told that it may not publish
            if not self.is_accepted:
                self.refuse(_NOT_WANTED)

    async def _run(self) -> None:
        if self._request.token:
            user = user_key(self.client.user) or ""
            self.take_token(await subscription_claims(self._settings.auth, self._request.token, self.name, user))
        self._seat.take()
        await self._app.host.joins.wait_ready(self.name, self.rule)
        if (handler := self.handler) is None:
            await self.accept_as_given()
            return
        async with trio.open_nursery() as nursery:
            self.nursery = nursery
            await handler.run(Subscription(self), self.name, self.rule)
            if not self.is_accepted:
                await self.accept_as_given()

    async def accept_as_given(self) -> None:
        """Accept it with what the server has made it with, if that has."""
        await self.accept(*self._given)

    async def accept(self, data: Data, presence: Any) -> None:
        """See `Subscription.accept`."""
        self._app.rooms.check()
        if self.is_accepted or self._is_accepting:
            raise RuntimeError(f"the subscription to {self.name!r:.100} has been accepted already")
        form, info = self._forms(data, presence)
        self._is_accepting = True
        try:
            recovery = await recover(self.name, self.rule, self._request, self._app)
        finally:
            self._is_accepting = False
        if self.is_over:
            closed = self._peer.closed
            raise Denied("The subscription has ended") if closed is None else ConnectionClosed(closed)
        self._accepted(recovery, form, info)

    def _forms(self, data: Data, presence: Any) -> tuple[Raw | None, Any]:
        """The data as they are sent; and the public info as plain JSON, since the application may change its own object
        later."""
        peer = self._peer
        form = None if data is None else peer.encoding.data(peer.encode(data))
        return form, None if presence is None else msgspec.json.decode(peer.encode({"info": presence}).payload)["info"]

    def _accepted(self, recovery: Recovery, data: Raw | None, presence: Any) -> None:
        self.is_accepted = True
        self.is_recovered = recovery.is_recovered
        self._after = recovery.position
        self._presence = presence
        expiry = Expiry(self.claims, self._settings.token_slack)
        self._answer.tell(self, recovery.result(self._peer.encoding, data, expiry))

    def open(self) -> None:
        """The client has been told: from now on it receives what is said in the room. See `Seat.open`."""
        if not self.is_over:
            tell_joins = self._request.join_leave or self._settings.force_join_leave
            self._seat.open(self._after, self._presence, self.claims, tell_joins=tell_joins)

    # Its token

    def take_token(self, claims: Mapping[str, Any]) -> Expiry:
        """These are the token's claims from now on."""
        self.claims = claims
        self._stop_timer()
        expiry = Expiry(claims, self._settings.token_slack)
        if expiry.expires:
            self._timer = self._app.timers.at(expiry.due, self._expire)
        return expiry

    def _expire(self, now: float, when: float) -> None:
        if self.is_server_side:
            self._peer.end(CloseInfo(Cause.EXPIRED, codes.EXPIRED_SUBSCRIPTION))
        else:
            self.end(codes.SUBSCRIPTION_EXPIRED, "")

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._app.timers.cancel(self._timer)
            self._timer = None

    # Its end

    def unsubscribe(self) -> None:
        """The client does not want it any more. What it has published before is still handled."""
        if self.is_accepted:
            self.leave(discard=False)
        else:
            self.refuse(_NOT_WANTED)

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
        self._seat.vacate()
        code = info.code if 2000 <= info.code <= 2999 else codes.UNSUBSCRIBED
        if info.cause is Cause.ERROR:  # the room's task has failed: it may come back
            code = codes.SUBSCRIPTION_FAILED
        return partial(self._tell_ended, code, info.reason)

    def _tell_ended(self, code: int, reason: str) -> None:
        if self.is_accepted:
            said = UnsubscribePush(code, reason or codes.unsubscribe_reason(code))
            self._peer.push(Push(channel=self.name, unsubscribe=said))
        else:
            self._answer.refuse(ProtocolError(codes.PERMISSION_DENIED.code, reason or codes.PERMISSION_DENIED.message))

    def refuse(self, error: ProtocolError) -> None:
        """The client can't be in the room. Does nothing for one that has ended."""
        if not self.is_over:
            self.leave(discard=True)
            self._answer.refuse(error)

    def leave(self, *, discard: bool, may_return: bool = False) -> None:
        """It has ended: leave the room now. What runs for it is cancelled soon after. Twice does nothing.

        Args:
            discard: the handler receives nothing any more of what the client has published.
            may_return: the connection has ended, so its user may be on the way back.
        """
        if not self.is_over:
            self._left(discard=discard)
            self._seat.leave(may_return=may_return)

    def _left(self, *, discard: bool) -> None:
        self.is_over = True
        if self.intake is not None:
            self.intake.close(discard=discard)
        self._stop_timer()
        if self._scope is not None:
            self._scope.deadline = min(self._scope.deadline, trio.current_time() + CANCEL_GRACE)
        self._forget(self)

    def _failed(self, error: Exception) -> None:
        """What runs for it has raised `error`."""
        if isinstance(error, ConnectionClosed) and error.info is self._peer.closed:
            return
        reply = error.error if isinstance(error, Refused) else error_of(error)
        if reply is None:
            logger.error("the handler of %r failed", Subscription(self), exc_info=error)
        if not self.is_accepted:
            self.refuse(codes.INTERNAL if reply is None else reply)
        elif isinstance(error, BrokerUnavailable | RoomUnavailable):
            self.end(codes.INSUFFICIENT_STATE, "")
        elif isinstance(error, Denied | LimitExceeded):
            self.end(codes.UNSUBSCRIBED, str(error))
        else:
            self.end(codes.SUBSCRIPTION_FAILED, "")
