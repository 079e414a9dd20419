"""What a received message passes before the handler gets it: the rate limits, and the check for a token
(`{"type": "auth", "token": "..."}`), which goes to the authentication."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import msgspec
import trio

from verbtrio.base.close import POLICY_VIOLATION, TRY_AGAIN_LATER, Cause, CloseInfo, fitting_reason
from verbtrio.base.errors import AuthenticationError
from verbtrio.connection.answers import error_answer, ref_in
from verbtrio.connection.peer import WebSocketPeer
from verbtrio.guards.quotas import user_key
from verbtrio.guards.rate import END, PASS, REFUSE, Bucket, Meter, SharedBucket, Verdict
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
        """Put into the scope who it is, and until when."""


class Screening:
    """One connection's screening, if it needs one (see `screening_for`).

    Args:
        peer: the connection.
        bucket: how fast the peer may send; `None`: as fast as it likes.
        shared: the buckets that it shares with other connections, as far as they are known.
        authenticator: checks tokens; `None`: they are messages like others.
        on_admitted: called when a token was valid; the scope then has its user and its expiry.
    """

    def __init__(
        self,
        peer: WebSocketPeer[Any],
        bucket: Bucket | None,
        shared: Sequence[SharedBucket],
        authenticator: Authenticator | None,
        on_admitted: Callable[[], None],
    ) -> None:
        self._peer = peer
        self._own = bucket
        self._shared = tuple(shared)
        self._bucket: Bucket | Meter | None = Meter(bucket, shared) if shared else bucket
        self._authenticator = authenticator
        self._on_admitted = on_admitted
        self._warned = False
        self._checking = False
        # The event of the token that has to be the first message.
        self._admitted = trio.Event() if authenticator and peer.ws.scope.get("verbtrio.unauthenticated") else None
        self.is_flooded = False
        """The connection has ended because its peer floods it: reading more of that is of no use."""

    def passes(self, message: str | bytes, now: float) -> bool:
        """Whether `message`, received at `now`, goes on to the handler. Synchronous; answers the peer if not.

        Called for each message. What most of them need is done here, in a fifth of a microsecond.
        """
        if self._bucket is not None:
            verdict = self._bucket.take(now)
            if verdict is not PASS:
                self._refuse(verdict, message)
                return False
            self._warned = False
        authenticator = self._authenticator
        if authenticator is None:
            return True
        if self._admitted is None and (
            isinstance(message, bytes) or len(message) > MAX_AUTH_CHARACTERS or '"auth"' not in message
        ):
            return True
        return not self._is_for(authenticator, message)

    def _refuse(self, verdict: Verdict, message: str | bytes = b"") -> None:
        if verdict is END:
            self.is_flooded = True
            self._end(Cause.RATE, POLICY_VIOLATION, "Too many messages")
        elif not self._warned:
            self._warned = True  # once: an answer to each would be a flood, too
            over = self._bucket.over if isinstance(self._bucket, Meter) else self._bucket
            assert over is not None, "something has refused it"
            of = over.of if isinstance(over, SharedBucket) else ""
            self._answer(f"Too many messages: at most {over.per_second:g} a second{of}", ref_in(message))

    def share(self, shared: Sequence[SharedBucket], now: float) -> None:
        """The connection's buckets are known now: if the first message has told the user, the user's among them.

        Messages that came behind the first one and wait for the handler count, too. Otherwise a client could connect
        again and again, and have some messages pass each time.
        """
        new = [bucket for bucket in shared if bucket not in self._shared]
        if not new:
            return
        self._shared = tuple(shared)
        self._bucket = Meter(self._own, shared)
        waiting = len(self._peer.inbox)
        kept = min(sum(bucket.passes(now) for _ in range(waiting)) for bucket in new)
        if kept < waiting:
            self._peer.inbox.keep(kept)
            self._bucket.over = new[0]
            self._refuse(REFUSE)

    async def wait_admitted(self) -> bool:
        """Wait for the token that has to be the first message; `True` at once where none is needed.

        If none comes in time, the connection has ended, and the answer is `False`.
        """
        if self._admitted is None or self._authenticator is None:
            return True
        with trio.move_on_after(self._authenticator.first_message_timeout or 0):
            await self._admitted.wait()
            self._admitted = None
            return True
        self._end(Cause.UNAUTHENTICATED, POLICY_VIOLATION, "No token came in time")
        return False

    def _is_for(self, authenticator: Authenticator, message: str | bytes) -> bool:
        token = token_in(message)
        if self._admitted is not None and not self._admitted.is_set() and not self._checking:
            if token is None:
                self._end(Cause.UNAUTHENTICATED, POLICY_VIOLATION, 'The first message must be {"type":"auth"}')
                return True
        elif token is None:
            return False
        if self._checking:
            self._answer("A token is being checked already", ref_in(message))
        elif self._peer.closed is None:
            assert token is not None
            self._checking = True
            assert self._peer.nursery is not None, "messages are read while the handler's nursery is open"
            self._peer.nursery.start_soon(self._check, authenticator, token, ref_in(message))
        return True

    async def _check(self, authenticator: Authenticator, token: str, ref: Any) -> None:
        peer, first = self._peer, self._admitted is not None and not self._admitted.is_set()
        try:
            claims = await authenticator.authenticate(token)
        except AuthenticationError as error:
            if first:
                code = TRY_AGAIN_LATER if error.status == 503 else POLICY_VIOLATION
                self._end(Cause.UNAUTHENTICATED, code, fitting_reason(str(error)))
            else:
                self._answer(f"The token is not accepted: {error}", ref)
            return
        finally:
            self._checking = False
        if not first and user_key(claims) != user_key(peer.ws.user):
            self._answer("The token is not accepted: it is another user's", ref)
            return
        authenticator.admit(peer.ws.scope, claims)
        self._on_admitted()
        if first:
            assert self._admitted is not None
            self._admitted.set()
        if peer.closed is None:
            peer.put(encode({"type": "authenticated"} if ref is None else {"type": "authenticated", "ref": ref}))

    def _answer(self, text: str, ref: Any) -> None:
        if self._peer.closed is None:
            self._peer.put(encode(error_answer(text, ref)))

    def _end(self, cause: Cause, code: int, reason: str) -> None:
        self._peer.end(CloseInfo(cause, code, reason))


def screening_for(
    peer: WebSocketPeer[Any], shared: Sequence[SharedBucket], on_admitted: Callable[[], None]
) -> Screening | None:
    """The screening of a connection; `None` where all may pass, so that it costs nothing there."""
    limits = peer.limits
    authenticator: Authenticator | None = peer.ws.scope.get("verbtrio.auth")
    if limits.max_messages_per_second is None and not shared and authenticator is None:
        return None
    bucket = None
    if limits.max_messages_per_second is not None:
        bucket = Bucket(limits.max_messages_per_second, limits.message_burst)
    return Screening(peer, bucket, shared, authenticator, on_admitted)


class _Auth(msgspec.Struct, tag_field="type", tag="auth"):
    token: str


_auth = msgspec.json.Decoder(_Auth)


def token_in(message: str | bytes) -> str | None:
    """The token, where `message` is an object whose `type` is "auth" and whose `token` is a text."""
    if isinstance(message, bytes) or '"auth"' not in message:
        return None
    try:
        return _auth.decode(message).token
    except (msgspec.DecodeError, RecursionError, UnicodeError):
        return None
