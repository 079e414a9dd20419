"""An app whose routes are plain functions, which Starlette runs in threads, and call what belongs to Trio's."""

from collections.abc import Callable
from typing import Any

from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from verbtrio import App, Membership, WebSocket

app = App()
memberships: list[Membership] = []
answers: list[str] = []
"""What background tasks have got."""


async def as_ada(request: Any, call_next: Any) -> Response:
    request.scope["user"] = {"id": "ada"}
    response: Response = await call_next(request)
    return response


app.sse("/events/:room", middleware=[as_ada])


@app.ws("/ws", middleware=[as_ada])
async def echo(ws: WebSocket) -> None:
    memberships.append(ws.join("lobby"))
    async for message in ws:
        await ws.send(message)


def one() -> Any:
    return next(member for member in app.room("lobby").here if isinstance(member, WebSocket))


def close_listeners() -> None:
    for member in app.room("lobby").here:
        if member is not one():
            member.close_nowait()


CALLS: dict[str, Callable[[], Any]] = {
    "send": lambda: app.users.send_nowait("ada", "from a thread"),
    "disconnect": lambda: app.users.disconnect_nowait("ada"),
    "broadcast": lambda: app.room("lobby").broadcast("from a thread"),
    "send_nowait": lambda: one().send_nowait("from a thread"),
    "close_nowait": lambda: one().close_nowait(),
    "close_listeners": lambda: close_listeners(),
    "join": lambda: one().join("other"),
    "leave": lambda: memberships[0].leave_nowait(),
}


def attempt(name: str) -> str:
    try:
        return f"let through: {CALLS[name]()!r}"
    except RuntimeError as error:
        return str(error)


@app.get("/calls/:name")
def call(request: Request) -> Response:
    """Makes the call in the route's thread, and again in the background task's."""
    name = request.path_params["name"]
    return JSONResponse(attempt(name), background=BackgroundTask(lambda: answers.append(attempt(name))))


@app.get("/state")
async def state(request: Request) -> Response:
    now = app.statistics()
    return JSONResponse(
        {
            "answers": answers,
            "present": [now.connections, now.streams, now.users, len(app.room("lobby"))],
            "rooms": now.rooms,
            "ended": now.ended,
            "sent": now.sent,
        }
    )


@app.get("/say")
async def say(request: Request) -> Response:
    return JSONResponse(await app.users.send("ada", "for everybody"))
