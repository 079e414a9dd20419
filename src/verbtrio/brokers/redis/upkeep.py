"""Keeps a process's link to Redis open, and brings each new one up to date.

Upkeep.run                  one task; for as long as the session
└─ link                     from connecting until anything goes wrong; then, after a pause, the next one
   ├─ answers, messages     see `Link`
   ├─ pump                  sends what has changed, and what was said, once a tick
   ├─ gap filler            reads histories
   ├─ echo                  finds a link that is too slow, or silent
   ├─ heartbeat             tells that this process lives, and finds the dead
   ├─ clearing              clears away after them
   └─ tidying               gives up the names of earlier links, once all is written under the new one
"""

from __future__ import annotations

import logging
import random
import secrets
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import NoReturn

import trio
from coredis.exceptions import AuthenticationError, RedisError

from verbtrio.base.errors import BrokerUnavailable
from verbtrio.base.timers import Timers
from verbtrio.brokers.base import Process
from verbtrio.brokers.records import Health
from verbtrio.brokers.redis.dialing import NotReached, WrongServer
from verbtrio.brokers.redis.forwards import Forwards
from verbtrio.brokers.redis.gaps import GapFiller
from verbtrio.brokers.redis.incoming import Incoming
from verbtrio.brokers.redis.leases import Leases
from verbtrio.brokers.redis.link import Link, LinkLost
from verbtrio.brokers.redis.liveness import Liveness
from verbtrio.brokers.redis.marks import Marks
from verbtrio.brokers.redis.names import Names
from verbtrio.brokers.redis.outgoing import Outgoing
from verbtrio.brokers.redis.presence import LocalPresence
from verbtrio.brokers.redis.requests import Requests
from verbtrio.brokers.redis.servers import Servers
from verbtrio.brokers.redis.settings import Settings
from verbtrio.brokers.redis.subscriptions import Subscriptions

logger = logging.getLogger("verbtrio.brokers.redis")

ECHO_SECONDS = 1.0
"""How often a process sends itself a message."""
FIRST_PAUSE, LONGEST_PAUSE = 0.05, 1.0
"""Seconds between two attempts to connect: doubled with each, at random between nothing and that."""
LASTING_SECONDS, LONGEST_REST = 5.0, 4.0
"""A link that has not lasted as long is an attempt like one that failed; only that the pauses get longer. So a cluster
whose slots move one after the other is not one reconnect for each."""
TROUBLES = (NotReached, WrongServer, RedisError, LinkLost, BrokerUnavailable, TimeoutError, trio.TooSlowError)
"""How an attempt to connect, or a link, may end."""
CLOSE_SECONDS = 3.0
"""How long the end of a session may take; after that others clear away."""
MAX_NAMES = 8
"""How many names of earlier links are remembered. What is left of an older one, others clear away."""


class Upkeep:
    """A process's link, and what it has in Redis.

    Args:
        process: is told what comes.
        servers: where Redis is.
        settings: the broker's.

    Attributes:
        origin: what this process's messages are marked with; for as long as the session.
        me: the name under which others clear away after it: another one on each link.
        before: the one that it had on the link before.
        link: the present link; `None` while there is none.
    """

    def __init__(self, process: Process, servers: Servers, settings: Settings) -> None:
        self.origin = secrets.token_hex(8)
        self.me = self.before = ""
        self._past: deque[str] = deque(maxlen=MAX_NAMES)
        self._begun: deque[str] = deque(maxlen=MAX_NAMES)  # of links that have not come so far as to have anything
        self.link: Link | None = None
        self.names = names = Names(settings.prefix)
        self.timers = Timers()
        self.liveness = Liveness(names)
        self.leases = Leases(names)
        self.marks = Marks(names, self._get_link, lambda: self.me)
        self.presence = LocalPresence(names, self._get_link, lambda: self.me, self.marks, self.timers)
        self.subscriptions = Subscriptions(
            process, names, self._get_link, lambda: self.me, lambda: self.before, self.marks, self.wake
        )
        self.gaps = GapFiller(process, names, self.subscriptions)
        self.subscriptions.on_read = self.gaps.wake
        self.outgoing = Outgoing(names, self.origin, self.subscriptions.position, settings, self.wake)
        self.requests = Requests(
            process, names, self.origin, self._get_link, settings.timeout, settings.max_pending_bytes
        )
        self.forwards = Forwards(process, names, self.origin, self._get_link, settings.max_pending_bytes)
        self.incoming = Incoming(process, names, self.origin, self.subscriptions, self.requests, self.forwards)
        self._servers = servers
        self._timeout = settings.timeout
        self._links = 0
        self._trouble = "not connected yet"
        self._news = trio.Event()
        self._is_told = trio.Event()  # whether the rooms are subscribed to, and counted, on the present link

    def _get_link(self) -> Link | None:
        return self.link

    def wake(self) -> None:
        """There is something to send."""
        self._news.set()

    def need(self) -> Link:
        """The link.

        Raises:
            BrokerUnavailable: there is none.
        """
        if self.link is None:
            raise BrokerUnavailable(f"Redis can't be reached: {self._trouble}")
        return self.link

    @property
    def health(self) -> Health:
        """How it is now."""
        return Health(self.link is not None, self._trouble, self.outgoing.dropped)

    def open(self) -> None:
        """The process may be told of what comes from now on."""
        self.requests.is_closed = self.forwards.is_closed = False

    async def run_in(self, scope: trio.CancelScope, *, task_status: trio.TaskStatus[None]) -> None:
        """`run` within this scope."""
        with scope:
            await self.run(task_status=task_status)

    async def run(self, *, task_status: trio.TaskStatus[None]) -> NoReturn:
        """Keep a link open until cancelled. `started` is called once there is one, or once the first attempt has
        failed.

        Raises:
            AuthenticationError: Redis does not take the user or the password, at the first attempt.
            WrongServer: what the URL names is something else, at the first attempt.
        """
        pause, is_first = FIRST_PAUSE, True
        started: Callable[[], None] | None = task_status.started
        while True:
            begun, since = self._links, trio.current_time()
            try:
                async with self._servers.connect(self._timeout) as nodes:
                    link = Link(self._timeout, partial(self.names.echo, self.origin), self.incoming.take)
                    async with link.running(nodes), trio.open_nursery() as nursery:
                        await self._begin(link, nursery)
                        if started is not None:
                            started()
                            started = None
                        await trio.sleep_forever()
            except* TROUBLES as group:
                error = _first(group)
                if is_first and isinstance(error, AuthenticationError | WrongServer):
                    raise error from None
                self._trouble = _text(error)
                if self._links > begun or is_first:
                    logger.warning("Redis at %s can't be reached: %s; trying again", self._servers.shown, self._trouble)
            except* Exception as bugs:  # ours, or coredis's: rooms go on in this process, and the next link may work
                self._trouble = _text(_first(bugs))
                logger.exception("the link to Redis at %s has failed; trying again", self._servers.shown)
            finally:
                self._lose()
            is_first = False
            if trio.current_time() > since + LASTING_SECONDS and self._links > begun:
                pause = FIRST_PAUSE
            else:
                pause = min(2 * pause, LONGEST_REST if self._links > begun else LONGEST_PAUSE)
            if started is not None:
                started()
                started = None
            await trio.sleep(random.uniform(0, pause))

    async def _begin(self, link: Link, nursery: trio.Nursery) -> None:
        """Bring a new link up to date."""
        link.subscribe([self.names.everybody, self.names.inbox(self.origin)])
        self._links += 1
        me = f"{self.origin}.{self._links}"
        self._begun.append(me)  # Redis may have it, whether it has answered or not
        await self.liveness.beat(link, me, is_new=True)
        for name in (*self._past, self.me):
            self.liveness.keep(link, name)  # what it has is moved to the new name: nobody may clear it away first
        with trio.fail_after(self._timeout):
            await link.echo()
        self._begun.remove(me)
        self.before, self.me = self.me, me
        if self.before:
            self._past.append(self.before)
        self.link = link
        if self._links > 1:
            logger.warning("Redis at %s is reached again", self._servers.shown)
        self._trouble = ""
        self.marks.resume()
        self.presence.resume(link)
        self.subscriptions.resume()
        self._is_told = trio.Event()
        nursery.start_soon(self._pump, link)
        nursery.start_soon(self.gaps.run, link)
        nursery.start_soon(self._echo, link)
        nursery.start_soon(self.liveness.run, link, self.me)
        nursery.start_soon(self.liveness.run_clearing, link)
        nursery.start_soon(self._tidy, link)

    def _lose(self) -> None:
        """There is no link."""
        if self.link is not None:
            self.link = None
            self.subscriptions.lost()
            self.requests.lost()
            self.forwards.lost()
        self.outgoing.lost()

    async def _pump(self, link: Link) -> NoReturn:
        """Send what has changed, and what was said. What is said in one tick goes together."""
        while True:
            await self._news.wait()
            self._news = trio.Event()
            if self.subscriptions.flush(link):
                self._news.set()
                await link.wait_answered()  # there may be any number of rooms
            else:
                self._is_told.set()
            self.outgoing.flush(link, lambda: list(self.subscriptions.rooms))

    async def _tidy(self, link: Link) -> None:
        """Give up the earlier names, once all is written under the new one: so who stays does not leave."""
        await self._is_told.wait()
        for names in (self._past, self._begun):
            while names:
                await self.liveness.leave(link, names[0])
                names.popleft()

    async def _echo(self, link: Link) -> NoReturn:
        """Find out whether what is published comes here in time. If it doesn't, this process is too slow, and what has
        not been read piles up: so it is dropped, and made up for, as after a lost connection."""
        while True:
            await trio.sleep(ECHO_SECONDS)
            with trio.move_on_after(self._timeout) as scope:
                await link.echo()
            if scope.cancelled_caught:
                raise LinkLost(f"what is published does not come within {self._timeout:g} s")

    async def close(self) -> None:
        """Give up what the process has. From its first moment on the process is told nothing any more."""
        self.subscriptions.close()
        self.requests.is_closed = self.forwards.is_closed = True
        try:
            if (link := self.link) is not None:
                self.outgoing.flush(link, list)
                self.leases.close(link)
                for name in (*self._past, *self._begun, self.me):
                    await self.liveness.leave(link, name)
                await self.liveness.end(link)
        except (BrokerUnavailable, LinkLost):
            logger.warning("Redis can't be reached: other processes remove what this one has in rooms")
        finally:
            self.outgoing.close()


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """One exception of a group: the most telling."""
    found: list[BaseException] = []
    waiting: list[BaseException] = [group]
    while waiting:
        error = waiting.pop(0)
        if isinstance(error, BaseExceptionGroup):
            waiting += error.exceptions
        else:
            found.append(error)
    return next((error for error in found if isinstance(error, AuthenticationError | WrongServer)), found[0])


def _text(error: BaseException) -> str:
    if isinstance(error, NotReached | WrongServer | LinkLost | BrokerUnavailable):
        return str(error)
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
