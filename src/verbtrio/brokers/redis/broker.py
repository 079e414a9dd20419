"""`RedisBroker`: rooms that span processes and machines."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from verbtrio.brokers.base import Broker, Process, Session
from verbtrio.brokers.redis.dialing import quiet_coredis
from verbtrio.brokers.redis.servers import parse_url
from verbtrio.brokers.redis.session import RedisSession
from verbtrio.brokers.redis.settings import Settings
from verbtrio.brokers.redis.upkeep import CLOSE_SECONDS, Upkeep


class RedisBroker(Broker):
    """Connects all processes of an application by Redis (6.2 or newer) or Valkey.

    While Redis can't be reached, members of a room who are in the same process go on hearing each other; what has to
    reach others raises `BrokerUnavailable`, or is dropped and reported as missed. When it is back, rooms with a history
    get what they have missed.

    Args:
        url: `redis://host:6379/0`; `rediss://user:password@host:6379` for TLS; `unix:///run/redis.sock`;
            `redis+sentinel://host1:26379,host2:26379/name` for what sentinels watch; `redis+cluster://host:6379`.
        prefix: what all keys and channels begin with. Applications with the same one share rooms and users.
        ssl_context: for `rediss://`; by default one that checks the server's certificate and name by the system's
            authorities.
        timeout: seconds until Redis must have answered; else it is taken for away.
        max_pending_bytes: what may be on its way to Redis at a time. Beyond it `publish` and `send_user`
            raise, and broadcasts to other processes, and messages that nobody waits for, are dropped.
        buffer_bytes: what may wait while Redis is away: published messages and broadcasts then go out when it is back.
            By default nothing waits.

    Raises:
        ValueError: the URL names no Redis, or a bound makes no sense.
    """

    spans_processes = True

    def __init__(
        self,
        url: str,
        *,
        prefix: str = "verbtrio",
        ssl_context: ssl.SSLContext | None = None,
        timeout: float = 2.0,
        max_pending_bytes: int = 16 * 1024 * 1024,
        buffer_bytes: int = 0,
    ) -> None:
        self._settings = Settings(prefix, timeout, max_pending_bytes, buffer_bytes)
        self._servers = parse_url(url, ssl_context)

    def __repr__(self) -> str:
        return f"RedisBroker({self._servers.shown!r})"

    @asynccontextmanager
    async def session(self, process: Process) -> AsyncIterator[Session]:
        """See `Broker`. Its nursery has a task for the connection, which has those of `Upkeep`, and one for the timers.

        If Redis can't be reached, the session begins all the same, and `health` says so.

        Raises:
            AuthenticationError: Redis does not take the user or the password (coredis's, in an `ExceptionGroup`).
            ValueError: what the URL names is something else: too old, without the certificate that it should have, a
                cluster or none (in an `ExceptionGroup`).
        """
        quiet_coredis()
        upkeep = Upkeep(process, self._servers, self._settings)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(upkeep.timers.run)
            # The link has to live on for a moment when the block is cancelled: so its scope is shielded, and ends with
            # the block, at the latest `CLOSE_SECONDS` after it.
            scope = trio.CancelScope()
            try:
                await nursery.start(upkeep.run_in, scope)
                scope.shield = True  # not before: what is cancelled while it begins ends at once
                upkeep.open()
                yield RedisSession(process, upkeep)
            finally:
                with trio.move_on_after(CLOSE_SECONDS, shield=True):
                    await upkeep.close()
                scope.cancel()
                nursery.cancel_scope.cancel()
