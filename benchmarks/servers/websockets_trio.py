"""websockets on Trio."""

from __future__ import annotations

import trio
from websockets.exceptions import ConnectionClosed
from websockets.trio.server import ServerConnection, serve

from benchmarks.servers.common import HOST, heartbeat, port, say

rooms: dict[str, set[ServerConnection]] = {"/room": set(), "/json": set()}


async def handle(ws: ServerConnection) -> None:
    assert ws.request is not None
    path = ws.request.path
    if path == "/echo":
        async for message in ws:
            await ws.send(message)
        return
    members = rooms[path]
    members.add(ws)
    try:
        async for message in ws:
            text = say(message) if path == "/json" else message
            for member in tuple(members):
                if member is not ws:
                    try:
                        await member.send(text)
                    except ConnectionClosed:
                        members.discard(member)
    finally:
        members.discard(ws)


async def main() -> None:
    await serve(handle, port(), host=HOST, compression=None, ping_interval=heartbeat() or 20.0)


if __name__ == "__main__":
    trio.run(main)
