"""What a received message passes before the handler gets it: the rate limits, and the check for a token (`tokens`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from verbtrio.base.close import POLICY_VIOLATION, Cause, CloseInfo
from verbtrio.connection.answers import ref_in
from verbtrio.connection.peer import WebSocketPeer
from verbtrio.connection.tokens import MAX_AUTH_CHARACTERS, Authenticator, Tokens
from verbtrio.guards.rate import END, PASS, REFUSE, Bucket, Meter, SharedBucket, Verdict


class Screening:
    """One connection's screening, if it needs one (see `screening_for`).

    Args:
        peer: the connection.
        bucket: how fast the peer may send; `None`: as fast as it likes.
        shared: the buckets that it shares with other connections, as far as they are known.
        tokens: takes messages that are tokens; `None`: they are messages like others.
    """

    def __init__(
        self,
        peer: WebSocketPeer[Any],
        bucket: Bucket | None,
        shared: Sequence[SharedBucket],
        tokens: Tokens | None,
    ) -> None:
        self._peer = peer
        self._own = bucket
        self._shared = tuple(shared)
        self._bucket: Bucket | Meter | None = Meter(bucket, shared) if shared else bucket
        self._tokens = tokens
        self._warned = False
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
        tokens = self._tokens
        if tokens is None:
            return True
        if tokens.awaited is None and (
            isinstance(message, bytes) or len(message) > MAX_AUTH_CHARACTERS or '"auth"' not in message
        ):
            return True
        return not tokens.take(message)

    async def wait_admitted(self) -> bool:
        """See `Tokens.wait_admitted`."""
        return self._tokens is None or await self._tokens.wait_admitted()

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

    def _refuse(self, verdict: Verdict, message: str | bytes = b"") -> None:
        if verdict is END:
            self.is_flooded = True
            self._peer.end(CloseInfo(Cause.RATE, POLICY_VIOLATION, "Too many messages"))
        elif not self._warned:
            self._warned = True  # once: an answer to each would be a flood, too
            over = self._bucket.over if isinstance(self._bucket, Meter) else self._bucket
            assert over is not None, "something has refused it"
            of = over.of if isinstance(over, SharedBucket) else ""
            self._peer.answer_error(f"Too many messages: at most {over.per_second:g} a second{of}", ref_in(message))


def screening_for(
    peer: WebSocketPeer[Any], shared: Sequence[SharedBucket], on_admitted: Callable[[], None]
) -> Screening | None:
    """The screening of a connection; `None` where all messages pass, so that it costs nothing there.

    A dialect counts its commands and checks its tokens itself. (`JWTAuth(first_message_timeout=)` is not waited for
    then: whom middleware has let in without a token has no `user`.)

    Args:
        on_admitted: called when the connection's token was checked, or another one (see `Tokens`).
    """
    if peer.dialect is not None:
        return None
    limits = peer.limits
    authenticator: Authenticator | None = peer.ws.scope.get("verbtrio.auth")
    if limits.max_messages_per_second is None and not shared and authenticator is None:
        return None
    bucket = None
    if limits.max_messages_per_second is not None:
        bucket = Bucket(limits.max_messages_per_second, limits.message_burst)
    tokens = None if authenticator is None else Tokens(peer, authenticator, on_admitted)
    return Screening(peer, bucket, shared, tokens)
