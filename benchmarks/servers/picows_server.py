"""picows with uvloop: its low-level listeners, which is what it is fast with."""

from __future__ import annotations

from typing import Any

import uvloop
from picows import WSFrame, WSListener, WSMsgType, WSTransport, WSUpgradeRequest, ws_create_server

from benchmarks.servers.common import HOST, heartbeat, port, say, tls_context

rooms: dict[str, set[WSTransport]] = {"/room": set(), "/json": set()}


class Client(WSListener):
    def __init__(self, path: str) -> None:
        self.path = path
        self.members = rooms.get(path)

    def on_ws_connected(self, transport: WSTransport) -> None:
        if self.members is not None:
            self.members.add(transport)

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        if self.members is not None:
            self.members.discard(transport)

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == WSMsgType.CLOSE:
            transport.send_close(frame.get_close_code(), frame.get_close_message())
            transport.disconnect()
        elif self.members is None:
            transport.send(WSMsgType.TEXT, frame.get_payload_as_memoryview())
        else:
            data = frame.get_payload_as_bytes()
            if self.path == "/json":
                data = say(data).encode()
            for member in tuple(self.members):
                if member is not transport:
                    member.send(WSMsgType.TEXT, data)


def listener(request: WSUpgradeRequest) -> Client:
    return Client(request.path.decode())


async def main() -> None:
    pings: dict[str, Any] = {}
    if interval := heartbeat():
        pings = {"enable_auto_ping": True, "auto_ping_idle_timeout": interval, "auto_ping_reply_timeout": interval}
    server = await ws_create_server(listener, HOST, port(), ssl=tls_context(), backlog=4096, **pings)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main())
