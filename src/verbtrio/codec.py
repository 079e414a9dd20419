"""RFC 6455 frames from and to bytes, over websockets' sans-I/O protocol. Pure: no Trio, no clock.

Rules of this file:
- what a stream of bytes means does not depend on how it was cut (there is a property test);
- a message is handed out whole; at most `max_message_bytes` of one are ever held, counted in bytes after
  decompression;
- after a Close frame, in or out, nothing the peer sends reaches the handler any more.
"""

from __future__ import annotations

import codecs
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from websockets.exceptions import PayloadTooBig
from websockets.extensions import Extension
from websockets.frames import Frame as WireFrame
from websockets.frames import Opcode
from websockets.protocol import Protocol, Side, State

from verbtrio.closing import INVALID_DATA, NO_STATUS_RECEIVED, Cause
from verbtrio.messages import Frame

# websockets logs every frame, payload and all, at DEBUG: tokens among them. What matters comes out as events.
QUIET = logging.Logger("verbtrio.codec", level=logging.CRITICAL + 1)


@dataclass(frozen=True, slots=True)
class Pong:
    """The peer answered a ping, or sent a pong of its own accord."""

    payload: bytes


@dataclass(frozen=True, slots=True)
class Closed:
    """The peer's Close frame, or the violation the codec has failed the connection for.

    Attributes:
        cause: `Cause.PEER`, `Cause.SIZE` or `Cause.PROTOCOL`.
        code: the peer's close code (1005 if it gave none), or the one the violation is answered with.
        reason: the peer's reason, or what was wrong.
    """

    cause: Cause
    code: int
    reason: str


Event: TypeAlias = str | bytes | Pong | Closed
"""A text message, a binary message, a pong, or the end."""


class Codec:
    """The frames of one connection, server side, from the moment the handshake is over."""

    __slots__ = ("_ended", "_fragments", "_protocol", "_text")

    def __init__(self, *, max_message_bytes: int, extensions: Sequence[Extension] = ()) -> None:
        self._protocol = Protocol(Side.SERVER, state=State.OPEN, max_size=max_message_bytes, logger=QUIET)
        self._protocol.extensions = list(extensions)
        self._fragments: bytearray | None = None
        self._text: codecs.IncrementalDecoder | None = None
        self._ended = False

    def receive(self, data: bytes) -> list[Event]:
        """Take bytes from the peer and return what they complete. Never raises for what the peer sent.

        `replies()` must be sent afterwards: pongs and the answer to a Close frame are among them.
        """
        protocol = self._protocol
        protocol.receive_data(data)
        events: list[Event] = []
        for frame in protocol.events_received():
            if self._ended:
                break
            self._take(frame, events)  # type: ignore[arg-type]  # an open protocol has only frames for events
        if protocol.parser_exc is not None and not self._ended:
            self._ended = True
            events.append(self._violation(protocol.parser_exc))
        return events

    def replies(self) -> bytes:
        """What the protocol itself has to say since the last call: pongs, and the Close frame it owes."""
        return b"".join(self._protocol.data_to_send())

    def encode(self, frame: Frame) -> bytes:
        """`frame` as bytes for this peer: compressed if that was agreed on, else shared with everybody."""
        extensions = self._protocol.extensions
        if not extensions:
            return frame.wire
        opcode = Opcode.TEXT if frame.text else Opcode.BINARY
        return WireFrame(opcode, frame.payload).serialize(mask=False, extensions=extensions)

    def ping(self, payload: bytes = b"") -> bytes:
        """A Ping frame (RFC 6455 section 5.5.2), `payload` 125 bytes at most."""
        return WireFrame(Opcode.PING, payload).serialize(mask=False)

    def close(self, code: int, reason: str) -> bytes:
        """The Close frame, or nothing where one was sent already. `check_close` says what may be in it."""
        if self._protocol.state is not State.OPEN:
            return b""
        if code == NO_STATUS_RECEIVED:
            self._protocol.send_close()
        else:
            self._protocol.send_close(code, reason)
        return self.replies()

    def _take(self, frame: WireFrame, events: list[Event]) -> None:
        """Add to `events` what one valid frame brings."""
        opcode = frame.opcode
        if opcode is Opcode.PING:
            return
        if opcode is Opcode.PONG:
            events.append(Pong(bytes(frame.data)))
            return
        if opcode is Opcode.CLOSE:
            self._ended = True
            close = self._protocol.close_rcvd
            assert close is not None, "websockets sets it before it hands the frame out"
            events.append(Closed(Cause.PEER, int(close.code), close.reason))
            return
        try:
            message = self._assemble(frame)
        except UnicodeDecodeError as error:
            self._ended = True
            reason = f"invalid UTF-8: {error.reason}"
            if self._protocol.state is State.OPEN:
                self._protocol.fail(INVALID_DATA, reason)
            events.append(Closed(Cause.PROTOCOL, INVALID_DATA, reason))
            return
        if message is not None:
            events.append(message)

    def _assemble(self, frame: WireFrame) -> str | bytes | None:
        """The message `frame` completes, if it does. Fragments are gathered in one buffer, not in a list:
        a peer that sends 1-byte fragments may cost one byte for each, not an object."""
        data = frame.data
        if frame.opcode is not Opcode.CONT:
            if frame.fin:
                return bytes(data).decode() if frame.opcode is Opcode.TEXT else bytes(data)
            self._fragments = bytearray()
            self._text = codecs.getincrementaldecoder("utf-8")() if frame.opcode is Opcode.TEXT else None
        assert self._fragments is not None, "websockets refuses a continuation without a beginning"
        if self._text is not None:
            self._text.decode(data, final=frame.fin)  # fails at the first bad byte, not at the end
        self._fragments += data
        if not frame.fin:
            return None
        payload, self._fragments = bytes(self._fragments), None
        return payload if self._text is None else payload.decode()

    def _violation(self, error: Exception) -> Closed:
        """What the protocol failed the connection for, with the code its Close frame carries."""
        sent = self._protocol.close_sent
        cause = Cause.SIZE if isinstance(error, PayloadTooBig) else Cause.PROTOCOL
        return Closed(cause, int(sent.code) if sent is not None else 1002, str(error))
