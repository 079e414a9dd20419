"""TLS without I/O, for a stream whose handshake Trio has done: so that TLS connections, too, are read by the poller and
written in place. (Through `trio.SSLStream` an echo costs a task for each read and each write, and five times as much.)
"""

from __future__ import annotations

import ssl
import sys

import trio

RECORD_BYTES = 16 * 1024
"""The most that one record holds (RFC 8446 section 5.1)."""


MAX_ANSWER_BYTES = 16 * 1024
"""What TLS itself may have to say until we say something: the answers to 600 key updates, where one would be much."""


class Tls:
    """One connection's TLS.

    Args:
        session, incoming, outgoing: the `ssl` module's, the handshake over.
        unsent: what goes before the first record.
    """

    __slots__ = ("_incoming", "_outgoing", "_over", "_session", "_unsent", "has_more")

    def __init__(
        self, session: ssl.SSLObject, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO, unsent: bytes = b""
    ) -> None:
        self._unsent = unsent
        self._over: ssl.SSLError | None = None  # what has ended it, behind what was still good
        self._session = session
        self._incoming = incoming
        self._outgoing = outgoing
        self.has_more = True
        """`decrypt` may have more without any more data."""

    @classmethod
    def taken_from(cls, stream: trio.abc.Stream) -> Tls | None:
        """What `trio.SSLStream` has set up on a plain socket; its own methods must not be called from now on.

        `None` where it is no such stream, or where Trio, which keeps these names to itself, has others.
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
        # Trio sends a server's session tickets (TLS 1.3) with the first data only: a client may never read them. They
        # are records like others: a client that misses them can read nothing that comes behind them.
        return cls(session, incoming, outgoing, stream._delayed_outgoing or b"")

    def decrypt(self, data: bytes, at_least: int) -> bytes:
        """Take what was received; return what it says: nothing where no record is whole yet, and no more records
        than `at_least` bytes need (then `has_more` is true).

        Raises:
            ssl.SSLError: the peer has closed TLS, or what it sends is none.
        """
        if self._over is not None:
            raise self._over
        self._incoming.write(data)
        plain = b""
        self.has_more = False
        if self._outgoing.pending > MAX_ANSWER_BYTES:
            raise ssl.SSLError("the peer asks for new keys again and again")
        # What the protocol itself has to say (a key update's answer) is due before our next record, and goes with it.
        while self._session.pending() or self._incoming.pending:
            if len(plain) >= at_least:
                self.has_more = True
                break
            try:
                record = self._session.read(RECORD_BYTES)
                if not record:
                    raise ssl.SSLZeroReturnError
            except ssl.SSLWantReadError:  # a part of a record
                break
            except ssl.SSLError as error:
                if not plain:
                    raise
                self._over, self.has_more = error, True
                break
            plain = plain + record if plain else record
        return plain

    def encrypt(self, data: bytes | memoryview) -> bytes:
        """`data` as records. Nothing of it may be thrown away, nor sent in another order.

        Raises:
            ssl.SSLError: the peer has closed TLS.
        """
        if data:
            self._session.write(data)
        records = self._outgoing.read()
        if self._unsent:
            records, self._unsent = self._unsent + records, b""
        return records
