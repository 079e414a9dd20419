"""The recorder, with everything logged, and a handler that takes names from its client."""

import logging
from typing import Any

from tests.apps.recorder import app as app
from verbtrio import WebSocket

logging.basicConfig(level=logging.DEBUG)


@app.ws("/named/:name")
async def named(ws: WebSocket[dict[str, Any]], name: str) -> None:
    """The client's names for its room and itself; then it fails, and so does its leaving."""

    def left(room: Any, ws: Any) -> None:
        raise RuntimeError("while leaving")

    ws.scope["user"] = {"id": name}
    async with ws.join(name, on_leave=left):
        async for _ in ws:
            raise ValueError("on purpose")
