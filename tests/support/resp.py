"""One question to a Redis server, by hand: what the tests see of it does not go through the client they test.

Blocking, by RESP2. For a cluster's and a sentinel's set-up too: redis-cli is not there with every server.
"""

from __future__ import annotations

import socket
import ssl
from typing import Any, BinaryIO

PATIENCE = 5.0
"""Seconds until a server that does not answer is given up."""


class ReplyError(Exception):
    """What the server answers with a `-`: its message."""


def ask(
    port: int,
    *words: str | int,
    password: str | None = None,
    context: ssl.SSLContext | None = None,
    patience: float = PATIENCE,
) -> Any:
    """Send one command to 127.0.0.1, on a connection of its own, and return the reply: a text, a number, `None`, or a
    list of these.

    Raises:
        ReplyError: the server refuses it.
        OSError: nobody answers, or not within `patience` seconds.
    """
    with socket.create_connection(("127.0.0.1", port), patience) as plain:
        with context.wrap_socket(plain, server_hostname="127.0.0.1") if context else plain as sock:
            sock.sendall((encode("AUTH", password) if password else b"") + encode(*words))
            with sock.makefile("rb") as file:
                if password:
                    read_reply(file)
                return read_reply(file)


def encode(*words: str | int) -> bytes:
    """A command, as it goes over the wire."""
    parts = [str(word).encode(errors="surrogateescape") for word in words]
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%b\r\n" % (len(part), part) for part in parts)


def read_reply(file: BinaryIO) -> Any:
    """The next reply. An error within a list is a value there: `EXEC` has such."""
    kind, rest = read_line(file)
    match kind:
        case b"+":
            return rest.decode()
        case b"-":
            raise ReplyError(rest.decode())
        case b":":
            return int(rest)
        case b"$" if int(rest) >= 0:
            text = file.read(int(rest) + 2)
            if len(text) < int(rest) + 2:
                raise ConnectionResetError("the server hung up within a reply")
            return text[:-2].decode(errors="surrogateescape")
        case b"*" if int(rest) >= 0:
            return [read_item(file) for _ in range(int(rest))]
        case b"$" | b"*":
            return None
        case _:
            raise ReplyError(f"not a reply of RESP2: {kind + rest!r}")


def read_item(file: BinaryIO) -> Any:
    """A list's next item."""
    try:
        return read_reply(file)
    except ReplyError as error:
        return error


def read_line(file: BinaryIO) -> tuple[bytes, bytes]:
    """A line's first byte, and what follows it."""
    line = file.readline()
    if not line.endswith(b"\r\n"):
        raise ConnectionResetError("the server hung up")
    return line[:1], line[1:-2]
