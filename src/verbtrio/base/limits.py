"""The limits of connections, in one frozen place. Every default is safe to deploy with."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, Literal, Self

from verbtrio.base.types import Shared

KIB = 1024
MIB = 1024 * KIB


class _Named(Shared):
    """Remembers which of its arguments were given."""

    __slots__ = ("_named",)
    _named: frozenset[str]

    def __new__(cls, *args: Any, **named: Any) -> Self:
        made = object.__new__(cls)
        in_order = [field.name for field in fields(cls)[: len(args)]]  # type: ignore[arg-type]  # a dataclass below
        object.__setattr__(made, "_named", frozenset((*in_order, *named)))
        return made


@dataclass(frozen=True, slots=True)
class Limits(_Named):
    """What connections may cost. Sizes are bytes, times are seconds, `None` is no limit.

    An app's limits hold for all of its groups and routes. One with limits of its own changes those that it names, and
    keeps the others. What is counted for more than one connection (`max_connections`, and all that end in `_per_client`
    or `_per_user`) counts all of the app's (in one worker) and, where a group or a route names it, also that group's or
    route's, by itself.

    Raises:
        ValueError: a limit is not positive, or the high-water mark is over the backlog's limit.
    """

    max_connections: int | None = None
    """How many there may be at once; the next is denied with 503."""
    max_connections_per_client: int | None = None
    """How many may come from one address (for IPv6: one /64); the next is denied with 429. Behind a reverse proxy
    that is the proxy's, unless `App(trusted_proxies=...)` names it."""
    max_connections_per_user: int | None = None
    """How many one user may have (see `app.users`); the next is denied with 429, or closed with 1013 where the user
    becomes known only later."""
    max_tcp_connections_per_client: int | None = None
    """How many TCP connections there may be from one address (for IPv6: one /64), whatever they are for: WebSockets,
    requests, or nothing at all. The next is answered with 429 and closed, or under TLS closed, before any work is done
    for it. Those of `App(trusted_proxies=...)` are not counted. The app's counts."""
    max_connections_per_second_per_client: float | None = None
    """How often one address may connect, on average, WebSockets and event streams together; the next is denied with
    429, and `Retry-After` says when there will be room. What is denied, for this or another reason, does not count."""
    connection_burst: int = 20
    """How many connections may come at once, where there is a `max_connections_per_second_per_client`."""
    max_rooms: int | None = 1000
    """How many rooms a connection may be in; `ws.join` raises `LimitExceeded` for the next."""
    max_messages_per_second: float | None = None
    """How fast a peer may send, on average. A message over it is answered with an error message and otherwise
    ignored; as many as `message_burst` over it, without a pause, end the connection with 1008."""
    max_messages_per_second_per_client: float | None = None
    """How fast all connections of one address together may send. What is over it is refused on whichever connection it
    comes; only one that sends too fast all by itself is ended, as above. Connecting again brings no new burst."""
    max_messages_per_second_per_user: float | None = None
    """The same for all connections of one user (see `app.users`), wherever they come from."""
    message_burst: int = 100
    """How many messages may come at once, where there is one of these rates; of a client or a user, a second's worth
    where that is more."""
    message_timeout: float = 60.0
    """How long a peer may take to finish a message, or a control frame, that it has begun, and a second more for each
    KiB of it that has come, up to those of the largest message; then the connection ends with 1008. Time in which we
    do not read does not count. `math.inf`: for as long as peers like."""
    handshake_timeout: float = 10.0
    """How long a connection's first request may take to come, TLS handshake and all (hypercorn's `keep_alive_timeout`
    and `ssl_handshake_timeout` may give it less); and how long middleware may take to answer an upgrade request, which
    is then denied with 503. The app's counts."""
    max_message_bytes: int = 1 * MIB
    """The largest message taken, after decompression; over it the connection ends with 1009."""
    max_bad_messages: int | None = None
    """How many messages a peer may send that are not what the handler takes. Each is answered with an error message;
    the next one after these ends the connection, too, with 1008."""
    max_inbox_messages: int = 64
    """Received messages the handler has not taken yet; at this number the peer is not read any further."""
    max_inbox_bytes: int = 256 * KIB
    """The same, in bytes. (What one read brought is kept whole, so both may be passed by one read.)"""
    high_water_bytes: int = 64 * KIB
    """`await ws.send()` waits while more than this is queued for the peer."""
    max_backlog_bytes: int = 1 * MIB
    """What may be queued for a peer that reads too slowly, 64 bytes more for each message; over it, `backlog_policy`
    decides."""
    backlog_policy: Literal["close", "drop_oldest", "drop_newest"] = "close"
    """`close`: the connection ends with 1008. The others drop messages, counted in `ws.dropped`."""
    send_timeout: float = 10.0
    """How long one write (64 KiB at most) may wait for the peer to read; then the connection ends with 1008."""
    http_send_timeout: float = 60.0
    """How long an HTTP response may wait for a client that takes nothing at all of it; then the connection is closed
    (over HTTP/2 the stream is reset). One that reads slowly has all the time it needs. `math.inf`: for as long as
    clients like. A `Stream(send_timeout=...)` with more time has it. The app's counts."""
    http_receive_timeout: float = 60.0
    """How long an application waits for 4 KiB more of a request's body, or the end of it; then the request is answered
    with 408, or cut off where an answer has begun. One that sends slowly but steadily has all the time it needs.
    `math.inf`: for as long as clients like. The app's counts."""
    close_timeout: float = 5.0
    """How long a clean close waits for what is queued to be written and for the peer's Close frame."""
    hook_timeout: float = 5.0
    """How long leave, error and close hooks may take, all together, when a connection ends."""

    def __post_init__(self) -> None:
        for name in self.__slots__:
            value = getattr(self, name)
            if isinstance(value, int | float) and not value > 0:
                raise ValueError(f"Limits.{name} must be more than 0, not {value!r}")
        for name in ("message_burst", "connection_burst"):
            if getattr(self, name) < 1:
                raise ValueError(f"Limits.{name} must be 1 at least, not {getattr(self, name)!r}")
        if self.high_water_bytes > self.max_backlog_bytes:
            raise ValueError("Limits.high_water_bytes must not be more than Limits.max_backlog_bytes")
        if self.backlog_policy not in ("close", "drop_oldest", "drop_newest"):
            raise ValueError(
                f"Limits.backlog_policy must be 'close', 'drop_oldest' or 'drop_newest', not {self.backlog_policy!r}"
            )

    def override(self, own: Limits | None) -> Limits:
        """These limits, with those that `own` names in their places.

        Raises:
            ValueError: they don't go together.
        """
        if own is None:
            return self
        return replace(self, **{name: getattr(own, name) for name in own._named})

    def counted_by(self, own: Limits) -> Limits:
        """These limits, for a count of its own: of what is counted for several connections only what `own` names."""
        not_its_own: dict[str, Any] = {
            field.name: None for field in fields(self) if _is_shared(field.name) and field.name not in own._named
        }
        return replace(self, **not_its_own)


def _is_shared(name: str) -> bool:
    return name == "max_connections" or name.endswith(("_per_client", "_per_user"))
