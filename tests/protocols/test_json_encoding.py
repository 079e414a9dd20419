"""Commands and replies in JSON, against Python's own `json`."""

from __future__ import annotations

import enum
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from tests.support.protocols import opened, plain, structs
from verbtrio.messages.frame import encode, encoder
from verbtrio.protocols.commands import MAX_ENTRIES, BadCommands, Command, PublishRequest
from verbtrio.protocols.encoding import Encoding
from verbtrio.protocols.json_encoding import ASCII, JSON
from verbtrio.protocols.replies import Empty, Push, Reply, RPCResult

BOTH = pytest.mark.parametrize("encoding", [JSON, ASCII], ids=lambda encoding: encoding.name)

NEVER_LEFT_OUT: dict[str, dict[str, Any]] = {
    "presence": {"presence": {}},
    "presence_stats": {"num_clients": 0, "num_users": 0},
}
"""In results, although they have their zero value: the JavaScript SDK passes them on as they come."""


def commands(message: str | bytes) -> list[Command]:
    return list(JSON.commands(message))


def published(data: str) -> bytes:
    (command,) = commands(f'{{"id": 1, "publish": {{"channel": "a", "data": {data}}}}}')
    assert command.publish is not None
    return bytes(command.publish.data)


class TestCommands:
    @given(st.lists(structs(Command), max_size=3), st.booleans(), st.booleans())
    def test_any(self, sent: list[Command], escaped: bool, is_text: bool) -> None:
        lines = [json.dumps(opened(plain(command)), ensure_ascii=escaped) for command in sent]
        message = "\n".join(lines)
        read = commands(message if is_text else message.encode())
        assert [opened(plain(command)) for command in read] == [opened(plain(command)) for command in sent]

    @given(st.binary() | st.text(st.characters(codec="utf-8")))
    def test_garbage(self, message: str | bytes) -> None:
        try:
            commands(message)
        except BadCommands:
            pass

    @given(structs(Command), st.data())
    def test_cut_anywhere(self, command: Command, data: st.DataObject) -> None:
        line = json.dumps(opened(plain(command))).encode()
        cut = data.draw(st.integers(1, len(line) - 1))
        with pytest.raises(BadCommands):
            commands(line[:cut])

    @pytest.mark.parametrize("message", ["", "\n", " \n\t\r\n ", b"\n\n"])
    def test_white_space_is_no_command(self, message: str | bytes) -> None:
        assert commands(message) == []

    def test_lines(self) -> None:
        assert commands('\r\n{"id":1}\r\n\n  {"id":2}  \n') == [Command(1), Command(2)]

    def test_an_empty_command(self) -> None:
        (command,) = commands("{}")
        assert command == Command()
        assert command.method is None

    @pytest.mark.parametrize("name", [name for name in Command.__struct_fields__ if name != "id"])
    def test_an_empty_request_is_one(self, name: str) -> None:
        (command,) = commands(f'{{"id": 1, "{name}": {{}}}}')
        assert command.method == name

    def test_the_first_request_counts(self) -> None:
        """In the order of the fields of `Command`, not of the message."""
        (command,) = commands('{"connect": {}, "rpc": {}}')
        assert command.method == "rpc"

    def test_unknown_fields_are_ignored(self) -> None:
        assert commands('{"id": 1, "publish": {"channel": "a", "x": [{}]}, "flag": {"y": 1}}') == [
            Command(1, publish=PublishRequest("a"))
        ]

    def test_what_comes_before_the_unreadable_is_read(self) -> None:
        """So a message of 10,000 commands is not decoded in one go."""
        read = iter(JSON.commands('{"id":1}\n{"id":2}\n['))
        assert [next(read), next(read)] == [Command(1), Command(2)]
        with pytest.raises(BadCommands):
            next(read)

    @pytest.mark.parametrize(
        "command",
        [
            {"id": -1},
            {"id": 2**32},
            {"id": 1.5},
            {"id": "1"},
            {"id": None},
            {"subscribe": {"offset": -1}},
            {"subscribe": {"offset": 2**63}},
            {"subscribe": {"flag": 2**64}},
            {"connect": {"subs": {"a": {"offset": 10**30}}}},
            {"history": {"since": {"offset": 10**30}}},
            {"history": {"limit": 2**31}},
            {"history": {"limit": -(2**31) - 1}},
            {"send": {"cancel": -1}},
            {"rpc": {"timeout": -1}},
            {"connect": {"subs": {str(number): {} for number in range(MAX_ENTRIES + 1)}}},
            {"connect": {"headers": {str(number): "" for number in range(MAX_ENTRIES + 1)}}},
        ],
        ids=str,
    )
    def test_out_of_bounds(self, command: dict[str, Any]) -> None:
        with pytest.raises(BadCommands):
            commands(json.dumps(command))

    @pytest.mark.parametrize(
        "message",
        [
            "[" * 100_000,
            '{"publish": {"data": ' + "[" * 100_000,
            '{"x": ' + "[" * 100_000 + "]" * 100_000 + "}",
            '{"id": ' + "1" * 100_000 + "}",
            '{"rpc": {"timeout": 1e999}}',
            '{"publish": {"channel": "\ud800"}}',
            '{"publish": {"channel": "\\ud800"}}',
            b'{"publish": {"channel": "\xff"}}',
            b'{"publish": {"data": "\xff"}}',
            b'{"publish": {"data": "\xed\xa0\x80"}}',
            '{"id": 1} {"id": 2}',
            "\ufeff{}",
            "[]",
            "1",
        ],
        ids=range(14),
    )
    def test_unreadable(self, message: str | bytes) -> None:
        with pytest.raises(BadCommands):
            commands(message)

    @pytest.mark.parametrize(
        "data",
        ["01", "1.", "-", "NaN", "tru", '"\t"', '"\x00"', '"\\x"', '"\\ud800"', "[1,]", '{"a" 1}', "/**/1", "\x0b1"],
    )
    def test_data_that_is_not_json_for_everybody(self, data: str) -> None:
        """It goes on to others as it is, so it is looked at."""
        with pytest.raises(BadCommands):
            published(data)

    def test_a_duplicate_key_replaces(self) -> None:
        assert commands('{"id": 1, "id": 2}') == [Command(2)]

    def test_names_may_have_any_character(self) -> None:
        assert commands('{"subscribe": {"channel": "a\\u0000\\n"}}')[0].subscribe.channel == "a\0\n"  # type: ignore[union-attr]


class TestEmulationRequests:
    def test_one(self) -> None:
        body = json.dumps({"session": "s", "node": "n", "data": '{"id":1}\n{}'}).encode()
        session, node, data = JSON.emulation_request(body)
        assert (session, node) == ("s", "n")
        assert commands(data) == [Command(1), Command()]

    @pytest.mark.parametrize("body", [b"", b"[]", b'{"session": 1}', b'{"data": {}}', b"\xff", b'{"session": "\xff"}'])
    def test_unreadable(self, body: bytes) -> None:
        with pytest.raises(BadCommands):
            JSON.emulation_request(body)

    @given(st.binary())
    def test_garbage(self, body: bytes) -> None:
        try:
            JSON.emulation_request(body)
        except BadCommands:
            pass


class TestReplies:
    @BOTH
    @given(structs(Reply))
    def test_any(self, encoding: Encoding, reply: Reply) -> None:
        encoded, sent = encoding.encode(reply), opened(plain(reply))
        for name, never_left_out in NEVER_LEFT_OUT.items():
            if name in sent:
                sent[name] = {**never_left_out, **sent[name]}
        assert json.loads(encoded) == sent
        assert b"\n" not in encoded

    @BOTH
    @given(structs(Push))
    def test_any_push(self, encoding: Encoding, push: Push) -> None:
        assert json.loads(encoding.encode_push(push)) == {"push": opened(plain(push))}

    @given(structs(Reply), structs(Push))
    def test_ascii(self, reply: Reply, push: Push) -> None:
        assert ASCII.encode(reply).isascii()
        assert ASCII.encode_push(push).isascii()

    @BOTH
    def test_beyond_the_basic_plane(self, encoding: Encoding) -> None:
        reply = Reply(1, rpc=None, presence=None)
        push = Push(channel="é\u2028\U0001f600\\")
        assert json.loads(encoding.encode_push(push))["push"]["channel"] == push.channel
        assert encoding.encode(reply) == b'{"id":1}'
        assert ASCII.encode_push(push) == rb'{"push":{"channel":"\u00e9\u2028\ud83d\ude00\\"}}'

    @BOTH
    def test_an_empty_result_is_one(self, encoding: Encoding) -> None:
        assert encoding.encode(Reply(1, publish=Empty())) == b'{"id":1,"publish":{}}'

    @BOTH
    def test_the_ping(self, encoding: Encoding) -> None:
        assert encoding.ping.payload == encoding.encode(Reply()) == b"{}"
        assert encoding.ping.text

    @BOTH
    def test_a_message_of_several(self, encoding: Encoding) -> None:
        frames = [encoding.reply(Reply(1, publish=Empty())), encoding.pushed(Push("a")), encoding.ping]
        joined = encoding.joined(frames)
        assert joined.text
        assert [json.loads(line) for line in joined.payload.split(b"\n")] == [
            {"id": 1, "publish": {}},
            {"push": {"channel": "a"}},
            {},
        ]


class Text(str):
    __slots__ = ()


class Octets(bytes):
    pass


class Colour(enum.Enum):
    RED = "red"


RESULTS = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text() | st.binary(),
    lambda parts: st.lists(parts) | st.dictionaries(st.text(), parts),
)


class TestWhatCallsReturn:
    """It is encoded with its reply in one pass, to what it is as a message by itself, in its reply."""

    @BOTH
    @given(result=RESULTS)
    def test_json(self, encoding: Encoding, result: Any) -> None:
        data = None if result is None else encoding.data(encode(result))
        frame = encoding.returned(7, result, encode)
        assert frame.payload == encoding.encode(Reply(id=7, rpc=RPCResult(data)))
        assert frame.text

    @BOTH
    @pytest.mark.parametrize(
        ("result", "data"),
        [
            (Text("é"), "é"),
            (Octets(b"abc"), "YWJj"),
            (bytearray(b"abc"), "YWJj"),
            (memoryview(b"a-b-c-")[::2], "YWJj"),
            (Colour.RED, "red"),
            (Raw(b'{"a":\n[1,\r\n2]}'), {"a": [1, 2]}),
        ],
        ids=["str", "bytes", "bytearray", "memoryview", "enum", "raw"],
    )
    def test_what_else_a_message_may_be(self, encoding: Encoding, result: Any, data: Any) -> None:
        payload = encoding.returned(7, result, encode).payload
        assert json.loads(payload) == {"id": 7, "rpc": {"data": data}}
        assert not set(b"\r\n") & set(payload)

    @BOTH
    def test_by_the_apps_hook(self, encoding: Encoding) -> None:
        payload = encoding.returned(7, [1j, "é"], encoder(str)).payload
        assert json.loads(payload) == {"id": 7, "rpc": {"data": ["1j", "é"]}}

    @BOTH
    @pytest.mark.parametrize(("result", "error"), [(1j, TypeError), ([1j], TypeError), ("\ud800", UnicodeEncodeError)])
    def test_what_has_no_form(self, encoding: Encoding, result: Any, error: type[Exception]) -> None:
        with pytest.raises(error):
            encoding.returned(7, result, encode)


class TestWhatClientsPublish:
    @pytest.mark.parametrize("data", ["1", '{"a": [null]}', '"é"', '"a\\nb"'])
    def test_goes_on_as_it_is(self, data: str) -> None:
        frame = JSON.frame_of(Raw(published(data)))
        assert frame.payload == data.encode()
        assert frame.text
        assert frame.is_json

    def test_a_return_between_tokens_would_end_a_line_of_an_event(self) -> None:
        assert JSON.frame_of(Raw(published("[1,\r2]"))).payload == b"[1, 2]"

    def test_nothing_is_null(self) -> None:
        assert JSON.frame_of(PublishRequest().data).payload == b"null"
