"""The hub: the registry of an app's connections, what they share, and their end. It lives as long as the app's
lifespan."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial

import trio

from verbtrio.base.close import PEERS_ENDS, TRY_AGAIN_LATER, Cause, CloseInfo
from verbtrio.base.counters import Counters
from verbtrio.base.limits import Limits
from verbtrio.base.threads import same_thread_check
from verbtrio.base.timers import Timers
from verbtrio.base.types import Waitable
from verbtrio.brokers.base import Broker, Session
from verbtrio.brokers.memory import MemoryBroker
from verbtrio.connection.lifecycle import Connection
from verbtrio.guards.quotas import Denial, Quotas, Slot, user_key
from verbtrio.http.event_subscriber import CLIENT_GONE, SubscriberPeer
from verbtrio.hub.drain import CUT_SECONDS, Drain, Drainable, Streaming
from verbtrio.hub.flusher import Flusher
from verbtrio.hub.gaps import Gaps
from verbtrio.hub.process import HubProcess
from verbtrio.hub.statistics import Statistics
from verbtrio.hub.users import Users, UserTable
from verbtrio.messages.frame import Encode, encode
from verbtrio.multiplex.emulation import Emulation
from verbtrio.multiplex.news import ConnectionNews
from verbtrio.multiplex.present_clients import PresentClients
from verbtrio.multiplex.streamed import StreamedClients
from verbtrio.rooms.host import RoomHost
from verbtrio.rooms.leases import Leases
from verbtrio.rooms.member import Member, Peer
from verbtrio.rooms.room import Room
from verbtrio.rooms.rules import RoomTable
from verbtrio.rooms.task_table import RoomTaskTable

EVERYBODY = ("verbtrio", "connections")
"""The room of all connections. (The names of an application's rooms are text.)"""


class Hub:
    """One app's connections, rooms and users. Made by `open_hub`."""

    def __init__(
        self,
        nursery: trio.Nursery,
        session: Session,
        *,
        drain_timeout: float,
        limits: Limits,
        room_table: RoomTable,
        encode: Encode = encode,
        shared: bool = False,
        may_miss: bool = False,
    ) -> None:
        self.nursery = nursery
        self.room_table = room_table
        self.timers = Timers()
        self._drain = Drain(drain_timeout)
        self._drain_timeout = drain_timeout
        self._watched: set[int] = set()
        self._ended: Counter[str] = Counter()
        self._refused: Counter[int] = Counter()
        self.counters = Counters()
        self.check = same_thread_check()
        """Raises `RuntimeError` in any other thread."""
        self.user_table = UserTable()
        self.users = Users(self.user_table, session, self.check, encode)
        self._flusher = Flusher(self.check, self.user_table.members, encode)
        self.rooms = self._flusher.rooms
        self.poller = self._flusher.poller
        self.quotas = Quotas(limits)
        self.leases = Leases(session)
        self.room_tasks = RoomTaskTable(
            nursery.start_soon,
            self.timers,
            self.counters,
            lambda name: Room(self.rooms, name),
            lambda name, info: self.rooms.dismiss(name, None, info),
            self.leases,
            limits.max_rooms_with_tasks,
        )
        self.host = RoomHost(
            self.rooms, room_table, session, self.room_tasks, self.timers, shared=shared, may_miss=may_miss
        )
        self.gaps = Gaps(self.rooms, self.host, self.timers, self.counters, self.room_tasks.handle, limits.hook_timeout)
        self._may_miss = may_miss
        self.client_news = ConnectionNews(self.timers)
        self.present_clients = PresentClients(self)
        self.streamed_clients = StreamedClients(session.node)
        self.emulation = Emulation(self.streamed_clients, session, nursery)
        self.host.connection_news = self.client_news.tell
        self.rooms.host = self.host
        self.rooms.asks = shared or bool(room_table)
        self.rooms.relays = shared

    @property
    def draining(self) -> bool:
        """Whether the server shuts down: nobody is let in any more."""
        return self._drain.begun

    @property
    def until_drain(self) -> trio.CancelScope:
        """Cancelled when the drain begins: for what ends before the connections do."""
        return self._drain.until

    @property
    def connections(self) -> Room:
        """All connections, whatever their route: for broadcasts."""
        return Room(self.rooms, EVERYBODY)

    def statistics(self) -> Statistics:
        self.check()  # another thread would see the figures of several moments
        named = [key for key in self.rooms if isinstance(key, str)]
        counters, usage, health = self.counters, self.host.session.usage, self.host.session.health
        return Statistics(
            connections=len(self._drain.connections),
            rooms=len(named),
            memberships=sum(len(self.rooms.members(key)) for key in named),
            users=len(self.users),
            ended=dict(self._ended),
            streams=len(self._drain.streams),
            opened=counters.opened,
            refused=dict(self._refused),
            received=counters.received,
            sent=counters.sent,
            dropped=counters.dropped,
            invalid=counters.invalid,
            room_tasks=self.room_tasks.running,
            room_task_failures=counters.room_task_failures,
            resumes=counters.resumes,
            history_gaps=counters.history_gaps,
            missed=counters.missed,
            broker_connected=health.is_connected,
            broker_dropped=health.dropped,
            histories=usage.histories,
            history_bytes=usage.history_bytes,
            presences=usage.presences,
        )

    # The registry. A connection is in every list before its handler's first line runs, and in none from the moment it
    # begins to end.

    def enter(self, connection: Connection) -> None:
        self.counters.opened += 1
        self._drain.enter(connection)

    def admit(self, connection: Connection) -> bool:
        peer, ws = connection.peer, connection.peer.ws
        if peer.closed is not None:  # gone already, but it had sent a token: its messages may be handled
            return peer.closed.cause in PEERS_ENDS
        if peer.dialect is not None:  # it has its client admitted, once that is known
            return True
        user_id = user_key(ws.user)  # known only now, if the first message had the token
        if (full := self.admit_client(ws, peer, connection.slot, user_id)) is not None:
            peer.end(CloseInfo(Cause.RATE, TRY_AGAIN_LATER, full.message))
            return False
        connection.user_id = user_id
        return True

    def leave(self, connection: Connection) -> None:
        peer, ws = connection.peer, connection.peer.ws
        assert peer.closed is not None
        self._drain.leave(connection)
        self._ended[peer.closed.cause] += 1
        if peer.dialect is None:
            self.leave_client(ws, connection.user_id)

    def forget(self, connection: Connection) -> None:
        connection.slot.leave(trio.current_time())
        self._drain.forget(connection)

    def admit_client(self, member: Member, peer: Peer, slot: Slot, user_id: str | None) -> Denial | None:
        """Put a client into the rooms of everybody and of its route, and among its user's connections. If its user has
        too many, return the answer; then nothing has changed.

        Whoever calls this checks that the client has not ended, with no await in between, and calls `leave_client` when
        it does.

        Args:
            member: what applications hold of it. Its scope has its route (`"verbtrio.route"`).
            slot: its connection's, which counts for the user from now on.
            user_id: `None` for an anonymous client.
        """
        assert peer.closed is None, "one that has ended would stay in the lists for ever"
        if (full := slot.take(trio.current_time(), user=user_id)) is not None:
            return full
        self.rooms.join(EVERYBODY, member, peer)
        self.rooms.join(member.scope["verbtrio.route"], member, peer)
        if user_id is not None:
            self.user_table.add(user_id, member, peer)
        return None

    def leave_client(self, member: Member, user_id: str | None) -> None:
        """Undo `admit_client`, but for the slot, which the connection gives back. One that was not admitted is in no
        list: then this does nothing."""
        self.rooms.leave(EVERYBODY, member)
        self.rooms.leave(member.scope["verbtrio.route"], member)
        if user_id is not None:
            self.user_table.remove(user_id, member)

    def enter_stream(self, stream: Streaming) -> None:
        """A client that an HTTP response carries has come. It is drained with the others, at once if the drain has
        begun, and counted."""
        self.counters.opened += 1
        self._drain.enter_stream(stream)

    def leave_stream(self, stream: Streaming, info: CloseInfo) -> None:
        """It has begun to end; called once, at that moment."""
        self._drain.streams.discard(stream)
        self._ended[info.cause] += 1

    def start(self) -> None:
        """Start what all connections share, in the hub's nursery."""
        self.nursery.start_soon(self.timers.run)
        self.nursery.start_soon(self._flusher.run)
        if self.poller is not None:
            self.nursery.start_soon(self.poller.run)
        if self._may_miss:
            self.nursery.start_soon(self.gaps.run)

    @contextmanager
    def subscribing(self, peer: SubscriberPeer, room: str, since: str | None) -> Iterator[None]:
        """Register a subscriber in `room` and with its user until it ends, at the latest when the block is left.
        What is left of the join is `peer.settling` from then on.

        Args:
            since: the client's `Last-Event-ID`.

        Raises:
            Denied, LimitExceeded: the room's settings do not let it in.
        """
        subscriber = peer.subscriber
        user_id = user_key(subscriber.user)
        peer.settling = self.host.joins.join(
            room,
            subscriber,
            peer,
            user=user_id or subscriber.id,
            since=since if self.host.history_of(room) is not None else None,
            resuming=peer,
            on_refused=peer.refused,
        )
        if user_id is not None:
            self.user_table.add(user_id, subscriber, peer)
        peer.on_end = partial(self._leave_subscriber, peer, room, user_id)
        self.enter_stream(peer)
        try:
            yield
        finally:
            peer.end(CLIENT_GONE)

    def _leave_subscriber(self, peer: SubscriberPeer, room: str, user_id: str | None, info: CloseInfo) -> None:
        self.rooms.leave(room, peer.subscriber, may_return=True)
        if user_id is not None:
            self.user_table.remove(user_id, peer.subscriber)
        self.leave_stream(peer, info)

    def add_session(self, session: Drainable) -> None:
        """Drain `session` with the connections."""
        self._drain.add_session(session)

    def discard_session(self, session: Drainable) -> None:
        """The session has ended, or has become a connection of ours."""
        self._drain.discard_session(session)

    def count_answer(self, status: int) -> None:
        """An upgrade request was answered with `status` (0: its client had left before)."""
        if status not in (0, 101):
            self._refused[status] += 1

    def watch(self, terminated: Waitable) -> None:
        """Drain when `terminated` is set: the worker's event, which comes before its grace period begins."""
        if id(terminated) not in self._watched:
            self._watched.add(id(terminated))
            self.nursery.start_soon(self._drain_when, terminated)

    @trio.lowlevel.enable_ki_protection
    async def _drain_when(self, terminated: Waitable) -> None:
        await terminated.wait()
        await self.drain()

    async def drain(self) -> None:
        """End everything: the rooms' tasks first, since nobody would hear what they say later. See `Drain.run`."""
        self.gaps.close()
        self.room_tasks.close(self._drain_timeout)
        await self._drain.run()


@asynccontextmanager
async def open_hub(
    *,
    drain_timeout: float,
    limits: Limits,
    room_table: RoomTable,
    encode: Encode = encode,
    broker: Broker | None = None,
) -> AsyncIterator[Hub]:
    """An open hub. On the way out its connections are drained; then its tasks are cancelled, and its session with the
    broker ends.

    If a task of the hub fails, the lifespan ends, and the worker with it: without that task nothing would work.

    Args:
        broker: what other processes may share; `None`: one of its own, in memory.
    """
    process = HubProcess()
    shared, may_miss = broker is not None, broker is not None and broker.spans_processes
    broker = MemoryBroker(max_history_bytes=limits.max_history_bytes) if broker is None else broker
    async with broker.session(process) as session, trio.open_nursery() as nursery:
        hub = Hub(
            nursery,
            session,
            drain_timeout=drain_timeout,
            limits=limits,
            encode=encode,
            room_table=room_table,
            shared=shared,
            may_miss=may_miss,
        )
        process.host, process.users = hub.host, hub.user_table
        process.emulation, process.leases, process.gaps = hub.emulation, hub.leases, hub.gaps
        hub.start()
        try:
            yield hub
        finally:
            with trio.move_on_after(drain_timeout + 2 * CUT_SECONDS, shield=True):
                await hub.drain()
                await hub.room_tasks.wait_ended()
            nursery.cancel_scope.cancel()
