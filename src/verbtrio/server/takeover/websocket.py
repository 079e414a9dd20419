"""A connection's second phase: an upgrade request is checked, and the application is called with it.

The application's call ends the stack walk of `server.unwind`, which knows this module by its name.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any
from urllib.parse import unquote

import trio
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.utils import valid_server_name

from verbtrio.base.errors import HandshakeError
from verbtrio.base.types import EXTENSION
from verbtrio.server.asgi_websocket import PeerGone
from verbtrio.server.session import HandshakeResponse, Session
from verbtrio.server.takeover.addresses import addresses_of
from verbtrio.server.takeover.hypercorn_settings import websocket_settings
from verbtrio.server.takeover.settings import TakeOverSettings
from verbtrio.wire.handshake import Handshake, RawHeaders

logger = logging.getLogger("verbtrio.hypercorn")

ASGI = {"spec_version": "2.4", "version": "3.0"}
"""One for all scopes: nobody writes into it, and it would be 0.2 KB of each connection."""


async def serve_websocket(
    server: TCPServer,
    settings: TakeOverSettings,
    scope: Any,
    stream: trio.abc.Stream,
    response: HandshakeResponse,
    check: Callable[[RawHeaders], Handshake],
    early: bytes,
) -> None:
    """Check an upgrade request and call the application with it. Returns when the WebSocket has ended.

    Args:
        server: the connection.
        settings: the application's.
        scope: the request, as `scope_of` makes it.
        stream: the peer, from the end of the handshake on.
        response: answers the request.
        check: checks the handshake's headers.
        early: bytes that came after the request.
    """
    started = time.time()  # for hypercorn's access log, which uses the wall clock
    request: Any = SimpleNamespace(headers=scope["headers"])  # as much of one as hypercorn looks at
    try:
        if not valid_server_name(server.config, request):
            raise HandshakeError(404, "no such host")
        handshake = check(scope["headers"])
    except HandshakeError as error:
        await response.refuse(error)
        status = error.status
    else:
        asgi_settings = partial(websocket_settings, server.config, settings.limits, settings.heartbeat)
        terminated = server.context.terminated
        session = Session(stream, handshake, response, early, terminated, settings.limits, settings.host, asgi_settings)
        del request, response, handshake, check, asgi_settings  # an open WebSocket doesn't need them
        scope["subprotocols"] = session.subprotocols
        scope["extensions"] = {"websocket.http.response": {}, EXTENSION: session}
        await server.context.mark_request()
        await _call(server, settings, scope, session)
        status, remain = session.status, session.remain
        session.remain = None
        del session
        if remain is not None:
            scope.pop("extensions").clear()  # 1.2 KB, of the handshake; copies of the scope have the same one
            remaining = remain()
            del remain
            await remaining
    settings.host.count_answer(status)
    logged: Any = {**scope, "path": scope["raw_path"].decode("ascii", "replace")}  # not decoded: no line breaks
    await server.config.log.access(logged, {"status": status, "headers": []}, time.time() - started)


async def _call(server: TCPServer, settings: TakeOverSettings, scope: Any, session: Session) -> None:
    """Call the application, with a nursery around the call where the connection needs one."""
    settings.host.watch(server.context.terminated)
    if session.is_polled:
        await _run(server, settings, scope, session)
    else:
        async with trio.open_nursery() as session.nursery:
            await _run(server, settings, scope, session)


async def _run(server: TCPServer, settings: TakeOverSettings, scope: Any, session: Session) -> None:
    """Call the application, and answer the request where the application does not."""
    settings.host.add_session(session)
    failed = True
    try:
        app: Any = server.app
        with session.answering:
            await app(scope, session.receive, session.send, trio.to_thread.run_sync, trio.from_thread.run)
            failed = False
        if session.answering.cancelled_caught and not session.draining:
            limit = settings.limits.handshake_timeout
            logger.warning("the application did not answer the upgrade of %r within %g s", scope["path"], limit)
    except* PeerGone:
        pass  # while the application was sending
    except* Exception as group:
        logger.error("the application failed on the WebSocket at %r", scope["path"], exc_info=_sole_error(group))
    finally:
        if not session.is_taken:
            with trio.move_on_after(settings.limits.close_timeout, shield=True):
                await session.finish(failed=failed)
        settings.host.discard_session(session)


def _sole_error(error: Exception) -> Exception:
    """What was raised, without the groups around it alone: `except*` makes one."""
    while isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


def scope_of(server: TCPServer, http_version: str, target: bytes, headers: RawHeaders) -> Any:
    """The ASGI scope of an upgrade request on a connection."""
    stream: Any = server.stream
    path, _, query_string = target.partition(b"?")
    client, local = addresses_of(stream)
    return {
        "type": "websocket",
        "asgi": ASGI,
        "scheme": "wss" if isinstance(stream, trio.SSLStream) else "ws",
        "http_version": http_version,
        "path": unquote(path.decode("ascii", "replace")),
        "raw_path": path,
        "query_string": query_string,
        "root_path": server.config.root_path,
        "headers": headers,
        "client": client,
        "server": local,
        "state": server.state.copy(),
    }
