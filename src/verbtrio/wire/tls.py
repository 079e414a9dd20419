"""TLS without I/O, for a stream whose handshake Trio has done.

So the poller reads TLS connections, too, and messages are written in place. Through `trio.SSLStream` an echo needs a
task for each read and each write, and costs five times as much.
"""

from __future__ import annotations

import ssl
import sys

import trio

RECORD_BYTES = 16 * 1024
"""The most that one record holds (RFC 8446 section 5.1)."""
MAX_ANSWER_BYTES = 16 * 1024
"""What TLS itself may queue until we send something: the answers to 600 key updates, where one would be a lot."""


class Tls:
    """One connection's TLS.

    Args:
        session, incoming, outgoing: the `ssl` module's objects, after the handshake.
        unsent: what to send before the first record.
    """

    __slots__ = ("_incoming", "_outgoing", "_over", "_session", "_unsent", "has_more")

    def __init__(
        self, session: ssl.SSLObject, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO, unsent: bytes = b""
    ) -> None:
        self._unsent = unsent
        self._over: ssl.SSLError | None = None  # raised by the next `decrypt`, after the data that came before it
        self._session = session
        self._incoming = incoming
        self._outgoing = outgoing
        self.has_more = True
        """Whether `decrypt` may return more although no more is received."""

    @classmethod
    def taken_from(cls, stream: trio.abc.Stream) -> Tls | None:
        """Take over what `trio.SSLStream` has set up on a plain socket. Its own methods must not be called afterwards.

        Returns `None` if the stream is not such a one, or if Trio, whose private names these are, has changed them.
        """
        if sys.platform != "linux" or not isinstance(stream, trio.SSLStream):
            return None
        if not isinstance(stream.transport_stream, trio.SocketStream):
            return None
        session = getattr(stream, "_ssl_object", None)
        incoming, outgoing = getattr(stream, "_incoming", None), getattr(stream, "_outgoing", None)
        if not (isinstance(incoming, ssl.MemoryBIO) and isinstance(outgoing, ssl.MemoryBIO)):
            return None
        if not (isinstance(session, ssl.SSLObject) and hasattr(stream, "_delayed_outgoing")):
            return None
        # Trio sends a server's session tickets (TLS 1.3) only with the first data, since a client may never read them.
        # They are records like any other: without them the client can't read what follows.
        return cls(session, incoming, outgoing, stream._delayed_outgoing or b"")

    def decrypt(self, data: bytes, at_least: int) -> bytes:
        """Take what was received and return its plain text: nothing if no record is complete, and no more records
        than it takes for `at_least` bytes (then `has_more` is true).

        Raises:
            ssl.SSLError: the peer has closed TLS, or what it sends is not valid.
        """
        if self._over is not None:
            raise self._over
        self._incoming.write(data)
        plain = b""
        self.has_more = False
        if self._outgoing.pending > MAX_ANSWER_BYTES:
            raise ssl.SSLError("the peer keeps asking for new keys")
        # What TLS itself has to send (the answer to a key update) is due before our next record, and is sent with it.
        while self._session.pending() or self._incoming.pending:
            if len(plain) >= at_least:
                self.has_more = True
                break
            try:
                record = self._session.read(RECORD_BYTES)
                if not record:
                    raise ssl.SSLZeroReturnError
            except ssl.SSLWantReadError:  # an incomplete record
                break
            except ssl.SSLError as error:
                if not plain:
                    raise
                self._over, self.has_more = error, True
                break
            plain = plain + record if plain else record
        return plain

    def encrypt(self, data: bytes | memoryview) -> bytes:
        """`data` as records. All of them must be sent, in this order.

        Raises:
            ssl.SSLError: the peer has closed TLS.
        """
        if data:
            self._session.write(data)
        records = self._outgoing.read()
        if self._unsent:
            records, self._unsent = self._unsent + records, b""
        return records
