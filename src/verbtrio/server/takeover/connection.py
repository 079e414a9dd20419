"""One connection of the take-over: `TakeOverServer`, hypercorn's with a WebSocket phase and a guard.

A connection has two phases, in one task:

1. HTTP: hypercorn's own protocol objects, until an upgrade to a WebSocket arrives over HTTP/1.1. Then our H11
   protocol raises `UpgradeRequested` out of the reading loop (hypercorn itself does so for h2c), and the phase
   unwinds.
2. WebSocket: `takeover.websocket` calls the application with a `Session`, from which verbtrio's endpoint takes the
   stream.

The guard is around both: whatever one connection does ends that connection, is logged once, and closes its
descriptor. In stock hypercorn 0.18, 15 of 25 malformed requests end the whole worker.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import trio
from hypercorn.events import Closed, RawData, Updated
from hypercorn.trio.tcp_server import MAX_RECV

from verbtrio.server.session import HandshakeResponse
from verbtrio.server.takeover.clients import TooMany, turn_away
from verbtrio.server.takeover.hangup import watching
from verbtrio.server.takeover.http1_upgrade import H11Response, UpgradeRequested, upgrade_in
from verbtrio.server.takeover.http2 import H2
from verbtrio.server.takeover.http2_tunnel import Tunnel, TunnelResponse
from verbtrio.server.takeover.linger import LingeringServer
from verbtrio.server.takeover.logs import escape_access_log
from verbtrio.server.takeover.negotiation import Protocols
from verbtrio.server.takeover.requests import RequestTasks
from verbtrio.server.takeover.settings import STATE_KEY, TakeOverSettings
from verbtrio.server.takeover.stalled import send_all
from verbtrio.server.takeover.websocket import scope_of, serve_websocket
from verbtrio.wire.handshake import Handshake, RawHeaders, check_http1, check_http2

logger = logging.getLogger("verbtrio.hypercorn")

TIMER_SECONDS = 1.0
"""The time allowed for what takes an instant: to start or stop hypercorn's keep-alive timer, to close a connection."""


class TakeOverServer(LingeringServer):
    """One connection: hypercorn's, with the WebSocket phase and the guard."""

    last_settings: TakeOverSettings
    """The settings installed last, for a connection whose lifespan's state was lost."""
    _upgrade: UpgradeRequested | None = None

    @property
    def settings(self) -> TakeOverSettings:
        settings: TakeOverSettings = self.state.get(STATE_KEY, self.last_settings)
        return settings

    # Ctrl+C (`hypercorn -w 0`) is for hypercorn's main task, which shuts down in order. Raised in the connection that
    # is running at that moment, it would end the worker without a drain.
    @trio.lowlevel.enable_ki_protection
    async def run(self) -> None:
        """Serve the connection until it is closed. No `Exception` gets out: other connections share the nursery.

        If cancelled, the connection is closed.
        """
        try:
            escape_access_log(self.config)
            clients = self.settings.clients
            counted = clients.admit(self.stream)
            try:
                if await self._http():
                    await serve_websocket(self, self.settings, *self._take_upgrade())
            finally:
                clients.leave(counted)
        except* TooMany:
            turn_away(self.stream)
        except* _PEER_GONE:
            pass
        except* Exception as group:
            _report("a connection", group)
        except* KeyboardInterrupt:  # in a task of a handler or of an HTTP request
            await self.context.terminate.set()
        finally:
            stream: Any = self.stream
            if not isinstance(stream, trio.SocketStream) or stream.socket.fileno() >= 0:
                await trio.aclose_forcefully(stream)
            else:  # Trio's listener closes it again, which would be a tenth of a connection's instructions
                stream.aclose = _closed  # type: ignore[method-assign]  # of this instance alone

    async def protocol_send(self, event: Any) -> None:
        """Send, or do what `event` says.

        hypercorn shields its sends, so a peer that does not read holds up its shutdown. Here a send can be cancelled.
        It may have been cut in the middle, so it ends the connection.
        """
        if isinstance(event, Updated):
            if not self._read_all:  # else there is no next request to wait for
                # Starlette cancels a streaming response as soon as it has been sent. Without the shield, hypercorn 0.18
                # never restarts its keep-alive timer then, and the connection stays open for as long as the peer likes.
                with trio.move_on_after(TIMER_SECONDS, shield=True):
                    await super().protocol_send(event)
            return
        if isinstance(event, Closed):
            # The same cancellation would leave the connection open behind its last response.
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
                await send_all(self.stream, event.data, tasks.timers, tasks.longest_send_timeout)
        except (trio.BrokenResourceError, trio.ClosedResourceError, trio.BusyResourceError):
            broken = True  # busy, although only the lock's holder sends: it is being closed at this moment
        except BaseException:
            await trio.aclose_forcefully(self.stream)
            raise
        if broken:
            await self.protocol.handle(Closed())

    async def _http(self) -> bool:
        """The first phase. Returns whether it ended with an upgrade request (`_upgrade`)."""
        stream: Any = self.stream
        self._first_due = trio.current_time() + self.settings.limits.handshake_timeout
        alpn = "http/1.1"
        if isinstance(stream, trio.SSLStream):
            due = min(self._first_due, trio.current_time() + self.config.ssl_handshake_timeout)
            with trio.move_on_at(due) as limit:
                await stream.do_handshake()
            if limit.cancelled_caught:
                return False
            alpn = stream.selected_alpn_protocol() or alpn
        data = self._read_at_once()
        if (upgrade := upgrade_in(data, self.config)) is not None:
            self._upgrade = upgrade
            return True
        host, limits = self.settings.host, self.settings.limits
        tasks = RequestTasks(
            self.context.terminated, self._abort, host.timers, limits.http_send_timeout, limits.http_receive_timeout
        )
        async with tasks as self._task_group, watching(self.stream, host.poller, tasks.hang_up):
            protocol = Protocols(self, tasks, self.settings, alpn, self.protocol_send, self.serve_tunnel)
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
                await self.idle_task.stop()  # else a connection that is gone stays until the keep-alive timeout
        if self._upgrade is None:
            await self._close()
        # An open WebSocket needs nothing of the HTTP phase.
        del protocol, self.protocol, self._task_group, self._reading
        return self._upgrade is not None

    def _read_at_once(self) -> bytes:
        """What the client has sent by the time its connection is accepted: nearly always its request. An upgrade that
        is there at once needs nothing of hypercorn's HTTP. That saves a nursery, three tasks and nine scopes: half the
        time."""
        stream: Any = self.stream
        if not isinstance(stream, trio.SocketStream) or sys.platform == "win32":
            return b""
        try:
            return os.read(stream.socket.fileno(), MAX_RECV)
        except OSError:  # nothing yet; if the connection is broken, the reader finds out
            return b""

    async def _await_first(self) -> None:
        """Close the connection if its first request does not come in time. Cancelled when the request comes."""
        with trio.move_on_at(self._first_due) as limit:
            await self._idle_timeout()  # hypercorn's, which may end sooner
        if limit.cancelled_caught:
            with trio.move_on_after(TIMER_SECONDS, shield=True):
                await self._initiate_server_close()

    async def _abort(self, stream: Any) -> None:
        """Close the connection in the middle of a response. Over HTTP/2, where others share it, reset the stream."""
        if isinstance(self.protocol.spoken, H2):
            await self.protocol.spoken.give_up(stream.stream_id)
        else:
            await trio.aclose_forcefully(self.stream)

    def _take_upgrade(self) -> tuple[Any, trio.abc.Stream, HandshakeResponse, Callable[[RawHeaders], Handshake], bytes]:
        """The arguments of `serve_websocket`. A call of its own, so that nothing on the stack keeps the request and
        h11's state while the WebSocket is open (measured: 13 KB of 42 a connection)."""
        upgrade, self._upgrade = self._upgrade, None
        assert upgrade is not None
        del self.send_lock, self.idle_task  # 1 KB, of the HTTP phase
        version, target = upgrade.version.decode("ascii"), upgrade.target
        scope = scope_of(self, version, target, upgrade.headers)
        check = partial(check_http1, upgrade.method.decode("ascii"), target.decode("ascii"), version)
        return scope, self.stream, H11Response(self, upgrade.connection), check, upgrade.early

    async def serve_tunnel(self, tunnel: Tunnel) -> None:
        """The second phase over HTTP/2: one WebSocket in one stream, in a task of its own."""
        scope = scope_of(self, "2", tunnel.path, tunnel.headers)
        try:
            await serve_websocket(self, self.settings, scope, tunnel, TunnelResponse(tunnel), check_http2, b"")
        except* _PEER_GONE:
            pass
        except* Exception as group:
            _report("a WebSocket over HTTP/2", group)
        finally:
            await trio.aclose_forcefully(tunnel)


_PEER_GONE = (OSError, trio.BrokenResourceError, trio.ClosedResourceError)
"""The peer has left, which is not worth a line in the log."""


async def _closed() -> None:
    """The `aclose` of a stream that is closed. Not a checkpoint: the task ends here."""


def _report(what: str, group: BaseExceptionGroup[Exception]) -> None:
    """Log the guard's one line."""
    logger.warning("%s was ended: %r", what, _first(group))
    logger.debug("where it came from", exc_info=group)


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
