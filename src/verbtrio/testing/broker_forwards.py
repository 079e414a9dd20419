"""What one process passes on to another."""

from __future__ import annotations

from collections.abc import Callable

import trio

from verbtrio.testing.broker_checks import Checks, Node


class ForwardChecks(Checks):
    """`node`, `forward`, `Process.forwarded`."""

    async def test_each_process_has_a_name(self) -> None:
        """Of its own, which stays, and which can stand anywhere."""
        async with self.processes(3) as nodes:
            names = [node.session.node for node in nodes]
            assert len(set(names)) == 3
            assert all(name.isascii() and name.isalnum() and len(name) <= 64 for name in names)
            await trio.sleep(self.quiet)
            assert [node.session.node for node in nodes] == names

    async def test_forward(self) -> None:
        """One process gets it, whatever the bytes, and answers."""
        messages = [b"", b"a", b"\0\xff\r\n", b"x" * 2**20, b"again", b"again"]
        async with self.processes(3) as (one, two, three):
            two.process.answers = lambda message, answer: answer(message[::-1][:65536])
            for message in messages:
                answer = await one.session.forward(two.session.node, message, self.patience)
                assert answer == message[::-1][:65536]
            assert two.process.messages == messages
            assert one.process.messages == three.process.messages == []

    async def test_in_order(self) -> None:
        """What is passed on before something is answered comes in the order of the calls."""
        answers: list[Callable[[bytes], None]] = []
        found: list[bytes | None] = []

        async def forward(number: int) -> None:
            found.append(await one.session.forward(two.session.node, b"%d" % number, self.patience))

        async with self.processes(2) as (one, two):
            two.process.answers = lambda message, answer: answers.append(answer)
            async with trio.open_nursery() as nursery:
                for number in range(10):
                    nursery.start_soon(forward, number)
                    await self.until(two, lambda process: len(process.messages) == number + 1)  # noqa: B023 -- waited for
                assert two.process.messages == [b"%d" % number for number in range(10)]
                for number in reversed(range(10)):  # each gets its own answer, whenever it comes
                    answers[number](b"%d" % number)
            assert {int(answer or b"") for answer in found} == set(range(10))

    async def test_an_answer_is_waited_for(self) -> None:
        """For so long, and no longer; one that comes later goes to nobody."""
        answers: list[Callable[[bytes], None]] = []
        async with self.processes(2) as (one, two):
            two.process.answers = lambda message, answer: answers.append(answer)
            assert await one.session.forward(two.session.node, b"slow", 0.1) is None
            await self.until(two, lambda process: len(process.messages) == 1)
            answers[0](b"late")
            two.process.answers = lambda message, answer: answer(b"in time")
            assert await one.session.forward(two.session.node, b"next", self.patience) == b"in time"

    async def test_nobody_of_that_name(self) -> None:
        """Whatever the name; and it is known at once, without waiting."""
        async with self.processes(2) as (one, two):
            name = two.session.node
            for odd in (*self.odd_names, name[:-1], name + "0", name.upper() + "A", f"{name}}}:m", "\ud800", "0" * 16):
                with trio.fail_after(self.patience):
                    assert await one.session.forward(odd, b"a", 1000 * self.patience) is None
            await trio.sleep(self.quiet)
            assert one.process.messages == two.process.messages == []

    async def test_one_that_has_ended(self) -> None:
        """It gets nothing, and nobody waits for it."""
        async with self.brokers() as make, self.opened(make()) as one:
            async with self.opened(make()) as two:
                name = two.session.node
                assert await one.session.forward(name, b"abc", self.patience) == b"cba"
            await self._is_gone(one, name)

    async def _is_gone(self, node: Node, name: str) -> None:
        with trio.fail_after(self.patience):
            while await node.session.forward(name, b"a", 0.1) is not None:
                await trio.sleep(0.01)
