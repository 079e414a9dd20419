"""The JSON encoding: one command, reply or push a line. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence

import msgspec
from msgspec import Raw

from verbtrio.messages.frame import Frame, ReplyFrame
from verbtrio.protocols.commands import BadCommands, Command
from verbtrio.protocols.encoding import Encoding
from verbtrio.protocols.replies import Push, Reply

_decoder = msgspec.json.Decoder(Command)
_encoder = msgspec.json.Encoder()
_NOT_ASCII = re.compile(r"[^\x00-\x7f]+")


class _Pushed(msgspec.Struct, frozen=True):
    push: Push


class JSONEncoding(Encoding):
    """Commands and replies in JSON; what applications send is embedded in it."""

    name = "json"
    is_binary = False
    ping = ReplyFrame(b"{}", text=True)

    def commands(self, message: str | bytes) -> list[Command]:
        found = []
        try:
            for line in (message.encode() if isinstance(message, str) else message).split(b"\n"):
                if line and not line.isspace():
                    found.append(_decoder.decode(line))
        except (msgspec.DecodeError, RecursionError, UnicodeError) as error:
            # RecursionError: 100 KB of "[" nest deeper than any honest command.
            raise BadCommands(str(error)) from error
        return found

    def encode(self, reply: Reply) -> bytes:
        return _encoder.encode(reply)

    def encode_push(self, push: Push) -> bytes:
        return _encoder.encode(_Pushed(push))

    def join(self, messages: Sequence[bytes]) -> bytes:
        return b"\n".join(messages)

    def data(self, frame: Frame) -> Raw:
        if frame.is_json:
            return Raw(frame.payload)
        payload = frame.payload
        return Raw(_encoder.encode(payload.decode() if frame.text else payload))

    def frame_of(self, data: Raw) -> Frame:
        return Frame(bytes(data), text=True, is_json=True)


class ASCIIEncoding(JSONEncoding):
    """JSON without a character beyond ASCII, for responses that are streamed: the JavaScript SDK decodes each chunk by
    itself, so a character that two chunks share would be lost."""

    name = "json-ascii"

    def encode(self, reply: Reply) -> bytes:
        return _ascii(super().encode(reply))

    def encode_push(self, push: Push) -> bytes:
        return _ascii(super().encode_push(push))


def _ascii(message: bytes) -> bytes:
    """`message` with `\\u` escapes. (In JSON, such characters stand only within strings.)"""
    if message.isascii():
        return message
    return _NOT_ASCII.sub(lambda found: _escaped(found[0]), message.decode()).encode()


def _escaped(text: str) -> str:
    utf16 = text.encode("utf-16-be")
    return "".join(f"\\u{utf16[at] << 8 | utf16[at + 1]:04x}" for at in range(0, len(utf16), 2))


JSON = JSONEncoding()
ASCII = ASCIIEncoding()
