"""Before a load is measured: does the server do what it is about to be praised for?"""

from __future__ import annotations

import json
import socket
import ssl
import time
from datetime import datetime
from types import TracebackType
from typing import Any, Self

from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.http11 import Response
from websockets.uri import parse_uri

from benchmarks.dialects import ROOM_MODES, Dialect
from benchmarks.loads import MESSAGE, TALK, Load
from benchmarks.process import ServerError

TIMEOUT = 10.0
"""Seconds that an answer may take."""
KEY = "dGhlIHNhbXBsZSBub25jZQ=="
"""RFC 6455's example, the one key that the minimal server knows the answer to."""


def changed(message: str) -> str:
    """Another message of the same length, and of the same JSON type."""
    return message.replace("xx", "yy")


def verify(load: Load, port: int, prefix: str, *, own: bool = False, dialect: Dialect | None = None) -> None:
    """Raise `ServerError` unless the server at `port` echoes, or tells everybody else, exactly what it should.

    With `own`, a room's messages come back to those who sent them, too.
    """

    def client() -> Client:
        if dialect is not None:
            return Speaker(port, dialect, load)
        return Client(port, prefix + load.path, tls=load.tls)

    try:
        with client() as ana:
            if load.path == "/echo":
                _echo(ana, str(load.options["payload"]))
                return
            with client() as ben, client() as cy:
                _room([ana, ben, cy], sample=load.path == "/json", own=own)
    except (OSError, TimeoutError) as error:
        raise ServerError(f"{load.path}: {type(error).__name__}: {error}") from error


def _echo(client: Client, payload: str) -> None:
    for message in (payload, changed(payload)):
        client.send(message)
        _same(client.receive(), message)


def _room(clients: list[Client], *, sample: bool, own: bool) -> None:
    time.sleep(0.2)  # some join after they have answered the handshake
    for client in clients:
        client.skip_notices = sample
    for speaker in clients:
        for message in (TALK, changed(TALK)):
            speaker.send(message if sample else _plain(message))
            for other in clients:
                if own or other is not speaker:
                    _check_said(other.receive(), message) if sample else _same(other.receive(), _plain(message))
    for client in clients:
        if (extra := client.receive_nothing()) is not None:
            raise ServerError(f"a message too many, to its own sender or twice: {extra!r}")


def _plain(talk: str) -> str:
    return MESSAGE if talk == TALK else changed(MESSAGE)


def _same(got: str, wanted: str) -> None:
    if got != wanted:
        raise ServerError(f"{got[:80]!r} came back for {wanted[:80]!r}")


def _check_said(got: str, talk: str) -> None:
    said, asked = json.loads(got), json.loads(talk)
    datetime.fromisoformat(said.pop("timestamp"))
    if said != {"type": "message", "sender": asked["username"], "text": asked["text"]}:
        raise ServerError(f"{got!r} came of {talk!r}")


class Client:
    """A blocking client on websockets' sans-I/O protocol."""

    skip_notices = False
    """Skip what the page's own code says to newcomers."""
    graceful = True
    """Leave with a closing handshake."""

    def __init__(self, port: int, path: str, *, tls: bool = False) -> None:
        raw = socket.create_connection(("127.0.0.1", port), TIMEOUT)
        self.socket = raw
        if tls:
            context = ssl.create_default_context()
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE  # our own server's certificate, on loopback
            self.socket = context.wrap_socket(raw)
        self._protocol = ClientProtocol(parse_uri(f"ws://127.0.0.1:{port}{path}"), max_size=None)
        self._protocol.key = KEY
        self._events: list[Any] = []
        self._protocol.send_request(self._protocol.connect())
        self._flush()
        answer = self._event()
        if not isinstance(answer, Response) or self._protocol.handshake_exc is not None:
            raise ServerError(f"no upgrade at {path}: {self._protocol.handshake_exc or answer}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        try:
            if error is None and self.graceful:
                self._protocol.send_close(1000)
                self._flush()
                while not isinstance(event := self._event(), Frame) or event.opcode is not Opcode.CLOSE:
                    pass
        finally:
            self.socket.close()

    def send(self, text: str) -> None:
        self._protocol.send_text(text.encode())
        self._flush()

    def receive(self) -> str:
        data = b""
        while True:
            event = self._event()
            if isinstance(event, Frame) and event.opcode in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
                data += bytes(event.data)
                if event.fin:
                    text = data.decode()
                    if not (self.skip_notices and '"type":"message"' not in text):
                        return text
                    data = b""

    def receive_nothing(self) -> str | None:
        """What comes within a tenth of a second, if anything."""
        self.socket.settimeout(0.1)
        try:
            return self.receive()
        except TimeoutError:
            return None
        finally:
            self.socket.settimeout(TIMEOUT)

    def _event(self) -> Any:
        while not self._events:
            data = self.socket.recv(262144)
            if data:
                self._protocol.receive_data(data)
            else:
                self._protocol.receive_eof()
            self._flush()
            self._events += self._protocol.events_received()
            if not data and not self._events:
                raise ConnectionError("the server hung up")
        return self._events.pop(0)

    def _flush(self) -> None:
        for data in self._protocol.data_to_send():
            if data:
                self.socket.sendall(data)


class Speaker(Client):
    """A client that speaks a protocol of its own within the messages: what it sends and receives is their data."""

    def __init__(self, port: int, dialect: Dialect, load: Load) -> None:
        super().__init__(port, dialect.path)
        self._say = dialect.say if load.mode in ROOM_MODES else dialect.ask
        self._dialect = dialect
        self._heard: list[str] = []
        super().send(dialect.hello(load))
        while dialect.ready not in super().receive():
            pass

    def send(self, text: str) -> None:
        super().send(self._say(text))

    def receive(self) -> str:
        while not self._heard:
            self._heard += self._dialect.heard(super().receive())
        return self._heard.pop(0)
