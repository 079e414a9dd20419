"""websockets on asyncio with uvloop; rooms by its own `broadcast`, as its documentation advises."""

from __future__ import annotations

import asyncio

import uvloop
from websockets.asyncio.server import ServerConnection, broadcast, serve

from benchmarks.servers.common import HOST, heartbeat, port, say, tls_context

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
            broadcast(members - {ws}, say(message) if path == "/json" else message)
    finally:
        members.discard(ws)


async def main() -> None:
    interval = heartbeat() or 20.0
    async with serve(
        handle, HOST, port(), compression=None, ping_interval=interval, backlog=4096, ssl=tls_context()
    ) as server:
        await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main()) if hasattr(uvloop, "run") else asyncio.run(main())
