"""What one client can do to the others' times, and to the server's memory."""

from __future__ import annotations

import os
import socket
import ssl
import time
from collections.abc import Iterator

from benchmarks.growth import FLAT, WARM_UP, Finding, compare_p99
from benchmarks.process import Process
from benchmarks.verify import Client

MEGABYTE = 1_000_000
READ_RATE = 1 * MEGABYTE
"""Bytes a second that the slow client reads."""
FILL_SECONDS = 3.0
"""Until the systems' buffers are full: from then on, what is taken is what has been handled."""
READ_SECONDS = 10.0
FLOOD_EVERY = {1000: FLAT, 100: None}
"""Milliseconds between one client's flood and the next one's, and the limit. Each keeps the server busy for some 2 ms:
ten a second are more than the hundredth of the time in which a p99 shows, and are there for comparison."""
MAX_GROWTH = 4 * MEGABYTE
"""Bytes of memory the server may need for it: what `Limits` allows in and out, and some for the allocator."""
PAYLOAD = 16 * 1024


def pipelining(process: Process, prefix: str, seconds: float, rounds: int) -> Iterator[Finding]:
    """Echo's p99 for others, without and with a client that sends as fast as it is read."""
    yield from compare_p99(process, prefix, seconds, rounds, "flood", 0, 1, "clients pipelining as fast as they can", 3)


def limited(process: Process, prefix: str, seconds: float, rounds: int) -> Iterator[Finding]:
    """Echo's p99 for others, without and with clients that flood a limited route, one after the other, until dropped.

    (They are connected before: what a handshake costs is another matter, and `Limits` has other means for it.)
    """
    for every, limit in FLOOD_EVERY.items():
        what = f"clients, one every {every} ms, that flood against a limit on messages until they are dropped"
        floods = int(1000 * (seconds + WARM_UP + 1) / every)
        more: dict[str, str | int] = {"flood_path": "/limited", "flood_every": every}
        dropped = int(1000 * seconds / every) - 1
        yield from compare_p99(
            process, prefix, seconds, rounds, "flood", 0, floods, what, limit, dropped=dropped, more=more
        )


def slow_reader(process: Process, prefix: str, over: str, *, tls: bool = False) -> Iterator[Finding]:
    """A client that sends whatever is taken and reads 1 MB/s of the echoes: the handler has to run at that rate."""
    with Client(process.port, f"{prefix}/echo", tls=tls) as client:
        client.graceful = False
        before = process.memory_bytes()
        trickle = Trickle(client.socket)
        begin = time.monotonic()
        trickle.run(begin, FILL_SECONDS)
        sent, received, middle = trickle.sent, trickle.received, time.monotonic()
        largest = 0
        while time.monotonic() < begin + READ_SECONDS:
            trickle.run(begin, time.monotonic() - begin + 0.5)
            largest = max(largest, process.memory_bytes())
        took = time.monotonic() - middle
    sends, reads = (trickle.sent - sent) / took / MEGABYTE, (trickle.received - received) / took / MEGABYTE
    grown = (largest - before) / MEGABYTE
    kept = abs(sends - reads) <= 0.3 * reads and reads >= 0.8 * READ_RATE / MEGABYTE and grown <= MAX_GROWTH / MEGABYTE
    measured = f"its sending runs at {sends:.2f} MB/s, its reading at {reads:.2f}; memory {grown:+.1f} MB"
    limit = f"its reading + 30 %, {MAX_GROWTH / MEGABYTE:.0f} MB"
    yield Finding(f"a client that reads 1 MB/s of its echoes ({over})", measured, limit, kept)


class Trickle:
    """Sends all that is taken and reads `READ_RATE`."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._frame = _frame(os.urandom(PAYLOAD))
        self.sent = self.received = 0
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)  # or the system takes megabytes for us
        sock.setblocking(False)

    def run(self, begin: float, seconds: float) -> None:
        """Go on until `seconds` after `begin`."""
        while (now := time.monotonic()) < begin + seconds:
            allowance = int(READ_RATE * (now - begin)) - self.received
            if not self._send() and not (allowance >= 4096 and self._receive(min(allowance, 65536))):
                time.sleep(0.002)

    def _send(self) -> bool:
        try:
            self.sent += self._socket.send(self._frame[self.sent % len(self._frame) :])
        except (BlockingIOError, ssl.SSLWantWriteError, ssl.SSLWantReadError):
            return False
        return True

    def _receive(self, size: int) -> bool:
        try:
            self.received += len(self._socket.recv(size))
        except (BlockingIOError, ssl.SSLWantReadError):
            return False
        return True


def _frame(payload: bytes) -> bytes:
    """A client's binary frame, masked with zeros."""
    return b"\x82\xfe" + len(payload).to_bytes(2, "big") + bytes(4) + payload
