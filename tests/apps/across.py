"""An app of which several processes run, with their rooms on Redis: clients of the Centrifuge
protocol, users, and a task that one of them runs."""

import os

import trio
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from verbtrio import App, Client, Room, WebSocket
from verbtrio.auth import JWTAuth
from verbtrio.base.types import JSON
from verbtrio.brokers.redis import RedisBroker

auth = JWTAuth("a secret of thirty-two bytes, or more")
app = App(broker=RedisBroker(os.environ["REDIS_URL"], prefix=os.environ["PREFIX"]))
app.centrifuge("/connection", auth=auth, anonymous=True, allowed_origins=["*"])
app.rooms("open:{room}", subscribe=True, publish=True)


@app.call("reflect")
async def reflect(client: Client, data: JSON) -> JSON:
    return data


@app.post("/send/{user}")
async def send(request: Request) -> Response:
    """How many connections of the user that has reached, everywhere."""
    return JSONResponse(await app.users.send(request.path_params["user"], {"hello": "you"}))


@app.post("/disconnect/{user}")
async def disconnect(request: Request) -> Response:
    return JSONResponse(await app.users.disconnect(request.path_params["user"], code=4500, reason="out"))


fences: list[int] = []
"""Those with which the task has run here."""


@app.room_task("game:{number:int}", singleton=True, lease=2, linger=1)
async def game(room: Room, number: int, *, fence: int, task_status: trio.TaskStatus[None]) -> None:
    """Tells its members which process runs it, and under which lease."""
    fences.append(fence)
    task_status.started()
    while True:
        await trio.sleep(0.05)
        room.broadcast({"pid": os.getpid(), "fence": fence})


@app.get("/game")
async def state_of_the_game(request: Request) -> Response:
    """The state of the task here, and its fences."""
    states = [task.state for task in app._running_hub().room_tasks.tasks()]
    return JSONResponse({"states": states, "fences": fences, "pid": os.getpid()})


@app.ws("/game")
async def play(ws: WebSocket[str, JSON]) -> None:
    async with ws.join("game:1"):
        async for _ in ws:
            pass
