"""aiohttp with uvloop."""

from __future__ import annotations

import asyncio

import uvloop
from aiohttp import WSMsgType, web

from benchmarks.servers.common import HOST, heartbeat, port, say, tls_context

rooms: dict[str, set[web.WebSocketResponse]] = {"/room": set(), "/json": set()}


async def handle(request: web.Request) -> web.WebSocketResponse:
    path = request.path
    ws = web.WebSocketResponse(compress=False, heartbeat=heartbeat())
    await ws.prepare(request)
    if path == "/echo":
        async for message in ws:
            if message.type is WSMsgType.TEXT:
                await ws.send_str(message.data)
        return ws
    members = rooms[path]
    members.add(ws)
    try:
        async for message in ws:
            if message.type is not WSMsgType.TEXT:
                continue
            text = say(message.data) if path == "/json" else message.data
            for member in tuple(members):
                if member is not ws and not member.closed:
                    await member.send_str(text)
    finally:
        members.discard(ws)
    return ws


async def main() -> None:
    app = web.Application()
    app.add_routes([web.get(path, handle) for path in ("/echo", "/room", "/json")])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, HOST, port(), backlog=4096, ssl_context=tls_context()).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main())
