"""The tokens of clients: of a connection, and of a subscription.

A token that has expired and one that is not valid are told apart: after the first the SDK gets another one, after the
second it gives up.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
import trio
from msgspec import Raw

from verbtrio.base.close import Cause, CloseInfo
from verbtrio.base.errors import AuthenticationError
from verbtrio.base.timers import Timer, Timers
from verbtrio.guards.quotas import user_key
from verbtrio.multiplex.settings import Authenticator
from verbtrio.protocols import codes
from verbtrio.protocols.codes import Refused

INVALID = CloseInfo(Cause.UNAUTHENTICATED, codes.INVALID_TOKEN)
OVER = CloseInfo(Cause.EXPIRED, codes.CONNECTION_EXPIRED)

MAX_TTL = 2**31 - 1
"""The longest time that a client is told, in seconds. In Protobuf it has 32 bits, and some issue tokens until the year
2286 (`exp` 9999999999)."""


class Ended(Exception):  # noqa: N818 -- an answer, not a failure of ours
    """A command ends the connection."""

    def __init__(self, info: CloseInfo) -> None:
        self.info = info
        super().__init__(f"{info.code} {info.reason}")


async def connection_claims(auth: Authenticator, token: str) -> dict[str, Any]:
    """The claims of a connection's token. A checkpoint only if the keys have to be fetched.

    Raises:
        Refused: it has expired, or can't be checked now, or is not sufficient.
        Ended: it is not valid.
    """
    try:
        claims = await auth.authenticate(token)
    except AuthenticationError as error:
        if error.is_expired:
            raise Refused(codes.TOKEN_EXPIRED) from error
        if error.status == 503:
            raise Refused(codes.INTERNAL) from error
        if error.status == 403:
            raise Refused(codes.PERMISSION_DENIED) from error
        raise Ended(INVALID) from error
    if "channel" in claims or not can_be_told(claims):  # the first: a subscription's token, which may be meant for less
        raise Ended(INVALID)
    return claims


async def subscription_claims(auth: Authenticator | None, token: str, channel: str, user: str) -> dict[str, Any]:
    """The claims of a subscription's token, which has to be for this channel and this user ("": an anonymous one).

    Raises:
        Refused: it has expired, is not valid, is not for them, or can't be checked now.
    """
    if auth is None:
        raise Refused(codes.PERMISSION_DENIED)
    try:
        claims = await auth.authenticate(token)
    except AuthenticationError as error:
        if error.is_expired:
            raise Refused(codes.TOKEN_EXPIRED) from error
        raise Refused(codes.INTERNAL if error.status == 503 else codes.PERMISSION_DENIED) from error
    if claims.get("channel") != channel or (user_key(claims) or "") != user or not can_be_told(claims):
        raise Refused(codes.PERMISSION_DENIED)
    return claims


def can_be_told(claims: Mapping[str, Any]) -> bool:
    """Whether others can be told of a user and the public info in its claims: JSON may have half of a character (a lone
    surrogate), which no message can have, and numbers beyond 64 bits."""
    try:
        msgspec.json.encode((user_key(claims), claims.get("info")))
    except (UnicodeError, OverflowError, TypeError, RecursionError):
        return False
    return True


def channels_in(claims: Mapping[str, Any]) -> list[str]:
    """The rooms that a token subscribes its client to."""
    channels = claims.get("channels")
    if not isinstance(channels, list):
        return []
    return [channel for channel in channels if isinstance(channel, str) and channel]


def info_in(claims: Mapping[str, Any]) -> Raw | None:
    """The public info in a token."""
    info = claims.get("info")
    return None if info is None else Raw(msgspec.json.encode(info))


class TokenTimer:
    """Calls a function when a token is over, but for another token that comes before.

    Args:
        timers: the app's.
        slack: seconds that a token counts for after it has expired.
        on_over: the function.
    """

    __slots__ = ("_on_over", "_slack", "_timer", "_timers", "claims")

    def __init__(self, timers: Timers, slack: float, on_over: Callable[[], object]) -> None:
        self._timers = timers
        self._slack = slack
        self._on_over = on_over
        self._timer: Timer | None = None
        self.claims: Mapping[str, Any] = {}
        """Those of the token that counts."""

    def take(self, claims: Mapping[str, Any]) -> Expiry:
        """This token counts from now on."""
        self.claims = claims
        self.stop()
        expiry = Expiry(claims, self._slack)
        if expiry.expires:
            self._timer = self._timers.at(expiry.due, self._over)
        return expiry

    def stop(self) -> None:
        """Call nothing any more."""
        if self._timer is not None:
            self._timers.cancel(self._timer)
            self._timer = None

    def _over(self, now: float, when: float) -> None:
        self._on_over()


class Expiry:
    """When a token is over, as its client is told and as the server takes it.

    Attributes:
        expires: whether it ever is.
        ttl: seconds until then, for the client: a whole number, 1 or more.
        due: when it is over for the server, on Trio's clock; infinity: never.
    """

    __slots__ = ("due", "expires", "ttl")

    def __init__(self, claims: Mapping[str, Any], slack: float) -> None:
        at = claims.get("exp")
        self.expires = isinstance(at, int | float)
        self.ttl = 0
        self.due = float("inf")
        if isinstance(at, int | float):
            left = at - time.time()  # an `exp` is a wall-clock time (RFC 7519)
            self.ttl = max(1, min(int(left), MAX_TTL))
            self.due = trio.current_time() + max(left, 1) + slack
