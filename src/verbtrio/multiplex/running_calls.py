"""The calls of one client: each in a task of its own, in the client's nursery, in a scope with the caller's deadline.

A call ends when it returns, when its caller does not want it any more or has gone, or when its time is over. A plain
function takes no time that could be over: it is called in place, as the message is read. If it returns an awaitable,
that is awaited in a task.

A task and a scope cost more than most calls do. So one task whose call has returned waits for the client's next call,
and runs it in the same scope: with that call's name, deadline and context. It ends with its last call's deadline.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from contextvars import copy_context
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
from verbtrio.protocols.replies import Reply

logger = logging.getLogger("verbtrio.calls")

LATE = 1 / 32
"""The part of `Limits.call_timeout` by which a call may run longer, if its caller has not said how long it waits. To
set a scope's deadline costs as much as the rest of handing a call over; this way many calls have the same one."""


class _Runner:
    """A task that runs calls, one at a time.

    Attributes:
        call: what it runs; `None`: it waits for one, or ends.
        arguments, later: what the function is called with; what a plain function has returned to be awaited.
        command: the id of the command that is answered; 0: nobody is.
        size: of the call's data.
        task: set from its first wait on.
    """

    __slots__ = ("arguments", "call", "command", "later", "scope", "size", "task")

    def __init__(self, deadline: float) -> None:
        self.scope = trio.CancelScope(deadline=deadline)
        self.task: trio.lowlevel.Task | None = None

    def take(
        self, call: Call, arguments: tuple[Any, ...], command: int, size: int, later: Awaitable[Any] | None
    ) -> None:
        self.call: Call | None = call
        self.arguments, self.command, self.size, self.later = arguments, command, size, later


class RunningCalls:
    """One client's calls, and what it sends without expecting an answer.

    Args:
        peer: the client's.
        settings: the endpoint's: the functions.
        counters: the app's.
        start: starts a task in the client's nursery.
        on_end: called when a call has ended.

    Attributes:
        running: how many calls there are in tasks.
        joins: whether the message that is handled has several commands. Then what answers them in place goes out
            together, at the end of the tick; else at once.
    """

    __slots__ = (
        "_by_command",
        "_bytes",
        "_counters",
        "_idle",
        "_on_end",
        "_peer",
        "_settings",
        "_start",
        "_unanswered",
        "joins",
        "running",
    )

    def __init__(
        self,
        peer: ClientPeer,
        settings: ClientSettings,
        counters: Counters,
        start: Callable[..., None],
        on_end: Callable[[], None],
    ) -> None:
        self._peer = peer
        self._bytes = 0  # of the data of those that run
        self._settings = settings
        self._counters = counters
        self._start = start
        self._unanswered: dict[_Runner, None] = {}  # a set of them; an empty set is four times as large
        self._by_command: dict[int, _Runner] = {}  # of those, by the command's id; of two with the same, the later
        self._on_end = on_end
        self._idle: _Runner | None = None
        self.running = 0
        self.joins = False

    def rpc(self, command: int, request: RPCRequest) -> None:
        """The client calls a function. It is answered later, or at once.

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
            if (runner := self._by_command.get(request.cancel)) is not None:
                runner.scope.cancel()
        elif (call := self._settings.message) is not None:
            try:
                self._begin(call, request.data, 0, 0.0)
            except Refused as refused:  # nobody can be told
                logger.info("a message of %r is refused: %s", self._peer, refused)

    def cancel_all(self) -> None:
        """The client has gone."""
        for runner in self._unanswered:
            runner.scope.cancel()
        if self._idle is not None:
            self._idle.scope.cancel()

    def _begin(self, call: Call, data: Raw, command: int, patience: float) -> None:
        if self.running and not self._has_room(len(memoryview(data))):
            raise Refused(codes.TOO_MANY_REQUESTS)
        peer = self._peer
        try:
            arguments = call.arguments(peer.client, data, is_binary=peer.encoding.is_binary)
        except MessageError as error:
            self._counters.invalid += 1
            raise Refused(ProtocolError(codes.BAD_REQUEST.code, str(error))) from error
        later = None
        if call.is_plain and (later := self._call_in_place(call, arguments, command)) is None:
            return
        size = len(memoryview(data))
        runner = self._runner(patience, peer.limits.call_timeout)
        runner.take(call, arguments, command, size, later)
        name = f"call {call.name} #{command}"
        if runner.task is None:
            self._start(self._run, runner, name=name)
        else:
            runner.task.name = name
            runner.task.context = copy_context()
            trio.lowlevel.reschedule(runner.task)
        if command:
            self._unanswered[runner] = None
            self._by_command[command] = runner  # from now on: its caller may not want it any more before it has begun
        self.running += 1
        self._bytes += size

    def _has_room(self, size: int) -> bool:
        """Whether another call may run beside those that do, with so many bytes of data."""
        limits = self._peer.limits
        if limits.max_calls is not None and self.running >= limits.max_calls:
            return False
        return self._bytes + size <= limits.max_message_bytes  # what is decoded may take 40 times as much

    def _call_in_place(self, call: Call, arguments: tuple[Any, ...], command: int) -> Awaitable[Any] | None:
        """Call a plain function, and answer; what has to be awaited first is returned. Raises no `Exception`."""
        try:
            result: Any = call.function(*arguments)
            if result is not None and hasattr(result, "__await__"):
                later: Awaitable[Any] = result
                return later
            self._answer(command, result, joins=self.joins)
        except Exception as error:
            self._failed(call, command, single(error))
        return None

    def _runner(self, patience: float, longest: float) -> _Runner:
        """What runs a call: the task that waits for one, or one that has to be started; with the call's deadline."""
        now = trio.current_time()
        deadline = now + (min(patience, longest) if patience > 0 else longest)
        runner, self._idle = self._idle, None
        if runner is None or (left := runner.scope.deadline) <= now:
            return _Runner(deadline)
        late = 0.0 if patience > 0 else longest * LATE
        if not deadline <= left <= deadline + late:
            runner.scope.deadline = deadline + late
        return runner

    async def _run(self, runner: _Runner) -> None:
        """Run calls, and answer them. Raises no `Exception`. If cancelled, so is the function that it runs, and nobody
        is answered."""

        def abort(_: object) -> trio.lowlevel.Abort:
            if self._idle is runner:  # else it has a call, which is not lost
                self._idle = None
            return trio.lowlevel.Abort.SUCCEEDED

        try:
            with runner.scope as scope:
                while (call := runner.call) is not None:
                    if runner.later is not None:
                        result = await runner.later
                    else:
                        if scope.cancel_called:  # a function that does not wait would not notice
                            await trio.lowlevel.checkpoint_if_cancelled()
                        result = await call.function(*runner.arguments)
                    self._answer(runner.command, result, joins=self.running > 1)
                    self._ended(runner)
                    del result  # perhaps large, and of no use to a task that waits
                    if self._idle is None:
                        if runner.task is None:
                            runner.task = trio.lowlevel.current_task()
                        self._idle = runner
                        await trio.lowlevel.wait_task_rescheduled(abort)
                return
            if runner.call is not None and trio.current_time() >= scope.deadline:
                self._refuse(runner.command, codes.TIMEOUT)
        except Exception as error:
            if runner.call is not None:
                self._failed(runner.call, runner.command, single(error))
        finally:
            if runner.call is not None:
                self._ended(runner)

    def _ended(self, runner: _Runner) -> None:
        """The call of `runner` has."""
        runner.call = runner.later = None
        runner.arguments = ()
        self.running -= 1
        self._bytes -= runner.size
        self._unanswered.pop(runner, None)
        if self._by_command.get(runner.command) is runner:
            del self._by_command[runner.command]
        self._on_end()

    def _answer(self, command: int, result: object, *, joins: bool) -> None:
        """Answer with what the function has returned.

        Raises:
            TypeError: that can't be encoded.
        """
        if command:
            self._peer.returned(command, result, joins=joins)

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
