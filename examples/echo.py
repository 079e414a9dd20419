"""Echo: every JSON message comes back."""

import logging
from pathlib import Path

from starlette.requests import Request
from starlette.responses import FileResponse
from starlette.staticfiles import StaticFiles

from verbtrio import JSON, App, WebSocket

PAGES = Path(__file__).parent / "pages"
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


@app.get("/")
async def page(request: Request) -> FileResponse:
    return FileResponse(PAGES / "echo.html")


app.mount("/pages", StaticFiles(directory=PAGES))

if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    app.listen()
