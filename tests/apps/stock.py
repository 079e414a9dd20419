"""The recorder's counterpart in bare ASGI, for stock `hypercorn -k trio` beside verbtrio in the robustness figures."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import parse_qs

import trio
import trio.testing

Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]

connections = 0
members: set[trio.MemorySendChannel[Any]] = set()
events: list[Any] = []


async def app(scope: Any, receive: Receive, send: Send) -> None:
    if scope["type"] == "lifespan":
        await lifespan(receive, send)
    elif scope["type"] == "http":
        await http(scope, receive, send)
    else:
        await websocket(scope, receive, send)


async def lifespan(receive: Receive, send: Send) -> None:
    while (message := await receive())["type"] != "lifespan.shutdown":
        await send({"type": f"{message['type']}.complete"})
    await send({"type": "lifespan.shutdown.complete"})


async def http(scope: Any, receive: Receive, send: Send) -> None:
    status, body = 404, b""
    if (path := scope["path"]) in PAGES or path.startswith("/room/"):
        await PAGES.get(path, endless)(receive, send)
        return
    if scope["path"] == "/left":
        status, body = 200, json.dumps(await left()).encode()
    elif scope["path"] == "/events":
        status, body = 200, json.dumps({"events": events, "now": trio.current_time()}).encode()
    elif scope["path"] == "/download":
        query = parse_qs(scope["query_string"].decode())
        status, body = 200, bytes(int(query.get("size", [50 * 2**20])[0]))
    await respond(send, body, status)


async def respond(send: Send, body: bytes, status: int = 200) -> None:
    headers = [(b"content-length", str(len(body)).encode()), (b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def body_size(receive: Receive, send: Send) -> None:
    size, more = 0, True
    while more:
        message = await receive()
        size, more = size + len(message.get("body", b"")), message.get("more_body", False)
    await respond(send, str(size).encode())


async def unread(receive: Receive, send: Send) -> None:
    await trio.sleep(3)
    await respond(send, b"unread")


async def big(receive: Receive, send: Send) -> None:
    await respond(send, b"x" * 20 * 10**6)


async def longpoll(receive: Receive, send: Send) -> None:
    events.append(["waiting"])
    await until_left(receive)


async def until_left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    events.append(["told"])


async def ticks(receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"tick", "more_body": True})
    await until_left(receive)


async def endless(receive: Receive, send: Send) -> None:
    async def stream() -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while True:
            await send({"type": "http.response.body", "body": b"x" * 1000, "more_body": True})
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(stream)
        while (await receive())["type"] != "http.disconnect":
            pass
        nursery.cancel_scope.cancel()


async def computing(receive: Receive, send: Send) -> None:
    end = trio.current_time() + 1
    while trio.current_time() < end:
        sum(range(1000))
        await trio.lowlevel.checkpoint()
    await respond(send, b"done")


async def thread(receive: Receive, send: Send) -> None:
    def compute() -> None:
        end = time.monotonic() + 1
        while time.monotonic() < end:
            sum(range(1000))

    await trio.to_thread.run_sync(compute)
    await respond(send, b"done")


PAGES = {
    "/body": body_size,
    "/unread": unread,
    "/big": big,
    "/longpoll": longpoll,
    "/ticks": ticks,
    "/clock": ticks,
    "/busy/stream": endless,
    "/busy/starlette": endless,
    "/busy/computing": computing,
    "/busy/thread": thread,
}


def resident_bytes() -> int:
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def left() -> Any:
    with trio.move_on_after(1):
        await trio.testing.wait_all_tasks_blocked()
    return {
        "connections": connections,
        "rooms": 1 if members else 0,
        "sessions": connections,
        "tasks": trio.lowlevel.current_statistics().tasks_living,
        "memory": resident_bytes(),
        "pid": os.getpid(),
        "descriptors": len(os.listdir("/proc/self/fd")),
    }


async def websocket(scope: Any, receive: Receive, send: Send) -> None:
    global connections
    assert (await receive())["type"] == "websocket.connect"
    connections += 1
    try:
        path = scope["path"].strip("/").partition("/")[0]
        if path not in ROUTES:
            await send({"type": "websocket.close"})
            return
        await send({"type": "websocket.accept", "subprotocol": "chat" if path == "presumptuous" else None})
        await ROUTES[path](receive, send)
    finally:
        connections -= 1


async def echo(receive: Receive, send: Send) -> None:
    events.append(["open"])
    while (message := await receive())["type"] == "websocket.receive":
        if message.get("text") == "raise":
            raise ValueError("on purpose")
        await send({"type": "websocket.send", "text": message.get("text"), "bytes": message.get("bytes")})
    events.append(["close", "", message.get("code"), message.get("reason") or ""])


async def keys(receive: Receive, send: Send) -> None:
    """Takes a JSON object with numbers for its keys."""
    while (message := await receive())["type"] == "websocket.receive":
        numbers = {int(key): value for key, value in json.loads(message["text"]).items()}
        await send({"type": "websocket.send", "text": str(len(numbers))})


async def once(receive: Receive, send: Send) -> None:
    """Answers one message and returns."""
    message = await receive()
    if message["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": message["text"]})


async def flood(receive: Receive, send: Send) -> None:
    while True:
        await send({"type": "websocket.send", "bytes": b"x" * 65536})


async def busy(receive: Receive, send: Send) -> None:
    await send({"type": "websocket.send", "text": "busy"})
    await trio.sleep_forever()


async def impatient(receive: Receive, send: Send) -> None:
    """Sends without end, for a second."""
    begin = trio.current_time()
    with trio.move_on_after(1):
        await flood(receive, send)
    events.append(["impatient", trio.current_time() - begin])


async def push(receive: Receive, send: Send) -> None:
    """Sends a message every 20 ms; hypercorn's `send` does not tell when the peer has gone."""
    while True:
        await send({"type": "websocket.send", "text": "tick"})
        await trio.sleep(0.02)


async def room(receive: Receive, send: Send) -> None:
    """What one says, all hear, by a queue each: the way of Quart's documentation."""
    mine, messages = trio.open_memory_channel[Any](math.inf)

    async def listen() -> None:
        async for message in messages:
            await send({"type": "websocket.send", "text": message})

    members.add(mine)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(listen)
            mine.send_nowait("in")
            while (message := await receive())["type"] == "websocket.receive":
                for member in members:
                    member.send_nowait(message["text"])
            nursery.cancel_scope.cancel()
    finally:
        members.discard(mine)


ROUTES = {
    "ws": echo,
    "deflate": echo,
    "tell": echo,
    "rated": echo,
    "keys": keys,
    "once": once,
    "flood": flood,
    "busy": busy,
    "impatient": impatient,
    "push": push,
    "room": room,
    "presumptuous": echo,
    "silent": echo,
    "busy-deflate": busy,
    "hanging": echo,
}
