"""One connection of a link, and what has been asked of it, in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import anyio
import trio
from coredis.connection import BaseConnection
from coredis.exceptions import ConnectionError as RedisConnectionError

from verbtrio.base.errors import BrokerUnavailable
from verbtrio.brokers.redis.names import to_bytes
from verbtrio.brokers.redis.reply import Reply
from verbtrio.brokers.redis.scripts import ALL


class Pipe:
    """One connection.

    Args:
        connection: to Redis.
        is_sharded: whether it leads to a node of a cluster, where what is published stays on its slot's node.

    Attributes:
        waiting: the requests that are not answered, each with its reply. What may be sent is bounded by whoever sends.
        publish: the command that publishes there.
    """

    def __init__(self, connection: BaseConnection, *, is_sharded: bool) -> None:
        self.connection = connection
        self.is_sharded = is_sharded
        self.publish = b"SPUBLISH" if is_sharded else b"PUBLISH"
        self.waiting: deque[tuple[Any, Reply]] = deque()
        self._has_waiting = trio.Event()

    def load_scripts(self) -> list[Awaitable[Any]]:
        """Send all scripts. Returns the answers, to be awaited in their order."""
        return [self.connection.create_request(b"SCRIPT LOAD", script.text.encode()) for script in ALL]

    def send(self, name: bytes, arguments: Sequence[bytes | str | int], reply: Reply, timeout: float) -> None:
        """Send a command.

        Raises:
            coredis.exceptions.ConnectionError: the connection is lost. Nothing was sent.
        """
        with _open():
            request = self.connection.create_request(name, *map(_encoded, arguments), timeout=timeout, decode=False)
        self.waiting.append((request, reply))
        self._has_waiting.set()

    def subscribe(self, channels: Sequence[bytes]) -> None:
        """Have what is published there come, from before the next command is carried out.

        Raises:
            coredis.exceptions.ConnectionError: the connection is lost.
        """
        self._tell(b"SUBSCRIBE", channels)

    def unsubscribe(self, channels: Sequence[bytes]) -> None:
        """Have it come no more.

        Raises:
            coredis.exceptions.ConnectionError: the connection is lost.
        """
        self._tell(b"UNSUBSCRIBE", channels)

    def _tell(self, command: bytes, channels: Sequence[bytes]) -> None:
        # What is answered is a message. Only a refusal is an answer, and the next command gets it. That one is about
        # the same slot, so it would be refused, too: the link ends either way.
        with _open():
            if not self.is_sharded:
                self.connection.send_command(command, *channels)
                return
            for channel in channels:  # one command may name channels of one slot only
                self.connection.send_command(b"S" + command, channel)

    async def wait_waiting(self) -> None:
        """Wait until something is to be answered."""
        if not self.waiting:
            self._has_waiting = trio.Event()
            await self._has_waiting.wait()

    def fail(self, error: BrokerUnavailable) -> None:
        """There will be no more answers."""
        while self.waiting:
            self.waiting.popleft()[1].resolve(None, error)


def _encoded(argument: bytes | str | int) -> bytes | int:
    """coredis would encode text only when it writes it: what has no form in UTF-8 would end the connection."""
    return to_bytes(argument) if isinstance(argument, str) else argument


@contextmanager
def _open() -> Iterator[None]:
    """A connection that is just being closed is lost, too: coredis lets anyio say so."""
    try:
        yield
    except (anyio.BrokenResourceError, anyio.ClosedResourceError) as error:
        raise RedisConnectionError("the connection is closed") from error
