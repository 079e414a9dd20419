"""An open connection to Redis, or one to each node of a cluster.

Commands are written in the order of the calls, several at once, without waiting for the answers; so what one task
sends is carried out in order, and a thousand commands cost one round trip. The same connection brings what is published
(RESP3 has both on one), in the order in which Redis has done everything.

In a cluster each key and each channel belongs to a slot, and each slot to a node: what is sent goes to that one. What
is published stays there, too (sharded publish and subscribe). So what has one hash tag is in order; the rest need not
be.

A link has two tasks for each connection: one takes the answers, one what is published. Whatever goes wrong ends the
link as a whole: the session then makes a new one, and brings it up to date. In a cluster that is so, too, if a slot
moves, or one node of many is away: then nothing has to be known of nodes, and nothing is done by halves.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from functools import partial
from typing import Any

import trio
from coredis.exceptions import (
    BusyLoadingError,
    NoScriptError,
    ReadOnlyError,
    RedisClusterError,
    RedisError,
)
from coredis.exceptions import (
    ConnectionError as RedisConnectionError,
)

from verbtrio.base.errors import BrokerUnavailable
from verbtrio.brokers.redis.echoes import Echoes
from verbtrio.brokers.redis.listening import Listening
from verbtrio.brokers.redis.ordering import Ordering
from verbtrio.brokers.redis.pipe import Pipe
from verbtrio.brokers.redis.reply import Reply
from verbtrio.brokers.redis.script import Script
from verbtrio.brokers.redis.scripts import ALL
from verbtrio.brokers.redis.servers import Nodes
from verbtrio.brokers.redis.slots import slot_of

logger = logging.getLogger("verbtrio.brokers.redis")

ANSWERS_A_TURN = 64
"""How many answers are taken before other tasks have their turn."""
UNUSABLE = (RedisConnectionError, BusyLoadingError, NoScriptError, ReadOnlyError, RedisClusterError)
"""What tells that a connection does not lead to a primary that can be used, or no more."""
COMMAND_BYTES = 100
"""What a command costs beside its arguments, at least."""


Tell = Callable[[Pipe, Sequence[bytes]], None]


class LinkLost(Exception):  # noqa: N818 -- a state
    """The link can't be used any more. Its text says why."""


class Link:
    """Commands to Redis, and what is published.

    Args:
        timeout: seconds until an answer must have come.
        echo: gives channels on which only this process listens, by a number: one for each connection is used.
        published: called with the channel and the message, for each that comes.

    Attributes:
        pending_bytes: what is on its way, and not answered.
        processes: how many processes live, as of the latest heartbeat.
    """

    def __init__(self, timeout: float, echo: Callable[[int], bytes], published: Callable[[bytes, bytes], None]) -> None:
        self.pending_bytes = 0
        self.processes = 1
        self._timeout = timeout
        self._published = published
        self._pipes: list[Pipe] = []
        self._slots: Sequence[int] | None = None
        self._listening = Listening()
        self._ordering = Ordering()
        self._echoes = Echoes(echo)
        self._lost = trio.Event()
        self._reason = ""
        self._is_over = False

    # What is sent: nothing here blocks

    def call(
        self,
        script: Script,
        keys: Sequence[bytes],
        *arguments: bytes | str | int,
        then: Callable[[Any, BrokerUnavailable | None], None] | None = None,
    ) -> Reply:
        """Have a script run. See `Reply` for `then`."""
        pipe = self._pipe(keys[0])
        return self._send(pipe, b"EVALSHA", (script.sha, len(keys), *keys, pipe.publish, *arguments), then)

    def command(
        self,
        name: bytes,
        key: bytes,
        *arguments: bytes | str | int,
        then: Callable[[Any, BrokerUnavailable | None], None] | None = None,
    ) -> Reply:
        """Have a command run that begins with a key, or with a channel."""
        return self._send(self._pipe(key), name, (key, *arguments), then)

    def command_first(self, name: bytes, key: bytes, *arguments: bytes | str | int) -> None:
        """Have a command carried out before what is sent from now on, on other nodes, too."""
        if self._slots is None:
            self.command(name, key, *arguments)
            return

        def then(answer: Any, error: BrokerUnavailable | None) -> None:
            if error is not None:
                self.lose(str(error))
            self._ordering.end()

        self._ordering.begin()
        self._write(self._pipe(key), name, (key, *arguments), Reply(0, then))

    def command_last(self, name: bytes, key: bytes, *arguments: bytes | str | int, wanted: Callable[[], bool]) -> None:
        """Have a command carried out after what was sent so far, on other nodes, too, if it is still `wanted` then."""
        if self._slots is None:
            self.command(name, key, *arguments)
            return
        missing = len(self._pipes)

        def then(answer: Any, error: BrokerUnavailable | None) -> None:
            nonlocal missing
            missing -= 1
            if not missing and error is None and wanted():
                self._write(self._pipe(key), name, (key, *arguments), Reply(0))

        for pipe in self._pipes:
            self._send(pipe, b"PING", (), then)

    def publish(
        self, channel: bytes, message: bytes, *, then: Callable[[Any, BrokerUnavailable | None], None] | None = None
    ) -> Reply:
        """Publish a message. The answer is how many connections have got it."""
        pipe = self._pipe(channel)
        return self._send(pipe, pipe.publish, (channel, message), then)

    def others(self, receivers: int) -> int:
        """How many other processes have got what `publish` has sent to all: it comes back here, too."""
        return max(0, receivers - 1)

    def subscribe(self, channels: Sequence[bytes]) -> None:
        """Have what is published there come: it does from before the next command for the same slot is carried out."""
        if self._slots is not None:
            self._listening.add(channels)
        self._tell(Pipe.subscribe, channels)

    def unsubscribe(self, channels: Sequence[bytes]) -> None:
        """Have it come no more."""
        if self._slots is not None:
            self._listening.discard(channels)
        self._tell(Pipe.unsubscribe, channels)

    @property
    def is_usable(self) -> bool:
        """Whether what is sent is carried out, as far as is known. If not, all sending does nothing."""
        return not self._is_over and not self._lost.is_set()

    async def wait_answered(self) -> None:
        """Wait until all that was sent so far is carried out.

        Raises:
            BrokerUnavailable: the link is lost.
        """
        for reply in [self._send(pipe, b"PING", (), None) for pipe in self._pipes]:
            await reply

    async def echo(self) -> None:
        """Publish a message to this process itself, by each connection, and wait until all have come."""
        for channel in self._echoes.begin():
            self.publish(channel, b"")
        await self._echoes.wait()

    def lose(self, reason: str) -> None:
        """End the link: something is wrong with it."""
        if not self._lost.is_set():
            self._reason = reason
            self._lost.set()

    async def wait_lost(self) -> None:
        """Wait until the link is to end.

        Raises:
            LinkLost: always, unless cancelled.
        """
        await self._lost.wait()
        raise LinkLost(self._reason)

    def _pipe(self, key: bytes) -> Pipe:
        return self._pipes[0 if self._slots is None else self._slots[slot_of(key)]]

    def _send(
        self,
        pipe: Pipe,
        name: bytes,
        arguments: Sequence[bytes | str | int],
        then: Callable[[Any, BrokerUnavailable | None], None] | None,
    ) -> Reply:
        size = COMMAND_BYTES + sum(len(each) if isinstance(each, bytes | str) else 8 for each in arguments)
        reply = Reply(size, then)
        self.pending_bytes += size
        self._ordering.do(partial(self._write, pipe, name, arguments, reply))
        return reply

    def _write(self, pipe: Pipe, name: bytes, arguments: Sequence[bytes | str | int], reply: Reply) -> None:
        try:
            if self.is_usable:
                pipe.send(name, arguments, reply, self._timeout)
        except RedisConnectionError as error:
            self.lose(f"the connection was lost: {error}")
        if not self.is_usable:
            self.pending_bytes -= reply.size
            reply.resolve(None, BrokerUnavailable("the connection to Redis was lost"))

    def _tell(self, tell: Tell, channels: Sequence[bytes]) -> None:
        by_pipe: dict[Pipe, list[bytes]] = {}
        for channel in channels:
            by_pipe.setdefault(self._pipe(channel), []).append(channel)
        for pipe, its in by_pipe.items():
            self._ordering.do(partial(self._tell_now, tell, pipe, its))

    def _tell_now(self, tell: Tell, pipe: Pipe, channels: Sequence[bytes]) -> None:
        if self.is_usable:
            try:
                tell(pipe, channels)
            except RedisConnectionError as error:
                self.lose(f"the connection was lost: {error}")

    # What comes

    @asynccontextmanager
    async def running(self, nodes: Nodes) -> AsyncIterator[None]:
        """Use these connections for as long as the block, which is cancelled when the link is lost.

        Raises:
            LinkLost: in an `ExceptionGroup`.
        """
        self._slots = nodes.slots
        self._pipes = [Pipe(connection, is_sharded=nodes.slots is not None) for connection in nodes.connections]
        try:
            async with trio.open_nursery() as nursery:
                for pipe in self._pipes:
                    nursery.start_soon(self._take_answers, pipe)
                    nursery.start_soon(self._take_messages, pipe)
                with trio.fail_after(self._timeout):
                    for load in [
                        pipe.connection.create_request(b"SCRIPT LOAD", script.text.encode())
                        for pipe in self._pipes
                        for script in ALL
                    ]:
                        await load
                self.subscribe(list(self._echoes.choose(self._pipe, len(self._pipes))))
                nursery.start_soon(self.wait_lost)
                yield
                nursery.cancel_scope.cancel()
        finally:
            self._is_over = True
            for pipe in self._pipes:
                pipe.fail(BrokerUnavailable("the connection to Redis was lost"))

    async def _take_answers(self, pipe: Pipe) -> None:
        while True:
            await pipe.wait_waiting()
            for _ in range(min(ANSWERS_A_TURN, len(pipe.waiting))):
                request, reply = pipe.waiting[0]
                value: Any = None
                error: BrokerUnavailable | None = None
                try:
                    value = await request
                except UNUSABLE as lost:
                    raise LinkLost(f"{type(lost).__name__}: {lost}") from lost
                except TimeoutError as lost:
                    raise LinkLost(f"no answer within {self._timeout:g} s") from lost
                except RedisError as refused:
                    if not reply.is_awaited:  # what it was to do is not done: begin anew
                        raise LinkLost(f"{type(refused).__name__}: {refused}") from refused
                    error = BrokerUnavailable(f"Redis refused a command: {refused}")
                pipe.waiting.popleft()
                self.pending_bytes -= reply.size
                reply.resolve(value, error)
            await trio.lowlevel.checkpoint()

    async def _take_messages(self, pipe: Pipe) -> None:
        try:
            async with aclosing(pipe.connection.push_messages) as messages:
                async for message in messages:
                    self._take(message)
        except RedisConnectionError as error:
            raise LinkLost(f"the connection was lost: {error}") from error

    def _take(self, message: Sequence[Any]) -> None:
        kind, channel = message[0], message[1]
        if kind in (b"message", b"smessage"):
            if self._echoes.take(channel):
                return
            try:
                self._published(channel, message[2])
            except Exception:  # a bug of ours, or a message that is not ours: the next ones come all the same
                logger.exception("a message of %r could not be taken", bytes(channel)[:200])
        elif kind == b"sunsubscribe" and channel is not None and not self._listening.ended(channel):
            raise LinkLost("a slot has moved to another node")
