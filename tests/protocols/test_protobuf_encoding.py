"""Commands and replies in Protobuf, against the classes that protoc has generated."""

from __future__ import annotations

import base64
import math
import sys
from types import SimpleNamespace
from typing import Any

import pytest
from google.protobuf import json_format
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from tests.support.protocols import fields, plain, structs
from verbtrio.messages.frame import encode
from verbtrio.protocols import client_pb2, protobuf_encoding
from verbtrio.protocols.commands import MAX_ENTRIES, BadCommands, Command, PingRequest, PublishRequest
from verbtrio.protocols.json_encoding import JSON
from verbtrio.protocols.protobuf_encoding import ProtobufEncoding, protobuf
from verbtrio.protocols.replies import Empty, Push, Reply

messages: Any = client_pb2  # which has its classes only when it runs
PROTOBUF = protobuf()


def with_length(encoded: bytes) -> bytes:
    size, varint = len(encoded), b""
    while True:
        size, low = size >> 7, size & 0x7F
        varint += bytes([low | (0x80 if size else 0)])
        if not size:
            return varint + encoded


def message(*commands: Any) -> bytes:
    """A message of Protobuf commands."""
    return b"".join(with_length(command.SerializeToString()) for command in commands)


def commands(sent: bytes) -> list[Command]:
    return list(PROTOBUF.commands(sent))


def base64s(value: Any) -> Any:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, dict):
        return {key: base64s(inner) for key, inner in value.items()}
    return [base64s(inner) for inner in value] if isinstance(value, list) else value


def as_message(command: Command) -> Any:
    """`command`, as the runtime makes it from Protobuf's own JSON form."""
    return json_format.ParseDict(base64s(plain(command)), messages.Command())


def read(encoded: bytes) -> list[Any]:
    """The replies of a message, as plain values."""
    replies, start = [], 0
    while start < len(encoded):
        size = shift = 0
        while True:
            byte = encoded[start]
            size |= (byte & 0x7F) << shift
            start, shift = start + 1, shift + 7
            if byte < 0x80:
                break
        replies.append(plain_message(messages.Reply.FromString(encoded[start : start + size])))
        start += size
    assert start == len(encoded)
    return replies


def plain_message(value: Any) -> Any:
    """A message as a dict of the fields that it has."""
    if not hasattr(value, "ListFields"):
        return value
    found: dict[str, Any] = {}
    for field, had in value.ListFields():
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            found[field.name] = {key: plain_message(had[key]) for key in had}
        elif isinstance(getattr(value, field.name), bytes | str) or not hasattr(had, "__len__"):
            found[field.name] = plain_message(had)
        else:
            found[field.name] = [plain_message(inner) for inner in had]
    return found


def without_zeros(value: Any) -> Any:
    """Plain values without those that Protobuf does not write (an error's code and message have no default)."""
    if isinstance(value, dict):
        return {key: without_zeros(inner) for key, inner in value.items() if inner not in (0, "")}
    return [without_zeros(inner) for inner in value] if isinstance(value, list) else value


class TestCommands:
    @given(st.lists(structs(Command), max_size=3))
    def test_any(self, sent: list[Command]) -> None:
        read = commands(message(*map(as_message, sent)))
        assert [plain(command) for command in read] == [plain(command) for command in sent]

    @given(structs(Command), st.data())
    def test_cut_anywhere(self, command: Command, data: st.DataObject) -> None:
        whole = message(as_message(command))
        cut = data.draw(st.integers(1, len(whole) - 1) if len(whole) > 1 else st.nothing())
        with pytest.raises(BadCommands):
            commands(whole[:cut])

    @given(st.binary())
    def test_garbage(self, sent: bytes) -> None:
        try:
            commands(sent)
        except BadCommands:
            pass

    @given(st.binary(min_size=1))
    def test_garbage_in_a_command(self, encoded: bytes) -> None:
        try:
            commands(with_length(encoded))
        except BadCommands:
            pass

    @given(structs(Command), st.data())
    def test_damaged_anywhere(self, command: Command, data: st.DataObject) -> None:
        whole = bytearray(message(as_message(command)))
        whole[data.draw(st.integers(0, len(whole) - 1))] ^= data.draw(st.integers(1, 255))
        try:
            commands(bytes(whole))
        except BadCommands:
            pass

    def test_text_is_not_protobuf(self) -> None:
        with pytest.raises(BadCommands, match="text"):
            list(PROTOBUF.commands("{}"))

    def test_nothing_is_no_command(self) -> None:
        assert commands(b"") == []

    def test_an_empty_command(self) -> None:
        assert commands(b"\0\0") == [Command(), Command()]

    @pytest.mark.parametrize("name", [name for name in Command.__struct_fields__ if name != "id"])
    def test_an_empty_request_is_one(self, name: str) -> None:
        sent = messages.Command(id=1)
        getattr(sent, name).SetInParent()
        (command,) = commands(message(sent))
        assert command.method == name

    def test_what_is_absent_in_a_request(self) -> None:
        absent, empty = messages.Command(), messages.Command()
        absent.history.channel = empty.history.channel = "a"
        empty.history.since.SetInParent()
        read = [command.history for command in commands(message(absent, empty))]
        assert [history is not None and history.since is not None for history in read] == [False, True]

    def test_unknown_fields_are_ignored(self) -> None:
        # Number 100 and, in `publish`, 200: a varint and some bytes.
        publish = messages.PublishRequest(channel="a").SerializeToString() + b"\xc2\x0c\x02xy"
        encoded = b"\x08\x01" + b"\x3a" + with_length(publish) + b"\xa0\x06\x05"
        assert commands(with_length(encoded)) == [Command(1, publish=PublishRequest("a"))]

    @pytest.mark.parametrize(
        "sent",
        [
            b"\x80",
            b"\x80\x80\x80\x80\x80\x00",
            b"\xff" * 10,
            b"\x01",
            b"\xff\xff\xff\xff\x7f",
            b"\xff\xff\xff\xff\x0f\x00",
        ],
        ids=bytes.hex,
    )
    def test_a_bad_length(self, sent: bytes) -> None:
        with pytest.raises(BadCommands):
            commands(sent)

    def test_a_long_form_of_a_length(self) -> None:
        assert commands(b"\x80\x80\x80\x80\x00") == [Command()]

    @pytest.mark.parametrize("size", [127, 128, 16_383, 16_384, 100_000])
    def test_lengths(self, size: int) -> None:
        publish = PublishRequest("a", Raw(b"x" * size))
        read = commands(message(as_message(Command(1, publish=publish)), messages.Command(id=2)))
        assert [plain(command) for command in read] == [plain(Command(1, publish=publish)), {"id": 2}]

    def test_what_comes_before_the_unreadable_is_read(self) -> None:
        read = PROTOBUF.commands(message(messages.Command(id=1)) + b"\x05")
        assert next(read) == Command(1)
        with pytest.raises(BadCommands):
            next(read)

    @pytest.mark.parametrize("timeout", [-1.0, math.nan, -math.inf])
    def test_a_timeout_that_is_none(self, timeout: float) -> None:
        with pytest.raises(BadCommands):
            commands(message(messages.Command(rpc=messages.RPCRequest(timeout=timeout))))

    def test_an_offset_beyond_63_bits(self) -> None:
        with pytest.raises(BadCommands):
            commands(message(messages.Command(subscribe=messages.SubscribeRequest(offset=2**63))))

    @pytest.mark.parametrize("name", ["subs", "headers"])
    def test_too_many_entries(self, name: str) -> None:
        sent = messages.Command()
        entries = getattr(sent.connect, name)
        for number in range(MAX_ENTRIES):
            _ = entries[str(number)] if name == "subs" else entries.update({str(number): ""})
        (command,) = commands(message(sent))
        assert command.connect is not None
        assert len(getattr(command.connect, name)) == MAX_ENTRIES
        _ = entries["more"] if name == "subs" else entries.update({"more": ""})
        with pytest.raises(BadCommands, match="4097"):
            commands(message(sent))

    @pytest.mark.parametrize(
        "error", [UnicodeDecodeError("utf-8", b"", 0, 1, ""), RecursionError("x")], ids=["unicode", "recursion"]
    )
    def test_the_runtime_in_pure_python(self, error: Exception) -> None:
        """It has errors of its own."""

        def from_string(encoded: bytes) -> None:
            raise error

        kind = SimpleNamespace(FromString=from_string)
        encoding = ProtobufEncoding(SimpleNamespace(Command=kind, EmulationRequest=kind, Reply=None), KeyError)
        with pytest.raises(BadCommands):
            list(encoding.commands(b"\x01a"))
        with pytest.raises(BadCommands):
            encoding.emulation_request(b"a")

    def test_a_name_that_is_not_utf8(self) -> None:
        with pytest.raises(BadCommands):
            commands(with_length(b"\x2a\x03\x0a\x01\xff"))


class TestEmulationRequests:
    def test_one(self) -> None:
        data = message(messages.Command(id=1), messages.Command())
        body = messages.EmulationRequest(session="s", node="n", data=data).SerializeToString()
        session, node, commanded = PROTOBUF.emulation_request(body)
        assert (session, node) == ("s", "n")
        assert list(PROTOBUF.commands(commanded)) == [Command(1), Command()]

    def test_an_empty_body_names_no_session(self) -> None:
        assert PROTOBUF.emulation_request(b"") == ("", "", b"")

    @pytest.mark.parametrize("body", [b"\xff", b"{}", b"\x12\x05a", b"\x12\x01\xff"])
    def test_unreadable(self, body: bytes) -> None:
        with pytest.raises(BadCommands):
            PROTOBUF.emulation_request(body)

    @given(st.binary())
    def test_garbage(self, body: bytes) -> None:
        try:
            PROTOBUF.emulation_request(body)
        except BadCommands:
            pass


class TestReplies:
    @given(structs(Reply))
    def test_any(self, reply: Reply) -> None:
        assert read(PROTOBUF.encode(reply)) == [without_zeros(plain(reply))]

    @given(structs(Push))
    def test_any_push(self, push: Push) -> None:
        assert read(PROTOBUF.encode_push(push)) == [{"push": plain(push)}]

    @pytest.mark.parametrize("name", [name for name in Reply.__struct_fields__ if name not in ("id", "error")])
    def test_an_empty_result_is_one(self, name: str) -> None:
        kind, _ = fields(Reply)[name].__args__
        assert read(PROTOBUF.encode(Reply(1, **{name: kind()}))) == [{"id": 1, name: {}}]

    def test_the_ping(self) -> None:
        assert PROTOBUF.ping.payload == PROTOBUF.encode(Reply()) == b"\0"
        assert not PROTOBUF.ping.text

    @pytest.mark.parametrize("size", [0, 1, 100, 127, 128, 129, 16_383, 16_384, 3_000_000])
    def test_a_message_of_several(self, size: int) -> None:
        frames = [
            PROTOBUF.reply(Reply(1, publish=Empty())),
            PROTOBUF.pushed(Push("a" * size)),
            PROTOBUF.ping,
        ]
        joined = PROTOBUF.joined(frames)
        assert not joined.text
        push = without_zeros({"channel": "a" * size})
        assert read(joined.payload) == [{"id": 1, "publish": {}}, {"push": push}, {}]


class TestWhatClientsPublish:
    @pytest.mark.parametrize(
        ("data", "payload"),
        [
            (b"1", b"1"),
            (b'{"a": "\xc3\xa9"}', b'{"a": "\xc3\xa9"}'),
            (b'\n{"a":\r\n "\\n"}\n', b'{"a":   "\\n"}'),
        ],
    )
    def test_json_is_json_for_everybody(self, data: bytes, payload: bytes) -> None:
        frame = PROTOBUF.frame_of(Raw(data))
        assert frame.payload == payload
        assert frame.text
        assert frame.is_json

    @pytest.mark.parametrize(
        "data",
        [b"", b"\0", b"text", b'{"a":', b'"\xff"', b"{}{}", b'"\t"', b'"\\ud800"', b"[" * 100_000, b"NaN"],
        ids=range(10),
    )
    def test_all_else_is_bytes(self, data: bytes) -> None:
        frame = PROTOBUF.frame_of(Raw(data))
        assert frame.payload == data
        assert not frame.text
        assert not frame.is_json

    @given(
        st.binary() | st.lists(st.sampled_from([b"[", b"]", b"{", b"}", b'"', b"\n", b"\r", b"1", b","])).map(b"".join)
    )
    def test_never_breaks_a_line_of_others(self, data: bytes) -> None:
        encoded = JSON.encode_push(Push("a", pub=JSON.publication(PROTOBUF.frame_of(Raw(data)))))
        assert b"\n" not in encoded
        assert b"\r" not in encoded
        list(JSON.commands(encoded))  # it can be read


class TestTheExtra:
    def test_there_is_one_encoding(self) -> None:
        assert protobuf() is PROTOBUF

    def test_without_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "google.protobuf.message", None)
        with pytest.raises(ImportError, match=r'pip install "verbtrio\[protobuf\]"'):
            protobuf_encoding.protobuf.__wrapped__()


def test_an_application_s_text_is_as_others_see_it() -> None:
    assert bytes(PROTOBUF.data(encode("é"))) == '"é"'.encode()


def test_ping_request() -> None:
    sent = messages.Command(id=1)
    sent.ping.SetInParent()
    assert commands(message(sent)) == [Command(1, ping=PingRequest())]
