"""The server that the SDKs of the Centrifuge protocol expect for their own test suites, with nothing forbidden.

To point a suite at it, run it in this repository's folder (it listens on IPv4 and IPv6, since some suites take
whichever `localhost` is):

    hypercorn -k trio -b 127.0.0.1:8000 -b '[::1]:8000' tests.apps.centrifuge:app

and then, in the SDK's own repository, whatever runs its tests there: `yarn test` (centrifuge-js), `pytest`
(centrifuge-python), `go test ./...` (centrifuge-go). What a suite asks for beyond the protocol that verbtrio speaks
(maps, shared polls, filters by tags, compaction of channel names, dictionaries) fails, or skips itself; delta is not
granted, which the suites accept.

What it has:

- `/connection/websocket`, `/connection/http_stream`, `/connection/sse`, `/emulation`, for pages of any origin.
- Tokens signed with HMAC and the secret "secret"; without one a client is anonymous. A token's `channels` and the
  personal channel "#user" are subscribed by the server.
- In every channel: subscribe, publish, presence, join and leave (told to everybody), history of 100 for 300 s, and
  recovery for everybody. In "smallhistory:..." the history is of 2.
- No calls: `rpc` is answered with error 108.
- With the header `X-API-Key: test-api-key`: `POST /api/publish` with `{"channel", "data"}` and `POST /api/history` with
  `{"channel", "limit"}`, answered with `{"result": {"offset", "epoch"}}`.
"""

import warnings
from typing import Any

import jwt
import msgspec
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from verbtrio import App, History, Position
from verbtrio.base.errors import AuthenticationError
from verbtrio.base.types import JSON

SECRET = "secret"
"""The suites' own. `JWTAuth` refuses one of 6 bytes: it can be guessed offline."""
API_KEY = "test-api-key"
EVERYTHING: dict[str, Any] = {"subscribe": True, "publish": True, "presence": True, "join_leave": True}

warnings.filterwarnings("ignore", category=jwt.warnings.InsecureKeyLengthWarning)


class Authenticator:
    """Checks the suites' tokens: with their short secret, and users that are numbers."""

    async def authenticate(self, token: str) -> dict[str, Any]:
        try:
            claims = jwt.decode(token, SECRET, algorithms=["HS256"], options={"verify_aud": False, "verify_sub": False})
        except jwt.ExpiredSignatureError as error:
            raise AuthenticationError(401, "The token has expired", is_expired=True) from error
        except jwt.InvalidTokenError as error:
            raise AuthenticationError(401, "The token is not valid") from error
        return {**claims, "sub": str(claims.get("sub", ""))}


app = App(allowed_origins=["*"])
app.centrifuge(
    "/connection",
    auth=Authenticator(),
    anonymous=True,
    personal="#{user}",
    force_join_leave=True,
)
app.rooms("{name:path}", history=History(size=100, ttl=300), **EVERYTHING)
app.rooms("smallhistory:{name:path}", history=History(size=2, ttl=300), **EVERYTHING)


class Ask(msgspec.Struct):
    """What is asked of the server's own API."""

    channel: str
    data: JSON = None
    limit: int = 0


def answer(position: Position | None) -> Response:
    assert position is not None, "every channel has a history"
    return JSONResponse({"result": {"offset": position.offset, "epoch": position.epoch}})


def may_ask(request: Request) -> bool:
    return request.headers.get("x-api-key") == API_KEY


@app.post("/api/publish")
async def publish(request: Request) -> Response:
    if not may_ask(request):
        return PlainTextResponse("Unauthorized", 401)
    ask = msgspec.json.decode(await request.body(), type=Ask)
    return answer(await app.room(ask.channel).publish(ask.data))


@app.post("/api/history")
async def history(request: Request) -> Response:
    if not may_ask(request):
        return PlainTextResponse("Unauthorized", 401)
    ask = msgspec.json.decode(await request.body(), type=Ask)
    return answer((await app.room(ask.channel).history(limit=ask.limit)).position)
