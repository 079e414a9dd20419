"""Attributes that the like of an object has in other libraries: what to use instead. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Never, TypeVar

C = TypeVar("C", bound=type)

# For each attribute that other libraries' objects have: what to use instead.
_SEND = "`await ws.send(data)`: a str goes as text, bytes as binary, anything else as JSON"
_RECEIVE = "`await ws.receive()`; the annotation says what it returns: `WebSocket[str]`, `WebSocket[dict[str, Any]]`"
_ITERATE = "`async for message in ws`; the annotation says what it gives: `WebSocket[str]`, `WebSocket[dict[str, Any]]`"
_STATE = "`ws.ready_state`, or `ws.closed`, which says how it ended"
_HOOKS = 'the hooks of the route: `app.ws("/ws", open=, message=, close=, error=)`, or `async for message in ws`'
_HEARTBEAT = "nothing: pings are sent automatically; `Heartbeat(...)` says how often, `ws.send` sends your own"
_ROOM = "`ws.join(room)`, and `app.room(room).broadcast(data, exclude=ws)`"
_CLOSE = "`await ws.close(code, reason)`"
_ENDED = "`ws.closed`, which has `code` and `reason` once the connection has ended"

_WEBSOCKET = {
    "accept": "nothing: the upgrade is accepted before the handler begins; middleware may deny it",
    "send_denial_response": "middleware: it denies the upgrade by returning a response",
    **dict.fromkeys(("send_json", "send_text", "send_bytes", "send_str", "send_message", "write_message"), _SEND),
    "emit": f"{_SEND}. For several: `ws.route.broadcast(data)`",
    **dict.fromkeys(("receive_text", "receive_json", "receive_bytes", "receive_str"), _RECEIVE),
    **dict.fromkeys(("recv", "get_message", "read_message", "recv_messages"), _RECEIVE),
    **dict.fromkeys(("iter_text", "iter_json", "iter_bytes"), _ITERATE),
    **dict.fromkeys(("client_state", "application_state", "readyState", "open", "is_open"), _STATE),
    **dict.fromkeys(("on", "once", "add_event_listener", "addEventListener"), _HOOKS),
    **dict.fromkeys(("onopen", "onmessage", "onclose", "onerror"), _HOOKS),
    **dict.fromkeys(("on_open", "on_message", "on_close", "on_error"), _HOOKS),
    **dict.fromkeys(("ping", "pong"), _HEARTBEAT),
    "broadcast": "`ws.route.broadcast(data, exclude=ws)`, or a room's: `app.room(name).broadcast(data)`",
    **dict.fromkeys(("subscribe", "publish", "to", "enter_room", "join_room"), _ROOM),
    **dict.fromkeys(("unsubscribe", "leave_room"), "`await ws.leave(room)`"),
    **dict.fromkeys(("disconnect", "terminate", "aclose", "wait_closed"), _CLOSE),
    **dict.fromkeys(("close_code", "close_reason", "closeCode"), _ENDED),
    "path": "`ws.url.path`",
    "query": "`ws.query_params`",
    "remote_address": "`ws.client`",
    "request": "`ws` itself: `ws.headers`, `ws.query_params`, `ws.cookies`, `ws.client`, `ws.params`",
    "data": "`ws.state`, for whatever belongs to the connection",
}

_CALL = "a function that clients call: `@app.call(name)`; what it returns is the answer"
_WHOLE_ROOM = "`app.room(name).broadcast(data)`, or `await app.room(name).publish(data)` in a room with history"
_SUBSCRIBE = "`await client.subscribe(name)`"
_DISCONNECT = "`await client.disconnect(code, reason)`"
_CLIENT = {
    **dict.fromkeys(
        ("emit", "push", "send_json", "send_text", "send_bytes", "send_message"), "`await client.send(data)`"
    ),
    **dict.fromkeys(("publish", "broadcast", "to"), _WHOLE_ROOM),
    **dict.fromkeys(("join", "enter_room", "join_room"), _SUBSCRIBE),
    **dict.fromkeys(("leave", "leave_nowait", "leave_room"), "`client.unsubscribe(name)`"),
    **dict.fromkeys(("close", "terminate", "aclose", "kick"), _DISCONNECT),
    **dict.fromkeys(("call", "rpc", "request", "ack", "reply"), _CALL),
    **dict.fromkeys(("on", "once", "on_rpc", "on_message"), _CALL),
    **dict.fromkeys(
        ("receive", "recv", "messages"), f"{_CALL}. What is not answered comes to `app.centrifuge(message=)`"
    ),
    **dict.fromkeys(("rooms", "channels"), "`client.subscriptions`"),
    **dict.fromkeys(("data", "assigns"), "`client.state`, for whatever belongs to the connection"),
    "token": "`client.claims`, those of its token",
    "info": '`client.claims["info"]`',
    "handshake": "`client` itself: `client.headers`, `client.query_params`, `client.cookies`",
}

_RAISE = 'an exception: `raise Denied("why")` before the client is accepted'
_EVERYBODY = "`await sub.publish(data)` in the client's name, or `sub.room.broadcast(data)`"
_ALONE = "`await sub.send(data)`, for this client alone; for all, `await sub.publish(data)`"
_END = "`await sub.unsubscribe(code, reason)`"
_ROOMS_OWN = "`sub.room`, which has it: `await sub.room.history()`, `await sub.room.presence()`"
_SUBSCRIPTION = {
    **dict.fromkeys(("push", "emit", "reply"), _ALONE),
    **dict.fromkeys(("broadcast", "broadcast_from"), _EVERYBODY),
    **dict.fromkeys(("reject", "deny", "refuse"), _RAISE),
    **dict.fromkeys(("leave", "close", "disconnect", "kick", "end"), _END),
    **dict.fromkeys(("history", "presence", "members", "count"), _ROOMS_OWN),
    **dict.fromkeys(("recv", "get", "messages", "events"), "`async for said in sub`, or `await sub.receive()`"),
    **dict.fromkeys(("channel", "topic"), "`sub.name`"),
    **dict.fromkeys(("assigns", "state"), "the handler's own variables; `sub.client.state` for the connection's"),
    **dict.fromkeys(("params", "payload"), "the handler's parameters for the pattern's, `sub.data` for what was sent"),
    **dict.fromkeys(("token", "info"), "`sub.claims`, those of its token"),
    **dict.fromkeys(("id", "ws", "socket"), "`sub.client`, which has an `id`"),
}

_GROUP = {
    "centrifuge": "`app.centrifuge(path, middleware=, limits=)`, with the whole path",
    **{
        name: f"`app.{name}`, which is for the whole app"
        for name in ("call", "rooms", "room_task", "room", "task", "every", "connections", "users", "asyncapi")
    },
    "use": "`middleware=` of `app.group`",
}

_HABITS = {"WebSocket": _WEBSOCKET, "Client": _CLIENT, "Subscription": _SUBSCRIPTION, "Group": _GROUP}
"""By the name of the class that has not got it."""


class Habit:
    """An attribute of other libraries' objects: reading it raises `AttributeError`, with what to use instead.

    (With a `__getattr__`, reading any attribute would take three times as long under Python 3.11.)
    """

    __slots__ = ("_kind", "_name")

    def __init__(self, kind: str, name: str) -> None:
        self._kind = kind
        self._name = name

    def __get__(self, instance: object, owner: type) -> Never:
        text = f"a verbtrio.{self._kind} has no {self._name!r}; use {_HABITS[self._kind][self._name]}"
        raise AttributeError(text, name=self._name, obj=owner if instance is None else instance)


def with_habits(kind: C) -> C:
    """Add a `Habit` to the class for each attribute that the like of it has in other libraries, and the class has not.

    An instance may still set an attribute of that name. Type checkers do not see these attributes.
    """
    for name in _HABITS[kind.__name__]:
        if not hasattr(kind, name):
            setattr(kind, name, Habit(kind.__name__, name))
    for name, method in _SENTENCES.get(kind.__name__, {}).items():
        setattr(kind, name, method)
    return kind


def _no_iteration(self: object) -> Never:
    raise TypeError("receiving has to wait: write `async for message in ws` (ws.scope has the ASGI scope)")


async def _no_block(self: object, *_: object) -> Never:
    raise TypeError("a connection ends when its handler does: leave `async with ws` out")


def _no_subscription_iteration(self: object) -> Never:
    raise TypeError("receiving has to wait: write `async for said in sub`")


async def _no_subscription_block(self: object, *_: object) -> Never:
    raise TypeError("a subscription ends with the client's: leave `async with sub` out, and write `await sub.accept()`")


_SENTENCES: dict[str, dict[str, Callable[..., object]]] = {
    "WebSocket": {"__iter__": _no_iteration, "__aenter__": _no_block, "__aexit__": _no_block},
    "Subscription": {
        "__iter__": _no_subscription_iteration,
        "__aenter__": _no_subscription_block,
        "__aexit__": _no_subscription_block,
    },
}
"""What is there only to say what to write instead."""
