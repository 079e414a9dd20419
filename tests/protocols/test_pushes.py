"""What is said in a room, or to one client, as its clients get it."""

from __future__ import annotations

import base64
import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from verbtrio.base.position import Position
from verbtrio.messages.frame import Frame, ReplyFrame, TransientFrame, encode, transient
from verbtrio.messages.published import PresenceFrame, Published, SignedFrame
from verbtrio.multiplex.peer import ANSWER_BYTES
from verbtrio.protocols import client_pb2
from verbtrio.protocols.encoding import Encoding, in_one_line
from verbtrio.protocols.json_encoding import ASCII, JSON
from verbtrio.protocols.protobuf_encoding import protobuf
from verbtrio.protocols.replies import ClientInfo, Empty, Push, Reply

messages: Any = client_pb2
PROTOBUF = protobuf()
ALL = pytest.mark.parametrize("encoding", [JSON, ASCII, PROTOBUF], ids=lambda encoding: encoding.name)


def in_room(frame: Frame, room: object = "chat") -> Frame:
    frame.room = room
    return frame


def push(encoding: Encoding, frame: Frame) -> Any:
    """The push that `frame` becomes, as its client reads it: `data` is bytes."""
    made = encoding.push(frame)
    assert made is not None
    assert made.text is not encoding.is_binary
    if encoding.is_binary:
        return messages.Reply.FromString(made.payload[1:]).push
    return json.loads(made.payload)["push"]


def data(encoding: Encoding, frame: Frame) -> Any:
    """The `data` of the publication that `frame` becomes."""
    made = push(encoding, in_room(frame))
    return made.pub.data if encoding.is_binary else made["pub"]["data"]


class TestData:
    @ALL
    def test_json_is_embedded(self, encoding: Encoding) -> None:
        expected = b'{"text":"\xc3\xa9"}' if encoding.is_binary else {"text": "é"}
        assert data(encoding, encode({"text": "é"})) == expected

    @ALL
    def test_text_is_a_json_string(self, encoding: Encoding) -> None:
        """JSON in text included: nothing says that it is meant to be JSON."""
        expected = rb'"{\"a\": 1}"' if encoding.is_binary else '{"a": 1}'
        assert data(encoding, encode('{"a": 1}')) == expected

    @ALL
    def test_bytes(self, encoding: Encoding) -> None:
        expected = b"\xff\x00" if encoding.is_binary else base64.b64encode(b"\xff\x00").decode()
        assert data(encoding, encode(b"\xff\x00")) == expected

    @pytest.mark.parametrize("encoding", [JSON, ASCII], ids=lambda encoding: encoding.name)
    def test_json_over_several_lines(self, encoding: Encoding) -> None:
        """An application can send any JSON as it is."""
        frame = in_room(encode({"a": Raw(b'[1,\r\n"\\n"]')}))
        made = encoding.push(frame)
        assert made is not None
        assert made.payload == b'{"push":{"channel":"chat","pub":{"data":{"a":[1,  "\\n"]}}}}'

    def test_a_line_is_not_copied(self) -> None:
        line = b'{"a":1}'
        assert in_one_line(line) is line


class TestPushes:
    @ALL
    def test_made_once(self, encoding: Encoding) -> None:
        frame = in_room(encode({"a": 1}))
        assert encoding.push(frame) is encoding.push(frame)

    def test_each_encoding_has_its_own(self) -> None:
        frame = in_room(encode("é"))
        assert len({encoding.push(frame) for encoding in (JSON, ASCII, PROTOBUF)}) == 3

    @ALL
    def test_to_a_room(self, encoding: Encoding) -> None:
        made = push(encoding, in_room(encode(1)))
        assert (made.channel if encoding.is_binary else made["channel"]) == "chat"
        assert (made.HasField("pub") and made.pub.offset == 0) if encoding.is_binary else made["pub"] == {"data": 1}

    @ALL
    @pytest.mark.parametrize("room", [None, ("user", "u"), object()], ids=["one", "user", "route"])
    def test_to_clients_of_no_room(self, encoding: Encoding, room: object) -> None:
        made = push(encoding, in_room(encode(1), room))
        if encoding.is_binary:
            assert made == messages.Push(message=messages.MessagePush(data=b"1"))
        else:
            assert made == {"message": {"data": 1}}

    @ALL
    def test_a_published_one_has_its_offset_and_no_stamp(self, encoding: Encoding) -> None:
        frame = Published(encode({"a": 1}), Position("epoch", 7), "position")
        assert b"position" in frame.payload
        made = push(encoding, in_room(frame))
        if encoding.is_binary:
            assert (made.pub.data, made.pub.offset) == (b'{"a":1}', 7)
        else:
            assert made["pub"] == {"data": {"a": 1}, "offset": 7}

    @ALL
    def test_a_client_s_publication_says_whose_it_is(self, encoding: Encoding) -> None:
        info = ClientInfo("u", "c", Raw(b'{"name":"U"}'), None)
        frame = Published(SignedFrame(encode(1), info), Position("epoch", 7), None)
        made = push(encoding, in_room(frame))
        if encoding.is_binary:
            assert made.pub.info == messages.ClientInfo(user="u", client="c", conn_info=b'{"name":"U"}')
        else:
            assert made["pub"]["info"] == {"user": "u", "client": "c", "conn_info": {"name": "U"}}

    @ALL
    def test_a_transient_one_stays_one(self, encoding: Encoding) -> None:
        frame = transient(encode(1), "chat", "cursor", 5, 10)
        made = encoding.push(in_room(frame))
        assert isinstance(made, TransientFrame)
        assert (made.key, made.expires) == (("chat", "cursor"), 15)
        assert push(encoding, frame) == push(encoding, in_room(encode(1)))

    @ALL
    def test_a_lasting_one_is_not_transient(self, encoding: Encoding) -> None:
        frame = in_room(transient(encode(1), "chat", None, None, 10))
        assert getattr(encoding.push(frame), "expires", None) == math.inf
        assert not isinstance(encoding.push(in_room(encode(1))), TransientFrame)

    @ALL
    def test_news_of_presence_are_told_in_another_way(self, encoding: Encoding) -> None:
        """That is remembered, too."""
        frame = in_room(PresenceFrame(encode({"type": "presence_diff"})))
        assert encoding.push(frame) is None
        assert encoding.push(frame) is None

    @ALL
    def test_what_no_policy_drops(self, encoding: Encoding) -> None:
        made = encoding.pushed(Push("chat"))
        assert isinstance(made, ReplyFrame)
        assert made.text is not encoding.is_binary

    @ALL
    @given(commands=st.lists(st.integers(1, 2**32 - 1), min_size=1, max_size=9))
    def test_publishes_are_answered_as_other_commands_are(self, encoding: Encoding, commands: list[int]) -> None:
        made = encoding.publish_answers(commands)
        assert isinstance(made, ReplyFrame)
        assert made.text is not encoding.is_binary
        answers = [encoding.encode(Reply(id=command, publish=Empty())) for command in commands]
        assert made.payload == encoding.join(answers)
        assert len(made) < ANSWER_BYTES * len(commands)
        pushes = encoding.pushed_together([in_room(encode(1)), in_room(encode(2))])
        both = encoding.answered(commands, pushes)
        assert both.payload == encoding.join([*answers, pushes.payload])
        assert both.text is made.text
