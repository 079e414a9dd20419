"""What the take-over uses of hypercorn, and of the packages under hypercorn's protocols (see `contract.check`)."""

from __future__ import annotations

import socket
from types import SimpleNamespace
from typing import Any

from verbtrio.contract.uses import Attributes, Call, Name, Refers, Returns, Use, find

_TCP = "hypercorn.trio.tcp_server:"
_TASKS = "hypercorn.trio.task_group:"
_WORKER = "hypercorn.trio.worker_context:"
_H1 = "hypercorn.protocol.h11:"
_H2 = "hypercorn.protocol.h2:"
_STREAM = "hypercorn.protocol.http_stream:"
_EVENTS = "hypercorn.protocol.events:"
_IO = "hypercorn.events:"
_CONFIG = "hypercorn.config:Config"

_NINE = "app, config, context, task_group, connection_state, ssl, client, server, send"


def _config() -> Any:
    return find(_CONFIG)()


def _context() -> Any:
    return find(_WORKER + "WorkerContext")(None)


def _h1() -> Any:
    return find(_H1 + "H11Protocol")(None, _config(), _context(), None, {}, False, None, None, None)


def _h2() -> Any:
    return find(_H2 + "H2Protocol")(None, _config(), _context(), None, {}, False, None, None, None)


def _stream() -> Any:
    return find(_STREAM + "HTTPStream")(None, _config(), _context(), None, False, None, None, None, 1)


_ANY_SERVER = SimpleNamespace(server_names=[])
_ONE_SERVER = SimpleNamespace(server_names=["a"])

HYPERCORN: tuple[Use, ...] = (
    # The worker, which looks up the server's class once the application has started
    Refers("hypercorn.trio.run:worker_serve", "TCPServer UDPServer"),
    Name("hypercorn.trio.run:TCPServer", type),
    Name("hypercorn.trio.run:UDPServer", type),
    Name("hypercorn.trio.udp_server:UDPServer", type),
    Attributes(_CONFIG, _config, "log"),
    Attributes(_CONFIG, lambda: _config().log, "access_logger"),
    Call(_CONFIG + ".response_headers", "self, protocol"),
    Call("hypercorn.logging:Logger.access", "self, request, response, request_time", is_async=True),
    Returns("hypercorn.utils:parse_socket_addr", (socket.AF_INET, ("a", 1)), ("a", 1)),
    Returns("hypercorn.utils:parse_socket_addr", (socket.AF_INET6, ("a", 1, 0, 0)), ("a", 1)),
    Returns("hypercorn.utils:valid_server_name", (_ANY_SERVER, SimpleNamespace(headers=[])), True),
    Returns("hypercorn.utils:valid_server_name", (_ONE_SERVER, SimpleNamespace(headers=[(b"host", b"b")])), False),
    # A connection
    Name(_TCP + "MAX_RECV", int),
    Call(_TCP + "TCPServer", "app, config, context, state, stream"),
    Call(_TCP + "TCPServer.run", "self", is_async=True),
    Call(_TCP + "TCPServer.protocol_send", "self, event", is_async=True),
    Call(_TCP + "TCPServer._read_data", "self", is_async=True),
    Call(_TCP + "TCPServer._close", "self", is_async=True),
    Call(_TCP + "TCPServer._idle_timeout", "self", is_async=True),
    Call(_TCP + "TCPServer._initiate_server_close", "self", is_async=True),
    Refers(_TCP + "TCPServer.protocol_send", "idle_task _task_group _idle_timeout"),
    Refers(_TCP + "TCPServer._idle_timeout", "_initiate_server_close"),
    Refers(_TCP + "TCPServer._initiate_server_close", "protocol stream"),
    Attributes(
        _TCP + "TCPServer",
        lambda: find(_TCP + "TCPServer")(None, None, None, {}, None),
        "app config context idle_task send_lock state stream",
    ),
    Attributes(_WORKER + "WorkerContext", _context, "event_class terminate terminated"),
    Call(_WORKER + "WorkerContext.mark_request", "self", is_async=True),
    Call(_WORKER + "EventWrapper", ""),
    Call(_WORKER + "EventWrapper.set", "self", is_async=True),
    Call(_WORKER + "EventWrapper.clear", "self", is_async=True),
    Call(_WORKER + "EventWrapper.wait", "self", is_async=True),
    Call(_WORKER + "EventWrapper.is_set", "self"),
    Call(_WORKER + "TrioSingleTask.restart", "self, task_group, action", is_async=True),
    Call(_WORKER + "TrioSingleTask.stop", "self", is_async=True),
    Refers(_WORKER + "TrioSingleTask.restart", "_nursery"),
    Call(_TASKS + "TaskGroup", ""),
    Call(_TASKS + "TaskGroup.__aenter__", "self", is_async=True),
    Call(_TASKS + "TaskGroup.__aexit__", "self, exc_type, exc_value, tb", is_async=True),
    Refers(_TASKS + "TaskGroup.__aenter__", "_nursery"),
    Call(_TASKS + "TaskGroup.spawn", "self, func", is_async=False),
    Call(_TASKS + "TaskGroup.spawn_app", "self, app, config, scope, send", is_async=True),
    Call(_TASKS + "_handle", "app, config, scope, receive, send, sync_spawn, call_soon", is_async=True),
    # What protocols send to the connection, and to their streams
    *(Call(_IO + name, arguments) for name, arguments in {"Closed": "", "RawData": "data", "Updated": "idle="}.items()),
    Name(_IO + "Event", type),
    *(Call(_EVENTS + name, "stream_id=") for name in ("EndBody", "EndData", "StreamClosed")),
    *(Call(_EVENTS + name, "stream_id=, data=") for name in ("Body", "Data")),
    Call(_EVENTS + "Request", "stream_id=, headers=, http_version=, method=, raw_path=, state="),
    Call(_EVENTS + "Response", "stream_id=, headers=, status_code="),
    # A request
    Call(_STREAM + "HTTPStream", "app, config, context, task_group, ssl, client, server, send, stream_id"),
    Call(_STREAM + "HTTPStream.handle", "self, event", is_async=True),
    Call(_STREAM + "HTTPStream._send_error_response", "self, status_code", is_async=True),
    Refers(_STREAM + "HTTPStream.handle", "spawn_app app_send app_put scope valid_server_name"),
    Attributes(_STREAM + "HTTPStream", _stream, "closed idle scheme send state stream_id"),
    Name(_STREAM + "ASGIHTTPState.REQUEST"),
    # HTTP/1.1
    Name(_H1 + "STREAM_ID", int),
    Call(_H1 + "H2ProtocolAssumedError", "data"),
    Refers(_H1 + "H2ProtocolAssumedError.__init__", "data"),
    Call(_H1 + "H11Protocol", _NINE),
    Call(_H1 + "H11Protocol.initiate", "self", is_async=True),
    Call(_H1 + "H11Protocol.handle", "self, event", is_async=True),
    Call(_H1 + "H11Protocol.stream_send", "self, event", is_async=True),
    Call(_H1 + "H11Protocol._create_stream", "self, request", is_async=True),
    Call(_H1 + "H11Protocol._handle_events", "self", is_async=True),
    Call(_H1 + "H11Protocol._send_error_response", "self, status_code", is_async=True),
    Call(_H1 + "H11Protocol._send_h11_event", "self, event", is_async=True),
    Refers(_H1 + "H11Protocol.handle", "_handle_events connection"),
    Refers(_H1 + "H11Protocol.stream_send", "_maybe_recycle keep_alive_requests"),
    Refers(_H1 + "H11Protocol._maybe_recycle", "can_read"),
    Attributes(
        _H1 + "H11Protocol",
        _h1,
        "app can_read client config connection connection_state context keep_alive_requests send server ssl stream "
        "task_group",
    ),
    # HTTP/2
    Name(_H2 + "BUFFER_HIGH_WATER", int),
    Name(_H2 + "BUFFER_LOW_WATER", float),
    Call(_H2 + "StreamBuffer", "event_class"),
    Call(_H2 + "StreamBuffer.close", "self", is_async=True),
    Call(_H2 + "StreamBuffer.drain", "self", is_async=True),
    Call(_H2 + "StreamBuffer.pop", "self, max_length", is_async=True),
    Call(_H2 + "StreamBuffer.push", "self, data", is_async=True),
    Call(_H2 + "StreamBuffer.set_complete", "self"),
    Attributes(
        _H2 + "StreamBuffer",
        lambda: find(_H2 + "StreamBuffer")(_context().event_class),
        "_complete _is_empty _paused buffer complete",
        {"buffer": bytearray},
    ),
    Call(_H2 + "H2Protocol", _NINE),
    Call(_H2 + "H2Protocol.initiate", "self", is_async=True),
    Call(_H2 + "H2Protocol.handle", "self, event", is_async=True),
    Call(_H2 + "H2Protocol.stream_send", "self, event", is_async=True),
    Call(_H2 + "H2Protocol._close_stream", "self, stream_id", is_async=True),
    Call(_H2 + "H2Protocol._create_stream", "self, request", is_async=True),
    Call(_H2 + "H2Protocol._flush", "self", is_async=True),
    Call(_H2 + "H2Protocol._handle_events", "self, events", is_async=True),
    Call(_H2 + "H2Protocol._send_data", "self, stream_id", is_async=True),
    Refers(_H2 + "H2Protocol.initiate", "spawn send_task"),
    Refers(_H2 + "H2Protocol.send_task", "_send_data has_data priority"),
    Refers(_H2 + "H2Protocol.stream_send", "push set_complete drain stream_buffers _close_stream"),
    Refers(_H2 + "H2Protocol._send_data", "pop complete stream_buffers"),
    Refers(_H2 + "H2Protocol._close_stream", "streams"),
    Attributes(
        _H2 + "H2Protocol",
        _h2,
        "app client closed config connection connection_state context has_data idle keep_alive_requests priority send "
        "server ssl stream_buffers streams task_group",
    ),
)

HTTP: tuple[Use, ...] = (
    # The packages under hypercorn's protocols
    Name("h11._readers:ChunkedReader", type),
    Attributes(
        "h11._readers:ChunkedReader",
        lambda: find("h11._readers:ChunkedReader")(),
        "_bytes_in_chunk _bytes_to_discard _reading_trailer",
        {"_bytes_in_chunk": int, "_bytes_to_discard": bytes, "_reading_trailer": bool},
    ),
    Call("h11._receivebuffer:ReceiveBuffer.maybe_extract_at_most", "self, count"),
    Attributes(
        "h11._receivebuffer:ReceiveBuffer",
        lambda: find("h11._receivebuffer:ReceiveBuffer")(),
        "_data",
        {"_data": bytearray},
    ),
    Attributes("h11:Connection", lambda: find("h11:Connection")(find("h11:SERVER")), "_reader _receive_buffer"),
    Call("h11._headers:Headers.raw_items", "self"),
    Call("h2.utilities:HeaderValidationFlags", "is_client=, is_trailer=, is_response_header=, is_push_promise="),
    Call("h2.utilities:validate_headers", "headers, hdr_validation_flags"),
    Attributes(
        "h2.connection:H2Connection",
        lambda: find("h2.connection:H2Connection")(),
        "config local_settings outbound_flow_control_window streams",
        {"streams": dict},
    ),
    Attributes(
        "h2.config:H2Configuration",
        lambda: find("h2.config:H2Configuration")(),
        "validate_inbound_headers",
        {"validate_inbound_headers": bool},
    ),
    Refers("h2.stream:H2Stream.__init__", "outbound_flow_control_window"),
    Name("priority.priority:DuplicateStreamError", type),
    Name("priority.priority:MissingStreamError", type),
    Call("priority.priority:PriorityTree.block", "self, stream_id"),
    Call("priority.priority:PriorityTree.insert_stream", "self, stream_id"),
    Call("priority.priority:PriorityTree.remove_stream", "self, stream_id"),
    Call("hyperframe.frame:GoAwayFrame", "stream_id, last_stream_id="),
)
