"""Clients without a WebSocket: the responses that carry them, and the requests that bring their commands."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from http import HTTPStatus

import trio
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import Receive, Scope, Send

from verbtrio.base.errors import NotRunning
from verbtrio.base.types import Shared
from verbtrio.connection.handler_nursery import handle
from verbtrio.guards.cross_origin import CrossOrigin
from verbtrio.guards.quotas import Slot, client_key, user_key
from verbtrio.guards.refusals import MAX_SHOWN, Refusals
from verbtrio.http.link import link_of
from verbtrio.hub.hub import Hub
from verbtrio.multiplex.client import Client
from verbtrio.multiplex.emulation import Brought
from verbtrio.multiplex.peer import ClientPeer
from verbtrio.multiplex.session import BAD, ClientSession
from verbtrio.multiplex.settings import ClientSettings
from verbtrio.multiplex.stream_response import BINARY, ClientResponse
from verbtrio.multiplex.streamed import CLIENT_GONE, TOO_SLOW, StreamedCarrier
from verbtrio.protocols.commands import BadCommands
from verbtrio.protocols.encoding import Encoding
from verbtrio.protocols.json_encoding import ASCII, JSON
from verbtrio.routes.settings import RouteSettings
from verbtrio.routes.websocket_route import no_slot

logger = logging.getLogger("verbtrio.endpoint")

TOO_LARGE = "Content Too Large"
NO_PROTOBUF = "Protobuf is not installed here: use JSON"


class Endpoint(ABC, Shared):
    """What both kinds of requests have in common: which pages may send them, and whether the app is running.

    Args:
        method: the requests'. Browsers also ask by OPTIONS (a preflight request).
        hub: gives the app's hub; raises `NotRunning` outside the app's lifespan.
        cross_origin: which pages may send them.
    """

    def __init__(self, method: str, hub: Callable[[], Hub], cross_origin: CrossOrigin) -> None:
        self.method = method
        self._hub = hub
        self._cross_origin = cross_origin
        self._refusals = Refusals(logger)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        try:
            hub = self._hub()
        except NotRunning as error:
            logger.error("%s", error)
            raise HTTPException(500) from error
        if (reason := self._cross_origin.refusal(scope)) is not None:
            self._refusals.tell(f"{scope['method']} {scope['path'][:MAX_SHOWN]!r} is refused: {reason}")
            await PlainTextResponse("Forbidden", 403)(scope, receive, send)
        elif scope["method"] == "OPTIONS":
            await self._cross_origin.preflight(scope, self.method)(scope, receive, send)
        elif scope["method"] == "HEAD":
            await Response(headers=self._cross_origin.headers(scope))(scope, receive, send)
        else:
            await self._answer(request, hub, send)

    @abstractmethod
    async def _answer(self, request: Request, hub: Hub, send: Send) -> None:
        """Answer a request of the endpoint's own method."""

    def _refuse(self, scope: Scope, status: int, text: str, **headers: str) -> Response:
        return PlainTextResponse(text, status, headers={**headers, **self._cross_origin.headers(scope)})


class StreamedEndpoint(Endpoint):
    """Lets clients in whose messages an HTTP response carries.

    Args:
        name: "http_stream" or "sse".
        path: the name of the room of all clients of `app.centrifuge`.
        hub, cross_origin: as in `Endpoint`.
        settings: the route's.
        clients: the endpoint's.
        protobuf: the Protobuf encoding; `None` where it is not installed.
    """

    def __init__(
        self,
        name: str,
        path: str,
        hub: Callable[[], Hub],
        cross_origin: CrossOrigin,
        settings: RouteSettings,
        clients: ClientSettings,
        protobuf: Encoding | None,
    ) -> None:
        super().__init__("GET" if name == "sse" else "POST", hub, cross_origin)
        self._name = name
        self._room = ("verbtrio", "route", path)
        self._limits = settings.limits
        self._quotas = settings.quotas
        self._clients = clients
        self._protobuf = protobuf

    async def _answer(self, request: Request, hub: Hub, send: Send) -> None:
        scope = request.scope
        if (link := link_of(scope)) is not None:
            hub.watch(link.terminated)
        if hub.draining:
            response = self._refuse(scope, 503, "Service Unavailable", **{"retry-after": "1"})
            await response(scope, request.receive, send)
            return
        asked = await self._first(request)
        if isinstance(asked, Response):
            await asked(scope, request.receive, send)
            return
        encoding, first = asked
        slot = Slot(hub.quotas, *self._quotas)
        client, user = client_key(scope.get("client")), user_key(scope.get("user"))
        if (full := slot.take(trio.current_time(), client=client, user=user)) is not None:
            logger.info("the stream %r is refused: %s", scope["path"][:MAX_SHOWN], full.message)
            response = no_slot(full)
            response.headers.update(self._cross_origin.headers(scope))
            await response(scope, request.receive, send)
            return
        try:
            await self._serve(request, hub, send, encoding, first, slot)
        finally:
            slot.leave(trio.current_time())

    async def _first(self, request: Request) -> tuple[Encoding, str | bytes] | Response:
        """The client's encoding, and its first message; or the answer to what can't be taken."""
        limit = self._limits.max_message_bytes
        if self._name == "sse":
            first = request.query_params.get("cf_connect", "")
            return self._refuse(request.scope, 413, TOO_LARGE) if len(first) > limit else (JSON, first)
        if _is_binary(request) and self._protobuf is None:
            return self._refuse(request.scope, 415, NO_PROTOBUF)
        if (body := await read_body(request, limit)) is None:
            return self._refuse(request.scope, 413, TOO_LARGE)
        return (self._protobuf if self._protobuf is not None and _is_binary(request) else ASCII), body

    async def _serve(
        self, request: Request, hub: Hub, send: Send, encoding: Encoding, first: str | bytes, slot: Slot
    ) -> None:
        """Serve one client until nothing of it is left: its session beside the response. If cancelled, the response is
        cut off, the client leaves everything at once, and what runs for it is cancelled."""
        scope, streamed = request.scope, hub.streamed_clients
        carrier = StreamedCarrier(self._name, self._limits, hub.counters, hub.leave_stream)
        session_name = streamed.add(carrier)
        peer = carrier.peer = ClientPeer(carrier, encoding, hub.rooms)
        address = (streamed.node, session_name)
        session = ClientSession(peer, hub, self._clients, slot, carrier.inbox, address)
        scope["verbtrio.route"] = self._room
        Client(scope, peer, session)
        carrier.begin(first)
        headers = self._cross_origin.headers(scope)
        response = ClientResponse(carrier, is_binary=encoding.is_binary, headers=headers)
        hub.enter_stream(carrier)
        if not first.strip():  # it says nothing, and learns of no session in which it could
            carrier.end(BAD)
        failure: Exception | None = None
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_run_session, session, carrier)
                try:
                    await response(scope, request.receive, send)
                except Exception as error:  # the application's error handlers expect no groups
                    failure = error
                finally:
                    carrier.end(TOO_SLOW if response.is_overdue else CLIENT_GONE)
        finally:
            streamed.discard(session_name)  # until now a command finds it, and does nothing
        if failure is not None:
            raise failure


class _Runner:
    """A session as what a nursery handles."""

    def __init__(self, session: ClientSession) -> None:
        self._session = session

    def run(self, carrier: StreamedCarrier) -> Awaitable[None]:
        assert carrier.nursery is not None, "a handler runs in its connection's nursery"
        return self._session.run(carrier.nursery)


async def _run_session(session: ClientSession, carrier: StreamedCarrier) -> None:
    """Run a client's session in a nursery, until the client has ended and all of it is over. Raises no `Exception`."""

    async def may_begin() -> bool:
        return carrier.closed is None

    await handle(carrier, _Runner(session), may_begin, lambda error: None)


class EmulationEndpoint(Endpoint):
    """Takes the commands of clients without a WebSocket: each comes by a request of its own.

    Args:
        hub, cross_origin: as in `Endpoint`.
        max_bytes: the longest body.
        seconds: how long a session of another process has to take what it is sent.
        protobuf: as in `StreamedEndpoint`.
    """

    def __init__(
        self,
        hub: Callable[[], Hub],
        cross_origin: CrossOrigin,
        max_bytes: int,
        seconds: float,
        protobuf: Encoding | None,
    ) -> None:
        super().__init__("POST", hub, cross_origin)
        self._max_bytes = max_bytes
        self._seconds = seconds
        self._protobuf = protobuf

    def share(self, cross_origin: CrossOrigin, max_bytes: int, seconds: float) -> None:
        """Take the commands of another endpoint's clients, too."""
        self._cross_origin = CrossOrigin(*self._cross_origin.origins, *cross_origin.origins)
        self._max_bytes = max(self._max_bytes, max_bytes)
        self._seconds = max(self._seconds, seconds)

    async def _answer(self, request: Request, hub: Hub, send: Send) -> None:
        response = await self._take(request, hub)
        await response(request.scope, request.receive, send)

    async def _take(self, request: Request, hub: Hub) -> Response:
        """Have the client's session take the commands, wherever it is; the answer. See `Emulation.bring`."""
        scope = request.scope
        encoding = self._protobuf if _is_binary(request) else JSON
        if encoding is None:
            return self._refuse(scope, 415, NO_PROTOBUF)
        if (body := await read_body(request, self._max_bytes)) is None:
            return self._refuse(scope, 413, TOO_LARGE)
        try:
            asked = encoding.emulation_request(body)
        except BadCommands:
            return self._refuse(scope, 400, "Bad Request")
        status = await hub.emulation.bring(asked.node, Brought(asked.session, asked.data, len(body)), self._seconds)
        if status == 204:
            return Response(status_code=204, headers=self._cross_origin.headers(scope))
        return self._refuse(scope, status, TOO_LARGE if status == 413 else HTTPStatus(status).phrase)


def _is_binary(request: Request) -> bool:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower() == BINARY


async def read_body(request: Request, max_bytes: int) -> bytes | None:
    """A request's body; `None` where it has more than so many bytes. (The rest is not read.)

    Raises:
        ClientDisconnect: the client has left.
    """
    body = bytearray()
    async with aclosing(request.stream()) as chunks:
        async for chunk in chunks:
            body += chunk
            if len(body) > max_bytes:
                return None
    return bytes(body)
