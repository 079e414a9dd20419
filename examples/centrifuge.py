"""Centrifuge: a chat for the Centrifuge protocol's SDKs, which reconnect, catch up, and fall back to HTTP.

There are SDKs for JavaScript, Dart, Swift, Java, Go and Python. The page uses the first, from npm:

    npm install --prefix examples centrifuge

The environment's SDK_NPM may name another folder than examples. If npm has not installed it, the page loads the SDK
from a CDN.
"""

import hmac
import random
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, TypedDict

import msgspec
from starlette.requests import Request
from starlette.responses import JSONResponse

sys.path.insert(0, str(Path(__file__).parents[1]))  # for examples.page

from examples.page import add_page, add_sdk
from verbtrio import App, CallError, Client, Denied, History, Limits, Subscription
from verbtrio.auth import JWTAuth
from verbtrio.environment import secret

NAMES = {"ada": "Ada", "bob": "Bob", "cy": "Cy"}  # a real application has a database, and hashes of passwords
TOPICS = {"general": "What concerns us all", "random": "What concerns nobody", "leads": "Who does what"}
LEADS = {"ada"}

Text = Annotated[str, msgspec.Meta(min_length=1, max_length=2000)]


class User(TypedDict):
    """What a token says."""

    sub: str


class Say(msgspec.Struct):
    """What a client publishes in a room."""

    text: Text


class Said(msgspec.Struct):
    """What the room gets, and remembers. Who has said it is added by the protocol."""

    text: Text
    at: datetime


class Welcome(msgspec.Struct):
    """What a client is told when it has connected."""

    user: str
    name: str
    rooms: list[str]


class Roll(msgspec.Struct):
    room: str
    sides: Annotated[int, msgspec.Meta(ge=2, le=100)] = 6


class Rolled(msgspec.Struct):
    number: int


class Login(msgspec.Struct):
    username: str
    password: str


app = App(max_body_size=64 * 1024, limits=Limits(max_messages_per_second=20))
auth = JWTAuth(secret("SECRET_KEY", demo="for the demo only: everybody can read this key"), require=["exp"])


@app.rooms("chat:{room}", history=History(size=50, ttl=3600), presence=True, join_leave=True)
async def chat(sub: Subscription[Say, User], room: str) -> None:
    """Runs for each client in each room: from when it subscribes, until the subscription ends for whatever reason."""
    if room not in TOPICS or (room == "leads" and sub.user["sub"] not in LEADS):
        raise Denied("You may not enter this room")
    await sub.accept(data={"topic": TOPICS[room]})  # who comes back is sent what was missed, too
    async for said in sub:
        await say(sub, said.text)


async def say(sub: Subscription[Say, User], text: str) -> None:
    await sub.publish(Said(text, datetime.now(UTC)))


@app.call("roll")
async def roll(client: Client, data: Roll) -> Rolled:
    """The server rolls, tells the room, and answers the caller."""
    sub = client.subscriptions.get(f"chat:{data.room}")
    if sub is None or not sub.is_accepted:
        raise CallError(1001, "You are not in this room")
    number = random.randint(1, data.sides)
    await say(sub, f"rolled a {number}")
    return Rolled(number)


@app.call("cut")
async def cut(client: Client) -> None:
    """Close the caller's connection, with a code after which SDKs connect again."""
    await client.disconnect(4000, "you cut the line")


def welcome(client: Client) -> Welcome:
    user = client.user["sub"]
    return Welcome(user, NAMES.get(user, user), list(TOPICS))


app.centrifuge("/connection", auth=auth, connect=welcome)


@app.post("/login")
async def login(request: Request) -> JSONResponse:
    try:
        body = msgspec.json.decode(await request.body(), type=Login)
    except (msgspec.DecodeError, RecursionError, UnicodeError) as error:
        return JSONResponse({"error": str(error)}, 400)
    name = NAMES.get(body.username)
    if name is None or not hmac.compare_digest(body.password.encode(), b"password"):
        return JSONResponse({"error": "Invalid credentials"}, 401)
    return JSONResponse({"token": auth.connection_token(body.username, info={"name": name}, expires_in=3600)})


add_page(app, __file__, chat, say, roll, cut, **add_sdk(app))

if __name__ == "__main__":
    app.listen()
