"""Team chat: many rooms on one socket, which remember what was said, and know who is there.

A client whose connection is cut comes back and has missed nothing, or is told so. Also: who is typing, answers, direct
messages, and messages that programs send by HTTP.
"""

import hmac
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, TypedDict, TypeVar

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse

sys.path.insert(0, str(Path(__file__).parents[1]))  # for examples.page

from examples.page import add_page
from verbtrio import App, History, HistoryGap, Limits, Presence, WebSocket
from verbtrio.auth import JWTAuth
from verbtrio.environment import secret

NAMES = {"ada": "Ada", "bob": "Bob", "cy": "Cy"}  # a real application has a database, and hashes of passwords
ROOMS = {"general": {"ada", "bob", "cy"}, "random": {"ada", "bob", "cy"}, "leads": {"ada"}}  # who may enter which

T = TypeVar("T")
Text = Annotated[str, msgspec.Meta(min_length=1, max_length=2000)]


class User(TypedDict):
    """What a token says."""

    id: str
    name: str


class Command(msgspec.Struct, tag_field="type", kw_only=True):
    """What a client sends. A command with a `ref` is answered: the answer has the same `ref`."""

    ref: str | int | None = None


class Join(Command, tag="join"):
    room: str
    since: str | None = None
    """The position of the last message that the client has of this room."""


class Leave(Command, tag="leave"):
    room: str


class Say(Command, tag="say"):
    room: str
    text: Text


class Typing(Command, tag="typing"):
    room: str


class Direct(Command, tag="direct"):
    to: str
    text: Text


class Login(msgspec.Struct):
    username: str
    password: str


class Post(msgspec.Struct):
    text: Text


app = App(max_body_size=64 * 1024, limits=Limits(max_messages_per_second=20))
auth = JWTAuth(secret("SECRET_KEY", demo="for the demo only: everybody can read this key"), require=["exp"])

app.rooms(
    "{room}",
    history=History(size=50, ttl=3600, stamp="position"),  # each message carries its position: see Join.since
    presence=Presence(grace=10),  # who is back within 10 s, as after a reload, was never gone
    join_leave=True,  # members are told who is there, and then who comes and goes
)


@app.ws("/ws", middleware=[auth])
async def chat(ws: WebSocket[Join | Leave | Say | Typing | Direct, User]) -> None:
    me, name = ws.user["id"], ws.user["name"]
    await ws.send({"type": "welcome", "id": me, "name": name, "rooms": [room for room in ROOMS if may_enter(me, room)]})
    async for command in ws:
        answer: dict[str, Any] = {"type": "done"}
        match command:
            case Join(room=room) if may_enter(me, room):
                await enter(ws, room, command.since)
            case Leave(room=room):
                await ws.leave(room)
            case Say(room=room) if room in ws.rooms:  # the room remembers it, and all members get it, the sender too
                position = await app.room(room).publish(message("said", ws.user, room=room, text=command.text))
                answer["position"] = str(position)
            case Typing(room=room) if room in ws.rooms:  # not remembered, and not worth sending after 3 s
                app.room(room).broadcast(message("typing", ws.user, room=room), exclude_user=me, ttl=3)
            case Direct(to=to):  # to all tabs of one user, and of the other
                direct = message("direct", ws.user, to=to, text=command.text)
                if not await app.users.send(to, direct):
                    answer = {"type": "error", "message": f"{NAMES.get(to, to)} is not connected"}
                elif to != me:
                    await app.users.send(me, direct)
            case _:
                answer = {"type": "error", "message": "You may not enter this room, or are not in it"}
        if command.ref is not None:
            await ws.send({**answer, "ref": command.ref})


async def enter(ws: WebSocket[Any, User], room: str, since: str | None) -> None:
    """Join a room: first comes what was said since the client was there, or else what the room remembers."""
    while room not in ws.rooms:
        if since is None:
            page = await app.room(room).history()
            since, messages = str(page.position), [said.raw for said in page.messages]
            await ws.send({"type": "history", "room": room, "position": since, "messages": messages})
        try:
            await ws.join(room, since=since, presence={"name": ws.user["name"]})
        except HistoryGap:  # the client was away for too long: its reader is told so, and it begins anew
            await ws.send({"type": "gap", "room": room})
            since = None


def message(kind: str, user: User, **fields: str) -> dict[str, Any]:
    return {"type": kind, **fields, "by": user["id"], "name": user["name"], "at": datetime.now(UTC)}


def may_enter(user_id: str, room: str) -> bool:
    return user_id in ROOMS.get(room, ())


@app.post("/rooms/{room}/messages", middleware=[auth])
async def post(request: Request, room: str) -> JSONResponse:
    """For programs: curl -H "Authorization: Bearer $TOKEN" -d '{"text": "Deployed"}' .../rooms/general/messages"""
    if not may_enter(request.user["id"], room):
        raise HTTPException(403)
    body = await body_as(Post, request)
    position = await app.room(room).publish(message("said", request.user, room=room, text=body.text))
    return JSONResponse({"position": str(position)}, 201)


@app.post("/login")
async def login(request: Request) -> JSONResponse:
    body = await body_as(Login, request)
    if body.username not in NAMES or not hmac.compare_digest(body.password.encode(), b"password"):
        return JSONResponse({"error": "Invalid credentials"}, 401)
    user = User(id=body.username, name=NAMES[body.username])
    return JSONResponse({"token": auth.issue(user, expires_in=3600)})


async def body_as(kind: type[T], request: Request) -> T:
    try:
        return msgspec.json.decode(await request.body(), type=kind)
    except (msgspec.DecodeError, RecursionError, UnicodeError) as error:
        raise HTTPException(400, str(error)) from error


add_page(app, __file__, chat, enter)

if __name__ == "__main__":
    app.listen()
