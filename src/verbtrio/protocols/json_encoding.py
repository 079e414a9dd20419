"""The JSON encoding: one command, reply or push a line. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import msgspec
from msgspec import Raw

from verbtrio.messages.frame import Encode, Frame, ReplyFrame
from verbtrio.protocols.commands import BadCommands, Command, EmulationRequest
from verbtrio.protocols.encoding import Encoding, in_one_line
from verbtrio.protocols.replies import Push, Reply


class _Pushed(msgspec.Struct, frozen=True):
    push: Push


class _Result(msgspec.Struct, frozen=True, omit_defaults=True):
    """An `RPCResult` that is not encoded yet."""

    data: Any = None


class _Returned(msgspec.Struct, frozen=True):
    """The `Reply` with it."""

    id: int
    rpc: _Result


class _EmulationBody(msgspec.Struct, frozen=True):
    session: str = ""
    node: str = ""
    data: str = ""


_command = msgspec.json.Decoder(Command)
_emulation_body = msgspec.json.Decoder(_EmulationBody)
_encoder = msgspec.json.Encoder()

# What JSON takes for white space is skipped without a step of Python's for each line of it.
_LINE = re.compile(r"[^ \t\r\n][^\n]*")
_NOT_ASCII = re.compile(r"[^\x00-\x7f]+")

# RecursionError: some thousand "[" nest deeper than msgspec goes. UnicodeError: bytes that are not UTF-8.
_UNREADABLE = (msgspec.DecodeError, RecursionError, UnicodeError)


class JSONEncoding(Encoding):
    """Commands and replies in JSON; what applications send is embedded in it."""

    name = "json"
    is_binary = False
    ping = ReplyFrame(b"{}", text=True)

    def commands(self, message: str | bytes) -> Iterable[Command]:
        try:
            # Decoded as a whole: msgspec does not look at the bytes of a `Raw`, and those go on to others.
            text = message if isinstance(message, str) else message.decode()
            if "\n" not in text and text[:1] == "{":
                return (_command.decode(text),)
        except _UNREADABLE as error:
            raise BadCommands(str(error)) from error
        return self._lines(text)

    def _lines(self, text: str) -> Iterator[Command]:
        try:
            for line in _LINE.finditer(text):
                yield _command.decode(line[0])
        except _UNREADABLE as error:
            raise BadCommands(str(error)) from error

    def emulation_request(self, body: bytes) -> EmulationRequest:
        try:
            request = _emulation_body.decode(body)
        except _UNREADABLE as error:
            raise BadCommands(str(error)) from error
        return EmulationRequest(request.session, request.node, request.data)

    def encode(self, reply: Reply) -> bytes:
        return self._text(reply)

    def encode_publish_answer(self, command: int) -> bytes:
        return b'{"id":%d,"publish":{}}' % command  # in a third of the time

    def encode_push(self, push: Push) -> bytes:
        return self._text(_Pushed(push))

    def _text(self, message: msgspec.Struct) -> bytes:
        return _encoder.encode(message)

    def returned(self, command: int, result: Any, encode: Encode) -> ReplyFrame:
        # In one pass: the reply then takes a third of the instructions that it takes where its data are encoded first.
        try:
            return ReplyFrame(in_one_line(self._text(_Returned(command, _Result(result)))), True)
        except (TypeError, BufferError):
            pass  # what only the app's hook has a form for; or a subclass of `str` or `bytes`; or what nobody takes
        return super().returned(command, result, encode)

    def join(self, messages: Sequence[bytes]) -> bytes:
        return b"\n".join(messages)

    def data(self, frame: Frame) -> Raw:
        payload = frame.payload
        if frame.is_json:
            return Raw(in_one_line(payload))
        return Raw(_encoder.encode(payload.decode() if frame.text else payload))

    def frame_of(self, data: Raw) -> Frame:
        return Frame(in_one_line(bytes(data)) or b"null", text=True, is_json=True)


class ASCIIEncoding(JSONEncoding):
    """JSON without a character beyond ASCII, for responses that are streamed: the JavaScript SDK decodes each chunk by
    itself, so a character that two chunks share would be lost."""

    name = "json-ascii"

    def _text(self, message: msgspec.Struct) -> bytes:
        return _ascii(super()._text(message))


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
