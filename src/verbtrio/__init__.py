"""verbtrio: a realtime (WebSocket) server framework for Trio.

    from verbtrio import App, WebSocket

    app = App()

    @app.ws("/ws")
    async def echo(ws: WebSocket[str]) -> None:
        async for message in ws:
            await ws.send(message)

Deploy with `hypercorn -k trio module:app`, run as a script with `app.listen()`, or start inside a Trio program with
`await nursery.start(app.serve, 0)`. Tokens are in `verbtrio.auth`.
"""

from verbtrio import _needed  # noqa: F401 -- first: it says in words what the others would fail for
from verbtrio.app import App as App
from verbtrio.background import Restart as Restart
from verbtrio.closing import Cause as Cause
from verbtrio.closing import CloseInfo as CloseInfo
from verbtrio.dispatch import on as on
from verbtrio.errors import AuthenticationError as AuthenticationError
from verbtrio.errors import ConnectionClosed as ConnectionClosed
from verbtrio.errors import HandshakeError as HandshakeError
from verbtrio.errors import LimitExceeded as LimitExceeded
from verbtrio.errors import MessageError as MessageError
from verbtrio.errors import NotRunning as NotRunning
from verbtrio.errors import VerbtrioError as VerbtrioError
from verbtrio.heartbeat import Heartbeat as Heartbeat
from verbtrio.hub import Statistics as Statistics
from verbtrio.hub import Users as Users
from verbtrio.limits import Limits as Limits
from verbtrio.listener import Listener as Listener
from verbtrio.member import Member as Member
from verbtrio.membership import Membership as Membership
from verbtrio.middleware import Upgrade as Upgrade
from verbtrio.middleware import UpgradeRequest as UpgradeRequest
from verbtrio.proxies import TrustedProxies as TrustedProxies
from verbtrio.rooms import Room as Room
from verbtrio.routing import Group as Group
from verbtrio.sse import EventStream as EventStream
from verbtrio.sse import ServerSentEvent as ServerSentEvent
from verbtrio.sse import last_event_id as last_event_id
from verbtrio.streaming import JSONArray as JSONArray
from verbtrio.streaming import Stream as Stream
from verbtrio.types import JSON as JSON
from verbtrio.types import ReadyState as ReadyState
from verbtrio.websocket import WebSocket as WebSocket

__version__ = "0.1.0"
