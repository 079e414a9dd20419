"""All that verbtrio uses of other packages beyond what they document, and what happens where it is gone.

A `Part` is a part of verbtrio that it can do without. It is checked when an application starts, before the part is
imported. Where a name is gone, or can't be used as it is used here, one warning names it, and the application runs
without the part. What verbtrio can't do without (`STARLETTE`) is checked when verbtrio is imported (`contract.needed`).
`tests/contract/test_check.py` walks these lists, and finds what is used and not listed.

To widen a bound in pyproject.toml, run `nox -s newest`: all tests with the newest version of each package.
"""

from __future__ import annotations

import logging
import re
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from verbtrio.contract.hypercorn import HTTP, HYPERCORN
from verbtrio.contract.uses import Attributes, Call, Name, Refers, Returns, Use, find

logger = logging.getLogger("verbtrio.contract")

MAX_SHOWN = 5
"""Faults that the warning names: a package that has been rewritten has a hundred."""


@dataclass(frozen=True)
class Part:
    """A part of verbtrio, and what it uses.

    Args:
        without: what happens without it, for the log.
    """

    without: str
    uses: tuple[Use, ...]

    def faults(self) -> Iterator[str]:
        """What is missing or different. Raises nothing."""
        for use in self.uses:
            yield from use.faults()


def is_available(part: Part) -> bool:
    """Whether all that `part` uses is there. If not, one warning says what is missing and what happens instead."""
    faults = list(dict.fromkeys(part.faults()))
    if faults:
        more = f"; and {len(faults) - MAX_SHOWN} more" if len(faults) > MAX_SHOWN else ""
        logger.warning(
            "another package is not as verbtrio knows it (%s%s): %s. Install the versions that verbtrio's own "
            "requirements admit; see docs/architecture.md, By contract",
            "; ".join(faults[:MAX_SHOWN]),
            more,
            part.without,
        )
    return not faults


# Frames and handshakes

_WS = "websockets.protocol:Protocol"


def _protocol() -> Any:
    return find(_WS)(find("websockets.protocol:Side.SERVER"), state=find("websockets.protocol:State.OPEN"), max_size=1)


WEBSOCKETS: tuple[Use, ...] = (
    Returns("websockets.frames:apply_mask", (b"\x03\x03\x03\x03\x03", b"\x01\x02\x03\x04"), b"\x02\x01\x00\x07\x02"),
    Name("websockets.frames:CloseCode", type),
    *(Name(f"websockets.frames:Opcode.{name}", int) for name in ("BINARY", "CLOSE", "CONT", "PING", "PONG", "TEXT")),
    Call("websockets.frames:Close.parse", "data"),
    Call("websockets.frames:Frame", "opcode, data"),
    Call("websockets.frames:Frame.serialize", "self, mask=, extensions="),
    Attributes("websockets.frames:Frame", lambda: find("websockets.frames:Frame")(1, b""), "data fin opcode"),
    Attributes("websockets.frames:Close", lambda: find("websockets.frames:Close")(1000, ""), "code reason"),
    Call("websockets.exceptions:PayloadTooBig", "size_or_message, max_size"),
    Name("websockets.exceptions:ProtocolError", type),
    Name("websockets.exceptions:InvalidHandshake", type),
    Name("websockets.exceptions:InvalidUpgrade", type),
    Name("websockets.extensions:Extension", type),
    Name("websockets.protocol:Side.SERVER"),
    Name("websockets.protocol:State.OPEN"),
    Call(_WS, "side, state=, max_size=, logger="),
    Call(_WS + ".data_to_send", "self"),
    Call(_WS + ".events_received", "self"),
    Call(_WS + ".fail", "self, code, reason"),
    Call(_WS + ".receive_data", "self, data"),
    Call(_WS + ".recv_frame", "self, frame"),
    Call(_WS + ".send_close", "self, code, reason"),
    Refers(_WS + ".parse", "recv_frame fail current_size extensions parser_exc"),
    Refers(_WS + ".recv_frame", "current_size close_rcvd"),
    Attributes(_WS, _protocol, "close_rcvd close_sent current_size extensions parser_exc state writes"),
    Call("websockets.server:ServerProtocol", "extensions=, logger="),
    Call("websockets.server:ServerProtocol.process_extensions", "self, headers"),
    Call("websockets.server:ServerProtocol.process_request", "self, request"),
    Call("websockets.http11:Request", "path, headers, method=, protocol="),
    Call("websockets.datastructures:Headers", ""),
    Call("websockets.datastructures:Headers.get_all", "self, key"),
    Returns("websockets.headers:parse_subprotocol", ("a, b",), ["a", "b"]),
    Call(
        "websockets.extensions.permessage_deflate:ServerPerMessageDeflateFactory",
        "server_max_window_bits=, client_max_window_bits=, compress_settings=",
    ),
)

TAKE_OVER = Part(
    "WebSockets run over plain ASGI, without the promises that the take-over makes",
    HYPERCORN + HTTP + WEBSOCKETS,
)

# Trio


def _ssl_stream() -> Any:
    return find("trio:SSLStream")(None, ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), server_side=True)


TLS = Part(
    "TLS connections are read and written by tasks, through Trio's own stream, at five times the cost",
    (
        Attributes(
            "trio:SSLStream",
            _ssl_stream,
            "_delayed_outgoing _incoming _outgoing _ssl_object",
            {"_incoming": ssl.MemoryBIO, "_outgoing": ssl.MemoryBIO, "_ssl_object": ssl.SSLObject},
        ),
    ),
)
"""`wire.tls.Tls.taken_from` checks each stream in the same way."""


def _cancel_status() -> Any:
    with find("trio:CancelScope")() as scope:
        return scope._cancel_status


NURSERY = Part(
    "a connection whose handler has returned ends only when the tasks of its nursery have ended",
    (
        Attributes(
            "trio:Nursery",
            lambda: find("trio.lowlevel:current_task")().parent_nursery,
            "_pending_excs",
            {"_pending_excs": list},
        ),
        Attributes("trio:CancelScope", lambda: find("trio:CancelScope")(), "_cancel_status"),
        Attributes(
            "trio:CancelScope",
            _cancel_status,
            "parent_cancellation_is_visible_to_us",
            {"parent_cancellation_is_visible_to_us": bool},
        ),
    ),
)
"""`connection.handling` checks each nursery in the same way."""

UNWIND = Part(
    "the layers of the application stay around each WebSocket while it is open, at 4 KB more",
    (
        Name("hypercorn.app_wrappers:ASGIWrapper", type),
        Name("starlette._exception_handler:wrap_app_handling_exceptions"),
    ),
)
"""`server.unwind` knows by their names the modules whose calls may be over."""

ADDRESS = Part(
    "hypercorn reports an address that can't be bound, in its own words",
    (
        Refers("hypercorn.trio.run:worker_serve", "create_sockets"),
        Attributes("hypercorn.config:Config", lambda: find("hypercorn.config:Config")(), "backlog bind ssl_enabled"),
        Call("hypercorn.config:Config.create_sockets", "self"),
        Call("hypercorn.config:Sockets", "secure_sockets, insecure_sockets, quic_sockets"),
    ),
)

# Starlette

_APP = "starlette.applications:Starlette"
_ROUTING = "starlette.routing:"


async def _nothing(*_: Any) -> None:
    """An ASGI application."""


STARLETTE: tuple[Use, ...] = (
    Call(_APP + ".__init__", "self, debug=, middleware=, exception_handlers=, max_body_size="),
    Attributes(_APP, lambda: find(_APP)(), "middleware_stack router routes user_middleware", {"user_middleware": list}),
    Refers(_APP + ".build_middleware_stack", "router user_middleware"),
    Refers(_APP + ".__call__", "middleware_stack"),
    Call(_ROUTING + "Router", "routes, lifespan="),
    Call(_ROUTING + "Router.__call__", "self, scope, receive, send", is_async=True),
    Call(_ROUTING + "Router.not_found", "self, scope, receive, send", is_async=True),
    Refers(_ROUTING + "Router.app", "default"),
    Attributes(_ROUTING + "Router", lambda: find(_ROUTING + "Router")(), "default routes not_found", {"routes": list}),
    *(Name(f"{_ROUTING}Match.{name}") for name in ("NONE", "PARTIAL", "FULL")),
    Call(_ROUTING + "BaseRoute.matches", "self, scope"),
    Call(_ROUTING + "Mount", "path, routes=, middleware="),
    Call(_ROUTING + "Mount.matches", "self, scope"),
    Attributes(
        _ROUTING + "Mount",
        lambda: find(_ROUTING + "Mount")("/a", routes=[]),
        "app path routes _base_app",
        {"routes": list},
    ),
    Attributes(
        _ROUTING + "Route",
        lambda: find(_ROUTING + "Route")("/a/{b}", _nothing),
        "endpoint path_format",
        {"path_format": str},
    ),
    Attributes(
        _ROUTING + "WebSocketRoute",
        lambda: find(_ROUTING + "WebSocketRoute")("/a/{b}", _nothing),
        "endpoint path_format",
        {"path_format": str},
    ),
    Call(_ROUTING + "compile_path", "path"),
    Name(_ROUTING + "PARAM_REGEX", re.Pattern),
    *(
        Name(f"starlette.convertors:{name}Convertor", type)
        for name in ("", "Float", "Integer", "Path", "String", "UUID")
    ),
    Call("starlette.concurrency:iterate_in_threadpool", "iterator"),
    Call("starlette.concurrency:run_in_threadpool", "func", is_async=True),
    Call("starlette.middleware.base:BaseHTTPMiddleware", "app, dispatch="),
    Call("starlette.middleware.base:BaseHTTPMiddleware.__call__", "self, scope, receive, send", is_async=True),
    Attributes(
        "starlette.middleware.base:BaseHTTPMiddleware",
        lambda: find("starlette.middleware.base:BaseHTTPMiddleware")(None, dispatch=_nothing),
        "app",
    ),
    Call("starlette.responses:Response.init_headers", "self, headers"),
    Attributes(
        "starlette.responses:Response",
        lambda: find("starlette.responses:Response")(),
        "background body charset headers media_type raw_headers status_code",
        {"raw_headers": list},
    ),
)
