"""TLS without I/O: every byte once and in order, however the stream is cut; and Trio's own stream on the other end."""

from __future__ import annotations

import ssl

import pytest
import trio
import trio.testing
import trustme
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.contract import moved
from tests.support.memory import socket_stream_pair
from verbtrio.contract.check import TLS
from verbtrio.messages.frame import encode
from verbtrio.wire.codec import Codec
from verbtrio.wire.events import PEER_GONE
from verbtrio.wire.stream_transport import StreamTransport
from verbtrio.wire.tls import MAX_ANSWER_BYTES, Tls

AUTHORITY = trustme.CA()


def contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A client's and a server's."""
    client, server = ssl.create_default_context(), ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    AUTHORITY.configure_trust(client)
    AUTHORITY.issue_cert("test").configure_cert(server)
    return client, server


CLIENT, SERVER = contexts()


class Pair:
    """A client by the `ssl` module and our side, their handshake over."""

    def __init__(self) -> None:
        self.to_server, self.to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.client = CLIENT.wrap_bio(self.to_client, self.to_server, server_hostname="test")
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        server = SERVER.wrap_bio(incoming, outgoing, server_side=True)
        for _ in range(3):
            for side in (self.client, server):
                try:
                    side.do_handshake()
                except ssl.SSLWantReadError:
                    pass
            incoming.write(self.to_server.read())
            self.to_client.write(outgoing.read())
        self.ours = Tls(server, incoming, outgoing)
        assert self.ours.decrypt(b"", 1) == b""

    def say(self, *messages: bytes) -> bytes:
        """What the client sends, each message in a record of its own."""
        for message in messages:
            self.client.write(message)
        return self.to_server.read()


@settings(deadline=None, max_examples=50, derandomize=True)
@given(
    messages=st.lists(st.binary(min_size=1, max_size=300), max_size=8),
    cuts=st.lists(st.integers(1, 400), min_size=1, max_size=8),
    at_least=st.integers(1, 500),
)
def test_however_it_is_cut(messages: list[bytes], cuts: list[int], at_least: int) -> None:
    pair = Pair()
    data, plain = pair.say(*messages), b""
    turn = 0
    while data:
        part, data = data[: cuts[turn % len(cuts)]], data[cuts[turn % len(cuts)] :]
        turn += 1
        plain += pair.ours.decrypt(part, at_least)
        while pair.ours.has_more:
            plain += pair.ours.decrypt(b"", at_least)
    assert plain == b"".join(messages)


def test_no_more_records_than_are_wanted() -> None:
    """What one read brought may hold a hundred of them."""
    pair = Pair()
    assert pair.ours.decrypt(pair.say(*[b"x" * 100] * 50), 250) == b"x" * 300
    assert pair.ours.has_more
    assert pair.ours.decrypt(b"", 10_000) == b"x" * 4700
    assert not pair.ours.has_more


def test_what_is_encrypted_arrives() -> None:
    pair = Pair()
    sent = b"a" * 100_000
    pair.to_client.write(pair.ours.encrypt(memoryview(sent)) + pair.ours.encrypt(b"") + pair.ours.encrypt(b"end"))
    received = b""
    while not received.endswith(b"end"):
        received += pair.client.read(65536)
    assert received == sent + b"end"


def test_the_end_of_tls_is_an_error() -> None:
    pair = Pair()
    data = pair.say(b"last")
    with pytest.raises(ssl.SSLWantReadError):
        pair.client.unwrap()
    assert pair.ours.decrypt(data, 1) == b"last"
    with pytest.raises(ssl.SSLError):
        pair.ours.decrypt(pair.to_server.read(), 1)


def test_what_stands_before_the_end_is_not_lost() -> None:
    """A client that says its last and closes, in one segment."""
    pair = Pair()
    pair.client.write(b"last")
    with pytest.raises(ssl.SSLWantReadError):
        pair.client.unwrap()
    assert pair.ours.decrypt(pair.to_server.read(), 10_000) == b"last"
    assert pair.ours.has_more
    for _ in range(2):
        with pytest.raises(ssl.SSLError):
            pair.ours.decrypt(b"", 10_000)


def test_what_tls_has_to_answer_is_bounded() -> None:
    """Each key update a peer asks for is answered, with whatever we say next."""
    pair = Pair()
    pair.ours._outgoing.write(b"x" * (MAX_ANSWER_BYTES + 1))
    with pytest.raises(ssl.SSLError, match="new keys"):
        pair.ours.decrypt(pair.say(b"x"), 1)


def test_what_is_no_tls_is_an_error() -> None:
    with pytest.raises(ssl.SSLError):
        Pair().ours.decrypt(b"GET / HTTP/1.1\r\n\r\n", 1)


async def test_only_trios_stream_on_a_plain_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = trio.testing.memory_stream_pair()
    assert Tls.taken_from(one) is None
    assert Tls.taken_from(trio.SSLStream(other, SERVER, server_side=True)) is None
    peer, stream = socket_stream_pair()
    async with peer, stream:
        assert Tls.taken_from(stream) is None
        wrapped = trio.SSLStream(stream, SERVER, server_side=True)
        assert Tls.taken_from(wrapped) is not None
        del wrapped._incoming  # another Trio
        assert Tls.taken_from(wrapped) is None
        assert StreamTransport(wrapped, Codec(max_message_bytes=10)).fd is None, "then it is read by a task"


class TestTransport:
    async def _connect(self) -> tuple[trio.SSLStream[trio.SocketStream], StreamTransport]:
        peer, stream = socket_stream_pair()
        client = trio.SSLStream(peer, CLIENT, server_hostname="test")
        server = trio.SSLStream(stream, SERVER, server_side=True)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.do_handshake)
            nursery.start_soon(server.do_handshake)
        return client, StreamTransport(server, Codec(max_message_bytes=1_000_000))

    async def _receive(self, transport: StreamTransport, *, polled: bool) -> list[object]:
        events: list[object] = []
        with trio.fail_after(10):
            while not events:
                if polled:
                    await trio.lowlevel.checkpoint()
                    events += transport.receive_nowait()[0]
                else:
                    events += await transport.receive()
        return events

    @pytest.mark.parametrize("polled", [True, False])
    async def test_both_ways_of_receiving(self, polled: bool) -> None:
        client, transport = await self._connect()
        async with client:
            assert transport.fd is not None
            for text in (b"hello", b"x" * 50_000):
                head = (
                    b"\x82\xfe" + len(text).to_bytes(2, "big") if len(text) > 125 else bytes((0x82, 0x80 | len(text)))
                )
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(client.send_all, head + b"\0\0\0\0" + text)
                    assert await self._receive(transport, polled=polled) == [text]
            await client.transport_stream.send_all(b"\0" * 100)
            assert await self._receive(transport, polled=polled) == [PEER_GONE]
            await transport.aclose(linger=False)

    @pytest.mark.parametrize("name", TLS.uses[0].names.split())  # type: ignore[attr-defined]  # it has one, of attributes
    async def test_a_trio_that_keeps_it_elsewhere(self, name: str) -> None:
        """Before anything has been sent: a server's session tickets (TLS 1.3) are not, either."""
        with moved("trio._ssl", name):
            client, transport = await self._connect()
            assert client.version() == "TLSv1.3"
            async with client:
                assert transport.fd is None, "it is read and written by tasks, through Trio's own stream"
                frame = encode("hello")
                with trio.fail_after(10):
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(transport.write, [transport.pack(frame)])
                        assert await client.receive_some() == frame.wire
                        nursery.start_soon(client.send_all, b"\x82\x85\0\0\0\0hello")
                        assert await self._receive(transport, polled=False) == [b"hello"]
                await transport.aclose(linger=False)

    async def test_what_the_socket_does_not_take_is_not_encrypted_twice(self) -> None:
        client, transport = await self._connect()
        async with client:
            frame = encode(b"y" * 50_000)
            rest, writes = None, 0
            while rest is None:
                rest = transport.write_nowait(frame)
                writes += 1
            async with trio.open_nursery() as nursery:
                nursery.start_soon(transport.write, [rest, transport.pack(encode("end"))])
                received = b""
                while not received.endswith(b"end"):
                    received += await client.receive_some()
            assert received == frame.wire * writes + encode("end").wire
            await transport.aclose(linger=False)
