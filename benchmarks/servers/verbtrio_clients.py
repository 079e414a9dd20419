"""verbtrio's clients: rooms by subscription, and a call; beside them, plain rooms with the same settings are in
verbtrio_bare.py and verbtrio_rooms.py."""

from __future__ import annotations

import benchmarks.servers.common  # noqa: F401 -- turns the garbage collector off for those who count instructions
from verbtrio import App, Client, History, Limits, Subscription
from verbtrio.base.types import JSON

NEVER = 3600.0
"""Seconds between pings: the generator does not answer them, and is gone before the first."""

app = App(limits=Limits(max_history_bytes=1024**3))  # what a message costs is to be seen, not that it is bounded
app.centrifuge("/connection", ping=NEVER)
app.rooms("room", publish=True)
app.rooms("remembered", history=History(), publish=True)
app.rooms("open:{number}", subscribe=True)


@app.call("echo")
async def echo(client: Client, data: JSON) -> JSON:
    return data


@app.rooms("handled:{number}")
async def handled(sub: Subscription) -> None:
    async for said in sub:
        await sub.publish(said)


@app.call("ask")
def ask(client: Client, data: JSON) -> JSON:
    """A plain function, as Socket.IO's handler is."""
    return data
