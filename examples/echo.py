"""Echo: every JSON message comes back."""

import logging
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # for examples.page

from examples.page import add_page
from verbtrio import JSON, App, WebSocket

log = logging.getLogger("echo")
app = App()


@app.ws("/ws")
class Echo:
    async def open(self, ws: WebSocket) -> None:
        await ws.send({"type": "welcome", "message": "Welcome to the WebSocket server!"})

    async def message(self, ws: WebSocket, data: JSON) -> None:
        await ws.send({"type": "echo", "data": data})

    def close(self, ws: WebSocket, code: int, reason: str) -> None:
        log.info("closed: %s %r", code, reason)

    def error(self, ws: WebSocket, error: Exception) -> None:
        log.error("failed: %r", error)


add_page(app, __file__, Echo)

if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    app.listen()
