"""How many connections there may be in total, from one client and of one user; and the rates that they share. Pure."""

from __future__ import annotations

import ipaddress
import math
from collections import Counter
from collections.abc import Hashable
from typing import Any, NamedTuple

from verbtrio.base.limits import Limits
from verbtrio.guards.rate import Buckets, SharedBucket

IPV6_CLIENT_BITS = 64
"""An IPv6 client is identified by its network: a host with one address of a /64 has all of them (RFC 6177)."""


class Denial(NamedTuple):
    """The answer to a connection over a limit."""

    status: int
    """The HTTP status to answer with, before the upgrade."""
    message: str
    retry_after: int = 5
    """Seconds after which to try again: for a rate, when there will be room; otherwise a guess."""


ALL = ("all",)
"""The key that every connection counts towards."""
FULL = Denial(503, "Too many connections")
FULL_FOR_CLIENT = Denial(429, "Too many connections from your address")
FULL_FOR_USER = Denial(429, "Too many connections of one user")
TOO_FAST = "Too many new connections from your address"


class Quotas:
    """Counts the connections of an app, or of a route with its own limits, and holds the rate limits they share."""

    def __init__(self, limits: Limits) -> None:
        self._everybody = limits.max_connections
        self._per_client = limits.max_connections_per_client
        self._per_user = limits.max_connections_per_user
        self._taken: Counter[Hashable] = Counter()
        self._connecting = _buckets(limits.max_connections_per_second_per_client, limits.connection_burst, "")
        burst = limits.message_burst
        self._from_client = _buckets(limits.max_messages_per_second_per_client, burst, " from your address", whole=True)
        self._of_user = _buckets(limits.max_messages_per_second_per_user, burst, " from one user", whole=True)

    def __len__(self) -> int:
        """How many keys are counted now; 0 if there are no connections."""
        return len(self._taken)

    def counts(self, client: Hashable, user: Hashable) -> list[tuple[Hashable, int, Denial]]:
        """What a connection of `client` and `user` counts towards: keys, each with its limit and the answer beyond
        it."""
        found: list[tuple[Hashable, int, Denial]] = []
        if self._everybody is not None:
            found.append((ALL, self._everybody, FULL))
        if self._per_client is not None and client is not None:
            found.append((("client", client), self._per_client, FULL_FOR_CLIENT))
        if self._per_user is not None and user is not None:
            found.append((("user", user), self._per_user, FULL_FOR_USER))
        return found

    def shared(self, client: Hashable, user: Hashable) -> list[tuple[Buckets, Hashable]]:
        """The rates that a connection of `client` and `user` shares with others: tables, each with its key."""
        found: list[tuple[Buckets, Hashable]] = []
        if self._from_client is not None and client is not None:
            found.append((self._from_client, client))
        if self._of_user is not None and user is not None:
            found.append((self._of_user, user))
        return found


class Slot:
    """One connection's place among the app's connections, and among those of its route.

    `take` and `leave` are synchronous, so nothing runs between the check and the count.
    """

    __slots__ = ("_among", "_begun", "_held", "_shared")

    def __init__(self, *among: Quotas) -> None:
        self._among = among
        self._begun = False
        self._held: tuple[tuple[Quotas, Hashable], ...] = ()  # an empty list would take 56 bytes, for most connections
        self._shared: tuple[tuple[Buckets, SharedBucket], ...] = ()

    @property
    def buckets(self) -> list[SharedBucket]:
        """The shared rates that the connection's messages count towards."""
        return [bucket for _, bucket in self._shared]

    def take(self, now: float, *, client: Hashable = None, user: Hashable = None) -> Denial | None:
        """Take the place. If there is none, return the answer and take nothing.

        Call it again once the user becomes known: what is held is not taken twice, and a connection counts towards its
        client's rate the first time only.

        Args:
            now: in seconds, on the same clock in all calls.
        """
        wanted = [
            (quotas, *count)
            for quotas in self._among
            for count in quotas.counts(client, user)
            if (quotas, count[0]) not in self._held
        ]
        for quotas, key, limit, full in wanted:
            if quotas._taken[key] >= limit:
                return full
        if not self._begun and client is not None and (wait := self._wait_to_connect(client, now)) > 0.0:
            return Denial(429, TOO_FAST, math.ceil(wait))
        self._begun = True
        for quotas, key, _, _ in wanted:
            quotas._taken[key] += 1
            self._held += ((quotas, key),)
        for quotas in self._among:
            for buckets, key in quotas.shared(client, user):
                if not any(held is buckets and bucket.key == key for held, bucket in self._shared):
                    self._shared += ((buckets, buckets.share(key, now)),)
        return None

    def _wait_to_connect(self, client: Hashable, now: float) -> float:
        """Seconds until `client` may connect. If that is 0, it is counted."""
        tables = [quotas._connecting for quotas in self._among if quotas._connecting is not None]
        if not tables:
            return 0.0
        connecting = [(buckets, buckets.share(client, now)) for buckets in tables]
        wait = max(bucket.wait(now) for _, bucket in connecting)
        for buckets, bucket in connecting:
            if wait == 0.0:
                bucket.passes(now)
            buckets.leave(bucket, now)
        return wait

    def release(self) -> None:
        """Give back what is held for the client and the user. The connection still counts among all."""
        self._give_back(tuple([held for held in self._held if held[1] != ALL]))

    def leave(self, now: float) -> None:
        """Give the place back. Leaving twice does nothing."""
        for buckets, bucket in self._shared:
            buckets.leave(bucket, now)
        self._shared = ()
        self._give_back(self._held)

    def _give_back(self, places: tuple[tuple[Quotas, Hashable], ...]) -> None:
        self._held = tuple([held for held in self._held if held not in places])
        for among, key in places:
            among._taken[key] -= 1
            if not among._taken[key]:
                del among._taken[key]


def _buckets(per_second: float | None, burst: int, of: str, *, whole: bool = False) -> Buckets | None:
    """The table of a rate; `None` without a limit. With `whole`, the burst is at least a second's worth."""
    if per_second is None or per_second == math.inf:
        return None
    return Buckets(per_second, max(burst, math.ceil(per_second)) if whole else burst, of)


def client_key(client: Any) -> str | None:
    """The key of a client: its address, for IPv6 its network; `None` if there is no address.

    Args:
        client: ASGI's `scope["client"]`.
    """
    if not client:
        return None
    host = str(client[0])
    if ":" not in host:  # IPv4 has one spelling
        return host
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(ipaddress.IPv6Network((int(address), IPV6_CLIENT_BITS), strict=False))
    return str(address)


def user_key(user: Any) -> str | None:
    """The key of a user: the `id` or `sub` of a dict (a token's claims), the attribute `id`, or the user itself."""
    if user is None:
        return None
    if isinstance(user, dict):
        key = user.get("id", user.get("sub"))
    else:
        key = getattr(user, "id", user if isinstance(user, str | int) else None)
    return None if key is None else str(key)
