"""What a connection runs: the two forms of a handler, a coroutine or the four hooks, behind one interface."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any

from verbtrio.base.calls import call
from verbtrio.base.close import CloseInfo
from verbtrio.base.errors import ConnectionClosed, MessageError
from verbtrio.base.types import Hook
from verbtrio.connection.answers import is_message, with_ref
from verbtrio.connection.membership import Membership
from verbtrio.connection.parameters import Arguments
from verbtrio.connection.peer import WebSocketPeer
from verbtrio.connection.websocket import WebSocket

HOOKS = {
    "open": ("ws",),
    "message": ("ws", "message"),
    "close": ("ws", "code", "reason"),
    "error": ("ws", "error"),
}
"""The hooks and what they are called with."""


class Handler:
    """What a connection runs. One is made for each connection; the base does nothing."""

    __slots__ = ()

    has_late_hooks = False
    """Whether `error` or `close` do anything."""

    async def run(self, peer: WebSocketPeer[Any]) -> None:
        """Run for as long as the handler does. Cancelled when the connection ends."""
        async for _ in peer.ws:
            pass

    async def close(self, ws: WebSocket[Any], info: CloseInfo) -> None:
        """The close hook: called once, in a scope that is shielded and has a deadline."""

    async def error(self, ws: WebSocket[Any], error: BaseException) -> None:
        """The error hook: called with whatever `run` or another hook has raised, in a scope with a deadline."""


class CoroutineHandler(Handler):
    """A coroutine function, with the path's parameters as its arguments."""

    __slots__ = ("_arguments", "_function")

    def __init__(self, function: Callable[..., Any], arguments: Arguments) -> None:
        self._function = function
        self._arguments = arguments

    def run(self, peer: WebSocketPeer[Any]) -> Coroutine[Any, Any, None]:
        positional, named = self._arguments
        del self._arguments  # the coroutine has them, for as long as it needs them
        handler: Coroutine[Any, Any, None] = self._function(peer.ws, *positional, **named)
        return handler


class HooksHandler(Handler):
    """The hooks. What `open` and `message` return is sent."""

    __slots__ = ("_hooks", "has_late_hooks")

    def __init__(self, hooks: Mapping[str, Hook]) -> None:
        self._hooks = hooks
        self.has_late_hooks = "close" in hooks or "error" in hooks

    async def run(self, peer: WebSocketPeer[Any]) -> None:
        ws: WebSocket[Any] = peer.ws
        if (open_hook := self._hooks.get("open")) is not None:
            result = open_hook(ws)
            if result is not None and (later := _answer(peer, result)) is not None:
                await later
        hook: Any = self._hooks.get("message")
        if hook is not None and not inspect.iscoroutinefunction(hook):
            await _serve(peer, hook)  # in place: without a task switch a message
            return
        async for message in ws:
            if hook is not None:
                result = await hook(ws, message)
                if result is not None:
                    await _reply(peer, result, message)

    async def close(self, ws: WebSocket[Any], info: CloseInfo) -> None:
        if (hook := self._hooks.get("close")) is not None:
            await call(hook, ws, info.code, info.reason)

    async def error(self, ws: WebSocket[Any], error: BaseException) -> None:
        if (hook := self._hooks.get("error")) is not None:
            await call(hook, ws, error)


def _serve(peer: WebSocketPeer[Any], hook: Hook) -> Awaitable[None]:
    """Call `hook` for each message, in place where that can be (see `Inbox.serve`)."""
    ws, decode = peer.ws, peer.decoder

    def handle(message: str | bytes) -> Any:
        try:
            decoded = decode(message)
        except MessageError as error:
            peer.refuse(error, message)
            return None
        result = hook(ws, decoded)
        return None if result is None else _answer(peer, result, decoded)

    return peer.inbox.serve(handle)


def _answer(peer: WebSocketPeer[Any], result: Any, message: Any = None) -> Coroutine[Any, Any, None] | None:
    """Send what a hook has returned, or return a coroutine that awaits that and sends what it comes to.

    Nothing is sent to a peer that has gone: the messages that it has left are still to be handled.
    """
    if hasattr(result, "__await__"):
        if isinstance(result, Membership) and result.is_settled:
            return None  # `lambda ws: ws.join("lobby")`: nothing to wait for, and nothing to send
        return _answer_later(peer, result, message)
    if peer.closed is None and is_message(result):
        peer.put(peer.encode(with_ref(result, message)))
    return None


async def _answer_later(peer: WebSocketPeer[Any], hook: Awaitable[Any], message: Any) -> None:
    result = await hook
    if result is not None:
        await _reply(peer, result, message)


async def _reply(peer: WebSocketPeer[Any], result: Any, message: Any) -> None:
    """Send what a hook has returned, as `ws.send` does: wait while the peer reads too slowly."""
    if peer.closed is None and is_message(result):
        try:
            await peer.ws.send(with_ref(result, message))
        except ConnectionClosed:
            pass  # its own end, which the loop over its messages sees
