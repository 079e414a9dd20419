"""The limits of connections. Every default is safe to deploy with."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, Literal, Self

from verbtrio.base.types import Shared

KIB = 1024
MIB = 1024 * KIB
HISTORY_BYTES = 64 * MIB


class _Named(Shared):
    """Remembers which arguments it was made with."""

    __slots__ = ("_named",)
    _named: frozenset[str]

    def __new__(cls, *args: Any, **named: Any) -> Self:
        made = object.__new__(cls)
        in_order = [field.name for field in fields(cls)[: len(args)]]  # type: ignore[arg-type]  # a dataclass below
        object.__setattr__(made, "_named", frozenset((*in_order, *named)))
        return made


@dataclass(frozen=True, slots=True)
class Limits(_Named):
    """What connections may cost. Sizes are in bytes, times in seconds; `None` means no limit.

    An app's limits apply to all of its groups and routes. A group or route with its own `Limits` changes those that it
    names and keeps the others. Limits shared by several connections (`max_connections`, and all that end in
    `_per_client` or `_per_user`) count all of the app's connections in one worker. If a group or a route names one, its
    own connections are also counted separately.

    Raises:
        ValueError: a limit is not positive, or `high_water_bytes` exceeds `max_backlog_bytes`.
    """

    max_connections: int | None = None
    """How many connections there may be at once; the next is denied with 503."""
    max_connections_per_client: int | None = None
    """How many connections there may be from one address (for IPv6: one /64); the next is denied with 429. Behind a
    reverse proxy that is the proxy's address, unless `App(trusted_proxies=...)` names the proxy."""
    max_connections_per_user: int | None = None
    """How many connections one user may have (see `app.users`); the next is denied with 429, or closed with 1013 if the
    user becomes known only later."""
    max_tcp_connections_per_client: int | None = None
    """How many TCP connections there may be from one address (for IPv6: one /64), whether they carry WebSockets,
    requests, or nothing at all. The next is answered with 429 and closed (under TLS just closed) before any work is
    done for it. Those of `App(trusted_proxies=...)` are not counted. Only the app's own limit applies."""
    max_connections_per_second_per_client: float | None = None
    """How often one address may open WebSockets and event streams, on average; the next is denied with 429, and
    `Retry-After` says when there will be room. What is denied, for whatever reason, does not count."""
    connection_burst: int = 20
    """How many connections may come at once, if there is a `max_connections_per_second_per_client`."""
    max_rooms: int | None = 1000
    """How many rooms a connection may be in; `ws.join` raises `LimitExceeded` for the next."""
    max_rooms_with_tasks: int | None = 10_000
    """How many rooms may have tasks of their own (`app.room_task`) at once, those whose tasks linger included; a join
    of another one raises `RoomUnavailable`. Only the app's own limit applies."""
    max_calls: int | None = 32
    """How many calls of one client may run at once; the next is answered with an error (111)."""
    call_timeout: float = 30.0
    """How long a call may run whose caller has not said how long it waits; it may run longer by 1/32 of that.
    `math.inf`: no limit."""
    max_history_bytes: int = HISTORY_BYTES
    """What the histories of all rooms (`app.rooms(history=...)`) may cost together, about 200 bytes for each message
    among them; beyond it the oldest messages of all rooms are forgotten first. Only the app's own limit applies."""
    max_messages_per_second: float | None = None
    """How fast a peer may send, on average. A message over the limit is answered with an error message and otherwise
    ignored; `message_burst` of them without a pause end the connection with 1008."""
    max_messages_per_second_per_client: float | None = None
    """How fast all connections from one address together may send. A message over the limit is refused, whichever
    connection it comes on; only a connection that sends too fast by itself is ended, as above. Reconnecting does not
    bring a new burst."""
    max_messages_per_second_per_user: float | None = None
    """The same for all connections of one user (see `app.users`), wherever they come from."""
    message_burst: int = 100
    """How many messages may come at once, if there is one of these rates. For a client or a user it is at least a
    second's worth."""
    message_timeout: float = 60.0
    """How long a peer may take to finish a message, or a control frame, that it has begun, and a second more for each
    KiB of it that has come, up to the largest message's size; then the connection ends with 1008. Time in which we do
    not read does not count. `math.inf`: no limit."""
    handshake_timeout: float = 10.0
    """How long a connection's first request may take to come, including the TLS handshake (hypercorn's
    `keep_alive_timeout` and `ssl_handshake_timeout` may allow less); and how long middleware may take to answer an
    upgrade request, which is then denied with 503. Only the app's own limit applies."""
    max_message_bytes: int = 1 * MIB
    """The size of the largest message taken, after decompression; a larger one ends the connection with 1009."""
    max_bad_messages: int | None = None
    """How many messages a peer may send that the handler does not take. Each is answered with an error message; the
    one after these also ends the connection, with 1008."""
    max_inbox_messages: int = 64
    """How many received messages may wait for the handler; at this number the peer is not read any further."""
    max_inbox_bytes: int = 256 * KIB
    """The same, in bytes. (What one read brings is kept whole, so one read may exceed both.)"""
    high_water_bytes: int = 64 * KIB
    """`await ws.send()` waits while more than this is queued for the peer."""
    max_backlog_bytes: int = 1 * MIB
    """How much may be queued for a peer that reads too slowly, counting 64 bytes more for each message; beyond that
    `backlog_policy` decides."""
    backlog_policy: Literal["close", "drop_oldest", "drop_newest", "latest"] = "close"
    """`close` ends the connection with 1008. `drop_oldest` and `drop_newest` drop messages. `latest` replaces a queued
    message by a newer one with the same key (`room.broadcast(..., key=)`), and over the limit does what `close` does.
    `ws.dropped` counts what was dropped or replaced."""
    send_timeout: float = 10.0
    """How long one write (64 KiB at most) may wait for the peer to read; then the connection ends with 1008."""
    http_send_timeout: float = 60.0
    """How long an HTTP response may wait for a client that takes nothing of it; then the connection is closed (over
    HTTP/2 the stream is reset). A client that reads slowly has all the time it needs. A longer
    `Stream(send_timeout=...)` takes precedence. `math.inf`: no limit. Only the app's own limit applies."""
    http_receive_timeout: float = 60.0
    """How long an application waits for 4 KiB more of a request's body, or its end; then the request is answered with
    408, or cut off if an answer has begun. A client that sends slowly but steadily has all the time it needs.
    `math.inf`: no limit. Only the app's own limit applies."""
    close_timeout: float = 5.0
    """How long a clean close waits until the queue is written and the peer's Close frame has come."""
    hook_timeout: float = 5.0
    """How long leave, error and close hooks may take in total when a connection ends."""

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
        if self.backlog_policy not in ("close", "drop_oldest", "drop_newest", "latest"):
            raise ValueError(
                "Limits.backlog_policy must be 'close', 'drop_oldest', 'drop_newest' or 'latest', "
                f"not {self.backlog_policy!r}"
            )

    def override(self, own: Limits | None) -> Limits:
        """These limits, with those that `own` names replaced.

        Raises:
            ValueError: the result is not valid.
        """
        if own is None:
            return self
        return replace(self, **{name: getattr(own, name) for name in own._named})

    def counted_by(self, own: Limits) -> Limits:
        """These limits for a separate count: of those shared by several connections, only what `own` names."""
        not_its_own: dict[str, Any] = {
            field.name: None for field in fields(self) if _is_shared(field.name) and field.name not in own._named
        }
        return replace(self, **not_its_own)


def _is_shared(name: str) -> bool:
    return name == "max_connections" or name.endswith(("_per_client", "_per_user"))
