"""What Autobahn's fuzzing client is run against: an echo with compression, and room for the suite's 16 MiB messages."""

from verbtrio import App, Limits, WebSocket

LIMITS = Limits(max_message_bytes=16 * 1024 * 1024, max_backlog_bytes=32 * 1024 * 1024)

app = App(limits=LIMITS, heartbeat=None)


@app.ws("/", compression=True)
async def echo(ws: WebSocket[str | bytes]) -> None:
    async for message in ws:
        await ws.send(message)
