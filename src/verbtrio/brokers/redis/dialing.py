"""How a connection to one server is opened.

coredis's own pools would do it, too. They log each attempt that fails with a traceback, leave its streams to the
garbage collector, and hide why it failed.
"""

from __future__ import annotations

import logging
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import anyio
import trio
from anyio.abc import ByteStream
from coredis.connection import BaseConnection, TCPLocation, UnixDomainSocketLocation
from coredis.exceptions import AuthenticationError, RedisError, UnknownCommandError
from coredis.exceptions import ConnectionError as RedisConnectionError

OLDEST = (6, 2)
"""The oldest version of Redis."""


class WrongServer(ValueError):  # noqa: N818 -- what it is, not what has happened
    """What was reached is no server as the URL says. To try again does not help."""


class NotReached(Exception):  # noqa: N818 -- a state
    """A server, or what it should be at the moment, is not there. It may be later."""


@dataclass(frozen=True, slots=True)
class Access:
    """How one gets in. Its `repr` shows no secret.

    Attributes:
        username: `None` for Redis's default user.
        ssl_context: for TLS; `None` without.
        db: the number of the database.
    """

    username: str | None = field(repr=False)
    password: str | None = field(repr=False)
    ssl_context: ssl.SSLContext | None
    db: int

    @property
    def without_user(self) -> Access:
        """The same, without who it is."""
        return Access(None, None, self.ssl_context, 0)

    def on_database(self, number: int) -> Access:
        """The same, for another database."""
        return replace(self, db=number)


@dataclass(frozen=True, slots=True)
class Server:
    """What a server has said of itself.

    Attributes:
        mode: "standalone", "cluster" or "sentinel".
        role: "master", "replica", ...
        version: its first two numbers; a Valkey says "7.2" for itself.
    """

    connection: BaseConnection
    mode: str
    role: str
    version: tuple[int, int]


class _Connection(BaseConnection):
    """coredis's protocol on a stream that is open already."""

    def __init__(self, location: TCPLocation | UnixDomainSocketLocation, stream: ByteStream, **options: Any) -> None:
        super().__init__(location, **options)
        self._open = stream

    async def _connect(self) -> ByteStream:
        return self._open

    def describe(self) -> str:
        return f"<Redis {self.location}>"


def quiet_coredis() -> None:
    """Keep coredis from logging a traceback for each attempt to connect: what it knows is logged here. A level that is
    already set stays."""
    log = logging.getLogger("coredis")
    if log.level == logging.NOTSET:
        log.setLevel(logging.CRITICAL)


async def dial(nursery: trio.Nursery, where: tuple[str, int] | str, access: Access, seconds: float) -> Server:
    """Open a connection, which lives in `nursery` until that is cancelled.

    Args:
        where: host and port, or the path of a Unix socket.
        seconds: until the server must be reached, and until each answer must have come.

    Raises:
        NotReached: it isn't.
        WrongServer: it is no Redis, too old a one, or not to be trusted.
        AuthenticationError: it does not take the user or the password.
    """
    location = UnixDomainSocketLocation(where) if isinstance(where, str) else TCPLocation(*where)
    name = name_of(where)
    stream = await _open(name, where, access, seconds)
    connection = _Connection(
        location,
        stream,
        username=access.username,
        password=access.password,
        db=access.db,
        stream_timeout=seconds,
    )
    try:
        await nursery.start(connection.run)
        hello = await connection.create_request(b"HELLO", 3, decode=False)
    except AuthenticationError:
        raise
    except UnknownCommandError:  # its text may have the password
        raise WrongServer(f"{name} is too old: Redis {OLDEST[0]}.{OLDEST[1]} or newer is needed") from None
    except RedisConnectionError as error:
        hint = "" if access.ssl_context else "; if it speaks TLS, the URL begins with rediss://"
        raise NotReached(f"{name} has not answered as Redis does: {_cause(error)}{hint}") from error
    except (RedisError, TimeoutError) as error:
        raise NotReached(f"{name}: {_cause(error)}") from error
    return _server(name, connection, hello)


async def ask(
    where: tuple[str, int],
    access: Access,
    seconds: float,
    check: Callable[[Server, str], None],
    command: bytes,
    *arguments: bytes,
) -> Any:
    """Ask a server one thing, by a connection of its own. `check` may raise, before it is asked.

    Raises:
        NotReached, WrongServer, RedisError, TimeoutError: see `dial`.
    """
    answer, error = None, None
    async with trio.open_nursery() as nursery:
        try:
            server = await dial(nursery, where, access, seconds)
            check(server, name_of(where))
            answer = await server.connection.create_request(command, *arguments, decode=False)
        except (NotReached, WrongServer, RedisError, TimeoutError) as failed:
            error = failed
        nursery.cancel_scope.cancel()
    if error is not None:
        raise error
    return answer


def name_of(where: tuple[str, int] | str) -> str:
    """A server's address, for logs."""
    return where if isinstance(where, str) else f"{where[0]}:{where[1]}"


def _server(name: str, connection: BaseConnection, hello: Any) -> Server:
    said = {key: value.decode() for key, value in hello.items() if isinstance(value, bytes)}
    major, minor = said[b"version"].split(".")[:2]
    if (version := (int(major), int(minor))) < OLDEST:
        raise WrongServer(f"{name} is Redis {major}.{minor}: {OLDEST[0]}.{OLDEST[1]} or newer is needed")
    return Server(connection, said.get(b"mode", ""), said.get(b"role", ""), version)


async def _open(name: str, where: tuple[str, int] | str, access: Access, seconds: float) -> ByteStream:
    try:
        with trio.fail_after(seconds):
            if isinstance(where, str):
                return await anyio.connect_unix(where)
            if access.ssl_context is None:
                return await anyio.connect_tcp(*where)
            return await anyio.connect_tcp(
                *where, tls=True, ssl_context=access.ssl_context, tls_standard_compatible=False
            )
    except ssl.SSLCertVerificationError as error:
        raise WrongServer(f"the certificate of {name} is not trusted: {error.verify_message}") from error
    except ssl.SSLError as error:
        raise NotReached(f"{name} does not speak TLS as it should, if it does at all: {error}") from error
    except trio.TooSlowError as error:
        hint = " (if it does not speak TLS, the URL begins with redis://)" if access.ssl_context else ""
        raise NotReached(f"{name} has not answered within {seconds:g} s{hint}") from error
    except (OSError, anyio.BrokenResourceError, anyio.EndOfStream) as error:
        raise NotReached(f"{name}: {_cause(error)}") from error


def _cause(error: BaseException) -> str:
    """What has begun it: a library's error says no more than that something failed."""
    while True:
        if isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        elif error.__cause__ is not None:
            error = error.__cause__
        else:
            return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
