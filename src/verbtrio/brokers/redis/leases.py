"""Leases in Redis."""

from __future__ import annotations

from verbtrio.brokers.records import Lease
from verbtrio.brokers.redis.fields import pack
from verbtrio.brokers.redis.link import Link
from verbtrio.brokers.redis.names import Names, to_bytes
from verbtrio.brokers.redis.process_scripts import ACQUIRE, RELEASE, RENEW
from verbtrio.brokers.redis.reply import Reply


class Leases:
    """The leases that this process holds."""

    def __init__(self, names: Names) -> None:
        self._names = names
        self._held: dict[str, Lease] = {}

    async def acquire(self, link: Link, name: str, seconds: float) -> Lease | None:
        """See `Session`. If cancelled, the lease may have been taken; then it is over after its time."""
        keys = [self._names.lease(name), self._names.fence(name)]
        if not (fence := int(await link.call(ACQUIRE, keys, _milliseconds(seconds)))):
            return None
        lease = self._held[name] = Lease(name, fence)
        return lease

    async def renew(self, link: Link, lease: Lease, seconds: float) -> bool:
        """See `Session`."""
        is_kept = bool(await link.call(RENEW, [self._names.lease(lease.name)], lease.fence, _milliseconds(seconds)))
        if not is_kept:
            self._forget(lease)
        return is_kept

    async def release(self, link: Link, lease: Lease) -> None:
        """See `Session`. If cancelled, the lease is given back all the same."""
        self._forget(lease)
        await self._give_back(link, lease)

    def close(self, link: Link) -> None:
        """Give all of them back."""
        for lease in self._held.values():
            self._give_back(link, lease)
        self._held.clear()

    def _give_back(self, link: Link, lease: Lease) -> Reply:
        """Give the lease back, and tell all processes; in this order, whether somebody waits for the answer or not."""
        reply = link.call(RELEASE, [self._names.lease(lease.name)], lease.fence)
        link.publish(self._names.everybody, pack((b"L", to_bytes(lease.name))))
        return reply

    def _forget(self, lease: Lease) -> None:
        if self._held.get(lease.name) == lease:
            del self._held[lease.name]


def _milliseconds(seconds: float) -> int:
    return max(1, round(seconds * 1000))
