"""Clients of the Centrifuge protocol's SDKs, unmodified, driven from a test: the same calls for each of them.

A driver is a process that has one SDK in it (driver.mjs, driver.py). It reads a line of JSON for each call and writes
one for each answer and each event of the SDK's:

    {"id": 7, "do": "rpc", "client": "a", ...}  →  {"id": 7, "result": ...} or {"id": 7, "error": {code, message}}
    {"of": "a", "channel": "chat:1", "event": "publication", "data": ..., "offset": 3}

An event has the SDK's own name for it, and `channel` where it is one of a subscription's. Those of subscriptions by the
server begin with `server_`. Codes of answers below 100 are the SDK's own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from threading import Condition, Thread
from typing import Any

from tests.support.node import VARIABLE, require_node

FOLDER = Path(__file__).parent
WAIT_SECONDS = 15.0

Line = dict[str, Any]


class SDKError(Exception):
    """What a call of an SDK's has raised."""

    def __init__(self, code: int, message: str) -> None:
        self.code = code
        super().__init__(f"{code} {message}")


@dataclass(frozen=True)
class Way:
    """A way to connect: an SDK, what carries its messages, and their encoding."""

    sdk: str
    transport: str = "websocket"
    protobuf: bool = False

    def __str__(self) -> str:
        return f"{self.sdk}-{self.transport}-{'protobuf' if self.protobuf else 'json'}"

    def target(self, url: str, path: str) -> Line:
        """Where to connect to, as the driver's `open` wants it."""
        address = f"{url}{path}/{self.transport}"
        if self.transport == "websocket":
            return {"endpoint": address.replace("http", "ws", 1)}
        return {
            "transports": [{"transport": self.transport, "endpoint": address}],
            "emulation": f"{url}/emulation",
        }


JS, PYTHON = "js", "python"
WAYS = [
    Way(JS),
    Way(JS, "http_stream"),
    Way(JS, "sse"),
    Way(PYTHON),
    Way(PYTHON, protobuf=True),
]
if os.environ.get("SDK_WAYS") == "all":  # `nox -s sdk`; the encoding is one server-side, whichever SDK speaks it
    WAYS += [Way(JS, protobuf=True), Way(JS, "http_stream", protobuf=True)]


class Driver:
    """A driver's process."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._arrived = Condition()
        self._answers: dict[int, Line] = {}
        self._events: dict[str, list[Line]] = {}
        self._ids = count(1)
        self._names = count(1)
        self._has_ended = False
        self._reader = Thread(target=self._read, daemon=True)
        self._reader.start()

    def client(self, way: Way, url: str, **options: Any) -> Client:
        """A client, not connected yet. Options: `path`, the endpoint's; `token`; `tokens`, which `getToken` gives one
        by one; `data`."""
        path = options.pop("path", "/connection")
        name = f"client {next(self._names)}"
        self._events[name] = []
        target: Line = {"transports": options.pop("transports")} if "transports" in options else way.target(url, path)
        self.call("open", client=name, protobuf=way.protobuf, **{**target, **options})
        return Client(self, name, way)

    def call(self, do: str, **arguments: Any) -> Any:
        """Make a call, and wait for what it returns.

        Raises:
            SDKError: the SDK's call has raised.
        """
        return self.result(self.begin(do, **arguments))

    def begin(self, do: str, **arguments: Any) -> int:
        """Make a call, and don't wait: `result` does."""
        number = next(self._ids)
        line = json.dumps({"id": number, "do": do, **arguments})
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        return number

    def result(self, number: int) -> Any:
        with self._arrived:
            self._wait(lambda: number in self._answers, f"an answer to call {number}")
            answer = self._answers.pop(number)
        if "error" in answer:
            raise SDKError(**answer["error"])
        return answer["result"]

    def take(self, client: str, wanted: Line) -> Line:
        """Wait for the client's first event that has all of `wanted`, and take it out."""

        def find() -> Line | None:
            return next((line for line in self._events[client] if wanted.items() <= line.items()), None)

        with self._arrived:
            self._wait(find, f"{wanted} for {client}, which has {self._events[client]}")
            event = find()
            assert event is not None
            self._events[client].remove(event)
            return event

    def events(self, client: str) -> list[Line]:
        """The client's events that no `take` has taken."""
        with self._arrived:
            return list(self._events[client])

    def forget(self, client: str) -> None:
        """Disconnect the client, whatever state it is in."""
        self.call("forget", client=client)

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(WAIT_SECONDS)
        self._reader.join(WAIT_SECONDS)
        assert self._process.stdout is not None
        self._process.stdout.close()

    def _wait(self, condition: Any, what: str) -> None:
        found = self._arrived.wait_for(lambda: condition() or self._has_ended, WAIT_SECONDS)
        assert found, f"not within {WAIT_SECONDS:g} s: {what}"
        assert condition(), f"the driver has ended ({self._process.poll()}) before {what}"

    def _read(self) -> None:
        assert self._process.stdout is not None
        try:
            for text in self._process.stdout:
                line = json.loads(text)
                with self._arrived:
                    if "id" in line:
                        self._answers[line["id"]] = line
                    else:
                        self._events[line.pop("of")].append(line)
                    self._arrived.notify_all()
        finally:
            with self._arrived:
                self._has_ended = True
                self._arrived.notify_all()


@dataclass
class Client:
    """A client of an SDK."""

    driver: Driver
    name: str
    way: Way

    def call(self, do: str, **arguments: Any) -> Any:
        return self.driver.call(do, client=self.name, **arguments)

    def begin(self, do: str, **arguments: Any) -> int:
        return self.driver.begin(do, client=self.name, **arguments)

    def connect(self) -> Line:
        """Connect, and wait until it is."""
        self.call("connect")
        return self.expect("connected")

    def disconnect(self) -> Line:
        self.call("disconnect")
        return self.expect("disconnected")

    def subscribe(self, channel: str, **options: Any) -> Line:
        """Subscribe, and wait until it is. Options: `token`; `tokens`, which `getToken` gives one by one; `data`."""
        self.call("subscribe", channel=channel, **options)
        return self.expect("subscribed", channel)

    def unsubscribe(self, channel: str) -> Line:
        self.call("unsubscribe", channel=channel)
        return self.expect("unsubscribed", channel)

    def publish(self, channel: str, data: Any) -> None:
        self.call("publish", channel=channel, data=data)

    def rpc(self, method: str, *data: Any) -> Any:
        return self.call("rpc", method=method, **({"data": data[0]} if data else {}))

    def presence(self, channel: str) -> Line:
        found: Line = self.call("presence", channel=channel)
        return found

    def history(self, channel: str, **options: Any) -> Line:
        found: Line = self.call("history", channel=channel, **options)
        return found

    def expect(self, event: str, channel: str | None = None, **having: Any) -> Line:
        """Wait for the first event of that name, in the channel if one is given, and take it out."""
        return self.driver.take(self.name, {"event": event, **having} | ({"channel": channel} if channel else {}))

    def received(self, channel: str, number: int) -> list[Any]:
        """The data of the channel's next publications, in the order in which they have come."""
        return [self.expect("publication", channel)["data"] for _ in range(number)]

    def events(self, *names: str) -> list[Line]:
        """The events of these names that nobody has expected so far."""
        return [event for event in self.driver.events(self.name) if event["event"] in names]


@dataclass
class Drivers:
    """The drivers, each started when it is first needed, and the clients of a test."""

    _running: dict[str, Driver] = field(default_factory=dict)
    _clients: list[Client] = field(default_factory=list)

    def client(self, way: Way, url: str, **options: Any) -> Client:
        """A client, not connected yet. See `Driver.client`."""
        if way.sdk not in self._running:
            self._running[way.sdk] = start(way.sdk)
        client = self._running[way.sdk].client(way, url, **options)
        self._clients.append(client)
        return client

    def forget_clients(self) -> None:
        """Disconnect all clients."""
        for client in self._clients:
            client.driver.forget(client.name)
        self._clients.clear()

    def close(self) -> None:
        for driver in self._running.values():
            driver.close()


def start(sdk: str) -> Driver:
    """Start a driver's process. The test is skipped where the JavaScript SDK isn't there."""
    if sdk == JS:
        command = ["node", str(FOLDER / "driver.mjs")]
        environment = {VARIABLE: str(require_node())}
    else:
        command = [sys.executable, "-m", "tests.sdk.driver"]
        environment = {}
    return Driver(
        subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=FOLDER.parents[1],
            env={**os.environ, **environment},
        )
    )


@contextmanager
def driving() -> Iterator[Drivers]:
    drivers = Drivers()
    try:
        yield drivers
    finally:
        drivers.close()
