"""What clients say to servers with a protocol of their own in WebSocket's messages, so that both get the same load.

An echo is a call there, or an acknowledgement; a room is subscribed to, or joined by the server. The generator knows
nothing of this: it sends texts that are made here, and counts a character that stands once in each message's data.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, replace

from benchmarks.loads import Load

MARK = "~"
ROOM_MODES = frozenset({"chat", "fanout"})


def marked(payload: str) -> str:
    """`payload`, a JSON object of the same length whose text has the mark once."""
    return payload.replace("xx", MARK + "x", 1)


class Dialect(ABC):
    """How a client speaks to a server.

    Attributes:
        path: where.
        ready: stands in the server's answer to the hello.
    """

    path: str
    ready: str

    @abstractmethod
    def hello(self, load: Load) -> str:
        """What a client says first."""

    @abstractmethod
    def say(self, payload: str) -> str:
        """To everybody in the room, oneself included."""

    @abstractmethod
    def ask(self, payload: str) -> str:
        """For the same payload as the answer."""

    @abstractmethod
    def heard(self, message: str) -> Iterator[str]:
        """The payloads that a message of the server's holds."""

    def translate(self, load: Load) -> Load:
        """`load`, as the generator puts it on a server of this dialect."""
        payload = marked(str(load.options["payload"]))
        options = {
            **load.options,
            "hello": self.hello(load),
            "ready": self.ready,
            "mark": MARK,
            "payload": self.say(payload) if load.mode in ROOM_MODES else self.ask(payload),
        }
        return replace(load, path=self.path, options=options)


@dataclass(frozen=True)
class Centrifuge(Dialect):
    """The Centrifuge protocol, in JSON, with the rooms and the call of servers/verbtrio_clients.py."""

    room: str = "room"
    call: str = "echo"
    path: str = "/connection/websocket"
    ready: str = '"subscribe"'

    def hello(self, load: Load) -> str:
        """Connect and subscribe in one message, as the JavaScript SDK does it. Those who only call subscribe, too: it
        costs the call nothing."""
        return self.subscribing([self.room])

    @staticmethod
    def subscribing(rooms: list[str]) -> str:
        commands = ['{"id":1,"connect":{}}']
        commands += [f'{{"id":{number},"subscribe":{{"channel":"{name}"}}}}' for number, name in enumerate(rooms, 2)]
        return "\n".join(commands)

    def say(self, payload: str) -> str:
        return f'{{"id":3,"publish":{{"channel":"{self.room}","data":{payload}}}}}'

    def ask(self, payload: str) -> str:
        return f'{{"id":3,"rpc":{{"method":"{self.call}","data":{payload}}}}}'

    def heard(self, message: str) -> Iterator[str]:
        for line in message.split("\n"):
            reply = json.loads(line)
            found = reply.get("rpc") or reply.get("push", {}).get("pub") or {}
            if "data" in found:
                yield _compact(found["data"])


@dataclass(frozen=True)
class SocketIO(Dialect):
    """Socket.IO 5 over Engine.IO 4 (its WebSocket transport from the beginning), with servers/socketio.js."""

    path: str = "/socket.io/?EIO=4&transport=websocket"
    ready: str = "40{"

    def hello(self, load: Load) -> str:
        return "40"

    def say(self, payload: str) -> str:
        return f'42["say",{payload}]'

    def ask(self, payload: str) -> str:
        return f'423["ask",{payload}]'

    def heard(self, message: str) -> Iterator[str]:
        if message.startswith("42["):
            yield _compact(json.loads(message[2:])[1])
        elif message.startswith("433["):
            yield _compact(json.loads(message[3:])[0])


def _compact(data: object) -> str:
    return json.dumps(data, separators=(",", ":"))
