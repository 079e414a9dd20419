"""Leases: one holder, and a fence that counts up."""

from __future__ import annotations

import trio

from verbtrio.brokers.records import Lease
from verbtrio.testing.broker_checks import Checks, Node


class LeaseChecks(Checks):
    """`acquire`, `renew`, `release`."""

    async def taken(self, node: Node, name: str, seconds: float) -> Lease:
        """Wait for the lease."""
        with trio.fail_after(self.patience):
            while (lease := await node.session.acquire(name, seconds)) is None:
                await trio.sleep(0.01)
        return lease

    async def test_one_holder(self) -> None:
        """Until it is given back."""
        name, other_name = self.name("lease"), self.name("lease")
        async with self.processes(2) as (one, other):
            first = await one.session.acquire(name, 60)
            assert first is not None
            assert first.name == name
            assert await other.session.acquire(name, 60) is None
            assert await one.session.acquire(name, 60) is None
            assert await other.session.acquire(other_name, 60) is not None
            await one.session.release(first)
            second = await other.session.acquire(name, 60)
            assert second is not None
            assert second.fence > first.fence
            # What was given back is nobody's: it can't be renewed, nor given back again.
            assert not await one.session.renew(first, 60)
            await one.session.release(first)
            assert await one.session.acquire(name, 60) is None
            assert await other.session.renew(second, 60)

    async def test_only_one_of_many_gets_it(self) -> None:
        """They ask at the same time, in all processes."""
        name, leases = self.name("lease"), []

        async def acquire(node: Node) -> None:
            leases.append(await node.session.acquire(name, 60))

        async with self.processes(3) as nodes:
            for _ in range(5):
                leases.clear()
                async with trio.open_nursery() as nursery:
                    for node in nodes * 4:
                        nursery.start_soon(acquire, node)
                (lease,) = [lease for lease in leases if lease is not None]
                await nodes[0].session.release(lease)

    async def test_fences_count_up(self) -> None:
        """Whoever holds it, and however it is lost."""
        name, fences = self.name("lease"), []
        async with self.processes(2) as nodes:
            for number in range(6):
                lease = await self.taken(nodes[number % 2], name, 60 if number % 3 else 0.05)
                fences.append(lease.fence)
                if number % 3:
                    await nodes[number % 2].session.release(lease)
        assert fences == sorted(set(fences))

    async def test_a_lost_lease(self) -> None:
        """Its time is over, and another has taken it: who had it is told, and can't do that one harm."""
        name = self.name("lease")
        async with self.processes(2) as (one, other):
            begin = trio.current_time()
            first = await one.session.acquire(name, 0.2)
            assert first is not None
            second = await self.taken(other, name, 60)
            assert trio.current_time() - begin > 0.2 * 0.9
            assert second.fence > first.fence
            assert not await one.session.renew(first, 60)
            await one.session.release(first)
            assert await one.session.acquire(name, 60) is None
            assert await other.session.renew(second, 60)

    async def test_an_expired_lease_is_lost(self) -> None:
        """Even if nobody has taken it."""
        name = self.name("lease")
        async with self.processes(1) as (one,):
            first = await one.session.acquire(name, 0.05)
            assert first is not None
            await trio.sleep(0.05 + self.quiet)
            assert not await one.session.renew(first, 60)
            await one.session.release(first)
            second = await one.session.acquire(name, 60)
            assert second is not None
            assert second.fence > first.fence

    async def test_renewed(self) -> None:
        """It is kept for as long as was said last, from then on: longer, or shorter."""
        name = self.name("lease")
        async with self.processes(2) as (one, other):
            first = await one.session.acquire(name, self.patience)
            assert first is not None
            assert await one.session.renew(first, 0.1)
            second = await self.taken(other, name, 1.0)
            begin = trio.current_time()
            if await other.session.renew(second, self.patience * 10):
                await trio.sleep(1.0 + self.quiet)
                assert await one.session.acquire(name, 60) is None
                assert await other.session.renew(second, 60)
            else:
                assert trio.current_time() - begin > 0.9  # a machine that busy shows nothing

    async def test_all_are_told_of_one_that_is_given_back(self) -> None:
        """And whoever is told can have it: one that is released, or that a session had at its end."""
        name, other_name = self.name("lease"), self.name("lease")
        async with self.brokers() as make, self.opened(make()) as one:
            async with self.opened(make()) as other:
                lease = await other.session.acquire(name, 60)
                assert lease is not None
                assert await other.session.acquire(other_name, 60) is not None
                await other.session.release(lease)
                await self.until(one, lambda process: name in process.free_leases)
                assert await one.session.acquire(name, 60) is not None
                assert other_name not in one.process.free_leases
            await self.until(one, lambda process: other_name in process.free_leases)
            await self.taken(one, other_name, 60)

    async def test_leases_are_not_mixed_up(self) -> None:
        """Whatever their names."""
        async with self.processes(2) as (one, other):
            leases = [await one.session.acquire(name, 60) for name in self.odd_names]
            assert [lease and lease.name for lease in leases] == list(self.odd_names)
            for lease in leases:
                assert lease is not None
                assert await other.session.acquire(lease.name, 60) is None
                await one.session.release(lease)
