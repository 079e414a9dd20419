"""The heartbeat sample with a clock a test can wait for: the real one pings only every 30 seconds."""

from starlette.requests import Request
from starlette.responses import FileResponse
from starlette.staticfiles import StaticFiles

from examples.heartbeat import PAGES
from verbtrio import JSON, App, Heartbeat, WebSocket

app = App()


@app.ws("/ws", heartbeat=Heartbeat(interval=0.3, timeout=1.2, code=1000, json=True))
async def stay(ws: WebSocket[JSON]) -> None:
    await ws.send({"type": "welcome", "message": "Welcome to the WebSocket server!"})
    async for data in ws:
        await ws.send({"type": "echo", "data": data})


@app.get("/")
async def page(request: Request) -> FileResponse:
    return FileResponse(PAGES / "heartbeat.html")


app.mount("/pages", StaticFiles(directory=PAGES))
