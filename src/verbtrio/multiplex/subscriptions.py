"""The subscriptions of one client: how it comes into rooms, and leaves them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

import msgspec
import trio
from msgspec import Raw

from verbtrio.base.close import CloseInfo
from verbtrio.base.types import Data
from verbtrio.multiplex.calls import error_of
from verbtrio.multiplex.life import NOT_WANTED, Answer, SubscriptionLife
from verbtrio.multiplex.peer import ClientPeer
from verbtrio.multiplex.recovery import Allowance
from verbtrio.multiplex.setbacks import Setbacks
from verbtrio.multiplex.settings import App, ClientSettings
from verbtrio.protocols import codes
from verbtrio.protocols.codes import ProtocolError, Refused
from verbtrio.protocols.commands import NO_DATA, ChannelRequest, SubscribeRequest
from verbtrio.protocols.replies import Empty, Reply, SubscribeResult
from verbtrio.rooms.rules import RoomRule

logger = logging.getLogger("verbtrio.subscriptions")

MAX_CHANNEL_BYTES = 255
"""A longer name of a channel is refused."""


MAX_EPOCH_CHARACTERS = 255
"""A longer epoch is refused: none of ours has so many, and it would be kept with the subscription."""


def check_channel(channel: str) -> None:
    """Raise `Refused` for a name that no channel has."""
    if len(channel.encode(errors="surrogatepass")) > MAX_CHANNEL_BYTES:
        raise Refused(codes.BAD_REQUEST)


def check_position(request: SubscribeRequest) -> None:
    """Raise `Refused` for an epoch that no history has."""
    if len(request.epoch) > MAX_EPOCH_CHARACTERS:
        raise Refused(codes.BAD_REQUEST)


class CommandAnswer:
    """Answers a client's subscribe."""

    __slots__ = ("_command", "_peer")

    def __init__(self, peer: ClientPeer, command: int) -> None:
        self._peer = peer
        self._command = command

    def tell(self, life: SubscriptionLife, result: SubscribeResult) -> None:
        self._peer.reply(Reply(id=self._command, subscribe=result))
        life.open()

    def refuse(self, error: ProtocolError) -> None:
        if self._peer.closed is None:
            self._peer.reply(Reply(id=self._command, error=error))


class ServerSide:
    """How a subscription comes out that the server makes, for those who wait for it.

    Args:
        data, presence: as in `Client.subscribe`.
        allowance: how much it may recover; `None` where it can't.

    Attributes:
        result: what the client is to be told; `None` where it was refused, or is not decided.
        error: why it was refused.
    """

    def __init__(self, data: Data = None, presence: Any = None, allowance: Allowance | None = None) -> None:
        self.given = (data, presence)
        self._allowance = allowance
        self.result: SubscribeResult | None = None
        self.error: ProtocolError | None = None
        self._done = trio.Event()

    def tell(self, life: SubscriptionLife, result: SubscribeResult) -> None:
        """The client is accepted."""
        self.result = result if self._allowance is None else self._allowance.within(result)
        life.is_recovered = self.result.recovered
        self._done.set()

    def refuse(self, error: ProtocolError) -> None:
        """It is not."""
        self.error = error
        self._done.set()

    async def wait(self) -> None:
        """Wait for either."""
        await self._done.wait()


class Tasks(Protocol):
    """What runs for a client beside its commands: its session."""

    def start(self, function: Callable[..., Any], *args: Any, name: str) -> None:
        """Start a task in the client's nursery."""

    def task_ended(self) -> None:
        """Such a task has ended. (`function` calls this.)"""


class Subscriptions:
    """One client's subscriptions, by the rooms' names.

    Args:
        peer: the client's.
        app: the app's parts.
        settings: the endpoint's.
        tasks: runs those that have anything to wait for.

    Attributes:
        running: how many such tasks there are, those of subscriptions that have ended and still clean up among them.
    """

    __slots__ = (
        "_app",
        "_by_name",
        "_data_bytes",
        "_late",
        "_peer",
        "_setbacks",
        "_settings",
        "_tasks",
        "running",
    )

    def __init__(
        self,
        peer: ClientPeer,
        app: App,
        settings: ClientSettings,
        tasks: Tasks,
    ) -> None:
        self._peer = peer
        self._app = app
        self._settings = settings
        self._tasks = tasks
        self._by_name: dict[str, SubscriptionLife] = {}
        # Those that the client's end has ended, until all is handled.
        self._late: dict[str, SubscriptionLife] | None = None
        self._setbacks: Setbacks | None = None  # those of few clients
        self._data_bytes = 0  # of what it has sent with the subscribes that these come from
        self.running = 0

    def __len__(self) -> int:
        return len(self._by_name)

    def get(self, name: str) -> SubscriptionLife | None:
        return self._by_name.get(name)

    def publishing(self, name: str) -> SubscriptionLife | None:
        """The subscription in which the client publishes. What it has published before its end is handled after that,
        perhaps."""
        return self._by_name.get(name) or (None if self._late is None else self._late.get(name))

    def lives(self) -> tuple[SubscriptionLife, ...]:
        return tuple(self._by_name.values())

    # Coming in

    def subscribe(self, command: int, request: SubscribeRequest) -> None:
        """The client wants to be in a room. It is answered at once, or later.

        Raises:
            Refused: it may not.
        """
        self._check_new(request.channel)
        if self._setbacks is not None and self._setbacks.is_too_soon(request.channel, trio.current_time()):
            raise Refused(codes.INTERNAL)
        check_position(request)
        rule = self._open_rule(request.channel, request.token)
        if request.data != NO_DATA:
            request = msgspec.structs.replace(request, data=self._data_to_keep(request.data, rule))
        self._begin(request, rule, CommandAnswer(self._peer, command))

    def _data_to_keep(self, data: Raw, rule: RoomRule) -> Raw:
        """What a client has sent with a subscribe, for the handler: it is kept for as long as the subscription lasts.

        Raises:
            Refused: it has sent too much with all its subscriptions.
        """
        if rule.settings.opening is None or rule.settings.opening.handler is None:
            return NO_DATA
        if self._data_bytes + len(memoryview(data)) > self._peer.limits.max_inbox_bytes:
            raise Refused(codes.LIMIT_EXCEEDED)
        return data.copy()  # it may be a view of the whole message, which would be kept with it

    def subscribe_by_server(
        self,
        request: SubscribeRequest,
        outcome: ServerSide,
    ) -> SubscriptionLife:
        """The server wants the client to be in a room.

        Raises:
            Refused: it is there already, or in as many rooms as it may be.
        """
        self._check_new(request.channel)
        rule = self._app.host.rule(request.channel)
        return self._begin(request, rule, outcome, is_server_side=True, given=outcome.given)

    def _check_new(self, channel: str) -> None:
        check_channel(channel)
        if channel in self._by_name:
            raise Refused(codes.ALREADY_SUBSCRIBED)
        most = self._peer.limits.max_rooms
        if most is not None and len(self._by_name) >= most:
            raise Refused(codes.LIMIT_EXCEEDED)
        if most is not None and self.running >= most + len(self._by_name):
            raise Refused(codes.TOO_MANY_REQUESTS)  # it comes and goes faster than what it leaves can end

    def _open_rule(self, channel: str, token: str) -> RoomRule:
        """The rule of a room that clients may subscribe to. A room's name alone opens nothing."""
        rule = self._app.host.rule(channel)
        if rule is None:
            raise Refused(codes.UNKNOWN_CHANNEL)
        opening = rule.settings.opening
        if opening is None or not opening.subscribe or (opening.token and not token):
            raise Refused(codes.PERMISSION_DENIED)
        if self._settings.is_personal(channel):  # the server subscribes its user
            raise Refused(codes.PERMISSION_DENIED)
        return rule

    def _begin(self, request: SubscribeRequest, rule: RoomRule | None, answer: Answer, **how: Any) -> SubscriptionLife:
        name, peer, app = request.channel, self._peer, self._app
        life = SubscriptionLife(request, rule, peer, app, self._settings, answer, self, **how)
        self._by_name[name] = life
        self._data_bytes += len(memoryview(life.data))
        if life.waits:
            self.running += 1
            self._tasks.start(life.run, name=f"subscription to {name!r:.100}")
            return life
        try:
            life.accept_nowait()
        except Exception as error:  # perhaps the room's guard's
            reply = error_of(error)
            if reply is None:
                logger.error("the subscription of %r to %r failed", peer, name, exc_info=error)
            life.refuse(codes.INTERNAL if reply is None else reply)
        return life

    def task_ended(self) -> None:
        """The task of one of them has."""
        self.running -= 1
        self._tasks.task_ended()

    def forget(self, life: SubscriptionLife) -> None:
        """One of them has ended."""
        if self._by_name.get(life.name) is life:
            del self._by_name[life.name]
            self._data_bytes -= len(memoryview(life.data))
        if life.has_failed:
            self._setbacks = Setbacks() if self._setbacks is None else self._setbacks
            self._setbacks.failed(life.name, trio.current_time())

    # Going

    def unsubscribe(self, command: int, request: ChannelRequest) -> None:
        """The client does not want to be in the room any more."""
        life = self._by_name.get(request.channel)
        if life is not None:
            life.unsubscribe()
        self._peer.reply(Reply(id=command, unsubscribe=Empty()))

    def end(self, name: str, code: int, reason: str) -> bool:
        """See `Client.unsubscribe`."""
        codes.check_unsubscribe(code)
        life = self._by_name.get(name)
        return life is not None and life.end(code, reason)

    def dismissed(self, name: str, info: CloseInfo) -> Callable[[], object]:
        """The client was removed from a room."""
        life = self._by_name[name]
        return partial(self._tell_dismissed, life, life.dismissed(info))

    def _tell_dismissed(self, life: SubscriptionLife, tell: Callable[[], object]) -> None:
        if life.name in self._by_name and life.is_accepted:
            return  # the client has unsubscribed by itself meanwhile, and subscribed again: it would take it for that
        tell()

    def leave_all(self, *, discard: bool) -> None:
        """The connection has ended. Unless `discard`, what the client has published before is still handled, up to
        `no_more_published`."""
        if not discard:
            self._late = {life.name: life for life in self.lives() if life.is_accepted}
        for life in self.lives():
            if life.is_accepted:
                life.leave(discard=discard, may_return=True)
            else:
                life.refuse(NOT_WANTED)  # whoever waits for it is told

    def no_more_published(self) -> None:
        """All that the client has published has been handled: handlers receive what waits, and no more."""
        late, self._late = self._late, None
        for life in () if late is None else late.values():
            life.no_more_published()
