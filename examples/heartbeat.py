"""Heartbeat: the server pings each client, and closes the connection of one that has not answered for a while."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # for examples.page

from examples.page import add_page
from verbtrio import JSON, App, Heartbeat, WebSocket

app = App()


# Verb's example closes with 1000, so this one does. Without `code=` it is 4408, which nobody takes for a goodbye.
@app.ws("/ws", heartbeat=Heartbeat(interval=30, timeout=90, code=1000, json=True))
# for the demo page: nobody wants to wait 90 s there
@app.ws("/quick", heartbeat=Heartbeat(interval=3, timeout=9, code=1000, json=True))
async def stay(ws: WebSocket[JSON]) -> None:
    await ws.send({"type": "welcome", "message": "Welcome to the WebSocket server!"})
    async for data in ws:  # no pong comes here
        await ws.send({"type": "echo", "data": data})


add_page(app, __file__, stay, interval=3, timeout=9)

if __name__ == "__main__":
    app.listen()
