"""The Protobuf encoding: commands and replies as client.proto defines them, each with its length before it. Pure.

The runtime is the extra `protobuf`, which `protobuf()` imports. Structs and messages have the same fields by the same
names, so what carries one over to the other is made from the structs' types, once.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Annotated, Any, TypeAlias, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta, Raw, Struct

from verbtrio.messages.frame import Frame, ReplyFrame
from verbtrio.protocols.commands import BadCommands, Command, EmulationRequest
from verbtrio.protocols.encoding import Encoding, in_one_line
from verbtrio.protocols.replies import Push, Reply

_any_json = msgspec.json.Decoder(Raw)
_encoder = msgspec.json.Encoder()

_MAX_VARINT_BYTES = 5
"""Of a length: 32 bits."""


class ProtobufEncoding(Encoding):
    """Commands and replies in Protobuf; what applications send is bytes, JSON among them."""

    name = "protobuf"
    is_binary = True
    ping = ReplyFrame(b"\0", text=False)

    def __init__(self, messages: Any, unreadable: type[Exception]) -> None:
        """`messages`: the module client_pb2. `unreadable`: what its `FromString` raises."""
        self._parse_command = messages.Command.FromString
        self._parse_emulation = messages.EmulationRequest.FromString
        self._reply = messages.Reply
        # The last two: the runtime in pure Python, which there is where no other can be had.
        self._unreadable = (unreadable, UnicodeError, RecursionError)

    def commands(self, message: str | bytes) -> Iterator[Command]:
        if isinstance(message, str):
            raise BadCommands("a text message: commands in Protobuf are binary messages")
        start, end = 0, len(message)
        while start < end:
            size, start = _length(message, start)
            if size > end - start:
                raise BadCommands(f"a command of {size} bytes, of which there are {end - start}")
            yield self._command(message[start : start + size])
            start += size

    def _command(self, encoded: bytes) -> Command:
        try:
            message = self._parse_command(encoded)
        except self._unreadable as error:
            raise BadCommands(str(error)) from error
        # What is set, in the order of the numbers; to ask for each field takes as long as all the rest.
        return Command(**{field.name: _COMMAND[field.name](value) for field, value in message.ListFields()})

    def emulation_request(self, body: bytes) -> EmulationRequest:
        try:
            request = self._parse_emulation(body)
        except self._unreadable as error:
            raise BadCommands(str(error)) from error
        return EmulationRequest(request.session, request.node, request.data)

    def encode(self, reply: Reply) -> bytes:
        message = self._reply()
        _fill(message, reply)
        return _with_length(message.SerializeToString())

    def encode_push(self, push: Push) -> bytes:
        message = self._reply()
        _write_struct(message, "push", push)
        return _with_length(message.SerializeToString())

    def join(self, messages: Sequence[bytes]) -> bytes:
        return b"".join(messages)

    def data(self, frame: Frame) -> Raw:
        payload = frame.payload
        if frame.text and not frame.is_json:  # as clients of the JSON encoding see it
            return Raw(_encoder.encode(payload.decode()))
        return Raw(payload)

    def frame_of(self, data: Raw) -> Frame:
        said = bytes(data)
        try:
            said.decode()  # msgspec does not look at what is in the strings of a `Raw`
            said = in_one_line(bytes(_any_json.decode(said)))
        except (msgspec.DecodeError, RecursionError, UnicodeError):
            return Frame(said, text=False)
        return Frame(said, text=True, is_json=True)


@cache
def protobuf() -> ProtobufEncoding:
    """The Protobuf encoding.

    Raises:
        ImportError: the extra `protobuf` is not installed.
    """
    try:
        from google.protobuf.message import DecodeError

        from verbtrio.protocols import client_pb2
    except ImportError as error:
        raise ImportError('the Protobuf encoding needs the extra: pip install "verbtrio[protobuf]"') from error
    return ProtobufEncoding(client_pb2, DecodeError)


def _length(message: bytes, start: int) -> tuple[int, int]:
    """The varint at `start`, and where it ends."""
    size = 0
    for index, byte in enumerate(message[start : start + _MAX_VARINT_BYTES]):
        size |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return size, start + index + 1
    raise BadCommands("a length that does not end")


def _with_length(encoded: bytes) -> bytes:
    size = len(encoded)
    varint = bytearray()
    while size > 0x7F:
        varint.append(size & 0x7F | 0x80)
        size >>= 7
    varint.append(size)
    return bytes(varint) + encoded


# From a message's field to a struct's.

Read: TypeAlias = Callable[[Any], Any]


def _reader(hint: Any) -> Read:
    """What makes a field's value one of the type `hint`, within its bounds."""
    kind, meta, _ = _taken_apart(hint)
    if kind is Raw:
        return Raw
    if get_origin(kind) is dict:
        return _entries_reader(_reader(get_args(kind)[1]), meta)
    if issubclass(kind, Struct):
        return _struct_reader(kind)
    return _as_it_is if meta is None else _number_reader(meta)


def _as_it_is(value: Any) -> Any:
    return value


def _struct_reader(kind: type[Struct]) -> Read:
    fields = [(name, _reader(hint), _taken_apart(hint)[2]) for name, hint in _hints(kind)]

    def read(message: Any) -> Struct:
        return kind(
            *[
                None if may_be_none and not message.HasField(name) else convert(getattr(message, name))
                for name, convert, may_be_none in fields
            ]
        )

    return read


def _entries_reader(convert: Read, meta: Meta) -> Read:
    most = meta.max_length
    assert most is not None

    def read(entries: Any) -> dict[str, Any]:
        if len(entries) > most:
            raise BadCommands(f"a map of {len(entries)} entries, where {most} may be")
        return {key: convert(value) for key, value in entries.items()}

    return read


def _number_reader(meta: Meta) -> Read:
    least, most = meta.ge, meta.le

    def read(number: Any) -> Any:
        # NaN is neither less nor more than anything.
        if (least is None or number >= least) and (most is None or number <= most):
            return number
        raise BadCommands(f"{number}, where a number from {least} to {most} may be")

    return read


# From a struct to a message.

Write: TypeAlias = Callable[[Any, str, Any], None]


def _fill(message: Any, struct: Struct) -> None:
    """Set the fields of `message` whose values in `struct` are not their defaults."""
    for name, default, write in _fields(type(struct)):
        value = getattr(struct, name)
        if value is not default and value != default:
            write(message, name, value)


@cache
def _fields(kind: type[Struct]) -> list[tuple[str, Any, Write]]:
    defaults = {field.name: field.default for field in msgspec.structs.fields(kind)}
    return [(name, defaults[name], _writer(hint)) for name, hint in _hints(kind)]


def _writer(hint: Any) -> Write:
    kind, _, _ = _taken_apart(hint)
    if kind is Raw:
        return _write_raw
    if get_origin(kind) is list:
        return _write_list
    if get_origin(kind) is dict:
        return _write_entries
    if issubclass(kind, Struct):
        return _write_struct
    return setattr


def _write_raw(message: Any, name: str, value: Raw) -> None:
    setattr(message, name, bytes(value))


def _write_struct(message: Any, name: str, value: Struct) -> None:
    field = getattr(message, name)
    field.SetInParent()  # an empty one is there, too
    _fill(field, value)


def _write_list(message: Any, name: str, values: list[Struct]) -> None:
    field = getattr(message, name)
    for value in values:
        _fill(field.add(), value)


def _write_entries(message: Any, name: str, entries: dict[str, Struct]) -> None:
    field = getattr(message, name)
    for key, value in entries.items():
        _fill(field[key], value)


# The types of structs' fields.


def _hints(kind: type[Struct]) -> Iterator[tuple[str, Any]]:
    hints = get_type_hints(kind, include_extras=True)
    return ((name, hints[name]) for name in kind.__struct_fields__)


def _taken_apart(hint: Any) -> tuple[Any, Any, bool]:
    """The type itself, its `Meta`, and whether `None` may stand for it."""
    meta, may_be_none = None, False
    if get_origin(hint) is Annotated:
        hint, meta = get_args(hint)
    if get_origin(hint) is types.UnionType:
        hint, _ = get_args(hint)  # T | None
        may_be_none = True
    return hint, meta, may_be_none


_COMMAND = {name: _reader(hint) for name, hint in _hints(Command)}
