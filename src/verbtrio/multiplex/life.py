"""One subscription, from the client's subscribe until nothing of it is left.

    SubscriptionLife.run       a task of the client's nursery, where there is something to wait for
    └─ handler's nursery       `sub.nursery`: the handler, and the tasks it starts; cancelled with the subscription

The client is in the room from the beginning, but what is said there waits in a `StandIn` until its reply has gone out.
So nothing is missed between the reading of the history and the reply, and nothing comes before it.
"""

from __future__ import annotations

import logging
from functools import partial
from collections.abc import Callable, Mapping
from typing import Any

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
from verbtrio.messages.published import SignedFrame
from verbtrio.multiplex.calls import error_of
from verbtrio.multiplex.client import Client
from verbtrio.multiplex.peer import ClientPeer
from verbtrio.multiplex.recovery import NOTHING, Recovery, recover
from verbtrio.multiplex.settings import App, ClientSettings
from verbtrio.multiplex.subscription import Intake, Subscription
from verbtrio.multiplex.tokens import Expiry, info_in, subscription_claims
from verbtrio.protocols import codes
from verbtrio.protocols.codes import ProtocolError, Refused
from verbtrio.protocols.commands import SubscribeRequest
from verbtrio.protocols.replies import ClientInfo, Push, SubscribeResult, UnsubscribePush
from verbtrio.rooms.room import Room
from verbtrio.rooms.rules import RoomRule
from verbtrio.rooms.stand_in import StandIn

logger = logging.getLogger("verbtrio.subscriptions")

_NOT_WANTED = ProtocolError(codes.INTERNAL.code, "the subscription has ended", temporary=True)


class SubscriptionLife:
    """What the framework keeps about one subscription.

    Args:
        request: what the client has asked for; for a subscription that the server makes: with its position alone.
        rule: the room's.
        peer: the client's.
        app: the app's parts.
        settings: the endpoint's.
        tell: called with the result once the client is accepted. No checkpoint is between the reading of the history
            and this call.
        refuse: called where the client can't be in the room, before it was told anything else.
        forget: called when it has ended, at that moment.
        is_server_side: whether the server makes it.
        given: the data and the public info that the server makes it with, unless a handler accepts it with others.

    Attributes:
        name: the room's.
        claims: the token's.
        nursery: the handler's, while that runs.
        is_opened: what is said in the room goes to the client.
        is_over: it has ended.
    """

    __slots__ = (
        "_after",
        "_app",
        "_expiry",
        "_forget",
        "_given",
        "_is_accepting",
        "_is_joined",
        "_peer",
        "_presence",
        "_refuse",
        "_rule",
        "_scope",
        "_settings",
        "_stand_in",
        "_tell",
        "_timer",
        "claims",
        "intake",
        "is_accepted",
        "is_opened",
        "is_over",
        "is_recovered",
        "is_server_side",
        "name",
        "nursery",
        "request",
    )

    def __init__(
        self,
        request: SubscribeRequest,
        rule: RoomRule | None,
        peer: ClientPeer,
        app: App,
        settings: ClientSettings,
        *,
        tell: Callable[[SubscriptionLife, SubscribeResult], None],
        refuse: Callable[[SubscriptionLife, ProtocolError], None],
        forget: Callable[[SubscriptionLife], None],
        is_server_side: bool = False,
        given: tuple[Data, Any] = (None, None),
    ) -> None:
        self.name = request.channel
        self.request = request
        self.claims: Mapping[str, Any] = {}
        self.nursery: trio.Nursery | None = None
        self.is_server_side = is_server_side
        self.is_accepted = self.is_opened = self.is_over = self.is_recovered = False
        self._rule = rule
        self._peer = peer
        self._app = app
        self._settings = settings
        self._tell = tell
        self._refuse = refuse
        self._forget = forget
        self._given = given
        self._is_accepting = self._is_joined = False
        self._stand_in: StandIn | None = None
        self._after: Position | None = None
        self._presence: Any = None
        self._scope: trio.CancelScope | None = None
        self._expiry: Expiry | None = None
        self._timer: Timer | None = None
        limits = peer.limits
        self.intake = Intake(limits.max_inbox_messages, limits.max_inbox_bytes) if self.handler is not None else None

    # What the facade asks

    @property
    def client(self) -> Client:
        client: Client = self._peer.client
        return client

    @property
    def room(self) -> Room:
        return Room(self._app.rooms, self.name)

    @property
    def data(self) -> Raw:
        return self.request.data

    @property
    def rule(self) -> RoomRule | None:
        return self._rule

    @property
    def handler(self) -> Any:
        """What runs for it; `None`: nothing."""
        opening = None if self._rule is None else self._rule.settings.opening
        return None if opening is None else opening.handler

    @property
    def info(self) -> ClientInfo:
        """Who the client is, for the others in this room."""
        client = self.client
        user, conn_info = user_key(client.user) or "", info_in(client.claims)
        return ClientInfo(user, client.id, conn_info, info_in(self.claims))

    async def publish(self, data: Data) -> Position | None:
        """See `Subscription.publish`."""
        self._app.rooms.check()
        return await self._app.host.publish(self.name, SignedFrame(self._peer.encode(data), self.info))

    # Its course

    @property
    def waits(self) -> bool:
        """Whether there is anything to wait for; if not, `accept_nowait` will do."""
        if self.request.token or self.handler is not None:
            return True
        rule = self._rule
        return rule is not None and (rule.settings.history is not None or bool(rule.settings.tasks))

    def accept_nowait(self) -> None:
        """Accept a subscription that has nothing to wait for.

        Raises:
            Denied, LimitExceeded: the room does not let the client in.
        """
        form, info = self._forms(*self._given)
        self._join()
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
            if self.intake is not None:
                self.intake.close(discard=True)
            if not self.is_accepted and not self.is_over:
                self.refuse(_NOT_WANTED)
            self._scope = None

    async def _run(self) -> None:
        if self.request.token:
            user = user_key(self.client.user) or ""
            self.take_token(await subscription_claims(self._settings.auth, self.request.token, self.name, user))
        self._join()
        await self._app.host.joins.wait_ready(self.name, self._rule)
        if (handler := self.handler) is None:
            await self.accept_as_given()
            return
        async with trio.open_nursery() as nursery:
            self.nursery = nursery
            await handler.run(Subscription(self), self.name, self._rule)
            if not self.is_accepted:
                await self.accept_as_given()
            assert self.intake is not None, "there is one where there is a handler"
            self.intake.close(discard=True)  # from now on the client is told that it may not publish
        self.nursery = None

    def _join(self) -> None:
        self._stand_in = StandIn(self._peer)
        self._app.host.joins.admit(self.name, self.client, self._stand_in)
        self._is_joined = True

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
            recovery = await recover(self.name, self._rule, self.request, self._app)
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
        return form, None if presence is None else msgspec.json.decode(peer.encode(presence).payload)

    def _accepted(self, recovery: Recovery, data: Raw | None, presence: Any) -> None:
        self.is_accepted = True
        self.is_recovered = recovery.is_recovered
        self._after = recovery.position
        self._presence = presence
        expiry = self._expiry
        self._tell(self, recovery.result(self._peer.encoding, data, expiry))

    def open(self) -> None:
        """The client has been told: from now on it receives what is said in the room, what has waited first."""
        if self.is_over or self.is_opened or self._stand_in is None:
            return
        self.is_opened = True
        stand_in, self._stand_in = self._stand_in, None
        rule, client = self._rule, self.client
        self._app.rooms.replace(self.name, client, self._peer)
        if rule is not None and rule.settings.presence is not None:
            wants = self.request.join_leave or self._settings.force_join_leave
            if rule.settings.join_leave and wants:
                self._app.client_news.add(self.name, self._peer)
            self._enter(rule)
        stand_in.hand_over(self._after)  # last: it may be too much for the client, which ends then

    def _enter(self, rule: RoomRule) -> None:
        mine = self.info
        details = {"conn_info": _json(mine.conn_info), "chan_info": _json(mine.chan_info)}
        info = self._presence
        if info is None:
            info = details["conn_info"] if details["chan_info"] is None else details["chan_info"]
        else:
            details["chan_info"] = info
        user = user_key(self.client.user) or self.client.id
        self._app.host.joins.enter(self.name, rule, self.client, user, info, details)

    # Its token

    def take_token(self, claims: Mapping[str, Any]) -> Expiry:
        """These are the token's claims from now on."""
        self.claims = claims
        self._stop_timer()
        expiry = self._expiry = Expiry(claims, self._settings.token_slack)
        if expiry.expires:
            self._timer = self._app.timers.at(expiry.due, self._expire)
        return expiry

    def _expire(self, now: float, when: float) -> None:
        if self.is_server_side:
            self._peer.end(CloseInfo(Cause.EXPIRED, codes.EXPIRED_SUBSCRIPTION))
        else:
            self.end(codes.SUBSCRIPTION_EXPIRED, "subscription expired")

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._app.timers.cancel(self._timer)
            self._timer = None

    # Its end

    def end(self, code: int, reason: str) -> bool:
        """End it, and tell the client. Returns whether it was there.

        Raises:
            ValueError: `code` is not one for the end of a subscription.
        """
        self._app.rooms.check()
        codes.check_unsubscribe(code)
        if self.is_over:
            return False
        if not self.is_accepted:
            self.refuse(ProtocolError(codes.PERMISSION_DENIED.code, reason or "permission denied"))
            return True
        self.leave(discard=True)
        self._tell_ended(code, reason)
        return True

    def refuse(self, error: ProtocolError) -> None:
        """The client can't be in the room."""
        self.leave(discard=True)
        self._refuse(self, error)

    def unsubscribe(self) -> None:
        """The client does not want it any more."""
        if self.is_accepted:
            self.leave(discard=False)
        else:
            self.refuse(_NOT_WANTED)

    def leave(self, *, discard: bool, may_return: bool = False) -> None:
        """It has ended: leave the room now. What runs for it is cancelled soon after. Twice does nothing.

        Args:
            discard: the handler receives nothing any more of what the client has published.
            may_return: the connection has ended, so its user may be on the way back.
        """
        if self.is_over:
            return
        self.left(discard=discard)
        if self._is_joined:
            self._app.rooms.leave(self.name, self.client, may_return=may_return)

    def dismissed(self, info: CloseInfo) -> Callable[[], object]:
        """The client was removed from the room: see `Peer.dismiss`. It is told soon."""
        self.left(discard=True)
        code = info.code if 2000 <= info.code <= 2999 else codes.UNSUBSCRIBED
        if info.cause is Cause.ERROR:  # the room's task has failed: it may come back
            code = codes.SUBSCRIPTION_FAILED
        return partial(self._tell_ended, code, info.reason)

    def _tell_ended(self, code: int, reason: str) -> None:
        if self.is_accepted:
            said = UnsubscribePush(code, reason or codes.unsubscribe_reason(code))
            self._peer.push(Push(channel=self.name, unsubscribe=said))
        else:
            self._refuse(self, codes.PERMISSION_DENIED)

    def left(self, *, discard: bool) -> None:
        """It has ended, and the client is not in the room any more, or is about to leave it."""
        self.is_over = True
        if self.intake is not None:
            self.intake.close(discard=discard)
        self._app.client_news.discard(self.name, self._peer)
        self._stop_timer()
        self._stand_in = None
        if self._scope is not None:
            self._scope.deadline = min(self._scope.deadline, trio.current_time() + CANCEL_GRACE)
        self._forget(self)

    def _failed(self, error: Exception) -> None:
        """What runs for it has raised `error`."""
        if isinstance(error, ConnectionClosed) and error.info is self._peer.closed:
            return
        if isinstance(error, Refused):
            reply: ProtocolError | None = error.error
        else:
            reply = error_of(error)
        if reply is None:
            logger.error("the handler of %r failed", Subscription(self), exc_info=error)
        if self.is_over:
            return
        if not self.is_accepted:
            self.refuse(codes.INTERNAL if reply is None else reply)
        elif isinstance(error, BrokerUnavailable | RoomUnavailable):
            self.end(codes.INSUFFICIENT_STATE, "")
        elif isinstance(error, Denied | LimitExceeded):
            self.end(codes.UNSUBSCRIBED, str(error))
        else:
            self.end(codes.SUBSCRIPTION_FAILED, "")


def _json(raw: Raw | None) -> Any:
    return None if raw is None else msgspec.json.decode(raw)
