"""How one client comes in: who it is, what the application says, what it is subscribed to, where it is registered."""

from __future__ import annotations

import logging
from typing import Any

import trio
from msgspec import Raw

from verbtrio.base.calls import single
from verbtrio.base.close import Cause, CloseInfo
from verbtrio.base.errors import ConnectionClosed
from verbtrio.base.types import Data
from verbtrio.guards.quotas import Slot, user_key
from verbtrio.multiplex.calls import BROKER_AWAY, error_of
from verbtrio.multiplex.client import Client, Subscription
from verbtrio.multiplex.life import SubscriptionLife
from verbtrio.multiplex.peer import ClientPeer
from verbtrio.multiplex.recovery import Allowance
from verbtrio.multiplex.server_side import accept_by_server, at_position
from verbtrio.multiplex.settings import App, ClientSettings
from verbtrio.multiplex.subscriptions import ServerSide, Subscriptions, check_position
from verbtrio.multiplex.tokens import INVALID, OVER, Ended, Expiry, can_be_told, channels_in, connection_claims
from verbtrio.protocols import codes
from verbtrio.protocols.codes import Refused
from verbtrio.protocols.commands import ConnectRequest
from verbtrio.protocols.replies import ConnectResult

logger = logging.getLogger("verbtrio.clients")

SERVER = "verbtrio"
"""What clients are told as the server's version: no number, which would tell more than they need."""

MAX_SAID_CHARACTERS = 16 * 1024
"""Of a client's name, its version and the headers that it sends within its first command: as much as most servers take
in real headers."""


class Admission:
    """One client's admission: of no more use once it is in.

    Args:
        peer: the client's.
        app: the app's parts.
        settings: the endpoint's.
        slot: its place in the connection counts.
        subscriptions: the client's.
        address: where and by what name commands that come by requests of their own find it; `None` on a WebSocket.

    Attributes:
        user_id: by which it is registered; `None` for an anonymous client.
    """

    __slots__ = (
        "_address",
        "_allowance",
        "_app",
        "_asking",
        "_given",
        "_peer",
        "_settings",
        "_slot",
        "_subscriptions",
        "user_id",
    )

    def __init__(
        self,
        peer: ClientPeer,
        app: App,
        settings: ClientSettings,
        slot: Slot,
        subscriptions: Subscriptions,
        address: tuple[str, str] | None,
    ) -> None:
        self._peer = peer
        self._app = app
        self._settings = settings
        self._slot = slot
        self._subscriptions = subscriptions
        self._address = address
        self.user_id: str | None = None
        self._asking: ConnectRequest | None = None  # what the application is being asked about
        self._allowance = Allowance()
        self._given: list[tuple[SubscriptionLife, ServerSide]] = []  # the subscriptions that it has made meanwhile

    @property
    def is_asking(self) -> bool:
        """Whether the application's own function for clients that connect is running."""
        return self._asking is not None

    async def subscribe(self, name: str, data: Data, presence: Any) -> Subscription[Any]:
        """See `Client.subscribe`, for one that is connecting: it is told with the reply, and of what it has missed."""
        assert self._asking is not None
        request = at_position(self._asking.subs.get(name), name)
        accepted = await accept_by_server(self._peer, self._subscriptions, request, data, presence, self._allowance)
        self._given.append(accepted)
        return Subscription(accepted[0])

    @property
    def _client(self) -> Client:
        client: Client = self._peer.client
        return client

    async def connect(self, request: ConnectRequest) -> tuple[ConnectResult, Expiry, list[SubscriptionLife]] | None:
        """Let the client in. Returns what to tell it, when its token is over, and the subscriptions to be opened once
        it has been told; `None` where it has gone meanwhile. No checkpoint is between its registration and the return.

        If cancelled, it is not registered.

        Raises:
            Refused, Ended: it is not let in.
        """
        try:
            return await self._connect(request)
        except BaseException:
            self._subscriptions.leave_all(discard=True)
            raise

    async def _connect(self, request: ConnectRequest) -> tuple[ConnectResult, Expiry, list[SubscriptionLife]] | None:
        client, settings = self._client, self._settings
        _check_said(request)
        client.name, client.version, client.sent_headers = request.name, request.version, request.headers
        with trio.move_on_after(self._peer.limits.call_timeout) as scope:
            expiry = await self._authenticate(request.token)
            data = await self._ask_application(request)
        if scope.cancelled_caught:
            raise Refused(codes.TIMEOUT)
        begun = await self._subscribe(request)
        if self._peer.closed is not None:
            return None
        node, session = self._address or ("", "")
        result = ConnectResult(
            client=client.id,
            version=SERVER,
            expires=expiry.expires,
            ttl=expiry.ttl,
            data=data,
            subs={life.name: outcome.result for life, outcome in begun if outcome.result is not None},
            ping=round(settings.ping),
            pong=True,
            node=node,
            session=session,
        )
        self._register()
        return result, expiry, [life for life, _ in begun]

    async def _authenticate(self, token: str) -> Expiry:
        client, settings = self._client, self._settings
        if token:
            if settings.auth is None:
                raise Ended(INVALID)
            client.claims = await connection_claims(settings.auth, token)
        elif settings.auth is not None and not settings.anonymous and client.user is None:
            raise Refused(codes.UNAUTHORIZED)
        if not can_be_told({"id": user_key(client.user)}):  # perhaps middleware's
            raise Ended(INVALID)
        self.user_id = user_key(client.user) or None  # a token may say that its bearer is nobody: ""
        return Expiry(client.claims, settings.token_slack)

    async def _ask_application(self, request: ConnectRequest) -> Raw | None:
        """Call the application's own function for clients that connect."""
        call, peer = self._settings.connect, self._peer
        if call is None:
            return None
        try:
            self._asking = request
            result: Any = call.function(*call.arguments(self._client, request.data, is_binary=peer.encoding.is_binary))
            if hasattr(result, "__await__"):
                result = await result
            return None if result is None else peer.encoding.data(peer.encode(result))
        except Exception as raised:
            error = single(raised)
            if isinstance(error, ConnectionClosed) and error.info is peer.closed:
                return None
            if (reply := error_of(error)) is not None:
                raise Refused(reply) from error
            logger.error("the function %s failed for %r, which connects", call.name, self._client, exc_info=error)
            raise Refused(codes.INTERNAL) from error
        finally:
            self._asking = None

    async def _subscribe(self, request: ConnectRequest) -> list[tuple[SubscriptionLife, ServerSide]]:
        """Subscribe the client to what its token and the endpoint say, beside what the application has said. What it
        can't be in is left out.

        Raises:
            Refused: the broker can't be reached.
            Ended: these are too many.
        """
        if self._peer.closed is not None:
            return []  # it has left all rooms: nothing would take it out of those that it came into now
        names = channels_in(self._client.claims)
        if self._settings.personal is not None and self.user_id is not None:
            names.append(self._settings.personal.replace("{user}", self.user_id))
        begun, self._given = self._given, []
        for name in dict.fromkeys(names):
            if self._subscriptions.get(name) is not None:
                continue  # the application has made that already
            outcome = ServerSide(allowance=self._allowance)
            wanted = at_position(request.subs.get(name), name)
            try:
                begun.append((self._subscriptions.subscribe_by_server(wanted, outcome), outcome))
            except Refused as refused:
                if refused.error is codes.LIMIT_EXCEEDED:
                    raise Ended(CloseInfo(Cause.RATE, codes.CHANNEL_LIMIT)) from refused
                self._tell_left_out(name, refused)
        with trio.move_on_after(self._peer.limits.handshake_timeout):
            for _, outcome in begun:
                await outcome.wait()
        accepted = []
        for life, outcome in begun:
            if outcome.error is BROKER_AWAY:  # it comes again: nothing else would subscribe it later
                raise Refused(BROKER_AWAY)
            if outcome.result is not None and not life.is_over:
                accepted.append((life, outcome))
            else:
                life.leave(discard=True)
                self._tell_left_out(life.name, outcome.error or "it is not accepted in time")
        return accepted

    def _tell_left_out(self, name: str, why: object) -> None:
        logger.info("%r is not subscribed to %.100r by the server: %s", self._client, name, why)

    def _register(self) -> None:
        """Register the client.

        Raises:
            Ended: there is no room for another connection of its user.
        """
        full = self._app.admit_client(self._client, self._peer, self._slot, self.user_id)
        if full is not None:
            raise Ended(CloseInfo(Cause.RATE, codes.CONNECTION_LIMIT, full.message))


async def refresh(client: Client, user_id: str | None, settings: ClientSettings, token: str) -> Expiry:
    """Have a client that is in take another token.

    Raises:
        Refused, Ended: it is not accepted.
    """
    if settings.auth is None:
        raise Refused(codes.NOT_AVAILABLE)
    try:
        claims = await connection_claims(settings.auth, token)
    except Refused as refused:
        if refused.error is codes.TOKEN_EXPIRED:
            raise Ended(OVER) from refused
        raise
    if (user_key(claims) or None) != user_id:
        raise Ended(INVALID)
    client.claims = claims
    return Expiry(claims, settings.token_slack)


def _check_said(request: ConnectRequest) -> None:
    """Raise `Refused` where a client says too much of itself, or has a position that no history has: that is kept for
    as long as it is connected."""
    said = len(request.name) + len(request.version)
    said += sum(len(name) + len(value) for name, value in request.headers.items())
    if said > MAX_SAID_CHARACTERS:
        raise Refused(codes.BAD_REQUEST)
    for position in request.subs.values():
        check_position(position)
