"""The take-over: WebSocket connections leave hypercorn's Trio worker's hands at the upgrade.

This module and the `_hypercorn_*` beside it are the one place that knows hypercorn's insides. Its `worker_serve` looks
up `TCPServer` after the application's startup; `take_over` puts a subclass there for as long as the application lives.
A connection of it has two phases, in one task:

1. HTTP: hypercorn's own protocol objects, until an upgrade to a WebSocket arrives over HTTP/1.1. Then our H11
   protocol raises `UpgradeRequested` out of the reading loop (the idiom hypercorn itself uses for h2c) and the phase
   unwinds.
2. WebSocket: the ASGI application is called with a `Session`, which verbtrio's endpoint takes the stream from.

Around both stands a guard: whatever one connection does ends that connection, is logged once, and closes its
descriptor. In stock hypercorn 0.18, 15 of 25 malformed requests end the whole worker.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from types import SimpleNamespace
from typing import Any
from urllib.parse import unquote

import trio
from hypercorn.events import Closed, RawData, Updated
from hypercorn.trio import run as hypercorn_run
from hypercorn.trio.tcp_server import MAX_RECV, TCPServer
from hypercorn.trio.udp_server import UDPServer
from hypercorn.utils import valid_server_name

from verbtrio.base.errors import HandshakeError
from verbtrio.base.limits import Limits
from verbtrio.base.types import EXTENSION, Shared
from verbtrio.connection.heartbeat import Heartbeat
from verbtrio.guards.proxies import TrustedProxies
from verbtrio.server.asgi_websocket import Host, PeerGone, only
from verbtrio.server.session import Session
from verbtrio.server.takeover.clients import Clients, turn_away
from verbtrio.server.takeover.hangup import watching
from verbtrio.server.takeover.http1_upgrade import H11Response, UpgradeRequested, upgrade_in
from verbtrio.server.takeover.http2 import H2, hush
from verbtrio.server.takeover.http2_tunnel import Tunnel, TunnelResponse
from verbtrio.server.takeover.linger import LingeringServer
from verbtrio.server.takeover.logs import escape_access_log, sparing
from verbtrio.server.takeover.negotiation import Protocols, addresses_of
from verbtrio.server.takeover.requests import RequestTasks
from verbtrio.server.takeover.stalled import send_all
from verbtrio.server.takeover.terms import terms
from verbtrio.wire.handshake import Handshake, RawHeaders, check_http1, check_http2

logger = logging.getLogger("verbtrio.hypercorn")

TIMER_SECONDS = 1.0
"""What starting or stopping hypercorn's keep-alive timer, or closing a connection, may take: an instant."""


@dataclass(slots=True)
class TakeOver(Shared):
    """The settings of one application's take-over."""

    host: Host
    limits: Limits
    proxies: TrustedProxies
    http2_websockets: bool
    heartbeat: Heartbeat | None
    http2_cleartext: bool
    clients: Clients = field(init=False)

    def __post_init__(self) -> None:
        self.clients = Clients(self.limits.max_tcp_connections_per_client, self.proxies)


STATE_KEY = "verbtrio.take_over"
"""Where the lifespan's state carries the `TakeOver` to the connections of its own server."""


@contextmanager
def take_over(settings: TakeOver) -> Iterator[dict[str, Any]]:
    """Take WebSocket connections over while the block is entered; give what belongs into the lifespan's state.

    (An application that wraps our lifespan in its own may lose the state; then the last one to have started counts.)
    For a hypercorn that has what `contract.check.TAKE_OVER` lists: whoever calls this has looked.
    """
    hush()
    subclass: Any = type("TakeOverServer", (TakeOverServer,), {"last_settings": settings})
    run: Any = hypercorn_run  # hypercorn exports nothing by intention
    run.TCPServer, run.UDPServer = subclass, _refuse_quic
    try:
        with sparing():
            yield {STATE_KEY: settings}
    finally:
        if run.TCPServer is subclass:
            run.TCPServer, run.UDPServer = TCPServer, UDPServer


def _refuse_quic(*_: Any) -> Any:
    """In the place of hypercorn's server for HTTP/3, whose WebSockets would be hypercorn's own, without a limit."""
    raise RuntimeError(
        "verbtrio does not take HTTP/3 over: leave out `quic_bind`, or let a reverse proxy speak HTTP/3 to clients"
    )


class TakeOverServer(LingeringServer):
    """One connection: hypercorn's, with the WebSocket phase and the guard."""

    last_settings: TakeOver
    _upgrade: UpgradeRequested | None = None

    @property
    def settings(self) -> TakeOver:
        settings: TakeOver = self.state.get(STATE_KEY, self.last_settings)
        return settings

    # Ctrl+C (`hypercorn -w 0`) is for hypercorn's main task, which shuts down in order; raised in whatever connection
    # is at work at that moment, it would end the worker without a drain.
    @trio.lowlevel.enable_ki_protection
    async def run(self) -> None:
        """Serve the connection until it is closed. Lets no `Exception` out: others share the nursery.

        If cancelled, the connection is closed.
        """
        try:
            escape_access_log(self.config)
            with self.settings.clients.admitting(self.stream) as is_admitted:
                if not is_admitted:
                    turn_away(self.stream)
                elif await self._http():
                    await self._serve(*self._take_upgrade())
        except* _PEER_GONE:
            pass
        except* Exception as group:
            _report("a connection", group)
        except* KeyboardInterrupt:  # in a task of the handler's, or of an HTTP request's
            await self.context.terminate.set()
        finally:
            stream: Any = self.stream
            if not isinstance(stream, trio.SocketStream) or stream.socket.fileno() >= 0:
                await trio.aclose_forcefully(stream)
            else:  # closed; Trio's listener does it once more, which would be a tenth of a connection's instructions
                stream.aclose = _closed  # type: ignore[method-assign]

    async def protocol_send(self, event: Any) -> None:
        """hypercorn shields its sends: a peer that does not read would hold up the shutdown. Here a send that is
        cancelled may have been cut in the middle, so it ends the connection."""
        if isinstance(event, Updated):
            if not self._read_all:  # else nothing more can come: no use in waiting for it
                # Starlette cancels a streaming response as soon as it has been sent. hypercorn 0.18 then never starts
                # the keep-alive's timer again, and the connection stays for as long as the peer likes.
                with trio.move_on_after(TIMER_SECONDS, shield=True):
                    await super().protocol_send(event)
            return
        if isinstance(event, Closed):
            # The same cancellation would leave a connection open that is to be closed after its response.
            with trio.move_on_after(TIMER_SECONDS, shield=True) as limit:
                await self._end_http()
            if limit.cancelled_caught:
                await trio.aclose_forcefully(self.stream)
            return
        if not isinstance(event, RawData):
            await super().protocol_send(event)
            return
        broken = False
        try:
            async with self.send_lock:
                tasks: Any = self._task_group
                await send_all(self.stream, event.data, tasks.timers, tasks.patience)
        except (trio.BrokenResourceError, trio.ClosedResourceError, trio.BusyResourceError):
            broken = True  # busy (whoever sends holds the lock): it is being closed at this moment
        except BaseException:
            await trio.aclose_forcefully(self.stream)
            raise
        if broken:
            await self.protocol.handle(Closed())

    async def _http(self) -> bool:
        """The first phase; returns whether it ended with an upgrade request (`_upgrade`)."""
        stream: Any = self.stream
        self._first_due = trio.current_time() + self.settings.limits.handshake_timeout
        alpn, ssl = "http/1.1", isinstance(stream, trio.SSLStream)
        if isinstance(stream, trio.SSLStream):
            due = min(self._first_due, trio.current_time() + self.config.ssl_handshake_timeout)
            with trio.move_on_at(due) as limit:
                await stream.do_handshake()
            if limit.cancelled_caught:
                return False
            alpn = stream.selected_alpn_protocol() or alpn
        data = self._at_hand()
        if (upgrade := upgrade_in(data, self.config)) is not None:
            self._upgrade = upgrade
            return True
        client, local = addresses_of(self.stream)
        host, limits = self.settings.host, self.settings.limits
        tasks = RequestTasks(
            self.context.terminated, self._abort, host.timers, limits.http_send_timeout, limits.http_receive_timeout
        )
        async with tasks as self._task_group, watching(self.stream, host.poller, tasks.hang_up):
            protocol = Protocols(self, alpn, ssl, client, local)
            self.protocol: Any = protocol
            self._reading = trio.CancelScope()
            await protocol.initiate()
            await self.idle_task.restart(self._task_group, self._await_first)
            try:
                if data:
                    await protocol.handle(RawData(data))
                await self._read_data()
            except UpgradeRequested as upgrade:
                self._upgrade = upgrade
            except (OSError, trio.BrokenResourceError, trio.ClosedResourceError):
                raise
            except Exception:
                await protocol.refuse()
                raise
            finally:
                self._read_all = True
                protocol.end()
                await self.idle_task.stop()  # else it keeps a connection that is gone for the keep-alive's time
        if self._upgrade is None:
            await self._close()
        del (
            protocol,
            self.protocol,
            self._task_group,
            self._reading,
        )  # an open WebSocket needs nothing of the HTTP phase
        return self._upgrade is not None

    def _at_hand(self) -> bytes:
        """What a client has sent by the time its connection is accepted: nearly always its request. An upgrade that is
        there at once needs nothing of hypercorn's HTTP: a nursery, three tasks and nine scopes less, half the time."""
        stream: Any = self.stream
        if not isinstance(stream, trio.SocketStream) or sys.platform == "win32":
            return b""
        try:
            return os.read(stream.socket.fileno(), MAX_RECV)
        except OSError:  # not yet; or never, which the reader will find out
            return b""

    async def _await_first(self) -> None:
        """Close the connection when its first request has not come in time. Cancelled when it has."""
        with trio.move_on_at(self._first_due) as limit:
            await self._idle_timeout()  # hypercorn's, which may have less time
        if limit.cancelled_caught:
            with trio.move_on_after(TIMER_SECONDS, shield=True):
                await self._initiate_server_close()

    async def _abort(self, stream: Any) -> None:
        """Close the connection in the middle of a response; over HTTP/2, where others share it, reset its stream."""
        if isinstance(self.protocol.spoken, H2):
            await self.protocol.spoken.give_up(stream.stream_id)
        else:
            await trio.aclose_forcefully(self.stream)

    def _take_upgrade(self) -> tuple[Any, trio.abc.Stream, H11Response, Callable[[RawHeaders], Handshake], bytes]:
        """The arguments of `_serve`. A call of its own, so that nothing on the stack keeps the request and h11's state
        for as long as the WebSocket lives (measured: 13 KB of 42 a connection)."""
        upgrade, self._upgrade = self._upgrade, None
        assert upgrade is not None
        del self.send_lock, self.idle_task  # the HTTP phase's, too: 1 KB
        version, target = upgrade.version.decode("ascii"), upgrade.target
        scope = self._scope(version, target, upgrade.headers)
        check = partial(check_http1, upgrade.method.decode("ascii"), target.decode("ascii"), version)
        return scope, self.stream, H11Response(self, upgrade.connection), check, upgrade.early

    async def serve_tunnel(self, tunnel: Tunnel) -> None:
        """The same over HTTP/2: one WebSocket in one of the connection's streams, in a task of the connection's."""
        scope = self._scope("2", tunnel.path, tunnel.headers)
        try:
            await self._serve(scope, tunnel, TunnelResponse(tunnel), check_http2, b"")
        except* _PEER_GONE:
            pass
        except* Exception as group:
            _report("a WebSocket over HTTP/2", group)
        finally:
            await trio.aclose_forcefully(tunnel)

    async def _serve(
        self,
        scope: Any,
        stream: trio.abc.Stream,
        response: H11Response | TunnelResponse,
        check: Callable[[RawHeaders], Handshake],
        early: bytes,
    ) -> None:
        """The second phase: check the upgrade request, and call the application with it, for as long as it lives."""
        started = time.time()  # for hypercorn's access log, which reckons by the wall clock
        try:
            if not valid_server_name(self.config, SimpleNamespace(headers=scope["headers"])):  # type: ignore[arg-type]
                raise HandshakeError(404, "no such host")
            handshake = check(scope["headers"])
        except HandshakeError as error:
            await response.refuse(error)
            status = error.status
        else:
            settings = self.settings
            others = partial(terms, self.config, settings.limits, settings.heartbeat)
            terminated = self.context.terminated
            session = Session(stream, handshake, response, early, terminated, settings.limits, settings.host, others)
            del response, handshake, check  # what an open WebSocket doesn't need, it shouldn't hold
            scope["subprotocols"] = session.subprotocols
            scope["extensions"] = {"websocket.http.response": {}, EXTENSION: session}
            await self.context.mark_request()
            await self._call(scope, session)
            status, remain = session.status, session.remain
            session.remain = None
            del session
            if remain is not None:
                del scope["extensions"][EXTENSION]  # 1 KB that nobody needs any more
                await remain()
        self.settings.host.answered(status)
        logged: Any = {**scope, "path": scope["raw_path"].decode("ascii", "replace")}  # no line breaks, whoever asks
        await self.config.log.access(logged, {"status": status, "headers": []}, time.time() - started)

    async def _call(self, scope: Any, session: Session) -> None:
        """Call the application with an upgrade request, and answer for it where it does not."""
        self.settings.host.watch(self.context.terminated)
        if session.is_polled:
            await self._run(scope, session)
        else:
            async with trio.open_nursery() as session.nursery:
                await self._run(scope, session)

    async def _run(self, scope: Any, session: Session) -> None:
        self.settings.host.add_session(session)
        failed = True
        try:
            app: Any = self.app
            with session.answering:
                await app(scope, session.receive, session.send, trio.to_thread.run_sync, trio.from_thread.run)
                failed = False
            if session.answering.cancelled_caught and not session.draining:
                limit = self.settings.limits.handshake_timeout
                logger.warning("the application did not answer the upgrade of %r within %g s", scope["path"], limit)
        except* PeerGone:
            pass  # while the application was sending
        except* Exception as group:
            logger.error("the application failed on the WebSocket at %r", scope["path"], exc_info=only(group))
        finally:
            if not session.is_taken:
                with trio.move_on_after(self.settings.limits.close_timeout, shield=True):
                    await session.finish(failed=failed)
            self.settings.host.discard_session(session)

    def _scope(self, http_version: str, target: bytes, headers: RawHeaders) -> Any:
        stream: Any = self.stream
        path, _, query_string = target.partition(b"?")
        client, local = addresses_of(self.stream)
        return {
            "type": "websocket",
            "asgi": {"spec_version": "2.4", "version": "3.0"},
            "scheme": "wss" if isinstance(stream, trio.SSLStream) else "ws",
            "http_version": http_version,
            "path": unquote(path.decode("ascii", "replace")),
            "raw_path": path,
            "query_string": query_string,
            "root_path": self.config.root_path,
            "headers": headers,
            "client": client,
            "server": local,
            "state": self.state.copy(),
        }


_PEER_GONE = (OSError, trio.BrokenResourceError, trio.ClosedResourceError)
"""A peer that has left, which is not worth a line in the log."""


async def _closed() -> None:
    """Close what is closed. Not a checkpoint: the task ends with it."""


def _report(what: str, group: BaseExceptionGroup[Exception]) -> None:
    """The guard's one line in the log."""
    logger.warning("%s was ended: %r", what, _first(group))
    logger.debug("where it came from", exc_info=group)


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
