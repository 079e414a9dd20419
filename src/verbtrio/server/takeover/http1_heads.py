"""The take-over's rules for the head of an HTTP/1.1 request: what is refused before anything is begun. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable

import h11
from h11._readers import ChunkedReader

from verbtrio.server.takeover.targets import is_authority, resource_of


def is_method(method: bytes) -> bool:
    """Whether an application can be told `method`. Methods are compared exactly (RFC 9110 section 9.1), and ASGI has
    them in upper case. A `get` would become a GET, which no proxy in front has taken it for."""
    return method == method.upper()


def fault_of(request: h11.Request) -> int:
    """The status that answers a request which no application may see; 0 for all others."""
    if request.http_version not in (b"1.0", b"1.1"):
        return 505
    if not is_method(request.method):
        return 501
    if request.method == b"CONNECT":
        has_port = request.target[-1:].isdigit()
        return 501 if has_port and is_authority(request.target) else 400
    headers = list(request.headers)
    if resource_of(request.method, request.target, headers) is None:
        return 400
    names = [name for name, _ in headers]
    if b"transfer-encoding" in names and (b"content-length" in names or request.http_version == b"1.0"):
        return 400  # a proxy in front may have found its end elsewhere (RFC 9112 section 6.1)
    return 0


_empty_lines = re.compile(rb"(?:\r?\n)*").match
_end_of_head = re.compile(rb"\n\r?\n").search
_control_character = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|\r(?!\n|\Z)").search
_last_chunk = re.compile(rb"0+(?![0-9a-fA-F])").match

MAX_CHUNK_LINE = 256
"""Bytes of the line before a chunk: its size and its extensions, which nobody uses."""


class HeadConnection(h11.Connection):
    """h11's, with every head, line before a chunk and trailers checked before h11 sees them.

    h11's own limit applies only to what is incomplete. Here it applies however the head comes. And behind a control
    character, which no field may have (RFC 9110 section 5.5; a bare CR is one), h11 looks for the end of a value again
    and again: 8,000 blanks and a NUL took it 0.4 s, 60,000 blanks 16 s.
    """

    def __init__(self, max_head_bytes: int) -> None:
        super().__init__(h11.SERVER, max_incomplete_event_size=max_head_bytes)
        self._max_head_bytes = max_head_bytes
        self._empty_bytes = 0  # of empty lines before the head, which count as a part of it

    def next_event(self) -> type[h11.NEED_DATA | h11.PAUSED] | h11.Event:
        if self.their_state is h11.IDLE:
            data, ended = self._without_empty_lines()
            if data == b"\r" and not ended:
                return h11.NEED_DATA  # half of an empty line
            found = _end_of_head(data)
            end = len(data) if found is None else found.end()
            self._check_fields(data, 0, end, self._empty_bytes)
        elif isinstance(self._reader, ChunkedReader):
            self._check_chunk(self._reader)
        event = super().next_event()
        if isinstance(event, h11.Request):
            self._empty_bytes = 0
        return event

    def _check_fields(self, data: bytes | bytearray, begin: int, end: int, more: int = 0) -> None:
        if end - begin + more > self._max_head_bytes:
            raise h11.RemoteProtocolError("the head is too long", error_status_hint=431)
        if _control_character(data, begin, end):
            raise h11.RemoteProtocolError("a head has no control characters", error_status_hint=400)

    def _check_chunk(self, reader: ChunkedReader) -> None:
        """Check the line before a chunk; behind the last chunk the trailers, too, which h11 reads at once with it."""
        data = self._receive_buffer._data  # not copied: there may be 10,000 chunks in it
        if reader._bytes_in_chunk:
            return
        begin = 0
        if not reader._reading_trailer:
            start = len(reader._bytes_to_discard)
            line_end = data.find(b"\r\n", start, start + MAX_CHUNK_LINE)
            if line_end < 0 and len(data) >= start + MAX_CHUNK_LINE:
                raise h11.RemoteProtocolError("the line before a chunk is too long", error_status_hint=400)
            if line_end < 0 or not _last_chunk(data, start):
                return
            begin = line_end + 1  # at its LF, so that the end is found where there are no trailers, too
        elif data.startswith((b"\r", b"\n")):
            return
        found = _end_of_head(data, begin)
        self._check_fields(data, begin, len(data) if found is None else found.end())

    def _without_empty_lines(self) -> tuple[bytes, bool]:
        """What has come of a head, and whether nothing more will. Empty lines before it are removed (RFC 9112 section
        2.2): h11 takes them for a request."""
        data, ended = self.trailing_data
        found = _empty_lines(data)
        if found is not None and (count := found.end()):
            self._receive_buffer.maybe_extract_at_most(count)
            self._empty_bytes += count
            data = data[count:]
        return data, ended


def asks_for_websocket(method: bytes, headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Whether hypercorn would take the request for a WebSocket's. As generous as its own test (any case, any white
    space of ISO-8859-1), so that none gets past us. What RFC 6455 requires, the handshake checks."""
    upgrade, connection = "", ""
    for name, value in headers:
        if name == b"upgrade":
            upgrade = value.decode("latin-1").strip().lower()
        elif name == b"connection":
            connection += "," + value.decode("latin-1").lower()
    tokens = [token.strip() for token in connection.split(",")]
    return upgrade == "websocket" and "upgrade" in tokens and method.upper() == b"GET"
