"""The ASGI application behind an `app.sse` route: a room, for clients that can't have WebSockets."""

from __future__ import annotations

import inspect
import logging
import re
from collections.abc import Awaitable, Callable
from string import Formatter
from typing import Any, TypeAlias

import trio
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import Receive, Scope, Send

from verbtrio.base.errors import Denied, LimitExceeded, NotRunning, RoomUnavailable
from verbtrio.base.types import Shared
from verbtrio.guards.quotas import Slot, client_key, user_key
from verbtrio.http.event_subscriber import EventSubscriber, SubscriberPeer
from verbtrio.http.link import link_of
from verbtrio.http.sse import last_event_id
from verbtrio.http.subscriber_response import SubscriberResponse
from verbtrio.hub.hub import Hub
from verbtrio.routes.settings import RouteSettings
from verbtrio.routes.websocket_route import no_slot

logger = logging.getLogger("verbtrio.listening")

Guard: TypeAlias = Callable[[Request, str], Awaitable[bool | Response] | bool | Response]
"""`may_listen(request, room)`, a coroutine function or a plain one: whether this client may listen to this room, or the
answer it gets instead."""


class EventStreamEndpoint(Shared):
    """One route's event streams, as an ASGI application.

    Args:
        room: the room's name, in which `{name}` stands for the path's parameter of that name.
        params: the path's parameters.
        guard: who may listen; `None`: whoever gets here.
        hub: gives the app's hub; raises `NotRunning` outside the app's lifespan.
        settings: the route's. Its limits and quotas apply.
        keep_alive, retry: as in `EventStream`.
        sends: for the AsyncAPI document.

    Raises:
        TypeError: `room` names a parameter that the path doesn't have, or writes one as a path does; or `guard` can't
            be called with `(request, room)`.
    """

    def __init__(
        self,
        room: str,
        params: set[str],
        guard: Guard | None,
        hub: Callable[[], Hub],
        settings: RouteSettings,
        *,
        keep_alive: float | None,
        retry: float | None,
        sends: Any = None,
    ) -> None:
        _check_room(room, params)
        if guard is not None:
            _check_guard(guard)
        self._room = room
        self._guard = guard
        self._hub = hub
        self._limits = settings.limits
        self._quotas = settings.quotas
        self._keep_alive = keep_alive
        self._retry = retry
        self.sends = sends
        self.description = "Server-sent events"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the client in, and have it listen until nothing of it is left."""
        request = Request(scope, receive)
        try:
            hub = self._hub()
        except NotRunning as error:
            logger.error("%s", error)
            raise HTTPException(500) from error
        if (link := link_of(scope)) is not None:
            hub.watch(link.terminated)
        room = self._room.format_map(request.path_params)
        denial = await self._denial(request, room)
        if hub.draining:
            denial = PlainTextResponse("Service Unavailable", 503, headers={"Retry-After": "1"})
        if denial is None:
            await self._subscribe(hub, room, scope, receive, send)
        else:
            await denial(scope, receive, send)

    async def _denial(self, request: Request, room: str) -> Response | None:
        """What the guard answers instead of letting the client listen."""
        if self._guard is None:
            return None
        answer = self._guard(request, room)
        if inspect.isawaitable(answer):
            answer = await answer
        if isinstance(answer, Response):
            return answer
        if not isinstance(answer, bool):
            raise TypeError(f"the guard {self._guard!r} returned {answer!r}; it must return a bool or a Response")
        return None if answer else PlainTextResponse("Forbidden", 403)

    async def _subscribe(self, hub: Hub, room: str, scope: Scope, receive: Receive, send: Send) -> None:
        peer = SubscriberPeer(self._limits, hub.counters, hub.check, hub.rooms.encode)
        subscriber = EventSubscriber(scope, peer)
        response = SubscriberResponse(peer, keep_alive=self._keep_alive, retry=self._retry)
        if scope["method"] == "HEAD":
            await response(scope, receive, send)
            return
        slot = Slot(hub.quotas, *self._quotas)
        client, user = client_key(scope.get("client")), user_key(subscriber.user)
        full = slot.take(trio.current_time(), client=client, user=user)
        if full is not None:
            logger.info("the stream %r is refused: %s", scope["path"], full.message)
            await no_slot(full)(scope, receive, send)
            return
        try:
            with hub.subscribing(peer, room, last_event_id(subscriber)):
                await response(scope, receive, send)
        except (Denied, LimitExceeded, RoomUnavailable) as error:  # before anything was sent
            await _refusal(error)(scope, receive, send)
        finally:
            slot.leave(trio.current_time())


def _refusal(error: Denied | LimitExceeded | RoomUnavailable) -> Response:
    """The answer to a client that the room's settings do not let in."""
    if isinstance(error, Denied):
        return PlainTextResponse("Forbidden", 403)
    return PlainTextResponse(str(error), 503, headers={"Retry-After": "1"})


def _formats(form: str | None) -> bool:
    """Whether a text or a number can be formatted so: "04d" is a format, and "path" the type of a path's parameter."""
    for value in ("text", 1, 1.0):
        try:
            format(value, form or "")
        except ValueError:
            continue
        return True
    return False


def _check_room(room: str, params: set[str]) -> None:
    """Raise `TypeError` where the room's name does not take the path's parameters as it seems to."""
    fields = [(field, form) for _, field, form, _ in Formatter().parse(room) if field is not None]
    if unknown := {field for field, _ in fields} - params:
        known = ", ".join(sorted(params)) or "none"
        raise TypeError(
            f"the room {room!r} asks for {', '.join(sorted(unknown))!r}, which the path doesn't have "
            f"(its parameters: {known}); for a room of one name: app.sse(path, room='news')"
        )
    for field, form in fields:
        if not _formats(form):
            typed = f"{{{field}:{form}}}"
            instead = room.replace(typed, f"{{{field}}}")
            raise TypeError(f"room names have no types: write room={instead!r}, and {typed} in the path")
    braces = re.sub(r"(^|/):(\w+)", lambda found: f"{found[1]}{{{found[2]}}}" if found[2] in params else found[0], room)
    if braces != room:
        raise TypeError(f"the room {room!r}: parameters have braces here: write room={braces!r}")


def _check_guard(guard: object) -> None:
    """Raise `TypeError` for what would only fail at the first request."""
    if not callable(guard) or inspect.isclass(guard):
        raise TypeError(f"guard is a function (request, room), not {guard!r}")
    try:
        inspect.signature(guard).bind("request", "room")
    except TypeError as error:
        raise TypeError(f"the guard {guard!r} is called with (request, room): {error}") from None
