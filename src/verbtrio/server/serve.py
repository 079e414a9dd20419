"""Serving with hypercorn's Trio worker: inside a Trio program, or as a script."""

from __future__ import annotations

import errno
import os
import signal
import socket
import sys
from typing import Any

import hypercorn.trio
import trio
from hypercorn.config import Config

from verbtrio.contract.check import ADDRESS, is_available
from verbtrio.guards.environment import check_port
from verbtrio.guards.environment import port as environment_port

DEFAULT_PORT = 3000
HARD_STOP_SECONDS = 5.0
"""What hypercorn's own grace and shutdown may take beyond the drain before all is cancelled."""


class ListenError(OSError):
    """The address can't be had: another program has it, or it is not one of this machine's."""


class _Config(Config):
    """hypercorn's, for one address.

    Attributes:
        address: the host and the port.
    """

    address: tuple[str, int]

    def create_sockets(self) -> Any:
        """The socket that listens.

        Raises:
            ListenError: the address can't be had.
        """
        family = socket.AF_INET6 if ":" in self.address[0] else socket.AF_INET
        both = family is socket.AF_INET6 and socket.has_dualstack_ipv6()
        try:
            sock = socket.create_server(self.address, family=family, backlog=self.backlog, dualstack_ipv6=both)
        except OSError as error:
            problem = str(error.strerror).partition(" (while")[0]  # Python adds the address, which we name ourselves
            advice = _ADVICE.get(error.errno, "")
            if error.errno == errno.EADDRNOTAVAIL or (error.errno or 0) < 0:  # the resolver's are negative
                advice = " (host is an address of this machine: 127.0.0.1 for local clients only, 0.0.0.0 for all)"
            raise ListenError(error.errno, f"can't listen on {self.bind[0]}: {problem}{advice}") from None
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setblocking(False)
        from hypercorn.config import Sockets  # here: a hypercorn without it never calls this

        return Sockets([sock], [], []) if self.ssl_enabled else Sockets([], [sock], [])


_ADVICE: dict[int | None, str] = {
    errno.EADDRINUSE: " (for another port: PORT=...; 0 takes a free one)",
    errno.EACCES: " (ports below 1024 need a privilege; for another port: PORT=...)",
}


def config(
    port: int | None = None,
    *,
    host: str = "127.0.0.1",
    certfile: str | None = None,
    keyfile: str | None = None,
) -> Config:
    """hypercorn's configuration for one address. `port`: the environment's PORT, else 3000; 0 takes a free one.

    Raises:
        ValueError: `certfile` or `keyfile` is given without the other, or does not exist; or the port is not valid.
        TypeError: `port` is not an `int`.
    """
    if (certfile is None) != (keyfile is None):
        raise ValueError("certfile and keyfile go together: with only one of them there would be no TLS")
    for name in (certfile, keyfile):
        if name is not None and not os.path.isfile(name):
            raise ValueError(f"no such file: {name!r}")
    if port is not None and type(port) is not int:
        raise TypeError(f"port is an int, like {DEFAULT_PORT}, not {port!r:.100}")
    port = environment_port(DEFAULT_PORT) if port is None else check_port("port", port)
    settings = Config()
    if is_available(ADDRESS):
        settings = _Config()
        settings.address = host, port
    settings.bind = [f"[{host}]:{port}" if ":" in host else f"{host}:{port}"]
    settings.certfile = certfile
    settings.keyfile = keyfile
    return settings


async def serve(
    app: Any,
    config: Config,
    *,
    drain_timeout: float,
    task_status: trio.TaskStatus[list[str]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve `app` until cancelled; `task_status` gets the addresses, once connections are accepted.

    If cancelled before that, it stops at once. If cancelled afterwards, it drains the connections first: clients get
    1012, and close hooks run. That has a deadline, after which what is left is cancelled.

    Raises:
        ListenError: the address can't be had.
    """
    stop = trio.Event()
    try:
        async with trio.open_nursery() as nursery:
            with trio.CancelScope() as server:
                # Once the server has started, this scope is shielded; `_stop_on_cancel` then sets its deadline.
                nursery.start_soon(_stop_on_cancel, stop, server, drain_timeout + HARD_STOP_SECONDS)
                started: Any = _Started(server, task_status)
                await hypercorn.trio.serve(app, config, shutdown_trigger=stop.wait, task_status=started)
            nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        if (error := _listen_error(group)) is None or len(_leaves(group)) > 1:
            raise
        raise error from None  # by itself, not in the groups of hypercorn's nurseries


class _Started:
    """A task status that shields the server once it has started."""

    def __init__(self, server: trio.CancelScope, task_status: trio.TaskStatus[list[str]]) -> None:
        self._server = server
        self._task_status = task_status

    def started(self, urls: list[str]) -> None:
        self._server.shield = True
        self._task_status.started(urls)


async def _stop_on_cancel(stop: trio.Event, server: trio.CancelScope, limit: float) -> None:
    """Turn a cancellation into an orderly stop of `server`, within `limit` seconds."""
    try:
        await trio.sleep_forever()
    finally:
        stop.set()
        server.deadline = trio.current_time() + limit


def listen(app: Any, config: Config, *, drain_timeout: float) -> None:
    """Serve `app` until SIGINT or SIGTERM, and print the address. If it can't be had: one line, and exit code 1."""
    try:
        trio.run(_listen, app, config, drain_timeout)
    except BaseExceptionGroup as group:
        if (error := _listen_error(group)) is None:
            raise
        sys.exit(error.strerror)


def _leaves(error: BaseException) -> list[BaseException]:
    if not isinstance(error, BaseExceptionGroup):
        return [error]
    return [leaf for one in error.exceptions for leaf in _leaves(one)]


def _listen_error(group: BaseException) -> ListenError | None:
    return next((leaf for leaf in _leaves(group) if isinstance(leaf, ListenError)), None)


async def _listen(app: Any, config: Config, drain_timeout: float) -> None:
    config.loglevel = "WARNING"  # else hypercorn's "Running on" would say it a second time
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with trio.open_nursery() as watch:
            async with trio.open_nursery() as nursery:

                async def server(task_status: trio.TaskStatus[list[str]]) -> None:
                    await serve(app, config, drain_timeout=drain_timeout, task_status=task_status)

                async def stop_on_signal() -> None:
                    async for _ in signals:  # the first one stops the server; others must not cut the drain short
                        nursery.cancel_scope.cancel()

                watch.start_soon(stop_on_signal)
                urls: list[str] = await nursery.start(server)
                print(f"Listening on {', '.join(urls)} (Ctrl+C to quit)", file=sys.stderr, flush=True)  # noqa: T201
            watch.cancel_scope.cancel()
