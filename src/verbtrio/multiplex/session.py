"""One client's session: what it asks for, by commands, and what it is answered.

    ClientSession.run           the main task: commands in their order
    ├─ subscription             a task each, where there is something to wait for (see `life`)
    └─ call                     a task each (see `calls`)

What takes an instant is done in place, as the message is read. A command that has to wait (for the broker, for a
token's keys) is waited for by the main task, and those behind it come after it; but subscribes and calls run beside it.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping
from functools import partial
from typing import Any
from weakref import ref

import trio
from msgspec import Raw

from verbtrio.base.close import PEERS_ENDS, Cause, CloseInfo
from verbtrio.base.errors import ConnectionClosed, LimitExceeded, MessageError
from verbtrio.base.timers import Timer
from verbtrio.base.types import Data
from verbtrio.connection.inbox import Inbox
from verbtrio.connection.peer import handled_by
from verbtrio.guards.quotas import Slot
from verbtrio.guards.rate import END, PASS, Bucket, Meter
from verbtrio.multiplex.admission import Admission
from verbtrio.multiplex.calls import Call, RunningCalls
from verbtrio.multiplex.client import Client, Subscription
from verbtrio.multiplex.peer import ClientPeer
from verbtrio.multiplex.pulse import Due, Pulse
from verbtrio.multiplex.room_commands import RoomCommands
from verbtrio.multiplex.server_side import ServerSide, exception_of, push_of
from verbtrio.multiplex.settings import App, ClientSettings
from verbtrio.multiplex.subscriptions import Subscriptions
from verbtrio.multiplex.tokens import OVER, Ended
from verbtrio.protocols import codes
from verbtrio.protocols.codes import ProtocolError, Refused
from verbtrio.protocols.commands import (
    BadCommands,
    Command,
    ConnectRequest,
    RefreshRequest,
    RPCRequest,
    SendRequest,
    SubscribeRequest,
)
from verbtrio.protocols.replies import RefreshResult, Reply, RPCResult

logger = logging.getLogger("verbtrio.clients")

COMMANDS_A_TURN = 32
"""After so many commands of one message other tasks have their turn: a message may have 10,000."""

BAD = CloseInfo(Cause.PROTOCOL, codes.BAD_PROTOCOL, codes.reason_of(codes.BAD_PROTOCOL))
STALE = CloseInfo(Cause.UNAUTHENTICATED, codes.STALE, codes.reason_of(codes.STALE))
NO_PONG = CloseInfo(Cause.HEARTBEAT, codes.NO_PONG)
TOO_FAST = CloseInfo(Cause.RATE, codes.TOO_MANY)


class ClientSession:
    """One client's session.

    Args:
        peer: the client's.
        app: the app's parts.
        settings: the endpoint's.
        slot: its place in the connection counts.
        inbox: where its messages arrive.
        address: where and by what name commands that come by requests of their own find it; `None` on a WebSocket.
    """

    def __init__(
        self,
        peer: ClientPeer,
        app: App,
        settings: ClientSettings,
        slot: Slot,
        inbox: Inbox,
        address: tuple[str, str] | None = None,
    ) -> None:
        self._peer = peer
        self._app = app
        self._settings = settings
        self._slot = slot
        self._inbox = inbox
        self._nursery: trio.Nursery | None = None
        self._subscriptions = Subscriptions(peer, app, settings, self._start)
        self._rooms = RoomCommands(peer, app, settings, self._subscriptions)
        self._admission = Admission(peer, app, settings, slot, self._subscriptions, address)
        self._calls: RunningCalls
        self._meter: Bucket | Meter | None = None
        self._pulse = Pulse(settings.ping, settings.pong_timeout, trio.current_time() + peer.limits.handshake_timeout)
        self._timer: Timer | None = None
        self._is_connected = self._is_unusable = False
        peer.owner = self

    @property
    def client(self) -> Client:
        client: Client = self._peer.client
        return client

    # What the facade asks

    @property
    def nursery(self) -> trio.Nursery:
        if self._nursery is None:
            raise AttributeError("a client's nursery is opened when it connects: use it from there on")
        return self._nursery

    @property
    def subscriptions(self) -> Mapping[str, Subscription[Any]]:
        return {life.name: Subscription(life) for life in self._subscriptions.lives()}

    async def subscribe(self, name: str, *, data: Data, presence: Any) -> Subscription[Any]:
        """See `Client.subscribe`."""
        self._app.rooms.check()
        if (closed := self._peer.closed) is not None:
            raise ConnectionClosed(closed)
        if not self._is_connected:
            raise RuntimeError("the client has not connected yet: subscribe it from there on")
        outcome = ServerSide(data=data, presence=presence)
        try:
            life = self._subscriptions.subscribe_by_server(SubscribeRequest(channel=name), outcome)
        except Refused as refused:
            if refused.error is codes.ALREADY_SUBSCRIBED:
                raise RuntimeError(f"the client is subscribed to {name!r:.100} already") from None
            raise LimitExceeded(refused.error.message) from None
        try:
            await outcome.wait()
        except trio.Cancelled:
            life.leave(discard=True)
            raise
        if outcome.error is not None:
            raise exception_of(outcome.error)
        if outcome.result is not None and not life.is_over:
            self._peer.push(push_of(name, outcome.result))
            life.open()
        return Subscription(life)

    def unsubscribe(self, name: str, code: int, reason: str) -> bool:
        """See `Client.unsubscribe`."""
        self._app.rooms.check()
        return self._subscriptions.end(name, code, reason)

    # Its course

    async def run(self, nursery: trio.Nursery) -> None:
        """Handle commands until the connection ends, in a task of the connection's `nursery`. If cancelled, so is
        everything that runs for the client."""
        handled_by.set(ref(self.client))
        self._nursery = nursery
        limits = self._peer.limits
        self._calls = RunningCalls(self.client, limits.call_timeout, limits.max_calls)
        if limits.max_messages_per_second is not None:
            self._meter = Bucket(limits.max_messages_per_second, limits.message_burst)
        self._meet_shared_limits()
        self._schedule()
        await self._inbox.serve(self._take)

    def _start(self, function: Callable[..., Any], *args: Any, name: str) -> None:
        self.nursery.start_soon(function, *args, name=name)

    def _meet_shared_limits(self) -> None:
        """Its messages count towards the rates that it shares with others, as far as those are known."""
        if self._slot.buckets:
            own = self._meter if isinstance(self._meter, Bucket) else None
            self._meter = Meter(own, self._slot.buckets)

    def _take(self, message: str | bytes) -> Awaitable[None] | None:
        """Handle a message. What is returned has to be awaited before the next one is handled."""
        if self._is_unusable:
            self._peer.end(BAD)
            return None
        try:
            commands = iter(self._peer.encoding.commands(message))
        except BadCommands:
            self._peer.end(BAD)
            return None
        return self._go(commands)

    def _go(self, commands: Iterator[Command]) -> Awaitable[None] | None:
        """Handle commands in place, up to one that has to wait."""
        count = 0
        while True:
            try:
                command = next(commands, None)
            except BadCommands:
                self._peer.end(BAD)
                return None
            if command is None:
                return None
            later = self._handle(command)
            closed = self._peer.closed
            if self._is_unusable or (closed is not None and closed.cause not in PEERS_ENDS):
                if inspect.iscoroutine(later):
                    later.close()
                return None
            count += 1
            if later is not None or count >= COMMANDS_A_TURN:
                return self._go_on(later, commands)

    async def _go_on(self, later: Awaitable[None] | None, commands: Iterator[Command]) -> None:
        """Handle the rest of a message: first what has to be waited for."""
        if later is not None:
            await later
        peer = self._peer
        if peer.queued > peer.limits.high_water_bytes:
            await peer.wait_below(peer.limits.high_water_bytes)  # it asks for more than it takes
        else:
            await trio.lowlevel.checkpoint()
        if self._is_unusable:
            return
        rest = self._go(commands)
        if rest is not None:
            await rest

    def _handle(self, command: Command) -> Awaitable[None] | None:
        method = command.method
        if method is None or (not command.id and method != "send"):
            if command.id or not self._pulse.pong():  # an unknown request; or an answer that nobody has asked for
                self._peer.end(BAD)
            return None
        if self._is_connected is (method == "connect"):
            self._peer.end(BAD)
            return None
        if self._meter is not None and (verdict := self._meter.take(trio.current_time())) is not PASS:
            if verdict is END:
                self._peer.end(TOO_FAST)
            elif command.id:
                self._refuse(command.id, codes.TOO_MANY_REQUESTS)
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
        self._refuse(command, error)
        if method == "connect":
            self._is_unusable = True  # what else is in the message is not answered

    def _refuse(self, command: int, error: ProtocolError) -> None:
        if command:
            self._peer.reply(Reply(id=command, error=error))

    def _dispatch(self, method: str, command: Command) -> Awaitable[None] | None:
        """Do what a command asks for.

        Raises:
            Refused: it may not be done.
        """
        request: Any = getattr(command, method)
        if method in _CHANNEL_METHODS and not request.channel:
            self._peer.end(BAD)
            return None
        number, subscriptions = command.id, self._subscriptions
        if method == "rpc":
            self._call(number, request)
        elif method == "publish":
            return self._rooms.publish(number, request)
        elif method == "subscribe":
            subscriptions.subscribe(number, request)
        elif method == "unsubscribe":
            subscriptions.unsubscribe(number, request)
        elif method == "send":
            self._receive(request)
        elif method == "ping":
            raise Refused(codes.NOT_AVAILABLE)
        elif method == "connect":
            return self._connect(number, request)
        elif method == "refresh":
            return self._refresh(number, request)
        elif method == "presence":
            return self._rooms.presence(number, request)
        elif method == "presence_stats":
            return self._rooms.presence_stats(number, request)
        elif method == "history":
            return self._rooms.history(number, request)
        else:
            return self._rooms.refresh(number, request)
        return None

    # Calls and messages

    def _call(self, command: int, request: RPCRequest) -> None:
        if not self._settings.calls:
            raise Refused(codes.NOT_AVAILABLE)
        call = self._settings.calls.get(request.method)
        if call is None:
            raise Refused(codes.METHOD_NOT_FOUND)
        self._begin(call, request.data, command, request.timeout)

    def _receive(self, request: SendRequest) -> None:
        """What the client sends without expecting an answer."""
        if request.cancel:
            self._calls.cancel(request.cancel)
        elif (call := self._settings.message) is not None:
            try:
                self._begin(call, request.data, 0, 0.0)
            except Refused as refused:  # nobody can be told
                logger.info("a message of %r is refused: %s", self.client, refused)

    def _begin(self, call: Call, data: Raw, command: int, timeout: float) -> None:
        if self._calls.is_full:
            raise Refused(codes.TOO_MANY_REQUESTS)
        try:
            arguments = call.arguments(self.client, data, is_binary=self._peer.encoding.is_binary)
        except MessageError as error:
            self._app.counters.invalid += 1
            raise Refused(ProtocolError(codes.BAD_REQUEST.code, str(error))) from error
        self._calls.count += 1
        answer, refuse = partial(self._answer, command), partial(self._refuse, command)
        self._start(self._calls.run, call, arguments, command, timeout, answer, refuse, name=f"call {call.name}")

    def _answer(self, command: int, result: object) -> None:
        """Answer a call with what its function has returned.

        Raises:
            TypeError: that can't be encoded.
        """
        self._peer.reply(Reply(id=command, rpc=RPCResult(self._form(result))))

    def _form(self, data: Data) -> Raw | None:
        return None if data is None else self._peer.encoding.data(self._peer.encode(data))

    # Connecting

    async def _connect(self, command: int, request: ConnectRequest) -> None:
        """The first command.

        Raises:
            Refused, Ended: the client is not let in.
        """
        if (admitted := await self._admission.connect(request)) is None:
            return
        result, expiry, lives = admitted
        self._meet_shared_limits()
        self._is_connected = True
        self._pulse.connected(trio.current_time())
        self._pulse.expires = expiry.due
        self._schedule()
        self._peer.reply(Reply(id=command, connect=result))
        for life in lives:
            life.open()

    async def _refresh(self, command: int, request: RefreshRequest) -> None:
        """Another token for the connection.

        Raises:
            Refused, Ended: it is not accepted.
        """
        expiry = await self._admission.refresh(request.token)
        self._pulse.expires = expiry.due
        self._schedule()
        result = RefreshResult(client=self.client.id, expires=expiry.expires, ttl=expiry.ttl)
        self._peer.reply(Reply(id=command, refresh=result))

    # Time

    def _schedule(self) -> None:
        self._stop_timer()
        if self._peer.closed is None:
            self._timer = self._app.timers.at(self._pulse.next, self._tick)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._app.timers.cancel(self._timer)
            self._timer = None

    def _tick(self, now: float, when: float) -> None:
        peer = self._peer
        if peer.closed is not None:
            return
        due = self._pulse.due(now, is_busy=peer.carrier.is_busy or len(self._inbox) > 0)
        if due is Due.PING:
            peer.hold(peer.encoding.ping)
        elif due is not Due.NOTHING:
            peer.end({Due.STALE: STALE, Due.NO_PONG: NO_PONG, Due.EXPIRED: OVER}[due])
        self._schedule()

    # Its end: see `Owner`

    def dismissed(self, name: str, info: CloseInfo) -> Callable[[], object]:
        return self._subscriptions.dismissed(name, info)

    def ended(self, info: CloseInfo) -> None:
        """It has ended: it leaves all rooms and lists now. Its calls are cancelled; its handlers soon after."""
        self._stop_timer()
        self._subscriptions.leave_all(discard=info.cause not in PEERS_ENDS)
        if self._nursery is not None:
            self._calls.cancel_all()
        self._admission.leave()


_CHANNEL_METHODS = frozenset(
    ("subscribe", "unsubscribe", "publish", "presence", "presence_stats", "history", "sub_refresh")
)
