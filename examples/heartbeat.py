"""Heartbeat: the server pings every 30 s and closes after 90 s without a pong, each client on its own clock."""

from pathlib import Path

from starlette.requests import Request
from starlette.responses import FileResponse
from starlette.staticfiles import StaticFiles

from verbtrio import JSON, App, Heartbeat, WebSocket

PAGES = Path(__file__).parent / "pages"
app = App()


@app.ws("/ws", heartbeat=Heartbeat(interval=30, timeout=90, code=1000, json=True))
async def stay(ws: WebSocket[JSON]) -> None:
    await ws.send({"type": "welcome", "message": "Welcome to the WebSocket server!"})
    async for data in ws:  # pongs are the framework's and don't come here
        await ws.send({"type": "echo", "data": data})


@app.get("/")
async def page(request: Request) -> FileResponse:
    return FileResponse(PAGES / "heartbeat.html")


app.mount("/pages", StaticFiles(directory=PAGES))

if __name__ == "__main__":
    app.listen()
