"""An app of which several processes run: each publishes in a room with a history, which is on Redis, all the time."""

import itertools
import os

import trio

from verbtrio import App, History, HistoryGap, WebSocket
from verbtrio.base.errors import BrokerUnavailable
from verbtrio.brokers.redis import RedisBroker

ROOM = "news:a"
SECONDS = 0.01
"""Between two messages of one process."""

app = App(broker=RedisBroker(os.environ["REDIS_URL"]))
app.rooms(ROOM, history=History(size=100, ttl=300, stamp="position"))
app.sse("/events", room=ROOM)


@app.task
async def publish() -> None:
    for number in itertools.count():
        try:
            await app.room(ROOM).publish({"n": f"{os.getpid()}:{number}"})
        except BrokerUnavailable:
            pass  # it may have been published all the same
        await trio.sleep(SECONDS)


@app.ws("/ws")
async def news(ws: WebSocket[str]) -> None:
    try:
        async with ws.join(ROOM, since=ws.query_params["since"]):
            async for _ in ws:
                pass
    except HistoryGap as gap:
        await ws.send({"oldest": None if gap.oldest is None else str(gap.oldest), "last": str(gap.last)})
