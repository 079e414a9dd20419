"""A room with a history that is published in all the time, on a WebSocket and as an event stream."""

import trio

from verbtrio import App, History, HistoryGap, WebSocket

ROOM = "news:a"
SECONDS = 0.005
"""Between two messages; 200 a second at most."""

app = App()
app.rooms(ROOM, history=History(size=40, ttl=300, stamp="position"))
app.sse("/events", room=ROOM)


@app.task
async def publish() -> None:
    number = 0
    while True:
        number += 1
        await app.room(ROOM).publish({"n": number})
        await trio.sleep(SECONDS)


@app.ws("/ws")
async def news(ws: WebSocket[str]) -> None:
    try:
        async with ws.join(ROOM, since=ws.query_params["since"]):
            async for _ in ws:
                pass
    except HistoryGap as gap:
        await ws.send({"oldest": None if gap.oldest is None else str(gap.oldest), "last": str(gap.last)})
