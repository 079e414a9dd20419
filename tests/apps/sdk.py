"""What tests/sdk drives the Centrifuge protocol's SDKs against: rooms of every kind, calls, and all ways to end."""

import os
from pathlib import Path

import msgspec
import trio
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, Response

from tests.support.node import VARIABLE
from verbtrio import App, CallError, Client, Denied, History, Limits, Subscription, WebSocket
from verbtrio.auth import JWTAuth
from verbtrio.base.types import JSON

SECRET = "only the tests of the SDKs have this secret"
TOKEN_SLACK = 2.0
"""Seconds: as short as a busy machine may need to bring the next token."""
PAGE = """<!doctype html>
<meta charset="utf-8">
<title>The SDK in a browser</title>
<link rel="icon" href="data:,">
<script src="/sdk/centrifuge.js"></script>
"""

auth = JWTAuth(key=SECRET)
app = App()


async def greet(client: Client, data: JSON) -> JSON:
    return {"received": data}


async def echo(client: Client, data: JSON) -> None:
    await client.send({"echo": data})


app.centrifuge(
    "/connection",
    auth=auth,
    anonymous=True,
    connect=greet,
    message=echo,
    ping=1.0,
    token_slack=TOKEN_SLACK,
    personal="#{user}",
)

MAX_ROOMS, MAX_CALLS = 3, 2
LIMITED = Limits(max_rooms=MAX_ROOMS, max_calls=MAX_CALLS, call_timeout=0.2, max_connections_per_user=1)
HASTY = Limits(max_messages_per_second=10, message_burst=10)

app.centrifuge("/limited", auth=auth, anonymous=True, limits=LIMITED)
app.centrifuge("/hasty", limits=HASTY)
app.centrifuge("/members", auth=auth)

# Rooms

HISTORY = History(size=100, ttl=300)

app.rooms("open:{room}", subscribe=True, publish=True, history=HISTORY, presence=True, join_leave=True)
app.rooms("plain:{room}", subscribe=True)
app.rooms("small:{room}", subscribe=True, publish=True, history=History(size=2, ttl=300))
app.rooms("token:{room}", token=True, presence=True)
app.rooms("feed:{room}", history=HISTORY)
app.rooms("#{user}", history=HISTORY)


class Say(msgspec.Struct):
    text: str


@app.rooms("chat:{room}", history=HISTORY, presence=True)
async def chat(sub: Subscription[Say], room: str) -> None:
    """Says everything in capitals; some of it is an order."""
    if room.startswith("closed"):
        raise Denied("members only")
    await sub.accept(data={"room": room, "received": sub.data.decode()})
    async for said in sub:
        if said.text == "fail":
            raise RuntimeError("the handler fails, as it was told")
        if said.text == "end":
            await sub.unsubscribe(2000, "as you wish")
        elif said.text == "again":
            await sub.unsubscribe(2500, "once more")
        else:
            await sub.publish({"text": said.text.upper()})


@app.ws("/plain/{room}")
async def plain(ws: WebSocket[JSON], room: str) -> None:
    """The same rooms without any protocol: what comes in is said to all."""
    async with ws.join(room) as members:
        await ws.send("here")
        async for message in ws:
            members.broadcast(message)


# Calls


class Numbers(msgspec.Struct):
    a: int
    b: int


@app.call("add")
async def add(client: Client, data: Numbers) -> int:
    return data.a + data.b


@app.call("reflect")
async def reflect(client: Client, data: JSON) -> JSON:
    return data


@app.call("nothing")
async def nothing(client: Client) -> None:
    """Takes nothing, and returns nothing."""


@app.call("who")
async def who(client: Client) -> JSON:
    return {"user": client.user, "id": client.id, "name": client.name, "transport": client.transport}


@app.call("fail")
async def fail(client: Client, data: JSON) -> JSON:
    raise CallError(1001, "not today", temporary=data == "temporary")


@app.call("deny")
async def deny(client: Client) -> JSON:
    raise Denied("not for you")


@app.call("crash")
async def crash(client: Client) -> JSON:
    raise RuntimeError("a secret of the application's")


@app.call("wait")
async def wait(client: Client) -> None:
    await trio.sleep_forever()


@app.call("message")
async def message(client: Client, data: JSON) -> None:
    client.send_nowait(data)


@app.call("subscribe")
async def subscribe(client: Client, data: str) -> None:
    await client.subscribe(data, data={"by": "the server"})


@app.call("unsubscribe")
async def unsubscribe(client: Client, data: str) -> bool:
    return client.unsubscribe(data)


class Ending(msgspec.Struct):
    """How the clients of a user are to end, and what is published once they have."""

    user: str
    code: int
    reason: str
    room: str = ""
    publish: list[JSON] = []


@app.call("end")
async def end(client: Client, data: Ending) -> int:
    """End a user's connections: the caller's among them, if it is one of theirs."""
    ended = app.users.disconnect_nowait(data.user, code=data.code, reason=data.reason)
    for publication in data.publish:
        await app.room(data.room).publish(publication)
    return ended


@app.call("repeat")
async def repeat(client: Client, data: tuple[str, str, int]) -> None:
    """Publish a text many times over, as one message: more than the client would be let send."""
    room, text, times = data
    await app.room(room).publish(text * times)


@app.call("leave")
async def leave(client: Client, data: int) -> None:
    """Send many messages, and then the last words."""
    for number in range(data):
        client.send_nowait(number)
    client.close_nowait(4500, "that was all")


@app.call("publish")
async def publish(client: Client, data: tuple[str, list[JSON]]) -> None:
    """Publish on the server's behalf."""
    room, publications = data
    for publication in publications:
        await app.room(room).publish(publication)


@app.call("kick")
async def kick(client: Client, data: tuple[str, str]) -> int:
    room, user = data
    return app.room(room).kick(user=user, reason="out")


# For the browser


@app.get("/")
async def page(request: Request) -> Response:
    return HTMLResponse(PAGE)


@app.get("/sdk/{file}")
async def sdk(request: Request) -> Response:
    """The SDK as npm has it for browsers."""
    packages = Path(os.environ[VARIABLE]) / "node_modules"
    return FileResponse(packages / "centrifuge" / "dist" / Path(request.path_params["file"]).name)
