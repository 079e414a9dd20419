"""Ticker: prices that are made only while somebody watches, and of which a slow client gets the latest.

A client without a browser, and one that reads slowly:

    curl -N http://127.0.0.1:3000/events
    python examples/slow.py http://127.0.0.1:3000/events
"""

import random
import sys
from pathlib import Path

import trio
from starlette.requests import Request
from starlette.responses import JSONResponse

sys.path.insert(0, str(Path(__file__).parents[1]))  # for examples.page

from examples.page import add_page
from verbtrio import App, Limits, Room, WebSocket

SYMBOLS = ["apples", "bananas", "cherries", "dates", "elderberries", "figs", "grapes", "hazelnuts"]
PAUSE_SECONDS = 0.02
LINGER_SECONDS = 2

# At most one price of each symbol waits for a slow client. That costs little, so it has a minute to read on.
app = App(limits=Limits(backlog_policy="latest", send_timeout=60))


@app.room_task("prices", linger=LINGER_SECONDS)
async def make_prices(room: Room) -> None:
    """Runs from the first who watches until 2 s after the last has left. The next one starts it anew."""
    prices = dict.fromkeys(SYMBOLS, 100.0)
    number = 0
    while True:
        number += 1
        for symbol in SYMBOLS:
            prices[symbol] *= random.uniform(0.995, 1.005)
            quote = {"symbol": symbol, "price": round(prices[symbol], 2), "number": number}
            room.broadcast(quote, key=symbol)  # replaces an older price of the symbol that still waits
        await trio.sleep(PAUSE_SECONDS)


@app.ws("/ws")
async def watch(ws: WebSocket[str]) -> None:
    async with ws.join("prices"):
        async for _ in ws:  # until the client leaves: what it says does not matter
            pass


app.sse("/events", room="prices")  # the same prices, for clients without WebSockets


@app.get("/status")
async def status(request: Request) -> JSONResponse:
    now, room = app.statistics(), app.room("prices")
    return JSONResponse(
        {
            "running": now.room_tasks > 0,
            "watching": len(room),
            "slow": sum(member.dropped > 0 for member in room.here),
            "sent": now.sent,
            "dropped": now.dropped,  # of those: replaced by newer ones before a slow client had read them
        }
    )


add_page(app, __file__, make_prices, watch, status, linger=LINGER_SECONDS)

if __name__ == "__main__":
    app.listen()
