"""One process's session with Redis."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import trio

from verbtrio.base.errors import BrokerUnavailable
from verbtrio.base.position import Position
from verbtrio.brokers.base import Process, Session
from verbtrio.brokers.records import Health, History, Lease, Page, Presences, PresentConnection, Usage
from verbtrio.brokers.redis.gaps import read_pages
from verbtrio.brokers.redis.items import encode_item
from verbtrio.brokers.redis.outgoing import Ticket
from verbtrio.brokers.redis.presence_scripts import PRESENT
from verbtrio.brokers.redis.records import connections_of, users_of
from verbtrio.brokers.redis.upkeep import Upkeep
from verbtrio.messages.frame import Frame


class RedisSession(Session):
    """One process's session. All its asynchronous methods but `publish` wait for Redis: if cancelled, what was asked
    may have been done or not."""

    def __init__(self, process: Process, upkeep: Upkeep) -> None:
        self._process = process
        self._upkeep = upkeep
        self._names = upkeep.names

    @property
    def node(self) -> str:
        return self._upkeep.origin

    # Messages

    def broadcast(self, room: str, frame: Frame, exclude: Collection[str], exclude_user: str | None) -> None:
        data = encode_item(frame, trio.current_time(), is_broadcast=True, exclude=exclude, exclude_user=exclude_user)
        self._upkeep.outgoing.broadcast(room, data, self._upkeep.link)

    async def publish(self, room: str, frame: Frame, history: History | None) -> Position | None:
        """See `Session`.

        Raises:
            BrokerUnavailable: Redis can't be reached, or too much is on its way to it. If the connection is lost
                meanwhile, the message may have been published all the same.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        ticket = Ticket()
        data = encode_item(frame, trio.current_time())
        if not self._upkeep.outgoing.publish(room, data, history, ticket, self._upkeep.link):
            self._upkeep.need()
            raise BrokerUnavailable("too much is on its way to Redis: RedisBroker(max_pending_bytes=) bounds it")
        return await ticket.wait()

    async def history(
        self, room: str, history: History, *, since: Position | None, limit: int | None, reverse: bool
    ) -> Page:
        link, known = self._upkeep.need(), self._upkeep.subscriptions.position(room)
        page = await read_pages(
            link, self._names, room, since=since, known=known, limit=limit, reverse=reverse, ttl=history.ttl
        )
        await self._upkeep.subscriptions.wait_reached(room, page.position, link)
        return page

    # Rooms

    def subscribe(self, room: str) -> None:
        self._upkeep.subscriptions.subscribe(room)

    def unsubscribe(self, room: str) -> None:
        self._upkeep.subscriptions.unsubscribe(room)

    async def wait_subscribed(self, room: str) -> None:
        await self._upkeep.subscriptions.wait(room)

    def counted(self, room: str, here: int) -> None:
        self._upkeep.subscriptions.counted(room, here)

    def elsewhere(self, room: str) -> int:
        return self._upkeep.subscriptions.elsewhere(room)

    async def count(self, room: str) -> int:
        counts = dict(await self._upkeep.need().command(b"HGETALL", self._names.counts(room)))
        counts.pop(self._upkeep.me.encode(), None)
        return self._process.count(room) + sum(map(int, counts.values()))

    # Presence

    def enter(self, room: str, connection: str, user: str, info: Any, details: Any = None) -> None:
        self._upkeep.presence.enter(room, connection, user, info, details)

    def update(self, room: str, connection: str, info: Any) -> None:
        self._upkeep.presence.update(room, connection, info)

    def exit(self, room: str, connection: str, grace: float) -> None:
        self._upkeep.presence.exit(room, connection, grace)

    async def presence(self, room: str) -> Presences:
        return users_of(await self._upkeep.need().call(PRESENT, [self._names.users(room)]))

    async def connections(self, room: str) -> dict[str, PresentConnection]:
        return connections_of(await self._upkeep.need().call(PRESENT, [self._names.connections(room)]))

    # Users

    async def send_user(self, user_id: str, frame: Frame) -> int:
        data = encode_item(frame, trio.current_time())
        return await self._upkeep.requests.ask(self._upkeep.need(), b"U", user_id, data)

    def send_user_nowait(self, user_id: str, frame: Frame) -> None:
        if (link := self._upkeep.link) is not None:
            self._upkeep.requests.tell(link, b"U", user_id, encode_item(frame, trio.current_time()))

    async def disconnect_user(self, user_id: str, code: int, reason: str) -> int:
        return await self._upkeep.requests.ask(self._upkeep.need(), b"D", user_id, b"%d" % code, reason.encode())

    def disconnect_user_nowait(self, user_id: str, code: int, reason: str) -> None:
        if (link := self._upkeep.link) is not None:
            self._upkeep.requests.tell(link, b"D", user_id, b"%d" % code, reason.encode())

    # One process

    async def forward(self, node: str, message: bytes, seconds: float) -> bytes | None:
        return await self._upkeep.forwards.ask(self._upkeep.need(), node, message, seconds)

    # Leases

    async def acquire(self, name: str, seconds: float) -> Lease | None:
        return await self._upkeep.leases.acquire(self._upkeep.need(), name, seconds)

    async def renew(self, lease: Lease, seconds: float) -> bool:
        return await self._upkeep.leases.renew(self._upkeep.need(), lease, seconds)

    async def release(self, lease: Lease) -> None:
        await self._upkeep.leases.release(self._upkeep.need(), lease)

    # Health

    @property
    def health(self) -> Health:
        return self._upkeep.health

    @property
    def usage(self) -> Usage:
        return Usage(presences=len(self._upkeep.presence))
