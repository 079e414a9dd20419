"""verbtrio: a realtime (WebSocket) server framework for Trio.

    from verbtrio import App, WebSocket

    app = App()

    @app.ws("/ws")
    async def echo(ws: WebSocket[str]) -> None:
        async for message in ws:
            await ws.send(message)

Deploy with `hypercorn -k trio module:app`, run as a script with `app.listen()`, or start inside a Trio program with
`await nursery.start(app.serve, 0)`.

What applications import is here, and behind five doors:

    verbtrio.brokers        MemoryBroker, and what another broker has to be
    verbtrio.testing        the tests that every broker must pass
    verbtrio.auth           JWTAuth: who a client is, by JSON Web Tokens
    verbtrio.security       SecurityHeaders, CSRFProtection: what browsers are told, and what they are kept from
    verbtrio.middleware     what function middleware is made of
    verbtrio.environment    secrets, the port, and whether this is production
    verbtrio.metrics        an app's figures for Prometheus

All other modules are private: docs/architecture.md is their map.
"""

from verbtrio.contract import needed as _needed  # noqa: F401 -- first: it says in words what the others would fail for

# isort: split
from verbtrio.app import App as App
from verbtrio.base.close import Cause as Cause
from verbtrio.base.close import CloseInfo as CloseInfo
from verbtrio.base.errors import AuthenticationError as AuthenticationError
from verbtrio.base.errors import BrokerUnavailable as BrokerUnavailable
from verbtrio.base.errors import CallError as CallError
from verbtrio.base.errors import ConnectionClosed as ConnectionClosed
from verbtrio.base.errors import Denied as Denied
from verbtrio.base.errors import HandshakeError as HandshakeError
from verbtrio.base.errors import HistoryGap as HistoryGap
from verbtrio.base.errors import LimitExceeded as LimitExceeded
from verbtrio.base.errors import MessageError as MessageError
from verbtrio.base.errors import NotRunning as NotRunning
from verbtrio.base.errors import RoomUnavailable as RoomUnavailable
from verbtrio.base.errors import VerbtrioError as VerbtrioError
from verbtrio.base.limits import Limits as Limits
from verbtrio.base.position import Position as Position
from verbtrio.base.restart import Restart as Restart
from verbtrio.base.types import JSON as JSON
from verbtrio.base.types import ReadyState as ReadyState
from verbtrio.brokers.records import History as History
from verbtrio.brokers.records import Page as Page
from verbtrio.brokers.records import PresenceChange as PresenceChange
from verbtrio.brokers.records import Present as Present
from verbtrio.brokers.records import Publication as Publication
from verbtrio.connection.dispatch import on as on
from verbtrio.connection.heartbeat import Heartbeat as Heartbeat
from verbtrio.connection.membership import Membership as Membership
from verbtrio.connection.websocket import WebSocket as WebSocket
from verbtrio.guards.middleware import Upgrade as Upgrade
from verbtrio.guards.middleware import UpgradeRequest as UpgradeRequest
from verbtrio.guards.proxies import TrustedProxies as TrustedProxies
from verbtrio.http.event_subscriber import EventSubscriber as EventSubscriber
from verbtrio.http.sse import EventStream as EventStream
from verbtrio.http.sse import ServerSentEvent as ServerSentEvent
from verbtrio.http.sse import last_event_id as last_event_id
from verbtrio.http.streaming import JSONArray as JSONArray
from verbtrio.http.streaming import Stream as Stream
from verbtrio.hub.statistics import Statistics as Statistics
from verbtrio.hub.users import Users as Users
from verbtrio.multiplex.client import Client as Client
from verbtrio.multiplex.client import Subscription as Subscription
from verbtrio.rooms.member import Member as Member
from verbtrio.rooms.presence import PresenceWatch as PresenceWatch
from verbtrio.rooms.room import Room as Room
from verbtrio.rooms.settings import Presence as Presence
from verbtrio.routes.routing import Group as Group

__version__ = "0.1.0"
