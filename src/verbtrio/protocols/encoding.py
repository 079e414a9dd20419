"""An encoding: how commands, replies and pushes are bytes. Pure.

A client's messages are all in one encoding, which it chooses when it connects. What is pushed to many is encoded once
for each encoding: a `Frame` remembers what an encoding has made of it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterable, Sequence
from typing import Any

from msgspec import Raw

from verbtrio.base.position import Position
from verbtrio.messages.frame import Encode, Frame, ProtocolFrame, ReplyFrame, TransientFrame
from verbtrio.messages.published import PresenceFrame, Published, SignedFrame
from verbtrio.protocols.commands import Command, EmulationRequest
from verbtrio.protocols.replies import Empty, MessagePush, Publication, Push, Reply, RPCResult


class Encoding(ABC):
    """One encoding. There is one object of each: it has no state."""

    name: str
    is_binary: bool
    """Whether messages, and what applications send as bytes, are bytes on the wire."""
    ping: ReplyFrame
    """The empty reply, by which the server asks whether the client is there."""

    @abstractmethod
    def commands(self, message: str | bytes) -> Iterable[Command]:
        """The commands in a message, in order. Each is decoded when it is asked for: a message of 1 MiB can hold more
        of them than may be decoded in one go. A tuple is one command alone.

        Raises:
            BadCommands: at once, or by the iterator where it comes to what can't be read.
        """

    @abstractmethod
    def emulation_request(self, body: bytes) -> EmulationRequest:
        """What is in the body of a request to the emulation endpoint.

        Raises:
            BadCommands: it can't be read.
        """

    @abstractmethod
    def encode(self, reply: Reply) -> bytes:
        """A reply as a message of its own."""

    @abstractmethod
    def encode_push(self, push: Push) -> bytes:
        """A push as a message of its own."""

    @abstractmethod
    def join(self, messages: Sequence[bytes]) -> bytes:
        """Messages of one reply or push each, as one message."""

    @abstractmethod
    def data(self, frame: Frame) -> Raw:
        """What an application has sent, as the `data` of a push or result."""

    @abstractmethod
    def frame_of(self, data: Raw) -> Frame:
        """What a client of this encoding publishes as it is, as a message that all encodings can tell. (One that is
        empty in Protobuf, and left out in JSON, becomes `null`.)"""

    def reply(self, reply: Reply) -> ReplyFrame:
        """A reply as it goes out."""
        payload = self.encode(reply)
        frame = ReplyFrame(payload, text=not self.is_binary)
        frame.pushes = {self.name: (payload, None)}
        return frame

    def publish_answers(self, commands: Sequence[int]) -> ReplyFrame:
        """The answers to these publishes, as one message."""
        payload = self.join([self.encode_publish_answer(number) for number in commands])
        return ReplyFrame(payload, text=not self.is_binary)

    def answered(self, commands: Sequence[int], pushes: Frame) -> Frame:
        """The answers to these publishes, and pushes of this encoding behind them, as one message."""
        messages = [self.encode_publish_answer(number) for number in commands]
        messages.append(self._told(pushes)[0])
        return Frame(self.join(messages), text=not self.is_binary)

    def encode_publish_answer(self, command: int) -> bytes:
        """The answer to a publish as a message of its own."""
        return self.encode(Reply(id=command, publish=Empty()))

    def returned(self, command: int, result: Any, encode: Encode) -> ReplyFrame:
        """The reply to a call that has returned `result`.

        Args:
            encode: the app's encoder.

        Raises:
            TypeError: as that does.
            UnicodeEncodeError: as that does.
        """
        data = None if result is None else self.data(encode(result))
        return ReplyFrame(self.encode(Reply(id=command, rpc=RPCResult(data))), text=not self.is_binary)

    def pushed(self, push: Push) -> ReplyFrame:
        """A push to one client that no policy may drop: what has become of a subscription."""
        payload = self.encode_push(push)
        frame = ReplyFrame(payload, text=not self.is_binary)
        frame.pushes = {self.name: (payload, None)}
        return frame

    def joined(self, frames: Sequence[Frame]) -> Frame:
        """Frames of this encoding as one message."""
        return Frame(self.join([frame.payload for frame in frames]), text=not self.is_binary)

    def pushed_together(self, frames: Sequence[Frame]) -> Frame:
        """What has been said in rooms, or to a client alone, as one message; an empty one where clients of this
        protocol learn all of that in another way."""
        name = self.name
        try:
            found = [payload for frame in frames if (payload := frame.pushes[name][0])]  # type: ignore[index]  # below
        except (TypeError, KeyError):  # what nobody has been told in this encoding
            found = [payload for frame in frames if (payload := self._told(frame)[0])]
        payload = self.join(found)
        joined = Frame(payload, text=not self.is_binary)
        joined.pushes = {name: (payload, None)}
        return joined

    def publication(self, frame: Frame) -> Publication:
        """A message of a room, as its subscribers get it."""
        if isinstance(frame, Published):
            return self.remembered(frame.frame, frame.position)
        return Publication(self.data(frame), frame.info if isinstance(frame, SignedFrame) else None)

    def remembered(self, frame: Frame, position: Position) -> Publication:
        """A message of a room's history."""
        return Publication(self.data(frame), frame.info if isinstance(frame, SignedFrame) else None, position.offset)

    def push(self, frame: Frame) -> Frame | None:
        """What has been said in a room, or to a client alone, as it goes out; `None` for what clients of this protocol
        learn in another way. Made once for all clients of this encoding."""
        payload, push = self._told(frame)
        if push is None and payload:
            push = Frame(payload, text=not self.is_binary)
            if isinstance(frame, TransientFrame):
                push = TransientFrame(push, frame.key, frame.expires)
            assert frame.pushes is not None, "its payload is there"
            frame.pushes[self.name] = payload, push
        return push

    def _told(self, frame: Frame) -> tuple[bytes, Frame | None]:
        made = frame.pushes
        if made is None:
            made = frame.pushes = {}
        elif self.name in made:
            return made[self.name]
        told = made[self.name] = self._payload(frame), None
        return told

    def _payload(self, frame: Frame) -> bytes:
        """What `frame` is in this encoding; nothing for what clients of this protocol learn in another way."""
        if isinstance(frame, ProtocolFrame):
            return frame.payload
        if isinstance(frame, PresenceFrame):
            return b""
        room: Hashable = frame.room
        if isinstance(room, str):
            push = Push(channel=room, pub=self.publication(frame))
        else:  # to all connections, those of a route, of a user, or one alone
            push = Push(message=MessagePush(self.data(frame)))
        return self.encode_push(push)


_LF, _CR = b"\n\r"  # asked for a number, `in` takes a fifth of what it takes for one byte
_LINE_BREAKS = bytes.maketrans(b"\n\r", b"  ")


def in_one_line(json: bytes) -> bytes:
    """Valid JSON without a line break: in JSON, line breaks stand between tokens only, where a space does as well.

    Replies are lines, and a server-sent event ends its lines with "\\r", too.
    """
    return json.translate(_LINE_BREAKS) if _LF in json or _CR in json else json
