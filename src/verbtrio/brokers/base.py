"""The broker's interface: what connects an application's processes.

    Broker                what `App(broker=...)` is given
    └─ Session            one process's connection to it, open for as long as the hub
       └─ Process         what the broker calls in that process

Rules for those who write a broker (`verbtrio.testing.brokers` checks them):
- What is synchronous takes an instant, never blocks, and never raises for a broker that can't be reached: it is queued
  within a bound, or dropped, which `Process.missed` reports.
- What is asynchronous is a checkpoint (`publish` and `send_user`, which are called often, give way to other tasks at
  least now and then). It may raise `BrokerUnavailable`. If it does, or is cancelled, it has been done as a whole or not
  at all.
- Calls to a `Process` come in the Trio task that suits the broker, never before `session` has yielded, and never after
  its block has ended. They may come from within a call of the session: `enter` may call `changed`.
- A process may be told of rooms that it has not subscribed to.
- A room's name is any text. What the framework calls its own rooms can't collide with an application's names.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

import trio

from verbtrio.base.position import Position
from verbtrio.brokers.records import (
    ConnectionChange,
    Health,
    History,
    Lease,
    Page,
    PresenceChange,
    Presences,
    PresentConnection,
    Usage,
)
from verbtrio.messages.frame import Frame


class Process(Protocol):
    """What a broker calls in a process: its hub. Nothing here raises or blocks."""

    def deliver(self, room: str, frame: Frame, position: Position | None) -> None:
        """A message for the members that are here. `position`: its place in the history, if the room has one."""

    def relay(self, room: str, frame: Frame, exclude: Collection[str], exclude_user: str | None) -> None:
        """A broadcast of another process's, for the members that are here but those with these ids, or of this
        user."""

    def missed(self, room: str) -> None:
        """Messages for the room may have been lost on the way here, and can't be made up for. Called before anything
        that was said after them is delivered."""

    def missed_changes(self, room: str) -> None:
        """Changes of who is present in the room may have been lost on the way here."""

    def changed(self, room: str, change: PresenceChange) -> None:
        """Who is present in the room has changed."""

    def connection_changed(self, room: str, change: ConnectionChange) -> None:
        """A connection has come into the room, or has gone: once when it first enters, and once when it goes, which it
        does at once, whatever the grace of its user. One that enters as another user goes and comes. Its user's join
        is told before its own, its user's leave after its own."""

    def count(self, room: str) -> int:
        """How many members are here."""

    def send_user(self, user_id: str, frame: Frame) -> int:
        """A message for the connections of this user that are here; returns how many."""

    def disconnect_user(self, user_id: str, code: int, reason: str) -> int:
        """End the connections of this user that are here; returns how many."""

    def forwarded(self, message: bytes, answer: Callable[[bytes], None]) -> None:
        """Another process has passed this on. `answer` is called once, now or later, with 64 KiB at most; it neither
        raises nor blocks, and does nothing where nobody waits for it any more."""

    def released(self, name: str) -> None:
        """A lease was given back, in this process or another: who waits for it may try. (Of one whose time is over
        nobody is told.)"""


class Session(ABC):
    """One process's connection to a broker."""

    @property
    @abstractmethod
    def node(self) -> str:
        """This process's name, for as long as the session: no other ever has the same. 64 letters and digits at most,
        all of ASCII. Clients learn it."""

    # Messages

    @abstractmethod
    def broadcast(self, room: str, frame: Frame, exclude: Collection[str], exclude_user: str | None) -> None:
        """Relay a broadcast to the other processes."""

    @abstractmethod
    async def publish(self, room: str, frame: Frame, history: History | None) -> Position | None:
        """Deliver to all processes that have subscribed to the room, this one included; with `history`, remember it,
        in the same step, and return its position. All processes see a room's publications in the order of their
        offsets.

        If cancelled, the message may have been published or not.
        """

    def publish_nowait(self, room: str, frame: Frame, history: History | None) -> Position | None:
        """`publish`, for a broker that has nothing to wait for. By default it raises `trio.WouldBlock`.

        Raises:
            trio.WouldBlock: this broker has to wait for it. Nothing was published.
        """
        raise trio.WouldBlock

    @abstractmethod
    async def history(
        self, room: str, history: History, *, since: Position | None, limit: int | None, reverse: bool
    ) -> Page:
        """What the room remembers: oldest first or, with `reverse`, newest first; `limit` messages of it at most
        (`None`: all).

        Args:
            since: only what came after this position (with `reverse`: before). Where the history does not reach back to
                it, or the position is of another epoch or of the future, the page has what there is after it (of
                another epoch: all), and is not complete. With `reverse` only another epoch makes it incomplete.
        """

    # Rooms

    @abstractmethod
    def subscribe(self, room: str) -> None:
        """The room has a member, or a watcher, here: deliver what is said in it from now on. Counted: as many calls of
        `unsubscribe` end it."""

    @abstractmethod
    def unsubscribe(self, room: str) -> None: ...

    @abstractmethod
    async def wait_subscribed(self, room: str) -> None:
        """Wait until what is published in the room from then on comes here."""

    @abstractmethod
    def counted(self, room: str, here: int) -> None:
        """The room has so many members here."""

    @abstractmethod
    def elsewhere(self, room: str) -> int:
        """How many members a room that this process has subscribed to has in the others, as is known here."""

    @abstractmethod
    async def count(self, room: str) -> int:
        """How many members the room has, everywhere."""

    # Presence. A connection is known by its id; one without a user is a user by itself, of that id. All processes are
    # told a room's changes, those of users and of connections together, in one order. Public info and details are what
    # JSON has a form for; others see them as they are decoded.

    @abstractmethod
    def enter(self, room: str, connection: str, user: str, info: Any, details: Any = None) -> None:
        """This connection, which is here, is present in the room from now on. If its user is already, the user has
        other info, or the same if this is `None`; if the connection is present as another user, that user has lost it,
        without a grace. If it is present as this user, it has other info and details, or the same for what is `None`.

        Args:
            info: public info, of the user and of this connection.
            details: what only this connection's own record has.

        Raises:
            TypeError: JSON has no form for `info` or `details`. Nothing has changed.
        """

    @abstractmethod
    def update(self, room: str, connection: str, info: Any) -> None:
        """This connection and its user have other public info. Does nothing for a connection that is not present.

        Raises:
            TypeError: JSON has no form for `info`. Nothing has changed.
        """

    @abstractmethod
    def exit(self, room: str, connection: str, grace: float) -> None:
        """This connection is gone. If it was the user's last, and none comes within `grace` seconds, in any process,
        the user has left. Does nothing for a connection that is not present."""

    @abstractmethod
    async def presence(self, room: str) -> Presences:
        """Who is present, in the order in which they came."""

    @abstractmethod
    async def connections(self, room: str) -> dict[str, PresentConnection]:
        """The connections that are present, by their ids, in the order in which they came. One that has gone is not
        among them, whatever the grace of its user."""

    # Users

    @abstractmethod
    async def send_user(self, user_id: str, frame: Frame) -> int:
        """Send to all connections of the user in the other processes; returns how many."""

    @abstractmethod
    def send_user_nowait(self, user_id: str, frame: Frame) -> None:
        """The same, without waiting for how many."""

    @abstractmethod
    async def disconnect_user(self, user_id: str, code: int, reason: str) -> int:
        """End all connections of the user in the other processes; returns how many."""

    @abstractmethod
    def disconnect_user_nowait(self, user_id: str, code: int, reason: str) -> None:
        """The same, without waiting for how many."""

    # One process

    @abstractmethod
    async def forward(self, node: str, message: bytes, seconds: float) -> bytes | None:
        """Pass something on to one process; returns what it answers. `None`: there is no such process, or it has not
        answered in time; then it may have had the message or not, and may have it still.

        Args:
            node: its name. It comes from a client, so it is any text: one that can't be a process's is nobody's.
            message: what nobody but its `Process.forwarded` reads.
            seconds: how long to wait for the answer.
        """

    # Leases

    @abstractmethod
    async def acquire(self, name: str, seconds: float) -> Lease | None:
        """Take a lease for so long; `None` while anybody has it, in this process or another."""

    @abstractmethod
    async def renew(self, lease: Lease, seconds: float) -> bool:
        """Keep it for so long from now on; `False` if it is lost: it has expired, or been released."""

    @abstractmethod
    async def release(self, lease: Lease) -> None:
        """Give it back. Does nothing if it is lost."""

    # Health

    @property
    @abstractmethod
    def health(self) -> Health:
        """How it is now."""

    @property
    def usage(self) -> Usage:
        """What it keeps in this process's memory, for `app.statistics()`. By default nothing: a service keeps it."""
        return Usage()


class Broker(ABC):
    """Connects the processes of an application, or has the state that they share."""

    spans_processes: bool = False
    """Whether it connects processes of an operating system, and so those of `hypercorn -w`."""

    @abstractmethod
    def session(self, process: Process) -> AbstractAsyncContextManager[Session]:
        """One process's session, for as long as the block. What it was present in, subscribed to and has leased is
        given up at the block's end, without a grace.

        If cancelled, the session ends all the same. An exception of the block comes out alone or, if the broker has a
        nursery around it, in an `ExceptionGroup`.
        """
