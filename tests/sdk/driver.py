"""Drives the Python SDK (`centrifuge-python`) for tests/sdk/driving.py, which says what the lines mean.

The SDK runs on asyncio, so it has a process of its own.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import asdict, is_dataclass
from typing import Any

from centrifuge import Client, ClientEventHandler, StreamPosition, SubscriptionEventHandler

Line = dict[str, Any]


def say(line: Line) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def failure(error: Exception) -> Line:
    return {"code": getattr(error, "code", 0), "message": getattr(error, "message", str(error) or repr(error))}


class Data:
    """What data is on the wire: JSON as it is, or in Protobuf its bytes."""

    def __init__(self, is_protobuf: bool) -> None:
        self.is_protobuf = is_protobuf

    def out(self, value: Any) -> Any:
        if not self.is_protobuf:
            return value
        return b"" if value is None else json.dumps(value).encode()

    def into(self, value: Any) -> Any:
        if not isinstance(value, bytes):
            return value
        return json.loads(value) if value else None

    def context(self, context: Any) -> Line:
        """A context of the SDK's as a line, with the names that both drivers use."""
        line: Line = {}
        for name, value in vars(context).items():
            if name == "pub":
                line |= self.publication(value)
            elif value is None:
                continue
            elif name == "info":
                line["info"] = self.info(value)
            elif name == "stream_position":
                line["position"] = asdict(value)
            elif name == "error":
                line["error"] = failure(value)
            else:
                line[name] = self.into(value) if name == "data" else value
        return line

    def publication(self, publication: Any) -> Line:
        line = {"data": self.into(publication.data)}
        more = {"offset": publication.offset, "info": self.info(publication.info)}
        return line | {name: value for name, value in more.items() if value}

    def info(self, info: Any) -> Line | None:
        if info is None:
            return None
        assert is_dataclass(info)
        return {name: self.into(value) for name, value in vars(info).items() if value is not None}


def handler(kind: type[Any], told: Callable[[Line], None], form: Data, prefix: Callable[[str], str]) -> Any:
    """An instance of an SDK's event handler that tells all its events."""

    def method(event: str) -> Callable[[Any, Any], Awaitable[None]]:
        async def on_event(self: Any, context: Any) -> None:
            told({**form.context(context), "event": prefix(event)})

        return on_event

    events = {name: method(name.removeprefix("on_")) for name in dir(kind) if name.startswith("on_")}
    return type("Telling", (kind,), events)()


SERVER_EVENTS = ("subscribing", "subscribed", "unsubscribed", "publication", "join", "leave")


def token_source(tokens: list[str], told: Callable[[Line], None]) -> Callable[..., Awaitable[str]]:
    """A `get_token` that gives the tokens one by one. Where there are none left it raises: the SDK asks again."""
    left = list(tokens)

    async def get_token(*channel: str) -> str:
        told({"event": "get_token"})
        return left.pop(0)

    return get_token


class Driver:
    def __init__(self) -> None:
        self.clients: dict[str, tuple[Any, Data]] = {}

    def open(
        self,
        client: str,
        endpoint: str,
        protobuf: bool = False,
        tokens: list[str] | None = None,
        data: Any = None,
        **options: Any,
    ) -> None:
        form = Data(protobuf)

        def told(line: Line) -> None:
            say({**line, "of": client})

        self.clients[client] = (
            Client(
                endpoint,
                events=handler(ClientEventHandler, told, form, lambda e: f"server_{e}" if e in SERVER_EVENTS else e),
                use_protobuf=protobuf,
                get_token=None if tokens is None else token_source(tokens, told),
                data=None if data is None else form.out(data),
                min_reconnect_delay=0.01,
                max_reconnect_delay=0.1,
                proxy=None,
                **options,
            ),
            form,
        )

    async def subscribe(
        self,
        client: str,
        channel: str,
        tokens: list[str] | None = None,
        data: Any = None,
        joinLeave: bool = True,  # noqa: N803 -- the lines' name for it
        **options: Any,
    ) -> None:
        sdk, form = self.clients[client]
        subscription = sdk.get_subscription(channel)
        if subscription is None:

            def told(line: Line) -> None:
                say({"channel": channel, **line, "of": client})

            subscription = sdk.new_subscription(
                channel,
                events=handler(SubscriptionEventHandler, told, form, lambda event: event),
                get_token=None if tokens is None else token_source(tokens, told),
                data=None if data is None else form.out(data),
                min_resubscribe_delay=0.01,
                max_resubscribe_delay=0.1,
                join_leave=joinLeave,
                **options,
            )
        await subscription.subscribe()

    async def ready(self, client: str, channel: str) -> None:
        """Wait until the subscription is in the state "subscribed"."""
        await self.clients[client][0].get_subscription(channel).ready()

    async def connect(self, client: str) -> None:
        await self.clients[client][0].connect()

    async def disconnect(self, client: str) -> None:
        await self.clients[client][0].disconnect()

    async def forget(self, client: str) -> None:
        sdk, _ = self.clients.pop(client)
        sdk.events = ClientEventHandler()
        for subscription in sdk.subscriptions().values():
            subscription.events = SubscriptionEventHandler()
        await sdk.disconnect()

    async def unsubscribe(self, client: str, channel: str) -> None:
        await self.clients[client][0].get_subscription(channel).unsubscribe()

    async def publish(self, client: str, channel: str, data: Any) -> None:
        sdk, form = self.clients[client]
        await sdk.publish(channel, form.out(data))

    async def rpc(self, client: str, method: str, data: Any = None) -> Any:
        sdk, form = self.clients[client]
        return form.into((await sdk.rpc(method, form.out(data))).data)

    async def presence(self, client: str, channel: str) -> Line:
        sdk, form = self.clients[client]
        return {key: form.info(info) for key, info in (await sdk.presence(channel)).clients.items()}

    async def presence_stats(self, client: str, channel: str) -> Line:
        stats = await self.clients[client][0].presence_stats(channel)
        return {"clients": stats.num_clients, "users": stats.num_users}

    async def history(
        self, client: str, channel: str, limit: int = 0, since: Line | None = None, reverse: bool = False
    ) -> Line:
        sdk, form = self.clients[client]
        position = None if since is None else StreamPosition(**since)
        found = await sdk.history(channel, limit=limit, since=position, reverse=reverse)
        publications = [form.publication(each) for each in found.publications]
        return {"publications": publications, "offset": found.offset, "epoch": found.epoch}

    async def run(self, line: Line) -> None:
        number, do = line.pop("id"), line.pop("do")
        try:
            result = getattr(self, do)(**line)
            if asyncio.iscoroutine(result):
                result = await result
        except Exception as error:
            say({"id": number, "error": failure(error)})
        else:
            say({"id": number, "result": result})


async def main() -> None:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=2**24)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    driver = Driver()
    running: set[asyncio.Task[None]] = set()
    while line := await reader.readline():
        task = loop.create_task(driver.run(json.loads(line)))
        running.add(task)
        task.add_done_callback(running.discard)
    for client in list(driver.clients):
        with suppress(Exception):
            await driver.forget(client)


if __name__ == "__main__":
    asyncio.run(main())
