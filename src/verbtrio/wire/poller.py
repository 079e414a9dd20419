"""One task that waits for all sockets of a worker's connections at once, by an epoll of its own.

Trio's way, a task that waits for its socket, costs a system call to wait, one to read and two task switches a
message, and 4 KB a connection. Here Trio waits for the epoll, one turn reads whatever is ready, and nobody is woken
who has nothing to do.

Fairness: a turn takes a slice of each socket that is ready, one after the other, until `TURN_BYTES` have been
received; the sockets it did not get to come first in the next turn, and between turns all other tasks have theirs.
"""

from __future__ import annotations

import os
import select
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable

import trio

TURN_BYTES = 8 * 1024
"""What one turn may receive: a hundred messages of 64 bytes, or a slice (1 KiB) of each of eight flooding peers. The
slice that passes it is the last."""
EVENTS_AT_ONCE = 256


class Polled(ABC):
    """A socket's owner, as the poller knows it."""

    @abstractmethod
    def on_readable(self, now: float) -> int:
        """The socket can be read, or has ended. Returns what that was worth, in bytes. Must not raise.

        Args:
            now: Trio's time, asked once a turn.
        """

    @abstractmethod
    def stop(self) -> None:
        """The poller ends: call `discard`; nothing will be read any more."""

    @abstractmethod
    def on_hang_up(self, now: float) -> None:
        """The peer has gone or has nothing more to say, while the socket was not being read. Must not raise."""


class Poller:
    """Waits for sockets, in the task that calls `run`.

    Args:
        end_turn: called when a turn is over: what it has caused can be sent then.
    """

    def __init__(self, end_turn: Callable[[], None]) -> None:
        if sys.platform != "linux":
            raise NotImplementedError("epoll is Linux's")
        self._epoll = select.epoll()
        self._end_turn = end_turn
        self._owners: dict[int, Polled] = {}
        self._ready: list[tuple[int, int]] = []  # what the last turn did not get to
        self._again: dict[int, None] = {}  # sockets whose owner has read more than it has looked at
        self._bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)  # rung when there is something to do without one
        self._epoll.register(self._bell, select.EPOLLIN)
        self.in_turn = False
        """Whether a turn is in progress: its end sees to what has to be sent."""

    def add(self, fd: int, owner: Polled) -> None:
        """Watch `fd` until `discard`. It is read from now on."""
        self._epoll.register(fd, _READ)
        self._owners[fd] = owner

    def watch(self, fd: int, owner: Polled) -> None:
        """See when the peer goes, once, and read nothing, until `unwatch`."""
        self._epoll.register(fd, _PAUSED)
        self._owners[fd] = owner

    def unwatch(self, fd: int, owner: Polled) -> None:
        """Watch it no more. It may have been closed, and be another's by now."""
        if self._owners.get(fd) is owner:
            try:
                self.discard(fd)
            except OSError:
                pass

    def pause(self, fd: int) -> None:
        """Read no more of it, but see when the peer goes."""
        self._again.pop(fd, None)
        self._epoll.modify(fd, _PAUSED)

    def resume(self, fd: int) -> None:
        """Read it again."""
        self._epoll.modify(fd, _READ)

    def revisit(self, fd: int) -> None:
        """Call the owner in the next turn, whether the socket is readable or not."""
        self._again[fd] = None
        os.eventfd_write(self._bell, 1)

    def discard(self, fd: int) -> None:
        """Watch it no more; to be called before it is closed."""
        if self._owners.pop(fd, None) is not None:
            self._again.pop(fd, None)
            if self._ready:  # another's by then, perhaps, who must not be told what was seen of this one
                self._ready = [event for event in self._ready if event[0] != fd]
            if not self._epoll.closed:
                self._epoll.unregister(fd)

    @trio.lowlevel.enable_ki_protection  # an interrupt is for the program's main task, not for one that serves all
    async def run(self) -> None:
        """Run turns until cancelled."""
        try:
            while True:
                # After a turn that had something to do there mostly is more, and asking is cheaper than to be woken.
                if self._turn(trio.current_time()):
                    await trio.lowlevel.checkpoint()
                else:
                    await trio.lowlevel.wait_readable(self._epoll.fileno())
        finally:
            for owner in tuple(self._owners.values()):
                owner.stop()
            trio.lowlevel.notify_closing(self._epoll.fileno())
            self._epoll.close()
            os.close(self._bell)

    def _turn(self, now: float) -> bool:
        """Read from those that are ready; returns whether there was anything to do."""
        ready = self._epoll.poll(0, EVENTS_AT_ONCE)
        if self._ready or self._again:
            # First those the last turn did not get to, then whoever else is ready, last those that had their turn.
            ready = list({**dict(self._ready), **dict(ready), **dict.fromkeys(self._again, select.EPOLLIN)}.items())
            self._ready, self._again = [], {}
        if not ready:
            return False
        self.in_turn = True
        received = 0
        try:
            for number, (fd, events) in enumerate(ready):
                owner = self._owners.get(fd)
                if owner is None:  # gone since; or another's by now, who then reads and finds nothing
                    if fd == self._bell:
                        os.eventfd_read(fd)
                    continue
                if events & select.EPOLLIN:
                    received += owner.on_readable(now)
                else:
                    owner.on_hang_up(now)
                if received >= TURN_BYTES:
                    self._ready = ready[number + 1 :]
                    break
        finally:
            self.in_turn = False
            self._end_turn()
        return True


if sys.platform == "linux":
    _READ = select.EPOLLIN | select.EPOLLRDHUP
    _PAUSED = select.EPOLLRDHUP | select.EPOLLONESHOT  # once is enough; else it would be ready for ever
