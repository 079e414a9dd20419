"""An application as a user would write it, with all of the public API, and fully annotated.

`nox -s types` has mypy and pyright check it, both strict: they must find no error, and infer what `assert_type` says.
tests/test_typing.py shows that it also works.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from fractions import Fraction
from typing import Annotated, Any, TypeAlias, TypedDict, assert_type

import msgspec
import trio
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from verbtrio import (
    JSON,
    App,
    AuthenticationError,
    CallError,
    Cause,
    Client,
    CloseInfo,
    ConnectionClosed,
    Denied,
    EventStream,
    EventSubscriber,
    Group,
    Heartbeat,
    History,
    JSONArray,
    LimitExceeded,
    Limits,
    Member,
    Membership,
    MessageError,
    Position,
    Presence,
    PresenceChange,
    Present,
    Publication,
    ReadyState,
    Restart,
    Room,
    ServerSentEvent,
    Statistics,
    Stream,
    Subscription,
    Users,
    WebSocket,
    last_event_id,
    on,
)
from verbtrio.auth import JWTAuth


class Claims(TypedDict):
    id: int
    name: str


class Say(msgspec.Struct, tag=True):
    text: str
    ref: str | None = None


class Move(msgspec.Struct, tag=True):
    x: int
    ref: str | None = None


class Said(msgspec.Struct, tag=True):
    by: str
    text: str
    ref: str | None = None


Socket: TypeAlias = WebSocket[Say | Move, Claims]


def to_json(value: Any) -> JSON:
    if isinstance(value, Fraction):
        return str(value)
    raise TypeError(f"no form for {value!r}")


def from_json(kind: Any, value: JSON) -> Any:
    if kind is Fraction:
        return Fraction(value)
    raise TypeError(f"no {kind!r}")


@asynccontextmanager
async def lifespan(app: App) -> AsyncGenerator[dict[str, str], None]:
    yield {"database": "open"}


async def sign_in(request: Any, call_next: Any) -> Response:
    request.scope["user"] = {"id": 1, "name": "Ada"}
    response: Response = await call_next(request)
    return response


app = App(
    lifespan=lifespan,
    limits=Limits(max_message_bytes=65_536, max_messages_per_second=100),
    heartbeat=Heartbeat(interval=30, timeout=90),
    encode=to_json,
    decode=from_json,
)
auth = JWTAuth(key="a key of more than thirty-two bytes, for a sample")
app.asyncapi(title="Sample", version="1.0.0")
app.health("/health")


# Coroutines


@app.ws("/plain")
async def plain(ws: WebSocket) -> None:
    assert_type(ws.user, Any)
    assert_type(ws.ready_state, ReadyState)
    assert_type(ws.id, str)
    assert_type(ws.params, dict[str, Any])
    assert_type(ws.closed, CloseInfo | None)
    assert_type(ws.rooms, frozenset[str])
    assert_type(ws.dropped, int)
    async for message in ws:
        assert_type(message, str | bytes)
        await ws.send(message)


@app.ws("/text")
async def text(ws: WebSocket[str]) -> None:
    assert_type(ws.user, Any)
    message = await ws.receive()
    assert_type(message, str)
    ws.send_nowait({"you said": message})
    await ws.close(4000, "enough")


@app.ws("/json")
async def anything(ws: WebSocket[JSON]) -> None:
    async for message in ws:
        await ws.send(message)


Number: TypeAlias = Annotated[Fraction, msgspec.Meta(extra_json_schema={"type": "string"})]


@app.ws("/fraction")
async def halves(ws: WebSocket[Number]) -> None:
    async for number in ws:
        assert_type(number, Fraction)
        await ws.send({"half": number / 2})


@app.ws("/rooms/:room", sends=Said, middleware=[sign_in])
async def chat(ws: WebSocket[Say | Move, Claims], room: str) -> None:
    assert_type(ws.user, Claims)
    name = ws.user["name"]
    async with ws.join(room, on_leave=left) as members:
        assert_type(members, Membership)
        assert_type(members.name, str)
        async for message in ws:
            assert_type(message, Say | Move)
            match message:
                case Say():
                    reached = members.broadcast(Said(name, message.text), exclude=ws)
                    assert_type(reached, int)
                case Move():
                    greet(members)
                    others = [member for member in members.here if member is not ws]
                    members.broadcast("moved", exclude=others)


async def left(room: Room, ws: Socket) -> None:
    room.broadcast(f"{ws.user['name']} has left {room.name}")


# Who is there


def greet(room: Room) -> None:
    assert_type(room.here, tuple[Member, ...])
    assert_type("an id" in room, bool)
    for member in room.here:
        assert_type(member, Member)
        assert_type(member.id, str)
        assert_type(member.user, Any)
        assert_type(member.closed, CloseInfo | None)
        assert_type(member.dropped, int)
        assert_type(member.params, dict[str, Any])
        member.send_nowait(f"hello, {member.id}")


def welcome(member: Member) -> None:
    if isinstance(member, EventSubscriber):
        member.send_nowait("you hear us")
    elif isinstance(member, WebSocket):
        member.send_nowait("we hear each other")
    else:
        member.close_nowait(4001, "who are you?")


def told(ws: Socket, listener: EventSubscriber) -> None:
    """Both are members, whatever a WebSocket's types."""
    welcome(ws)
    welcome(listener)
    members: list[Member] = [ws, listener]
    app.room("lobby").broadcast("not you", exclude=members)
    app.room("lobby").broadcast("nor you", exclude=[ws])
    app.room("lobby").broadcast({"price": 5}, key="X", ttl=2.5)
    app.room("lobby").broadcast("nor you", exclude=ws.id)
    app.room("lobby").broadcast("nor both of you", exclude=[ws, listener.id])
    assert_type(app.room("lobby").kick([ws.id, listener], code=4001), int)


async def tell(user_id: int) -> None:
    """What has to ask other processes."""
    assert_type(await app.room("lobby").count(), int)
    assert_type(await app.users.send(user_id, {"you": user_id}), int)
    assert_type(await app.users.disconnect(user_id, reason="enough"), int)


def everywhere() -> dict[str, int]:
    assert_type(app.connections, Room)
    assert_type(app.connections.name, str)
    assert_type(app.users, Users)
    for user_id in app.users:
        assert_type(user_id, str)
        for member in app.users.connections(user_id):
            assert_type(member, Member)
            member.send_nowait("hello")
            welcome(member)
        assert_type(app.users.send_nowait(user_id, {"you": user_id}), int)
    assert_type(app.users.disconnect_nowait(2, code=4003, reason="banned"), int)
    figures = app.statistics()
    assert_type(figures, Statistics)
    return {**figures.ended, Cause.PEER: 0}


# What rooms have


def may_play(member: Member, number: int) -> bool:
    if member.user is None:
        raise Denied("sign in first")
    return number > 0


async def tick(room: Room) -> None:
    while True:
        await trio.sleep(1)
        room.broadcast("tick")


def reload(room: Room, number: int) -> None:
    room.broadcast("reload", here_only=True)


app.rooms("lobby", history=History(size=10, ttl=60, stamp="position"), presence=True, join_leave=True, task=tick)
app.rooms("game:{number:int}", presence=Presence(grace=10), guard=may_play, max_members=4, on_gap=reload)


@app.room_task("game:{number:int}", linger=5, restart=Restart(max=1), start_timeout=5)
async def play(room: Room, number: int, *, task_status: trio.TaskStatus[None]) -> None:
    task_status.started()
    room.broadcast({"game": number})


assert_type(play.__name__, str)


@app.room_task("arena:{number:int}", singleton=True, lease=5)
async def fight(room: Room, number: int, *, fence: int) -> None:
    room.broadcast({"fence": fence})


def remembered(message: Publication, change: PresenceChange, present: Present) -> Position | None:
    assert_type(message.data, str | bytes)
    assert_type(change.user, str)
    assert_type(present.connections, int)
    assert_type(message.position, Position)
    return Position.parse(str(message.position))


# Hooks


def enter(ws: WebSocket[Any, Claims]) -> Said:
    assert_type(ws.user, Claims)
    membership = ws.join("hooks")
    assert_type(membership, Membership)
    assert_type(membership.room.name, str)
    return Said("the server", f"welcome, {ws.user['name']}")


async def hear(ws: Socket, message: Say) -> Said | None:
    assert_type(ws.route, Room)
    ws.nursery.start_soon(trio.sleep, 1)
    return Said(ws.user["name"], message.text) if message.text else None


def gone(ws: Socket, code: int, reason: str) -> None:
    ws.route.broadcast(f"{code} {reason}")


async def failed(ws: Socket, error: Exception) -> None:
    if not isinstance(error, ConnectionClosed | LimitExceeded | MessageError):
        print(f"{ws} failed: {error!r}")


app.ws("/hooks", open=enter, message=hear, close=gone, error=failed, middleware=[sign_in])


@app.ws("/class", middleware=[sign_in])
class Chat:
    def __init__(self) -> None:
        self.x = 0

    def open(self, ws: Socket) -> None:
        welcome(ws)

    @on(Say)
    async def say(self, ws: Socket, message: Say) -> Said:
        assert_type(ws.user, Claims)
        return Said(ws.user["name"], message.text)

    @on(Move)
    def move(self, ws: Socket, message: Move) -> dict[str, int]:
        self.x += message.x
        return {"x": self.x}

    def close(self, ws: Socket, code: int, reason: str) -> None: ...


assert_type(Chat().x, int)


# HTTP

api = app.group("/api", limits=Limits(max_connections=10))
assert_type(api, Group)


assert_type(auth.connection_token("1", info={"name": "Ada"}, channels=["news"], claims={"roles": ["member"]}), str)
assert_type(auth.subscription_token("1", "private:red", expires_in=900), str)


async def is_over(token: str) -> bool:
    try:
        await auth.authenticate(token)
    except AuthenticationError as error:
        return error.is_expired
    return False


# Clients with many rooms on one connection


class Rename(msgspec.Struct):
    name: str


async def connected(client: Client, data: JSON) -> dict[str, str]:
    assert_type(client.user, Any)
    assert_type(client.id, str)
    assert_type(client.name, str)
    assert_type(client.transport, str)
    client.nursery.start_soon(trio.sleep, 1)
    return {"welcome": client.id}


def heard(client: Client, data: Say) -> None:
    client.send_nowait(Said("you", data.text))


app.centrifuge(
    "/connection",
    auth=auth,
    anonymous=True,
    connect=connected,
    message=heard,
    limits=Limits(max_calls=8, call_timeout=5),
    allowed_origins=["https://example.com"],
    ping=20,
    personal="#{user}",
)

app.rooms("news", subscribe=True)
app.rooms("board:{name}", publish=True, history=History())
app.rooms("paid:{name}", token=True)


@app.rooms("talk:{name}", presence=True, join_leave=True)
async def talk(sub: Subscription[Say, Claims], name: str) -> None:
    assert_type(sub.user, Claims)
    assert_type(sub.client, Client)
    assert_type(sub.room, Room)
    assert_type(sub.data, bytes)
    if name == "secret":
        raise Denied("not for you")
    await sub.accept(data={"topic": name})
    assert_type(sub.is_recovered, bool)
    first = await sub.receive()
    assert_type(first, Say)
    async for said in sub:
        assert_type(said, Say)
        position = await sub.publish(Said("somebody", said.text))
        assert_type(position, Position | None)
        if said.text == "bye":
            await sub.unsubscribe(2000, "bye")


async def listens(sub: Subscription) -> None:
    async for anything in sub:
        await sub.client.send(anything)


app.rooms("lists:{name}")(listens)


@app.call("rename")
async def rename(client: Client, data: Rename) -> Said:
    if not data.name:
        raise CallError(422, "a name is not empty", temporary=False)
    for name, sub in client.subscriptions.items():
        assert_type(name, str)
        assert_type(sub.is_accepted, bool)
    return Said("the server", data.name)


@app.call("follow")
async def follow(client: Client) -> None:
    assert_type(client.unsubscribe("news", code=2500, reason="anew"), bool)
    news = await client.subscribe("news", data={"since": "now"}, presence={"status": "online"})
    assert_type(news, Subscription[Any])


@app.call("leave")
async def leave(client: Client) -> None:
    await client.disconnect(4000, "bye")


assert_type(rename.__name__, str)


@api.get("/me", middleware=[auth])
async def me(request: Request) -> Response:
    return JSONResponse({"after": last_event_id(request)})


@api.post("/everybody")
async def everybody(request: Request) -> Response:
    app.connections.broadcast((await request.body()).decode())
    return PlainTextResponse("sent", 202)


async def count() -> AsyncIterator[int]:
    for number in range(3):
        yield number
        await trio.lowlevel.checkpoint()


async def events() -> AsyncIterator[ServerSentEvent]:
    async for number in count():
        yield ServerSentEvent({"half": Fraction(number, 2)}, event="tick", id=str(number))


@api.get("/array")
async def array(request: Request) -> Response:
    return JSONArray(count(), batch=10)


@api.get("/clock")
async def clock(request: Request) -> EventStream:
    return EventStream(events(), retry=5)


@api.get("/letters")
async def letters(request: Request) -> Stream:
    return Stream(["a", "b"], media_type="text/plain")


async def may_listen(request: Request, room: str) -> bool:
    return room != "secret"


app.sse("/events/:room", guard=may_listen, sends=Said)

if __name__ == "__main__":
    app.listen()
