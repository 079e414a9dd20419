"""What the broker's tests share: several processes, names that nobody else uses, and time."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import trio

from verbtrio.brokers.base import Broker, Session
from verbtrio.brokers.records import Presences
from verbtrio.messages.frame import Frame
from verbtrio.testing.recording import RecordingProcess

ODD_NAMES = (
    "",
    " ",
    "\0",
    "a",
    "a\0",
    "a\0b",
    "a\r\n",
    "A",
    "*",
    "?[a-z]\\",
    "{a}",
    "%61",
    "a:b",
    "a/b",
    "é",
    "e\N{COMBINING ACUTE ACCENT}",
    "\N{PILE OF POO}",
    "room:a",
    "history:a",
    "presence:a",
    "user:a",
    "lease:a",
    "verbtrio:a",
    "x" * 65536,
    "x" * 65535 + "y",
)
"""Names of rooms, users and leases which a broker might mix up, cut, or read as its own."""


@dataclass(frozen=True)
class Node:
    """One process of the application, as a test has it."""

    process: RecordingProcess
    session: Session

    async def subscribe(self, *rooms: str) -> None:
        """Subscribe to the rooms, and wait until that is so."""
        for room in rooms:
            self.session.subscribe(room)
        for room in rooms:
            await self.session.wait_subscribed(room)


class Checks:
    """What the tests stand on."""

    patience: float = 10.0
    """Seconds to wait for what should come at once."""
    quiet: float = 0.1
    """Seconds to wait for what should not come."""
    at_once: float = 3.0
    """Seconds within which all must know that a session has ended: that is no grace, and not the end of a lease."""
    odd_names: tuple[str, ...] = ODD_NAMES
    """Names that must not be mixed up. A broker adds those that look like its own keys and channels."""

    def brokers(self) -> AbstractAsyncContextManager[Callable[[], Broker]]:
        """Yield a function that returns a broker for one more process. All of a block share one back end.

        To be defined by the subclass, with `@asynccontextmanager`.
        """
        raise NotImplementedError

    @asynccontextmanager
    async def processes(self, count: int) -> AsyncIterator[list[Node]]:
        """So many processes, whose sessions are open."""
        async with self.brokers() as make, AsyncExitStack() as stack:
            yield [await stack.enter_async_context(self.opened(make())) for _ in range(count)]

    @asynccontextmanager
    async def opened(self, broker: Broker) -> AsyncIterator[Node]:
        """One process with its session, for as long as the block. The broker may not call it before or after."""
        process = RecordingProcess()
        async with broker.session(process) as session:
            process.is_open = True
            try:
                yield Node(process, session)
            finally:
                process.is_open = False
        assert process.mistakes == []

    @staticmethod
    def name(kind: str = "room") -> str:
        """A name that nobody else uses: the back end may remember those of earlier tests."""
        return f"{kind}-{secrets.token_hex(8)}"

    async def until(self, node: Node, condition: Callable[[RecordingProcess], bool]) -> None:
        """Wait until the condition holds for that process; it is asked after each call of the broker.

        Raises:
            trio.TooSlowError: it does not within `patience` seconds.
        """
        with trio.fail_after(self.patience):
            await node.process.until(lambda: condition(node.process))

    async def delivered(self, nodes: list[Node], room: str, count: int) -> None:
        """Wait until so many messages of the room have come to each of the processes."""
        for node in nodes:
            await self.until(node, lambda process: len(process.payloads(room)) >= count)

    async def eventually(self, condition: Callable[[], Awaitable[bool]]) -> None:
        """Ask again and again, until the condition holds.

        Raises:
            trio.TooSlowError: it does not within `patience` seconds.
        """
        with trio.fail_after(self.patience):
            while not await condition():
                await trio.sleep(0.01)

    async def present(self, node: Node, room: str, expected: Presences) -> None:
        """Wait until that is who is present in the room, as this process is told."""
        found: Presences | None = None
        with trio.move_on_after(self.patience):
            while (found := await node.session.presence(room)) != expected:
                await trio.sleep(0.01)
        assert found == expected


def text(payload: bytes | str) -> Frame:
    """A text message."""
    return Frame(payload.encode() if isinstance(payload, str) else payload, text=True)
