"""One client's session: what it asks for, by commands, and what it is answered.

    ClientSession.run           the main task: commands in their order
    ├─ subscription             a task each, where there is something to wait for (see `life`)
    └─ call                     a task each (see `calls`)

What takes an instant is done in place, as the message is read. A command that has to wait (for the broker, for a
token's keys) is waited for by the main task, and those behind it come after it; but subscribes and calls run beside it.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterator
from typing import Any
from weakref import ref

import trio

from verbtrio.base.close import CANCEL_GRACE, PEERS_ENDS, Cause, CloseInfo
from verbtrio.connection.inbox import Inbox
from verbtrio.connection.peer import handled_by
from verbtrio.guards.quotas import Slot
from verbtrio.guards.rate import END, PASS
from verbtrio.multiplex.admission import SERVER, Admission, refresh
from verbtrio.multiplex.application_side import ApplicationSide
from verbtrio.multiplex.clock import Clock
from verbtrio.multiplex.pace import Pace
from verbtrio.multiplex.peer import ClientPeer
from verbtrio.multiplex.room_commands import RoomCommands
from verbtrio.multiplex.running_calls import RunningCalls
from verbtrio.multiplex.settings import App, ClientSettings
from verbtrio.multiplex.subscriptions import Subscriptions
from verbtrio.multiplex.tokens import Ended
from verbtrio.protocols import codes
from verbtrio.protocols.codes import ProtocolError, Refused
from verbtrio.protocols.commands import (
    BadCommands,
    Command,
    ConnectRequest,
    RefreshRequest,
)
from verbtrio.protocols.replies import RefreshResult, Reply

logger = logging.getLogger("verbtrio.clients")

COMMANDS_A_TURN = 32
"""After so many commands of one message other tasks have their turn: a message may have 10,000."""

BAD = CloseInfo(Cause.PROTOCOL, codes.BAD_PROTOCOL, codes.reason_of(codes.BAD_PROTOCOL))
STALE = CloseInfo(Cause.UNAUTHENTICATED, codes.STALE, codes.reason_of(codes.STALE))
NO_PONG = CloseInfo(Cause.HEARTBEAT, codes.NO_PONG)
INAPPROPRIATE = CloseInfo(Cause.PROTOCOL, codes.INAPPROPRIATE_PROTOCOL)
TOO_MANY_BAD = CloseInfo(Cause.INVALID, codes.TOO_MANY_ERRORS)
TOO_FAST = CloseInfo(Cause.RATE, codes.TOO_MANY)


class ClientSession(ApplicationSide):
    """One client's session.

    Args:
        peer: the client's.
        app: the app's parts.
        settings: the endpoint's.
        slot: its place in the connection counts.
        inbox: where its messages arrive.
        address: where and by what name commands that come by requests of their own find it; `None` on a WebSocket.
    """

    __slots__ = (
        "_bad",
        "_calls",
        "_clock",
        "_inbox",
        "_is_unusable",
        "_joins",
        "_pace",
        "_quiet",
        "_rooms",
        "_settings",
        "_user_id",
    )

    def __init__(
        self,
        peer: ClientPeer,
        app: App,
        settings: ClientSettings,
        slot: Slot,
        inbox: Inbox,
        address: tuple[str, str] | None = None,
    ) -> None:
        subscriptions = Subscriptions(peer, app, settings, self)
        super().__init__(peer, app, subscriptions, Admission(peer, app, settings, slot, subscriptions, address))
        self._settings = settings
        self._user_id: str | None = None
        self._inbox = inbox
        self._rooms = RoomCommands(peer, app, settings, subscriptions)
        self._calls: RunningCalls | None = None  # from the first one on: many clients only listen
        self._joins = False  # whether the message has several commands
        self._pace = Pace(peer.limits, slot)
        self._clock = Clock(peer, settings, app.timers, inbox)
        self._is_unusable = False
        self._bad = 0  # commands that were not what the application takes
        self._quiet: trio.Event | None = None  # made by the main task once it is the last one, or waits to be
        peer.owner = self

    # Its course

    async def run(self, nursery: trio.Nursery) -> None:
        """Handle commands until the connection ends, in a task of the connection's `nursery`; then wait for what runs
        for the client to end, `CANCEL_GRACE` at most: whoever called this cancels the rest. If cancelled, so is
        everything that runs for the client."""
        handled_by.set(ref(self.client))
        if self._peer.closed is not None:
            return  # it was gone before it could be told anything
        self._nursery = nursery
        self._pace.meet_shared()
        self._clock.start()
        await self._inbox.serve(self._take)
        self._subscriptions.no_more_published()
        with trio.move_on_after(CANCEL_GRACE):
            while self._subscriptions.running or (self._calls is not None and self._calls.running):
                self._quiet = trio.Event()
                await self._quiet.wait()

    def task_ended(self) -> None:
        """See `Tasks`."""
        if self._quiet is not None:
            self._quiet.set()

    def start(self, function: Callable[..., Any], *args: Any, name: str) -> None:
        """See `Tasks`."""
        self.nursery.start_soon(function, *args, name=name)

    def _take(self, message: str | bytes) -> Awaitable[None] | None:
        """Handle a message. What is returned has to be awaited before the next one is handled."""
        peer = self._peer
        if self._is_unusable or (isinstance(message, str) and peer.encoding.is_binary):
            peer.end(BAD if self._is_unusable else INAPPROPRIATE)
            return None
        try:
            found = peer.encoding.commands(message)
        except BadCommands:
            peer.end(BAD)
            return None
        is_alone = isinstance(found, tuple)
        self._joins = not is_alone
        commands = iter(found)
        later = self._handle(next(commands), peer.carrier.closed) if is_alone else self._go(commands)
        return None if later is None else self._go_on(later, commands)

    def _go(self, commands: Iterator[Command]) -> Awaitable[None] | None:
        """Handle commands in place, up to one that has to wait: that is returned. `None`: all are handled."""
        peer = self._peer
        for _ in range(COMMANDS_A_TURN):
            closed = peer.carrier.closed
            if self._is_unusable or (closed is not None and closed.cause not in PEERS_ENDS):
                return None  # what came before the client's own end is handled
            try:
                command = next(commands, None)
            except BadCommands:
                peer.end(BAD)
                return None
            if command is None:
                return None
            if (later := self._handle(command, closed)) is not None:
                return later
        return _checkpoint()

    async def _go_on(self, later: Awaitable[None] | None, commands: Iterator[Command]) -> None:
        """Handle the rest of a message: first what has to be waited for."""
        peer = self._peer
        while later is not None:
            await later
            if peer.queued > peer.limits.high_water_bytes:
                await peer.wait_below(peer.limits.high_water_bytes)  # it asks for more than it takes
            later = self._go(commands)

    def _handle(self, command: Command, closed: CloseInfo | None) -> Awaitable[None] | None:
        method = command.method if command.rpc is None else "rpc"  # most are calls, and that is seen at once
        if method is None or (not command.id and method != "send"):
            if command.id or not self._clock.pong():  # an unknown request; or an answer that nobody has asked for
                self._peer.end(BAD)
            return None
        if closed is not None and (closed.cause not in PEERS_ENDS or method not in _WITHOUT_ANSWER):
            return None  # it has gone: what it has said before still counts, but it is told nothing
        if (self._admission is None) is (method == "connect"):
            self._peer.end(BAD)
            return None
        if (verdict := self._pace.take()) is not PASS:
            if verdict is END:
                self._peer.end(TOO_FAST)
            elif command.id:
                self._peer.reply(Reply(id=command.id, error=codes.TOO_MANY_REQUESTS))
            return None
        try:
            later = self._dispatch(method, command)
        except Refused as refused:
            self._refused(method, command.id, refused.error)
            return None
        return None if later is None else self._wait(method, command.id, later)

    async def _wait(self, method: str, command: int, later: Awaitable[None]) -> None:
        try:
            await later
        except Refused as refused:
            self._refused(method, command, refused.error)
        except Ended as ended:
            self._peer.end(ended.info)

    def _refused(self, method: str, command: int, error: ProtocolError) -> None:
        if command:
            self._peer.reply(Reply(id=command, error=error))
        if method == "connect":
            self._is_unusable = True  # what else is in the message is not answered
        if error.code == codes.BAD_REQUEST.code:
            self._bad += 1
            most = self._peer.limits.max_bad_messages
            if most is not None and self._bad > most:
                self._peer.end(TOO_MANY_BAD)

    def _dispatch(self, method: str, command: Command) -> Awaitable[None] | None:
        """Do what a command asks for.

        Raises:
            Refused: it may not be done.
        """
        request: Any = getattr(command, method)
        if method == "rpc":  # the most frequent first
            self._calls_now().rpc(command.id, request)
            return None
        if method in _CHANNEL_METHODS and not request.channel:
            self._peer.end(BAD)
            return None
        if method == "ping":
            raise Refused(codes.NOT_AVAILABLE)
        if method == "send":
            self._calls_now().receive(request)
            return None
        if method == "connect":
            return self._connect(command.id, request)
        if method == "refresh":
            return self._refresh(command.id, request)
        owner = self._subscriptions if method in _SUBSCRIBING else self._rooms
        later: Awaitable[None] | None = getattr(owner, method)(command.id, request)
        return later

    def _calls_now(self) -> RunningCalls:
        """The client's calls, for one of the message that is handled."""
        if self._calls is None:
            self._calls = RunningCalls(self._peer, self._settings, self._app.counters, self.start, self.task_ended)
        self._calls.joins = self._joins
        return self._calls

    # Connecting

    async def _connect(self, command: int, request: ConnectRequest) -> None:
        """The first command.

        Raises:
            Refused, Ended: the client is not let in.
        """
        admission = self._admission
        assert admission is not None, "it connects once"
        self._clock.connecting()
        try:
            admitted = await admission.connect(request)
        except Refused:
            self._clock.start()  # it is of no more use, and has to go
            raise
        if admitted is None:
            return
        result, expiry, lives = admitted
        self._admission, self._user_id = None, admission.user_id
        self._pace.meet_shared()
        self._clock.connected(expiry)
        self._peer.reply(Reply(id=command, connect=result))
        for life in lives:
            life.open()

    async def _refresh(self, command: int, request: RefreshRequest) -> None:
        """Another token for the connection.

        Raises:
            Refused, Ended: it is not accepted.
        """
        expiry = await refresh(self.client, self._user_id, self._settings, request.token)
        self._clock.expires(expiry)
        result = RefreshResult(client=self.client.id, version=SERVER, expires=expiry.expires, ttl=expiry.ttl)
        self._peer.reply(Reply(id=command, refresh=result))

    # Its end: see `Owner`

    def dismissed(self, name: str, info: CloseInfo) -> Callable[[], object]:
        return self._subscriptions.dismissed(name, info)

    def ended(self, info: CloseInfo) -> None:
        """It has ended: it leaves all rooms and lists now. Its calls are cancelled; its handlers soon after."""
        self._clock.stop()
        self._subscriptions.leave_all(discard=info.cause not in PEERS_ENDS)
        if self._calls is not None:
            self._calls.cancel_all()
        if self._admission is None:
            self._app.leave_client(self.client, self._user_id)


_CHANNEL_METHODS = frozenset(
    ("subscribe", "unsubscribe", "publish", "presence", "presence_stats", "history", "sub_refresh")
)
_SUBSCRIBING = frozenset(("subscribe", "unsubscribe"))
_WITHOUT_ANSWER = frozenset(("publish", "send"))


async def _checkpoint() -> None:
    """Other tasks have their turn."""
    await trio.lowlevel.checkpoint()
