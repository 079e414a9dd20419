"""The stream transport, over real sockets and memory."""

from __future__ import annotations

import pytest
import trio
import trio.testing
from websockets.extensions.permessage_deflate import PerMessageDeflate

from verbtrio.messages.frame import encode
from verbtrio.wire.codec import Codec
from verbtrio.wire.stream_transport import StreamTransport
from verbtrio.wire.transport import Close, Ping


def deflating() -> PerMessageDeflate:
    return PerMessageDeflate(
        remote_no_context_takeover=True,
        local_no_context_takeover=True,
        remote_max_window_bits=12,
        local_max_window_bits=12,
    )


class TestStream:
    async def test_a_socket_is_written_in_place(self) -> None:
        """What the socket takes is gone at once; what it doesn't is given back, no byte twice and none lost."""
        listener = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
        client = await trio.open_tcp_stream("127.0.0.1", listener.socket.getsockname()[1])
        async with listener, client, await listener.accept() as stream:
            transport = StreamTransport(stream, Codec(max_message_bytes=1000))
            frame = encode(b"x" * 100_000)
            wire = Codec(max_message_bytes=1).encode(frame)
            rest, writes = None, 0
            while rest is None:
                rest = transport.write_nowait(frame)
                writes += 1
            assert isinstance(rest, bytes | memoryview)
            expected = writes * len(wire)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(transport.write, [rest, transport.pack(Ping()), transport.pack(Close(1000, "end"))])
                received = b""
                while not received.endswith(b"\x03\xe8end"):
                    received += await client.receive_some()
            assert received[:expected] == wire * writes
            assert received[expected:] == b"\x89\x00" + b"\x88\x05\x03\xe8end"

    async def test_a_peer_that_is_gone(self) -> None:
        listener = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
        client = await trio.open_tcp_stream("127.0.0.1", listener.socket.getsockname()[1])
        async with listener, await listener.accept() as stream:
            transport = StreamTransport(stream, Codec(max_message_bytes=1000))
            await client.aclose()
            with pytest.raises(trio.BrokenResourceError):
                await self._write_on(transport)

    async def _write_on(self, transport: StreamTransport) -> None:
        with trio.fail_after(10):
            while True:
                transport.write_nowait(encode("x"))
                await trio.sleep(0.01)

    def test_joining(self) -> None:
        """Plain frames are joined; compressed ones never, or what is thrown away would be missing from the context."""
        frames = [encode("one"), encode("two")]
        for extensions, joined in (([], b"\x81\x03one\x81\x03two"), ([deflating()], None)):
            _, server = trio.testing.memory_stream_pair()
            transport = StreamTransport(server, Codec(max_message_bytes=1000, extensions=extensions))
            assert transport.join(frames) == joined
            assert transport.join(frames[:1]) == (joined and joined[:5])

    @pytest.mark.parametrize("linger", [True, False])
    async def test_closing_waits_for_nobody_for_long(self, linger: bool, autojump_clock: trio.abc.Clock) -> None:
        client, server = trio.testing.memory_stream_pair()
        transport = StreamTransport(server, Codec(max_message_bytes=1000))
        begin = trio.current_time()
        await transport.aclose(linger=linger)
        assert trio.current_time() - begin <= 1.0
        assert await client.receive_some() == b""

    async def test_early_bytes_come_first(self) -> None:
        client, server = trio.testing.memory_stream_pair()
        transport = StreamTransport(server, Codec(max_message_bytes=1000), b"\x81\x85\0\0\0\0ea")
        await client.send_all(b"rly")
        assert await transport.receive() == []
        assert await transport.receive() == ["early"]

    async def test_others_have_their_turn_within_one_read(self) -> None:
        """What one read brought is decoded in slices, with a checkpoint between them."""
        client, server = trio.testing.memory_stream_pair()
        transport = StreamTransport(server, Codec(max_message_bytes=1000))
        await client.send_all(b"\x81\x80\0\0\0\0" * 10_000)
        batches: list[int] = []
        turns, done = 0, False

        async def other() -> None:
            nonlocal turns
            while not done:
                turns += 1
                await trio.lowlevel.checkpoint()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(other)
            while sum(batches) < 10_000:
                batches.append(len(await transport.receive()))
            done = True
        assert max(batches) <= 700
        assert turns >= len(batches)
