"""One task that waits for the sockets of all of a worker's connections at once, by an epoll of its own.

With Trio's way, a task for each socket, a message costs a system call to wait, one to read and two task switches, and a
connection 4 KB. Here Trio waits for the epoll, one turn reads whatever is ready, and no task is woken that has nothing
to do.

Fairness: a turn takes a slice of each socket that is ready, one after another, until `TURN_BYTES` have been received.
The sockets that it did not get to come first in the next turn. Between turns all other tasks run.
"""

from __future__ import annotations

import os
import select
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable

import trio

TURN_BYTES = 8 * 1024
"""What one turn may receive: a hundred messages of 64 bytes, or a slice (1 KiB) from each of eight flooding peers. The
slice that exceeds it is the last."""
MAX_EVENTS = 256
"""What one call of `epoll.poll` returns at most."""


class Polled(ABC):
    """A socket's owner, which the poller calls."""

    @abstractmethod
    def on_readable(self, now: float) -> int:
        """The socket is readable, or has ended. Returns the work that this was, in bytes. Must not raise.

        Args:
            now: Trio's time, read once a turn.
        """

    @abstractmethod
    def stop(self) -> None:
        """The poller ends and will read nothing more: call `discard`."""

    @abstractmethod
    def on_hang_up(self, now: float) -> None:
        """The peer has gone, or has shut down its sending side, while the socket was not being read. Must not raise."""


class Poller:
    """Waits for sockets, in the task that calls `run`.

    Args:
        end_turn: called at the end of a turn, to send what the turn has caused.
    """

    def __init__(self, end_turn: Callable[[], None]) -> None:
        if sys.platform != "linux":
            raise NotImplementedError("epoll exists on Linux only")
        self._epoll = select.epoll()
        self._end_turn = end_turn
        self._owners: dict[int, Polled] = {}
        self._ready: list[tuple[int, int]] = []  # what the last turn did not get to
        self._again: dict[int, None] = {}  # sockets whose owner has data left from an earlier read
        self._bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)  # wakes `run` for `_again`
        self._epoll.register(self._bell, select.EPOLLIN)
        self.in_turn = False
        """Whether a turn is in progress. What has to be sent is sent at its end."""

    def add(self, fd: int, owner: Polled) -> None:
        """Read `fd` from now on, until `discard`."""
        self._epoll.register(fd, _READ)
        self._owners[fd] = owner

    def watch(self, fd: int, owner: Polled) -> None:
        """Report once when the peer goes, and read nothing, until `unwatch`."""
        self._epoll.register(fd, _PAUSED)
        self._owners[fd] = owner

    def unwatch(self, fd: int, owner: Polled) -> None:
        """Stop watching `fd`. It may have been closed, and the number be another socket's by now."""
        if self._owners.get(fd) is owner:
            try:
                self.discard(fd)
            except OSError:
                pass

    def pause(self, fd: int) -> None:
        """Stop reading `fd`, but report when the peer goes."""
        self._again.pop(fd, None)
        self._epoll.modify(fd, _PAUSED)

    def resume(self, fd: int) -> None:
        """Read `fd` again."""
        self._epoll.modify(fd, _READ)

    def revisit(self, fd: int) -> None:
        """Call the owner in the next turn, even if the socket is not readable."""
        self._again[fd] = None
        os.eventfd_write(self._bell, 1)

    def discard(self, fd: int) -> None:
        """Forget `fd`. Call this before it is closed."""
        if self._owners.pop(fd, None) is not None:
            self._again.pop(fd, None)
            if self._ready:  # by then the number may be another socket's, and these events are not for it
                self._ready = [event for event in self._ready if event[0] != fd]
            if not self._epoll.closed:
                self._epoll.unregister(fd)

    @trio.lowlevel.enable_ki_protection  # KeyboardInterrupt belongs in the main task, not in one that serves all
    async def run(self) -> None:
        """Run turns until cancelled."""
        try:
            while True:
                # After a turn with something to do there is mostly more, and asking is cheaper than being woken.
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
        """Read the sockets that are ready. Returns whether there was anything to do."""
        ready = self._epoll.poll(0, MAX_EVENTS)
        if self._ready or self._again:
            # First what the last turn did not get to, then what else is ready, last what has had its turn.
            ready = list({**dict(self._ready), **dict(ready), **dict.fromkeys(self._again, select.EPOLLIN)}.items())
            self._ready, self._again = [], {}
        if not ready:
            return False
        self.in_turn = True
        received = 0
        try:
            for number, (fd, events) in enumerate(ready):
                owner = self._owners.get(fd)
                if owner is None:  # discarded since (or another's by now, who finds nothing to read)
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
    _PAUSED = select.EPOLLRDHUP | select.EPOLLONESHOT  # one-shot: otherwise it would stay ready for ever
