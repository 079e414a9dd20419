"""An app of which several processes run, with their rooms on Redis: clients of the Centrifuge protocol, and users."""

import os

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from verbtrio import App, Client
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
