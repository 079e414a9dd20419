"""socketify: uWebSockets from Python, rooms by its native publish."""

from __future__ import annotations

from typing import Any

from socketify import App, AppListenOptions, CompressOptions, OpCode

from benchmarks.servers.common import HOST, heartbeat, port, say

interval = heartbeat()
OPTIONS = {
    "compression": CompressOptions.DISABLED,
    "max_payload_length": 1024 * 1024,
    "max_backpressure": 16 * 1024 * 1024,
    "idle_timeout": max(8, int(2 * interval)) if interval else 120,
    "send_pings_automatically": True,
}


def echo(ws: Any, message: str | bytes, opcode: OpCode) -> None:
    ws.send(message, opcode)


def room(ws: Any, message: str | bytes, opcode: OpCode) -> None:
    ws.publish("room", message, opcode)


def json(ws: Any, message: str | bytes, opcode: OpCode) -> None:
    ws.publish("json", say(message), opcode)


app = App()
app.ws("/echo", {**OPTIONS, "message": echo})
app.ws("/room", {**OPTIONS, "open": lambda ws: ws.subscribe("room"), "message": room})
app.ws("/json", {**OPTIONS, "open": lambda ws: ws.subscribe("json"), "message": json})

if __name__ == "__main__":
    app.listen(AppListenOptions(port=port(), host=HOST), lambda config: None)
    app.run()
