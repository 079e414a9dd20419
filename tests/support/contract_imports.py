"""Run by tests/contract/test_check.py, in a process of its own: each name is gone, and an application
served without it.

The name stays away until that is over: nothing that would need it may be imported, or called.
"""

from __future__ import annotations

import importlib
import logging
import sys
from typing import Any

import pytest
import trio

from tests.apps.contract import app
from tests.support.contract import Piece, pieces, without

NEEDS_THEM = (
    "verbtrio.server.takeover",
    "verbtrio.wire.codec",
    "verbtrio.wire.handshake",
    "verbtrio.wire.stream_transport",
)
"""What may not be there: each uses some of them as it is imported."""


class Records(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


async def http_and_websocket() -> None:
    """By ASGI itself, as any server would call it."""
    sent: list[Any] = []
    to_app, from_client = trio.open_memory_channel[Any](10)

    async def send(message: Any) -> None:
        sent.append(message)
        if message["type"] == "websocket.send":
            to_app.send_nowait({"type": "websocket.disconnect", "code": 1000})

    scope: dict[str, Any] = {"path": "/", "raw_path": b"/", "query_string": b"", "headers": [], "state": {}}
    scope |= {"root_path": "", "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 2), "extensions": {}}
    scope["asgi"] = {"version": "3.0"}
    async with app.lifespan():
        to_app.send_nowait({"type": "http.request", "body": b"", "more_body": False})
        http = {"type": "http", "method": "GET", "scheme": "http", "http_version": "1.1"}
        await app({**scope, **http}, from_client.receive, send)
        assert [message.get("body") for message in sent] == [None, b"here"], sent
        sent.clear()
        to_app, from_client = trio.open_memory_channel[Any](10)
        websocket = {"type": "websocket", "scheme": "ws", "http_version": "1.1", "subprotocols": []}
        to_app.send_nowait({"type": "websocket.connect"})
        to_app.send_nowait({"type": "websocket.receive", "text": '"hello"'})
        await app({**scope, **websocket, "path": "/ws", "raw_path": b"/ws"}, from_client.receive, send)
        assert [message["type"] for message in sent[:2]] == ["websocket.accept", "websocket.send"], sent
        assert sent[1]["text"] == "hello", sent


def serve(piece: Piece, records: Records) -> None:
    records.messages.clear()
    with without(piece):
        trio.run(http_and_websocket)
    (message,) = records.messages
    assert piece.said in message, message
    there = [name for name in sys.modules if name.startswith(NEEDS_THEM)]
    assert not there, there


def import_it(piece: Piece) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "verbtrio"]:
        del sys.modules[name]
    with without(piece):
        with pytest.raises(ImportError, match="this version of Starlette is not one verbtrio can work with") as caught:
            importlib.import_module("verbtrio")
    assert piece.said in str(caught.value)


def main() -> None:
    records = Records()
    logging.getLogger().addHandler(records)
    all_of_them = pieces("TAKE_OVER", "STARLETTE")
    for piece in all_of_them:
        try:
            import_it(piece) if piece.part == "STARLETTE" else serve(piece, records)
        except BaseException:
            sys.stderr.write("\n".join([f"without {piece}:", *records.messages, ""]))
            raise
    sys.stdout.write(f"{len(all_of_them)} names\n")


if __name__ == "__main__":
    main()
