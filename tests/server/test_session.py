"""What an ASGI application that knows nothing of verbtrio gets over a taken-over stream."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
import trio.testing
from starlette.types import Message, Receive, Scope, Send
from trio.abc import Clock

from tests.support.memory import Service, serving, shake_hands
from verbtrio import App, Limits

Body = Callable[[Receive, Send], Awaitable[None]]
UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


def application(body: Body) -> Any:
    """An ASGI application whose WebSockets run `body`."""

    async def asgi(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["extensions"]["websocket.http.response"] == {}
        assert await receive() == {"type": "websocket.connect"}
        await body(receive, send)

    return asgi


async def answer(service: Service, headers: bytes = b"") -> bytes:
    """All that the server sends to a client that asks and then waits."""
    peer = service.open_stream()
    received = await shake_hands(peer, "/", headers)
    with trio.fail_after(60):
        while data := await peer.receive_some():
            received += data
    return received


async def test_undecided(autojump_clock: Clock) -> None:
    async def body(receive: Receive, send: Send) -> None:
        pass

    async with serving(App(), application(body)) as service:
        assert (await answer(service)).startswith(b"HTTP/1.1 500 ")


async def test_closing_instead_of_accepting_is_403(autojump_clock: Clock) -> None:
    async def body(receive: Receive, send: Send) -> None:
        await send({"type": "websocket.close", "code": 4000})
        assert (await receive())["type"] == "websocket.disconnect"

    async with serving(App(), application(body)) as service:
        assert (await answer(service)).startswith(b"HTTP/1.1 403 ")


async def test_a_client_that_leaves_before_it_is_denied(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """Not worth a log line, nor a second answer."""

    async def body(receive: Receive, send: Send) -> None:
        await trio.sleep(1)
        await send({"type": "websocket.close", "code": 4000})

    async with serving(App(), application(body)) as service:
        peer = service.open_stream()
        await peer.send_all(UPGRADE)
        await peer.aclose()
        await service.wait_ended(5)
    assert caplog.records == []


async def test_a_denial_in_parts(autojump_clock: Clock) -> None:
    async def body(receive: Receive, send: Send) -> None:
        headers = [(b"x-why", b"because")]
        await send({"type": "websocket.http.response.start", "status": 418, "headers": headers})
        for part in (b"short ", b"and "):
            await send({"type": "websocket.http.response.body", "body": part, "more_body": True})
        await send({"type": "websocket.http.response.body", "body": b"stout"})

    async with serving(App(), application(body)) as service:
        received = await answer(service)
    assert received.startswith(b"HTTP/1.1 418 ")
    assert b"\r\nx-why: because\r\n" in received
    assert b"short " in received
    assert b"stout" in received


@pytest.mark.parametrize(
    ("accept", "problem"),
    [
        ({"subprotocol": "never-offered"}, "did not offer the subprotocol 'never-offered'"),
        ({"headers": [(b"Sec-WebSocket-Accept", b"mine")]}, "sets the header 'Sec-WebSocket-Accept' itself"),
    ],
)
async def test_a_wrong_accept_is_the_applications_error(
    accept: dict[str, Any], problem: str, autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """And the peer's 500; a stock hypercorn worker ends."""

    async def body(receive: Receive, send: Send) -> None:
        await send({"type": "websocket.accept", **accept})

    async with serving(App(), application(body)) as service:
        assert (await answer(service)).startswith(b"HTTP/1.1 500 ")
    (record,) = caplog.records
    assert problem in (record.exc_text or "")


async def test_messages_out_of_place(autojump_clock: Clock) -> None:
    async def body(receive: Receive, send: Send) -> None:
        with pytest.raises(RuntimeError, match=r"'websocket\.send' has no place in the state HANDSHAKE"):
            await send({"type": "websocket.send", "text": "too soon"})
        await send({"type": "websocket.accept"})
        with pytest.raises(RuntimeError, match=r"'websocket\.accept' has no place in the state OPEN"):
            await send({"type": "websocket.accept"})
        assert (await receive())["type"] == "websocket.disconnect"
        assert await receive() == {"type": "websocket.disconnect", "code": 1000, "reason": "bye"}  # as often as asked
        with pytest.raises(OSError, match="closed"):
            await send({"type": "websocket.send", "text": "too late"})

    async with serving(App(), application(body)) as service:
        client = await service.connect("/")
        await client.aclose(1000, "bye")


async def test_returning_closes_with_1000_and_raising_with_1011(autojump_clock: Clock) -> None:
    async def returns(receive: Receive, send: Send) -> None:
        await send({"type": "websocket.accept"})

    async def raises(receive: Receive, send: Send) -> None:
        await send({"type": "websocket.accept"})
        raise ValueError("on purpose")

    for body, code in ((returns, b"\x03\xe8"), (raises, b"\x03\xf3")):
        async with serving(App(), application(body)) as service:
            assert (await answer(service)).endswith(b"\x88\x02" + code)


async def test_a_cancelled_receive_has_lost_nothing(autojump_clock: Clock) -> None:
    got: list[str] = []

    async def body(receive: Receive, send: Send) -> None:
        await send({"type": "websocket.accept"})
        while True:
            with trio.move_on_after(0.3):
                message = await receive()
                if message["type"] == "websocket.disconnect":
                    return
                got.append(message["text"])

    async with serving(App(), application(body)) as service:
        client = await service.connect("/")
        for n in range(10):
            await trio.sleep(0.25)
            await client.send_message(str(n))
        await client.aclose()
    assert got == [str(n) for n in range(10)]


async def test_a_peer_that_reads_nothing(autojump_clock: Clock) -> None:
    """A time-out around a send works, and without one the send ends by itself."""
    waited: list[float] = []

    async def body(receive: Receive, send: Send) -> None:
        await send({"type": "websocket.accept"})
        begin = trio.current_time()
        with pytest.raises(OSError, match="nothing read for 7 s"):
            await send({"type": "websocket.send", "bytes": b"x" * 10})
        waited.append(trio.current_time() - begin)
        with pytest.raises(OSError, match="closed"):
            await send({"type": "websocket.send", "bytes": b"x"})

    async with serving(App(limits=Limits(send_timeout=7)), application(body)) as service:
        peer = service.open_stream(trio.testing.lockstep_stream_pair)
        await shake_hands(peer, "/")
        await service.wait_ended(60)
    assert waited == [pytest.approx(7)]


async def test_receive_and_send_side_by_side(autojump_clock: Clock) -> None:
    async def body(receive: Receive, send: Send) -> None:
        await send({"type": "websocket.accept"})
        async with trio.open_nursery() as nursery:
            for n in range(20):
                nursery.start_soon(send, {"type": "websocket.send", "text": str(n)})
            while (await receive())["type"] != "websocket.disconnect":
                pass

    async with serving(App(), application(body)) as service:
        client = await service.connect("/")
        await client.send_message("x")
        assert {await client.get_message() for _ in range(20)} == {str(n) for n in range(20)}
        await client.aclose()


async def test_oversize(autojump_clock: Clock) -> None:
    got: list[Message] = []

    async def body(receive: Receive, send: Send) -> None:
        await send({"type": "websocket.accept"})
        got.append(await receive())

    async with serving(App(limits=Limits(max_message_bytes=10)), application(body)) as service:
        client = await service.connect("/")
        await client.send_message("x" * 11)
        await client._close_handshake.wait()
    assert got[0]["type"] == "websocket.disconnect"
    assert got[0]["code"] == 1009


async def test_a_send_in_progress_is_no_disconnect(autojump_clock: Clock) -> None:
    """To the others it is only a reason to wait."""
    got: list[str] = []

    async def body(receive: Receive, send: Send) -> None:
        await send({"type": "websocket.accept"})
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send, {"type": "websocket.send", "text": "slow"})
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(send, {"type": "websocket.send", "text": "behind it"})
            got.append((await receive())["type"])

    async with serving(App(), application(body)) as service:
        peer = service.open_stream(trio.testing.lockstep_stream_pair)
        await shake_hands(peer, "/")
        await peer.send_all(b"\x81\x81\0\0\0\0x")  # and only now it reads
        received = b""
        while not received.endswith(b"\x88\x02\x03\xe8"):
            received += await peer.receive_some()
        await trio.aclose_forcefully(peer)
    assert got == ["websocket.receive"]
    assert received == b"\x81\x04slow" + b"\x81\x09behind it" + b"\x88\x02\x03\xe8"


async def test_closing_while_another_task_receives(autojump_clock: Clock) -> None:
    got: list[Message] = []

    async def body(receive: Receive, send: Send) -> None:
        await send({"type": "websocket.accept"})

        async def read() -> None:
            got.append(await receive())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            await trio.testing.wait_all_tasks_blocked()
            await send({"type": "websocket.close", "code": 4000, "reason": "enough"})

    async with serving(App(), application(body)) as service:
        client = await service.connect("/")
        await client._close_handshake.wait()
        assert client.closed is not None
        assert client.closed.code == 4000
    assert got == [{"type": "websocket.disconnect", "code": 4000, "reason": "enough"}]


async def test_a_receive_that_is_cancelled_while_it_answers_a_ping(autojump_clock: Clock) -> None:
    got: list[Message] = []

    async def body(receive: Receive, send: Send) -> None:
        await send({"type": "websocket.accept"})
        with trio.move_on_after(1):
            got.append(await receive())
        if not got:
            got.append(await receive())

    async with serving(App(), application(body)) as service:
        peer = service.open_stream(trio.testing.lockstep_stream_pair)
        await shake_hands(peer, "/")
        await peer.send_all(b"\x89\x80\0\0\0\0" + b"\x81\x81\0\0\0\0x")  # a ping and a message in one segment
        await trio.sleep(4)  # it does not read the pong before that, and before the time for the close is over
        received = b""
        while not received.endswith(b"\x88\x02\x03\xe8"):
            received += await peer.receive_some()
        await trio.aclose_forcefully(peer)
    assert received == b"\x8a\x00" + b"\x88\x02\x03\xe8"
    assert got == [{"type": "websocket.receive", "text": "x", "bytes": None}]


async def test_the_applications_own_errors_are_logged(autojump_clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    """A missing file or an unreachable database is an `OSError`, too, and not the peer's."""

    async def body(receive: Receive, send: Send) -> None:
        await send({"type": "websocket.accept"})
        raise ConnectionRefusedError("the database is down")

    async with serving(App(), application(body)) as service:
        assert (await answer(service)).endswith(b"\x88\x02\x03\xf3")
    assert "the database is down" in (caplog.records[0].exc_text or "")


async def test_a_peer_that_leaves_during_the_handshake_is_nobodys_error(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    async def body(receive: Receive, send: Send) -> None:
        await trio.sleep(1)
        await send({"type": "websocket.accept"})

    async with serving(App(), application(body)) as service:
        peer = service.open_stream()
        await peer.send_all(
            b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        await trio.sleep(0.5)
        await trio.aclose_forcefully(peer)
        await service.wait_ended(60)
    assert not caplog.records


async def test_a_streamed_denial_without_a_length(autojump_clock: Clock) -> None:
    async def body(receive: Receive, send: Send) -> None:
        await send({"type": "websocket.http.response.start", "status": 403})
        await send({"type": "websocket.http.response.body", "body": b"one ", "more_body": True})
        await send({"type": "websocket.http.response.body", "body": b"two"})

    async with serving(App(), application(body)) as service:
        received = await answer(service)
    assert received.startswith(b"HTTP/1.1 403 ")
    assert b"one " in received
    assert received.endswith(b"two\r\n0\r\n\r\n")


async def test_drained_where_it_does_not_receive(autojump_clock: Clock) -> None:
    async def body(receive: Receive, send: Send) -> None:
        await send({"type": "websocket.accept"})
        await trio.sleep(1)

    async with serving(App(), application(body)) as service:
        client = await service.connect("/")
        await service.shut_down()
        await client._close_handshake.wait()
        assert client.closed is not None
        assert client.closed.code == 1012


async def test_closing_after_a_cancelled_receive(autojump_clock: Clock) -> None:
    """Nobody else is reading then: the close has to look for the peer's answer itself."""
    took: list[float] = []

    async def body(receive: Receive, send: Send) -> None:
        await send({"type": "websocket.accept"})
        with trio.move_on_after(1):
            await receive()
        begin = trio.current_time()
        await send({"type": "websocket.close", "code": 4000})
        took.append(trio.current_time() - begin)

    async with serving(App(), application(body)) as service:
        client = await service.connect("/")
        await client._close_handshake.wait()
    assert took == [pytest.approx(0)]


CAN_BE_SENT = {*range(1000, 1015), *range(3000, 5000)} - {1004, 1005, 1006}  # RFC 6455 section 7.4, and IANA's registry


async def closing_with(*messages: dict[str, Any], told: list[Message] | None = None) -> list[tuple[int, bytes]]:
    """What a client gets for each `websocket.close`: the code and the reason of the Close frame."""
    closes = list(messages)

    async def body(receive: Receive, send: Send) -> None:
        await send({"type": "websocket.accept"})
        message = closes.pop(0)
        await send({"type": "websocket.close", **message})
        if told is not None:
            told.append(await receive())

    found = []
    async with serving(App(), application(body)) as service:
        for _ in messages:
            peer = service.open_stream()
            await shake_hands(peer, "/")
            received = b""
            await peer.send_all(b"\x88\x80\0\0\0\0")
            while data := await peer.receive_some():
                received += data
            assert received[:1] == b"\x88", "a TCP connection has ended without a Close frame"
            assert received[1] == len(received) - 2, "nothing follows"
            found.append((int.from_bytes(received[2:4]), received[4:]))
    return found


async def test_each_code_and_its_close_frame(autojump_clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    """Those of the first 5,000 that mark a boundary, and all in between by the function that decides."""
    codes = [0, 1, 999, *range(1000, 1017), 1999, 2999, 3000, 4000, 4999, 5000, 65535, 65536, 70000, -1, 2**70]
    found = await closing_with(*({"code": code, "reason": "why"} for code in codes))
    assert found == [(code if code in CAN_BE_SENT else 1011, b"why") for code in codes]
    assert len(caplog.records) == len([code for code in codes if code not in CAN_BE_SENT])
    assert "with 0, which can't be sent: 1011 is sent" in caplog.text


@pytest.mark.parametrize("code", ["1000", b"1000", 1000.0, 4000.5, float("nan"), [], {}, object(), True, "x" * 5000])
async def test_a_code_that_is_no_integer(code: Any, autojump_clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    assert await closing_with({"code": code}) == [(1011, b"")]
    assert len(caplog.records) == 1
    assert len(caplog.text) < 300


@pytest.mark.parametrize(
    ("message", "sent"),
    [
        ({}, (1000, b"")),
        ({"code": None, "reason": None}, (1000, b"")),
        ({"code": 4000, "reason": "x" * 123}, (4000, b"x" * 123)),
        ({"code": 4000, "reason": "x" * 124}, (4000, b"x" * 123)),
        ({"code": 4000, "reason": "x" * 122 + "\u00e4"}, (4000, b"x" * 122)),
        ({"code": 4000, "reason": "\U0001f600" * 40}, (4000, "\U0001f600".encode() * 30)),
        ({"code": 4000, "reason": "a\ud800b"}, (4000, b"a?b")),
        ({"code": 4000, "reason": b"bytes"}, (4000, b"")),
        ({"code": 4000, "reason": 5}, (4000, b"")),
    ],
)
async def test_reasons(
    message: dict[str, Any], sent: tuple[int, bytes], autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[Message] = []
    assert await closing_with(message, told=told) == [sent]
    assert caplog.records == []
    assert told == [{"type": "websocket.disconnect", "code": sent[0], "reason": sent[1].decode()}]


@pytest.mark.parametrize(
    "message",
    [
        {},
        {"text": None, "bytes": None},
        {"text": 5},
        {"text": b"x"},
        {"bytes": "x"},
        {"bytes": 5},
        {"text": "\ud800"},
        {"text": "x\udfff"},
    ],
)
async def test_what_is_no_message(message: dict[str, Any], autojump_clock: Clock) -> None:
    """The application's error, which ends nothing where it is caught."""

    async def body(receive: Receive, send: Send) -> None:
        await send({"type": "websocket.accept"})
        with pytest.raises((TypeError, UnicodeEncodeError)):
            await send({"type": "websocket.send", **message})
        await send({"type": "websocket.send", "text": "fine"})

    async with serving(App(), application(body)) as service:
        assert (await answer(service)).endswith(b"\x81\x04fine" + b"\x88\x02\x03\xe8")
