"""A token shows in no log line, no error and no header, whatever becomes of it, with logging at DEBUG."""

from __future__ import annotations

from collections.abc import Iterator

import h2.config
import h2.connection
import h2.events
import pytest
import trio

from tests.apps.secretive import auth
from tests.support import wire
from tests.support.memory import shake_hands
from tests.support.process import Server, hypercorn

REQUESTS = 1000


@pytest.fixture
def server() -> Iterator[Server]:
    options = ["--log-level", "debug", "--access-logfile", "-", "--error-logfile", "-", "--debug"]
    with hypercorn("tests.apps.secretive:app", *options) as process:
        yield process


def tokens() -> Iterator[str]:
    """Valid, expired, forged and no tokens; each is unlike any other text."""
    for number in range(REQUESTS // 4):
        valid = auth.issue({"id": number})
        yield valid
        yield auth.issue({"id": number}, expires_in=-100)
        yield valid[:-10] + "Zm9yZ2VkLi"
        yield f"garbage-{number:04}-garbage"


async def http(port: int, target: str, header: str = "") -> bytes:
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    async with stream:
        await stream.send_all(f"GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{header}\r\n".encode())
        return b"".join([data async for data in stream])


async def websocket(port: int, target: str, header: str = "", first: str | None = None) -> bytes:
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    async with stream:
        answer = await shake_hands(stream, target, header.encode())
        if b" 101 " in answer:
            if first is not None:
                await stream.send_all(wire.text(first))
            answer += await stream.receive_some()
        return answer


async def over_http2(port: int, tokens: list[str]) -> bytes:
    connection = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding=None))
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    answer, ended = b"", 0
    async with stream:
        connection.initiate_connection()
        for number, token in enumerate(tokens):
            headers = [(":method", "GET"), (":scheme", "http"), (":authority", "x"), (":path", f"/me?token={token}")]
            headers.append(("authorization", f"Bearer {token}"))
            connection.send_headers(1 + 2 * number, headers, end_stream=True)
            await stream.send_all(connection.data_to_send())
            while ended <= number:
                for event in connection.receive_data(await stream.receive_some()):
                    ended += isinstance(event, h2.events.StreamEnded)
                    answer += repr(event).encode()
                await stream.send_all(connection.data_to_send())
    return answer


async def test_a_thousand_requests(server: Server) -> None:
    answers, sent, statuses = [], list(tokens()), set()
    ways = [
        lambda token: http(server.port, "/me", f"Authorization: Bearer {token}\r\n"),
        lambda token: http(server.port, f"/me?token={token}"),
        lambda token: http(server.port, f"/me?fail=1&token={token}"),
        lambda token: websocket(server.port, "/ws", f"Sec-WebSocket-Protocol: bearer, {token}\r\n"),
        lambda token: websocket(server.port, "/ws", f"Authorization: Bearer {token}\r\n"),
        lambda token: websocket(server.port, f"/ws?fail=1&token={token}"),
        lambda token: websocket(server.port, "/ws", first=f'{{"type":"auth","token":"{token}"}}'),
        lambda token: websocket(server.port, "/ws", first=f'{{"type":"auth","token":"{token}"'),
        lambda token: websocket(server.port, "/ws", first=token),
    ]
    limit = trio.CapacityLimiter(8)

    async def ask(number: int, token: str) -> None:
        async with limit:
            answer = await ways[number % len(ways)](token)
        answers.append(answer)
        statuses.add(answer.split(b" ")[1])

    async with trio.open_nursery() as nursery:
        for number, token in enumerate(sent[:-100]):
            nursery.start_soon(ask, number, token)
    answers.append(await over_http2(server.port, sent[-100:]))
    assert statuses == {b"101", b"200", b"401", b"500"}, "each has been seen"
    assert len(sent) == REQUESTS
    server.stop()
    log = server.log_text()
    assert len(log.splitlines()) > REQUESTS, "there is a log"
    assert "a handler that fails" in log
    assert "a route that fails" in log
    said = b"\n".join(answers).decode("latin-1")
    for token in sent:
        for part in {token, token.rpartition(".")[2]} - {""}:  # the whole, and the signature alone
            assert part not in log
            assert part not in said
