"""The poller, over real sockets: fair turns, and peers that have gone."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from verbtrio.wire.poller import TURN_BYTES, Polled, Poller

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="epoll is Linux's")


class Owner(Polled):
    """Reads from its socket and remembers."""

    def __init__(self, poller: Poller, log: list[str], name: str = "") -> None:
        self.peer, self.socket = socket.socketpair()
        self.socket.setblocking(False)
        self.fd = self.socket.fileno()
        self.name = name
        self.got = b""
        self.hung_up = 0
        self.stopped = False
        self.portion = 4096
        self._poller = poller
        self._log = log

    def on_readable(self, now: float) -> int:
        self._log.append(self.name)
        try:
            data = self.socket.recv(self.portion)
        except BlockingIOError:
            return 0
        self.got += data
        if not data:
            self._poller.discard(self.fd)
        return len(data)

    def on_hang_up(self, now: float) -> None:
        self.hung_up += 1

    def stop(self) -> None:
        self.stopped = True
        self._poller.discard(self.fd)

    def close(self) -> None:
        self._poller.discard(self.fd)
        self.socket.close()
        self.peer.close()


class Scene:
    """A running poller and its owners."""

    def __init__(self) -> None:
        self.turns = 0
        self.poller = Poller(self._end_turn)
        self.log: list[str] = []
        self.owners: list[Owner] = []

    def _end_turn(self) -> None:
        assert not self.poller.in_turn
        self.turns += 1

    def owner(self, name: str = "") -> Owner:
        owner = Owner(self.poller, self.log, name)
        self.owners.append(owner)
        self.poller.add(owner.fd, owner)
        return owner


@asynccontextmanager
async def scene() -> AsyncIterator[Scene]:
    async with trio.open_nursery() as nursery:
        it = Scene()
        nursery.start_soon(it.poller.run)
        yield it
        for owner in it.owners:
            owner.close()
        nursery.cancel_scope.cancel()


async def settled() -> None:
    """Wait until all tasks are blocked, for two real milliseconds: sockets take their time."""
    with trio.fail_after(10):
        await wait_all_tasks_blocked(0.002)


async def test_reads_whoever_is_ready() -> None:
    async with scene() as it:
        one, two = it.owner("one"), it.owner("two")
        one.peer.send(b"hello")
        await settled()
        assert (one.got, two.got) == (b"hello", b"")
        two.peer.send(b"a")
        one.peer.send(b"b")
        await settled()
        assert (one.got, two.got) == (b"hellob", b"a")
        assert it.turns >= 2


async def test_the_end_of_the_stream_is_readable() -> None:
    async with scene() as it:
        owner = it.owner("one")
        owner.peer.close()
        await settled()
        assert it.log == ["one"]
        assert owner.hung_up == 0


async def test_a_paused_one_is_not_read_but_its_going_is_seen() -> None:
    async with scene() as it:
        owner = it.owner()
        it.poller.pause(owner.fd)
        owner.peer.send(b"unread")
        await settled()
        assert (owner.got, owner.hung_up) == (b"", 0)
        owner.peer.close()
        await settled()
        assert (owner.got, owner.hung_up) == (b"", 1), "once: it is gone for good, and must not keep the poller busy"
        turns = it.turns
        await trio.sleep(0.01)
        assert it.turns == turns
        it.poller.resume(owner.fd)
        await settled()
        assert owner.got == b"unread"


async def test_a_turn_is_bounded_and_nobody_is_passed_over() -> None:
    """Those it does not get to come first in the next turn, whoever floods."""
    async with scene() as it:
        flooders = [it.owner("flood") for _ in range(4)]
        others = [it.owner("other") for _ in range(4)]
        for owner in flooders:
            owner.peer.send(b"x" * 20_000)
        for owner in others:
            owner.peer.send(b"hi")
        per_turn: list[int] = []
        done, real = 0, it._end_turn

        def end_turn() -> None:
            nonlocal done
            now = sum(len(owner.got) for owner in it.owners)
            per_turn.append(now - done)
            done = now
            real()

        it.poller._end_turn = end_turn
        await settled()
        assert done == 4 * 20_000 + 4 * 2
        assert max(per_turn) < TURN_BYTES + 4096
        first = it.log[:12]
        assert first.count("other") == 4, "each has had its turn before any flooder has had four"


async def test_others_have_their_turn() -> None:
    """However much there is to read."""
    async with scene() as it:
        owner = it.owner()
        owner.peer.send(b"x" * 100_000)
        turns = 0
        while len(owner.got) < 100_000:
            turns += 1
            await trio.lowlevel.checkpoint()
        assert turns >= 100_000 // (TURN_BYTES + 4096)


async def test_called_again_without_anything_to_read() -> None:
    async with scene() as it:
        owner = it.owner("again")
        it.poller.revisit(owner.fd)
        owner.peer.send(b"x")
        await settled()
        assert it.log.count("again") >= 1
        before = len(it.log)
        it.poller.revisit(owner.fd)
        it.poller.pause(owner.fd)  # it has changed its mind
        it.owner().peer.send(b"wake")
        await settled()
        assert it.log[before:] == [""]


async def test_one_that_is_gone_is_not_called() -> None:
    """Not even for what was seen before it went."""
    async with scene() as it:
        one, two = it.owner("one"), it.owner("two")

        class Thief(Owner):
            def on_readable(self, now: float) -> int:
                for owner in (one, two):
                    owner.close()
                return super().on_readable(now)

        thief = Thief(it.poller, it.log, "thief")
        it.owners.append(thief)
        it.poller.add(thief.fd, thief)
        thief.peer.send(b"x")
        await settled()
        assert it.log == ["thief"]
        it.poller.discard(one.fd)  # twice does nothing


async def test_its_end_is_told_to_those_who_are_left() -> None:
    """If the hub is cancelled, readers are stopped, and a later `discard` does no harm."""
    async with trio.open_nursery() as nursery:
        it = Scene()
        nursery.start_soon(it.poller.run)
        owner, gone = it.owner(), it.owner()
        gone.close()
        await settled()
        nursery.cancel_scope.cancel()
    assert (owner.stopped, gone.stopped) == (True, False)
    owner.close()


async def test_one_that_cannot_be_watched_is_not_kept() -> None:
    async with scene() as it:
        owner, other = it.owner(), Owner(it.poller, it.log)
        with pytest.raises(FileExistsError):
            it.poller.add(owner.fd, other)
        other.close()
        owner.peer.send(b"x")
        await settled()
        assert owner.got == b"x", "it is still the first one's"


async def test_those_who_have_more_come_after_those_who_are_ready() -> None:
    """As over TLS, where one read holds many slices: whoever becomes ready meanwhile waits for one slice of each."""
    async with scene() as it:

        class Busy(Owner):
            """Has a hundred slices of what it has read already."""

            left = 100

            def on_readable(self, now: float) -> int:
                self._log.append(self.name)
                self.left -= 1
                if self.left:
                    self._poller.revisit(self.fd)
                if self.left == 90:
                    other.peer.send(b"hi")
                return TURN_BYTES // 4

        other = it.owner("other")
        for _ in range(8):
            busy = Busy(it.poller, it.log, "busy")
            it.owners.append(busy)
            it.poller.add(busy.fd, busy)
            it.poller.revisit(busy.fd)
        await settled()
        assert it.log.count("busy") == 800
        assert it.log.index("other") < 8 * 10 + 8 + 4


async def test_what_was_seen_of_a_closed_socket_is_not_told_to_the_next() -> None:
    """A turn that breaks off keeps what it has seen for the next one; by then the descriptor may be another's."""
    poller = Poller(lambda: None)
    flooding, gone, new = (Owner(poller, [], name) for name in ("flooding", "gone", "new"))
    flooding.portion = TURN_BYTES
    poller.add(flooding.fd, flooding)
    poller.watch(gone.fd, gone)
    flooding.peer.sendall(b"x" * TURN_BYTES)
    gone.peer.close()
    poller._turn(0)
    assert [fd for fd, _ in poller._ready] == [gone.fd], "it breaks off before the one that has gone"
    poller.unwatch(gone.fd, gone)
    os.dup2(new.fd, gone.fd)
    poller.watch(gone.fd, new)
    poller._turn(1)
    assert (gone.hung_up, new.hung_up) == (0, 0)
    poller.unwatch(gone.fd, new)
    for owner in (flooding, gone, new):
        owner.close()
    poller._epoll.close()
    os.close(poller._bell)
