"""The calls of one client: each in a task of its own, in the client's nursery, in a scope with the caller's deadline.

A call ends when it returns, when its caller does not want it any more or has gone, or when its time is over.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import trio
from msgspec import Raw

from verbtrio.base.calls import single
from verbtrio.base.counters import Counters
from verbtrio.base.errors import ConnectionClosed, MessageError
from verbtrio.multiplex.calls import Call, error_of
from verbtrio.multiplex.peer import ClientPeer
from verbtrio.multiplex.settings import ClientSettings
from verbtrio.protocols import codes
from verbtrio.protocols.codes import ProtocolError, Refused
from verbtrio.protocols.commands import RPCRequest, SendRequest
from verbtrio.protocols.replies import Reply, RPCResult

logger = logging.getLogger("verbtrio.calls")


class RunningCalls:
    """One client's calls, and what it sends without expecting an answer.

    Args:
        peer: the client's.
        settings: the endpoint's: the functions.
        counters: the app's.
        start: starts a task in the client's nursery.
        on_end: called when such a task has ended.

    Attributes:
        running: how many there are.
    """

    __slots__ = ("_counters", "_on_end", "_peer", "_scopes", "_settings", "_start", "_unanswered", "running")

    def __init__(
        self,
        peer: ClientPeer,
        settings: ClientSettings,
        counters: Counters,
        start: Callable[..., None],
        on_end: Callable[[], None],
    ) -> None:
        self._peer = peer
        self._settings = settings
        self._counters = counters
        self._start = start
        self._unanswered: set[trio.CancelScope] = set()
        self._scopes: dict[int, trio.CancelScope] = {}  # of those, by the command's id; of two with the same, the later
        self._on_end = on_end
        self.running = 0

    def rpc(self, command: int, request: RPCRequest) -> None:
        """The client calls a function. It is answered later.

        Raises:
            Refused: there is no such function, it does not take that, or too many are running.
        """
        if not self._settings.calls:
            raise Refused(codes.NOT_AVAILABLE)
        call = self._settings.calls.get(request.method)
        if call is None:
            raise Refused(codes.METHOD_NOT_FOUND)
        self._begin(call, request.data, command, request.timeout)

    def receive(self, request: SendRequest) -> None:
        """The client sends something without expecting an answer; or does not want a call any more."""
        if request.cancel:
            if (scope := self._scopes.get(request.cancel)) is not None:
                scope.cancel()
        elif (call := self._settings.message) is not None:
            try:
                self._begin(call, request.data, 0, 0.0)
            except Refused as refused:  # nobody can be told
                logger.info("a message of %r is refused: %s", self._peer, refused)

    def cancel_all(self) -> None:
        """The client has gone."""
        for scope in self._unanswered:
            scope.cancel()

    def _begin(self, call: Call, data: Raw, command: int, patience: float) -> None:
        peer, most = self._peer, self._peer.limits.max_calls
        if most is not None and self.running >= most:
            raise Refused(codes.TOO_MANY_REQUESTS)
        try:
            arguments = call.arguments(peer.client, data, is_binary=peer.encoding.is_binary)
        except MessageError as error:
            self._counters.invalid += 1
            raise Refused(ProtocolError(codes.BAD_REQUEST.code, str(error))) from error
        longest = peer.limits.call_timeout
        scope = trio.CancelScope(deadline=trio.current_time() + (min(patience, longest) if patience > 0 else longest))
        if command:
            self._unanswered.add(scope)
            self._scopes[command] = scope  # from now on: its caller may not want it any more before it has begun
        self.running += 1
        self._start(self._run, call, arguments, command, scope, name=f"call {call.name} #{command}")

    async def _run(self, call: Call, arguments: tuple[Any, ...], command: int, scope: trio.CancelScope) -> None:
        """Run one call, and answer it. Raises no `Exception`. If cancelled, so is the function, and nobody is answered.

        Args:
            command: the command's id; 0 for one that is not answered.
            scope: the call's own.
        """
        try:
            with scope:
                if scope.cancel_called:
                    return  # a plain function would not notice
                result = call.function(*arguments)
                if hasattr(result, "__await__"):
                    result = await result
                self._answer(command, result)
                return
            if trio.current_time() >= scope.deadline:
                self._refuse(command, codes.TIMEOUT)
        except Exception as error:
            self._failed(call, command, single(error))
        finally:
            self.running -= 1
            self._unanswered.discard(scope)
            if self._scopes.get(command) is scope:
                del self._scopes[command]
            self._on_end()

    def _answer(self, command: int, result: object) -> None:
        """Answer with what the function has returned.

        Raises:
            TypeError: that can't be encoded.
        """
        if command:
            peer = self._peer
            data = None if result is None else peer.encoding.data(peer.encode(result))
            peer.reply(Reply(id=command, rpc=RPCResult(data)))

    def _refuse(self, command: int, error: ProtocolError) -> None:
        if command:
            self._peer.reply(Reply(id=command, error=error))

    def _failed(self, call: Call, command: int, error: Exception) -> None:
        if isinstance(error, ConnectionClosed) and error.info is self._peer.closed:
            return  # nobody is there
        reply = error_of(error)
        if reply is None:
            logger.error("the call %s of %r failed", call.name, self._peer, exc_info=error)
        self._refuse(command, codes.INTERNAL if reply is None else reply)
