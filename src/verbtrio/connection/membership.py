"""The rooms a connection is in, and its leave hooks: each is called once the room is left, whatever the reason."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Generator
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn, Protocol, Self

import trio

from verbtrio.base.calls import Calls
from verbtrio.base.close import Cause, CloseInfo
from verbtrio.base.errors import ConnectionClosed, Denied, RoomUnavailable
from verbtrio.base.position import Position
from verbtrio.base.types import Hook
from verbtrio.guards.quotas import user_key
from verbtrio.rooms.local import Rooms
from verbtrio.rooms.member import Member, Peer
from verbtrio.rooms.room import Room
from verbtrio.rooms.settling import Settling, refusal

logger = logging.getLogger("verbtrio.connection")


class Joined(Peer, Protocol):
    """The connection that is in the rooms."""

    ws: Member
    """What leave hooks are given."""
    nursery: trio.Nursery | None
    """Where leave hooks run that nobody waits for."""


class Memberships:
    """One connection's memberships, by the rooms' names.

    Args:
        peer: the connection.
        rooms: the app's.
        seconds: how long a leave hook may take.
    """

    __slots__ = ("_by_name", "_peer", "_rooms", "_seconds", "calls", "owed")

    calls: Calls
    """Set before the first join."""

    def __init__(self, peer: Joined, rooms: Rooms, seconds: float) -> None:
        self._peer = peer
        self._rooms = rooms
        self._seconds = seconds
        self._by_name: dict[str, Membership] = {}
        self.owed: tuple[tuple[Hook, Room], ...] = ()
        """The leave hooks that the connection's end has to call, and what with."""

    def __len__(self) -> int:
        return len(self._by_name)

    def __contains__(self, name: object) -> bool:
        return name in self._by_name

    @property
    def ws(self) -> Member:
        """The connection."""
        return self._peer.ws

    @property
    def closed(self) -> CloseInfo | None:
        """How the connection ended."""
        return self._peer.closed

    @property
    def names(self) -> frozenset[str]:
        return frozenset(self._by_name)

    def get(self, name: str) -> Membership | None:
        return self._by_name.get(name)

    def join(
        self, name: str, on_leave: Hook | None, since: Position | str | None = None, presence: Any = None
    ) -> Membership:
        """Join the room, or give the membership there is, whose leave hook is the first that was given.

        Raises:
            TypeError: `on_leave` can't be called with `(room, ws)`; `since` is given for a room it is in already.
            (and what `RoomHost.join` raises)
        """
        if on_leave is not None:
            _check_hook(on_leave)
        membership = self._by_name.get(name)
        if membership is None:
            membership = Membership(self, self._rooms, name, on_leave)
            if self._rooms.asks or since is not None or presence is not None:
                self._join_with_settings(membership, name, since, presence)
            else:
                self._rooms.join(name, self._peer.ws, self._peer)
            self._by_name[name] = membership
            return membership
        if since is not None:
            raise TypeError(f"this connection is in {name!r} already: leave since= out, or leave the room first")
        if presence is not None:
            self._rooms.host.joins.update(name, self._peer.ws, presence, membership._settling)
        if membership._on_leave is None:
            membership._on_leave = on_leave
        return membership

    def _join_with_settings(
        self, membership: Membership, name: str, since: Position | str | None, presence: Any
    ) -> None:
        ws = self._peer.ws
        settling = self._rooms.host.joins.join(
            name,
            ws,
            self._peer,
            user=user_key(ws.user) or ws.id,
            since=since,
            presence=presence,
            on_refused=partial(self._refused, membership),
        )
        if settling is not None:
            membership._settling = settling
            self._nursery().start_soon(settling.run)

    def _refused(self, membership: Membership, error: Exception) -> None:
        """The join could not be completed."""
        membership.kicked = refusal(error)
        if membership._settling is not None and not membership._settling.is_awaited:
            what = (self._peer, membership.name, error)
            logger.info("%r is not in the room %.100r, and nobody waits to hear so: %s", *what)
        if (hook := membership._go()) is not None:
            self.tell_nowait(hook, membership.room)

    def leave(self, name: str, *, may_return: bool = False) -> None:
        """Leave the room. `may_return`: because the connection ends."""
        self._by_name.pop(name, None)
        self._rooms.leave(name, self._peer.ws, may_return=may_return)

    def dismiss(self, name: str, info: CloseInfo) -> Callable[[], None]:
        """The connection was removed from the room: see `Peer.dismiss`. The leave hook is owed from now on: if the
        connection ends before the rest is done, its end calls the hook."""
        membership = self._by_name.pop(name)
        membership._left = True
        membership.kicked = info
        is_ours = info.cause is Cause.ERROR
        hook = membership._owed(
            RoomUnavailable("The room is not available") if is_ours else Denied("Removed from the room")
        )
        owed = None
        if hook is not None:
            owed = (hook, membership.room)
            self.owed += (owed,)
        return partial(self._dismissed, membership, owed)

    def _dismissed(self, membership: Membership, owed: tuple[Hook, Room] | None) -> None:
        """What is left to do for a membership that was removed: what was said before goes out, its block ends, its
        leave hook runs soon, in a task of the connection. If the connection has ended, its end calls the hook."""
        self._peer.outlet.flush()
        membership._scope.cancel()
        if owed is not None and self._peer.closed is None:
            self.owed = tuple([other for other in self.owed if other is not owed])
            nursery = self._nursery()
            # In the handler's context, as any task of the connection: the caller is whichever task flushes.
            context = nursery.parent_task.context.copy()
            context.run(partial(nursery.start_soon, self._tell_unless_back, *owed))

    def _nursery(self) -> trio.Nursery:
        assert self._peer.nursery is not None, "a connection joins rooms from its handler's first line on"
        return self._peer.nursery

    def leave_all(self) -> None:
        """The connection ends: leave all rooms now, and owe the leave hooks. Blocks of `async with` are not
        cancelled."""
        left = [(membership._go(may_return=True), membership.room) for membership in list(self._by_name.values())]
        self.owed += tuple([(hook, room) for hook, room in left if hook is not None])

    async def tell(self, hook: Hook, room: Room) -> None:
        """Call a leave hook, within its time limit. What it raises is logged and goes to the error hook."""
        await self.calls.call("leave", hook, room, self._peer.ws, deadline=trio.current_time() + self._seconds)

    def tell_nowait(self, hook: Hook, room: Room) -> None:
        """Call a leave hook: a plain function now, a coroutine function in a task of the connection. If the connection
        is in that room again by then, the hook is not called: nobody has left."""
        nursery = self._nursery()
        if inspect.iscoroutinefunction(hook):
            nursery.start_soon(self._tell_unless_back, hook, room)
        else:
            self.calls.call_nowait("leave", hook, room, self._peer.ws, nursery=nursery, seconds=self._seconds)

    async def _tell_unless_back(self, hook: Hook, room: Room) -> None:
        if room.name not in self._by_name:
            await self.tell(hook, room)


class Membership(Room):
    """One connection's membership in one room, made by `ws.join`. It is a `Room`, too: a handle on that room, also
    after leaving it. (`leave` is about this connection; `close` and `kick` are about all members.)

    As an async context manager it gives itself, and leaves the room at the end of the block. Leaving by other means
    (`leave`, `ws.leave`, `kick`) cancels the block.
    """

    __slots__ = ("_all", "_left", "_on_leave", "_scope", "_settling", "kicked")

    kicked: CloseInfo | None
    """The code and the reason that `kick` or `close` was called with, if that has ended the membership; else `None`."""

    def __init__(self, memberships: Memberships, rooms: Rooms, name: str, on_leave: Hook | None) -> None:
        super().__init__(rooms, name)
        self._all = memberships
        self._on_leave = on_leave
        self._scope = trio.CancelScope()
        self._left = False
        self._settling: Settling | None = None  # what is left of the join; most rooms have nothing to wait for
        self.kicked = None

    @property
    def is_settled(self) -> bool:
        """Whether the join is complete: nothing is left to wait for."""
        return self._settling is None or self._settling.is_over

    def __await__(self) -> Generator[Any, Any, Self]:
        """Wait until the join is complete: the room's task has started, what was missed is sent. If cancelled, the
        connection stays in the room.

        Raises:
            HistoryGap, Denied, RoomUnavailable, BrokerUnavailable: the connection can't be in the room, and is not.
        """
        return self._settled().__await__()

    async def _settled(self) -> Self:
        self._rooms.check()
        if self._settling is None:
            await trio.lowlevel.checkpoint()
        else:
            await self._settling.wait()
        return self

    @property
    def room(self) -> Room:
        """The room by itself: what leave hooks are given."""
        return Room(self._rooms, self.name)

    async def __aenter__(self) -> Self:
        # No checkpoint if there is nothing to wait for: what the handler sends first comes before what others broadcast
        # from now on.
        self._rooms.check()
        if self._settling is not None:
            try:
                await self._settling.wait()
            except trio.Cancelled:
                self._leave()  # its block won't be entered, and so won't be left
                raise
        try:
            self._scope.__enter__()
        except RuntimeError:
            raise RuntimeError(
                f"the block of this membership in {self.name!r} has been entered already: its end leaves the room; "
                "within it, or for a room that may be joined already, use the membership without `async with`"
            ) from None
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        self._rooms.check()
        absorbed = self._scope.__exit__(kind, error, trace)
        if (hook := self._leave()) is not None:
            await self._all.tell(hook, self.room)
        return absorbed

    if not TYPE_CHECKING:  # without these methods, a type checker says so itself

        def __enter__(self) -> NoReturn:
            raise TypeError(
                "leaving a room waits for its leave hook: write `async with ws.join(...)`, not `with ws.join(...)`"
            )

        def __exit__(self, *_: object) -> None: ...

    def update(self, presence: Any) -> bool:
        """Change the public info of this connection's user in the room (see `ws.join(presence=...)`).

        Returns:
            Whether the connection is in the room by this membership; if not, nothing has changed.

        Raises:
            RuntimeError: the room has no presence; or this is another thread than the one in which the app is served.
            TypeError: `presence` can't be encoded.
        """
        self._rooms.check()
        if self._left:  # the connection may be in the room again, by another membership
            return False
        self._host.joins.update(self.name, self._all.ws, presence, self._settling)
        return True

    def leave_nowait(self) -> bool:
        """Leave the room; return whether it was in it. For hooks that are plain functions. Leaving twice does nothing.

        A leave hook that is a plain function is called at once, a coroutine function in a task of the connection,
        unless the connection has joined that room again before the task begins.
        """
        was_in = not self._left
        if (hook := self._leave()) is not None:
            self._all.tell_nowait(hook, self.room)
        return was_in

    async def leave(self) -> bool:
        """Leave the room and call the hook; return whether it was in it. Leaving twice does nothing.

        If cancelled, the room has been left, and the hook still has its time limit.
        """
        was_in = not self._left
        if (hook := self._leave()) is not None:
            await self._all.tell(hook, self.room)
        else:
            await trio.lowlevel.checkpoint()
        return was_in

    def _leave(self) -> Hook | None:
        """Leave the room and cancel its block; return the hook that is owed then, once."""
        self._rooms.check()
        self._scope.cancel()
        return self._go()

    def _go(self, *, may_return: bool = False) -> Hook | None:
        if self._left:
            return None
        self._left = True
        left, closed = Denied("The room was left before the join was complete"), self._all.closed
        hook = self._owed(left if closed is None else ConnectionClosed(closed))
        self._all.leave(self.name, may_return=may_return)
        return hook

    def _owed(self, reason: Exception) -> Hook | None:
        """The membership ends: return the leave hook that is owed.

        Who waits for the join has not been in the room before the wait is over: `reason` is raised there, and no hook
        is owed. Who does not wait has been in from the call on.
        """
        settling = self._settling
        if settling is None or settling.is_complete:
            return self._on_leave
        settling.refuse(reason)
        return None if settling.is_awaited else self._on_leave


def _check_hook(hook: Hook) -> None:
    """Raise `TypeError` where a leave hook can't be called with what it will be called with."""
    try:
        inspect.signature(hook).bind("room", "ws")
    except TypeError as error:
        raise TypeError(f"the leave hook {hook!r} is called with (room, ws): {error}") from None
    except ValueError:
        pass  # a built-in function without a signature
