"""What h11 is not shown: it would look through it again and again, and give the same answer, seconds later."""

from __future__ import annotations

import h11
import pytest

from verbtrio.server.takeover.http1_heads import HeadConnection

BLANKS = b" " * 14_000
CHUNKED = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize("bad", [b"\rx", b"\0", b"\x0b", b"\x7f"])
@pytest.mark.parametrize("start", [b"GET / HTTP/1.1\r\nHost: x\r\nX:", CHUNKED + b"0\r\nX:", CHUNKED + b"0;\r\nX:"])
def test_fields(start: bytes, bad: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    refused(start + BLANKS + bad + b"\r\n\r\n", monkeypatch)


def test_the_line_before_a_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    refused(CHUNKED + b"0;" + BLANKS + b"\nx\r\n", monkeypatch)


def refused(data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    connection = HeadConnection(16 * 1024)
    connection.receive_data(data)
    if data.startswith(CHUNKED):
        assert isinstance(connection.next_event(), h11.Request)
    monkeypatch.setattr(h11.Connection, "next_event", lambda self: pytest.fail("h11 is shown it"))
    with pytest.raises(h11.RemoteProtocolError):
        connection.next_event()
