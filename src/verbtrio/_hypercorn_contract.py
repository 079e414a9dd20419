"""What the take-over uses of hypercorn beyond what that documents, by name and shape."""

from __future__ import annotations

import inspect
from typing import Any

from h11._readers import ChunkedReader
from h11._receivebuffer import ReceiveBuffer
from hypercorn.protocol.h2 import H2Protocol, StreamBuffer
from hypercorn.protocol.h11 import H11Protocol
from hypercorn.protocol.http_stream import HTTPStream
from hypercorn.trio import run as hypercorn_run
from hypercorn.trio.task_group import TaskGroup, _handle
from hypercorn.trio.tcp_server import TCPServer


def what_is_missing() -> list[str]:
    """What hypercorn would have to have, and hasn't."""
    expected: list[tuple[Any, list[str]]] = [
        (TCPServer.__init__, ["self", "app", "config", "context", "state", "stream"]),
        (H11Protocol._create_stream, ["self", "request"]),
        (H11Protocol._handle_events, ["self"]),
        (H11Protocol._send_error_response, ["self", "status_code"]),
        (HTTPStream._send_error_response, ["self", "status_code"]),
        (TCPServer._read_data, ["self"]),
        (TCPServer._idle_timeout, ["self"]),
        (TCPServer.protocol_send, ["self", "event"]),
        (TaskGroup.spawn_app, ["self", "app", "config", "scope", "send"]),
        (_handle, ["app", "config", "scope", "receive", "send", "sync_spawn", "call_soon"]),
        (H2Protocol._create_stream, ["self", "request"]),
        (H2Protocol._handle_events, ["self", "events"]),
        (H2Protocol._send_data, ["self", "stream_id"]),
        (H2Protocol.stream_send, ["self", "event"]),
        (ReceiveBuffer.maybe_extract_at_most, ["self", "count"]),
        (StreamBuffer.pop, ["self", "max_length"]),
    ]
    missing = [
        f"{function.__qualname__}{inspect.signature(function)}"
        for function, parameters in expected
        if list(inspect.signature(function).parameters) != parameters
    ]
    used = {"_bytes_in_chunk", "_bytes_to_discard", "_reading_trailer"} - set(vars(ChunkedReader()))
    missing += [f"h11's ChunkedReader.{name} is gone" for name in sorted(used)]
    if not hasattr(ReceiveBuffer(), "_data"):
        missing.append("h11's ReceiveBuffer._data is gone")
    if not inspect.isclass(getattr(hypercorn_run, "TCPServer", None)):
        missing.append("hypercorn.trio.run.TCPServer is gone")
    return missing
