"""Tokens that a client sends as messages (`{"type": "auth", "token": "..."}`): the one that lets it in, and later ones
that renew it. They go to the authentication, never to the handler."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import msgspec
import trio

from verbtrio.base.close import POLICY_VIOLATION, TRY_AGAIN_LATER, Cause, CloseInfo, fitting_reason
from verbtrio.base.errors import AuthenticationError
from verbtrio.connection.answers import ref_in
from verbtrio.connection.peer import WebSocketPeer
from verbtrio.guards.quotas import user_key
from verbtrio.messages.frame import encode

MAX_AUTH_CHARACTERS = 32 * 1024
"""A longer message is not searched for a token: `JWTAuth` takes none of more than half of that, and the search took 35
us for 64 KiB, as much as all the rest of their echo."""


class Authenticator(Protocol):
    """What middleware leaves in `scope["verbtrio.auth"]`: `JWTAuth`."""

    first_message_timeout: float | None

    async def authenticate(self, token: str) -> dict[str, Any]:
        """The token's claims. Raises `AuthenticationError`."""

    def admit(self, scope: Any, claims: dict[str, Any]) -> None:
        """Put the user and the expiry into the scope."""


class Tokens:
    """The tokens of one connection.

    Args:
        peer: the connection.
        authenticator: checks them.
        on_admitted: called when a token was valid; the scope then has its user and its expiry.

    Attributes:
        awaited: set once the token has come that has to be the first message; `None` if the first message may be any,
            or the handler has begun.
    """

    __slots__ = ("_authenticator", "_checking", "_on_admitted", "_peer", "awaited")

    def __init__(self, peer: WebSocketPeer[Any], authenticator: Authenticator, on_admitted: Callable[[], None]) -> None:
        self._peer = peer
        self._authenticator = authenticator
        self._on_admitted = on_admitted
        self._checking = False
        self.awaited = trio.Event() if peer.ws.scope.get("verbtrio.unauthenticated") else None

    async def wait_admitted(self) -> bool:
        """Wait for the token that has to be the first message; `True` at once if there is no such token.

        If none comes in time, the connection has ended, and the answer is `False`. If cancelled, nothing has changed.
        """
        if self.awaited is None:
            return True
        with trio.move_on_after(self._authenticator.first_message_timeout or 0):
            await self.awaited.wait()
            self.awaited = None
            return True
        self._end(POLICY_VIOLATION, "No token came in time")
        return False

    def take(self, message: str | bytes) -> bool:
        """Whether `message` is a token, which is checked soon; or should have been one, which ends the connection."""
        token = token_in(message)
        if self.awaited is not None and not self.awaited.is_set() and not self._checking:
            if token is None:
                self._end(POLICY_VIOLATION, 'The first message must be {"type":"auth"}')
                return True
        elif token is None:
            return False
        if self._checking:
            self._peer.answer_error("A token is being checked already", ref_in(message))
        elif self._peer.closed is None:
            assert token is not None
            self._checking = True
            assert self._peer.nursery is not None, "messages are read while the handler's nursery is open"
            self._peer.nursery.start_soon(self._check, token, ref_in(message))
        return True

    async def _check(self, token: str, ref: Any) -> None:
        peer, first = self._peer, self.awaited is not None and not self.awaited.is_set()
        try:
            claims = await self._authenticator.authenticate(token)
        except AuthenticationError as error:
            if first:
                code = TRY_AGAIN_LATER if error.status == 503 else POLICY_VIOLATION
                self._end(code, fitting_reason(str(error)))
            else:
                peer.answer_error(f"The token is not accepted: {error}", ref)
            return
        finally:
            self._checking = False
        if not first and user_key(claims) != user_key(peer.ws.user):
            peer.answer_error("The token is not accepted: it is another user's", ref)
            return
        self._authenticator.admit(peer.ws.scope, claims)
        self._on_admitted()
        if first:
            assert self.awaited is not None
            self.awaited.set()
        if peer.closed is None:
            peer.put(encode({"type": "authenticated"} if ref is None else {"type": "authenticated", "ref": ref}))

    def _end(self, code: int, reason: str) -> None:
        self._peer.end(CloseInfo(Cause.UNAUTHENTICATED, code, reason))


class _Auth(msgspec.Struct, tag_field="type", tag="auth"):
    token: str


_auth = msgspec.json.Decoder(_Auth)


def token_in(message: str | bytes) -> str | None:
    """The token, if `message` is an object whose `type` is "auth" and whose `token` is text; else `None`."""
    if isinstance(message, bytes) or '"auth"' not in message:
        return None
    try:
        return _auth.decode(message).token
    except (msgspec.DecodeError, RecursionError, UnicodeError):
        return None
