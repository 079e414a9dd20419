"""websockets' sans-I/O protocol, with this server's checks. Pure: no Trio, no clock."""

from __future__ import annotations

import codecs
import logging

from websockets.exceptions import PayloadTooBig
from websockets.frames import CloseCode, Frame, Opcode
from websockets.protocol import Protocol, Side, State

from verbtrio.base.close import MAX_CONTROL_BYTES, MESSAGE_TOO_BIG

# websockets logs every frame with its payload at DEBUG, and so would log tokens. What matters is reported as events.
QUIET = logging.Logger("verbtrio.codec", level=logging.CRITICAL + 1)


class CheckedProtocol(Protocol):
    """websockets' protocol, which makes the checks that it leaves to its users as soon as it receives a frame. So
    whatever follows a violation in the same bytes has no effect, however the stream was cut.

    Args:
        max_message_bytes: for messages alone. websockets counts a control frame as part of the message that it
            interrupts, and a compressed frame by its length on the wire: the parser's own limit leaves room for both.
    """

    def __init__(self, max_message_bytes: int) -> None:
        slack = MAX_CONTROL_BYTES + max_message_bytes // 64 + 64  # deflate adds 5 bytes to 16 KiB it can't compress
        super().__init__(Side.SERVER, state=State.OPEN, max_size=max_message_bytes + slack, logger=QUIET)
        self._limit = max_message_bytes
        self._text: codecs.IncrementalDecoder | None = None
        self.decoded: str | None = None
        """The text of the last frame, if that frame is a whole message."""

    def recv_frame(self, frame: Frame) -> None:
        """Check a frame, then take it.

        Raises:
            PayloadTooBig: the message exceeds the limit (1009).
            UnicodeDecodeError: the text is not UTF-8 (1007). Raised at the first bad byte, not at the message's end.
        """
        opcode = frame.opcode
        begins = opcode is Opcode.TEXT or opcode is Opcode.BINARY
        if (begins and self.current_size is None) or (opcode is Opcode.CONT and self.current_size is not None):
            so_far = self.current_size or 0
            if so_far + len(frame.data) > self._limit:
                raise PayloadTooBig(len(frame.data), self._limit - so_far)
            if begins:
                whole = opcode is Opcode.TEXT and frame.fin
                self.decoded = str(frame.data, "utf-8") if whole else None
                self._text = codecs.getincrementaldecoder("utf-8")() if opcode is Opcode.TEXT and not whole else None
            if self._text is not None:
                self._text.decode(frame.data, final=frame.fin)
        elif opcode is Opcode.CLOSE:
            # Like any control frame, it may interrupt a message (RFC 6455 section 5.4). websockets would answer that
            # with 1002, so have it forget the message first.
            self.current_size = None
        super().recv_frame(frame)

    def fail(self, code: CloseCode | int, reason: str = "") -> None:
        """Fail the connection. The reason for 1009 names the limit that was set, not the parser's own."""
        if code == MESSAGE_TOO_BIG:
            reason = f"message over {self._limit} bytes"
        super().fail(code, reason)
