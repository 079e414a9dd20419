"""HTTP/2's flow control: what is given back to a client for what it has sent. Pure."""

from __future__ import annotations

import h2.exceptions
from h2.connection import H2Connection

CREDIT_BYTES = 16 * 1024
"""Flow control is given back in such portions (a window is 64 KiB), not in a WINDOW_UPDATE for each message."""

CONNECTION = 0
"""The stream id that stands for the connection as a whole."""


class Credit:
    """What one connection owes its client.

    Args:
        connection: its windows are opened.
    """

    def __init__(self, connection: H2Connection) -> None:
        self._connection = connection
        self._owed = dict[int, int]()  # bytes, by stream

    def give(self, stream_id: int, count: int) -> bool:
        """Give back what has been taken of a stream; return whether a WINDOW_UPDATE has to be sent for it.

        The connection's own window is given back as soon as data comes: each stream has a window of its own, which
        bounds it."""
        owed = self._owed.get(stream_id, 0) + count
        if owed < CREDIT_BYTES:
            self._owed[stream_id] = owed
            return False
        self._owed.pop(stream_id, None)
        try:
            self._connection.increment_flow_control_window(owed, stream_id or None)
        except h2.exceptions.ProtocolError:
            return False  # the stream has ended; what was read is still good
        return True

    def forget(self, stream_id: int) -> None:
        """The stream has ended."""
        self._owed.pop(stream_id, None)
