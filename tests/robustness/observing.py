"""Another client, in a process of its own, so that what it measures is the server's time and not the flooding client's.

`python -m tests.robustness.observing PORT` says that it is ready, echoes until its standard input ends, and then tells
of each echo when it was asked for and how long it took: pairs of seconds, as JSON. (`time.perf_counter` is one clock
for all processes on Linux.) An echo that has not come by then counts with the time waited so far.
"""

from __future__ import annotations

import json
import select
import socket
import sys
import time

from tests.support.wire import BINARY, FIN, PING, frame, request

PAUSE_SECONDS = 0.001
"""Between an echo and the next message."""
MESSAGE = frame(FIN | BINARY, b"x" * 64)
ECHO = frame(FIN | BINARY, b"x" * 64, mask=False)


def main(port: str) -> None:
    with socket.create_connection(("127.0.0.1", int(port))) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.sendall(request())
        while not (head := sock.recv(4096)).endswith(b"\r\n\r\n"):
            assert head, "the server hung up"
        print("ready", flush=True)  # noqa: T201 -- what it is for
        json.dump(measure(sock), sys.stdout)


def measure(sock: socket.socket) -> list[tuple[float, float]]:
    """Echo until the standard input ends, or the connection does."""
    times: list[tuple[float, float]] = []
    ended = False
    while not ended:
        begin = time.perf_counter()
        received = b""
        try:
            sock.sendall(MESSAGE)
            while received != ECHO and not ended:
                ended = sys.stdin in select.select([sock, sys.stdin], [], [])[0]
                if not ended:
                    data = sock.recv(4096)
                    received = (received + data).replace(frame(FIN | PING, mask=False), b"")  # stock hypercorn's
                    ended = not data
        except ConnectionError:
            ended = True
        times.append((begin, time.perf_counter() - begin))
        ended = ended or bool(select.select([sys.stdin], [], [], PAUSE_SECONDS)[0])
    return times


if __name__ == "__main__":
    main(*sys.argv[1:])
