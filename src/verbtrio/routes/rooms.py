"""Declaring what rooms have, by the pattern of their names: `app.rooms` and `@app.room_task`.

app.rooms("chat:{room}", history=History(size=100, ttl=300), presence=True)

@app.room_task("game:{id:int}")
async def game(room: Room, id: int) -> None: ...
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from verbtrio.base.mistakes import explained
from verbtrio.base.restart import Restart
from verbtrio.base.types import DecodeHook
from verbtrio.brokers.records import History
from verbtrio.multiplex.subscription_handler import SubscriptionHandler
from verbtrio.rooms.gap_hook import GapHook
from verbtrio.rooms.patterns import RoomPattern
from verbtrio.rooms.room_task import RoomTask
from verbtrio.rooms.rules import RoomTable
from verbtrio.rooms.settings import Opening, Presence, RoomGuard, RoomSettings, as_presence

RoomHandler = TypeVar("RoomHandler", bound=Callable[..., Coroutine[Any, Any, None]])
RoomTaskFunction = TypeVar("RoomTaskFunction", bound=Callable[..., Coroutine[Any, Any, None]])


class RoomDeclarations:
    """Declares what an application's rooms have: part of an `App`.

    Args:
        is_running: whether the application has started, and not ended.
        decode: the application's hook, for what clients publish.
    """

    def __init__(self, is_running: Callable[[], bool], decode: DecodeHook | None = None) -> None:
        self._room_table = RoomTable()
        self._rooms_are_open = is_running
        self._decode_published = decode

    @explained()
    def rooms(
        self,
        pattern: str,
        *,
        history: History | None = None,
        presence: Presence | bool = False,
        join_leave: bool = False,
        guard: RoomGuard | None = None,
        task: Callable[..., Coroutine[Any, Any, None]] | None = None,
        max_members: int | None = None,
        on_gap: Callable[..., Any] | None = None,
        subscribe: bool = False,
        publish: bool = False,
        token: bool = False,
    ) -> Callable[[RoomHandler], RoomHandler]:
        """Give settings to the rooms with names that match `pattern`. (`app.room(name)` is one room.)

            app.rooms("chat:{room}", history=History(size=100, ttl=300), presence=True, guard=may_join)

        Where several patterns match a name, the most specific one counts, and it alone: compared from the left, a
        character is more specific than `{n:int}`, that than `{name}`, and that than `{name:path}`. So "chat:lobby"
        without settings is a plain room. The log says at the start which patterns there are, in this order. A name that
        no pattern matches is that of a plain room, without a guard: if clients choose the names, declare
        `"{name:path}"` with a guard, or check the name before the join.

        Args:
            pattern: a room's name, in which `{name}` stands for one or more characters except ":", `{name:int}` for a
                whole number of 18 digits at most and without leading zeros, and `{name:path}` for one or more of all
                characters. Braces are written twice: `{{`, `}}`. Between two parameters stands what the first one can't
                contain, such as a ":".
            history: what the room remembers of what is published in it; `None` for nothing.
            presence: whether the room knows which users are in it. `Presence(grace=10)` says for how many seconds a
                user may be away; `True` is `Presence()`, with 5.
            join_leave: whether members are told which users come and go. Needs `presence`.
            guard: a plain function `(member, ...)` that returns whether the member may join. It may ask, by name, for
                the pattern's parameters: `def may_join(member: Member, room: str) -> bool`. If it returns `False`, the
                join raises `Denied`; it may raise that itself, with a text for the peer. A join takes effect at once,
                so there is no awaiting: look up before the join what it has to know.
            task: a coroutine function: a task of each room's own. As `@app.room_task` with its defaults.
            max_members: how many members there may be in a room; `None` for no bound.
            on_gap: a plain function or a coroutine function `(room, ...)`, called where messages for a room with
                members in this process may have been lost on the way here: after the broker was away, mostly. It may
                ask, by name, for the pattern's parameters. Each process calls it for its own members:
                `room.broadcast({"type": "reload"}, here_only=True)` tells those. For a room it is called once at a
                time, for 16 rooms at the same time, and cancelled after `Limits.hook_timeout`, or when the drain
                begins. What it raises is logged.
            subscribe: whether clients of `app.centrifuge` may subscribe to the room, and ask who is in it, and what it
                remembers, subscribed or not. (Plain WebSockets join by your code alone.)
            publish: whether they may publish in it, subscribed or not; what they send is passed on as it is. Opens the
                room as `subscribe` does.
            token: whether they need a token of the subscription's own for it (`JWTAuth.subscription_token`). Opens the
                room as `subscribe` does, to those who have one; only subscribers may ask.

        As a decorator it opens the room, too, and adds a handler, which runs for each subscription of a client of
        `app.centrifuge`, and decides what may be published. Only subscribers may ask:

            @app.rooms("chat:{room}", history=History())
            async def chat(sub: Subscription[Say], room: str) -> None:
                async for said in sub:
                    await sub.publish({"text": said.text})

        Raises:
            TypeError: `pattern` is not a pattern, or matches the same names as another one; a setting has the wrong
                type; or `guard`, `task` or `on_gap` asks for what the pattern doesn't have.
            ValueError: `max_members` is less than 1.
            RuntimeError: the application has started.
        """
        parsed = self._pattern(pattern)
        settings = RoomSettings(
            history=history,
            presence=as_presence(presence),
            join_leave=join_leave,
            guard=guard,
            tasks=() if task is None else (RoomTask(task, tuple(parsed.parameters)),),
            max_members=max_members,
            on_gap=None if on_gap is None else GapHook(on_gap, tuple(parsed.parameters)),
            opening=_opening(subscribe, publish, token),
        )
        self._room_table.add(parsed, settings)

        def decorate(function: RoomHandler) -> RoomHandler:
            self._check_not_open()
            if publish:
                raise TypeError(f"app.rooms({pattern!r}): a handler decides what may be published: leave publish= out")
            handler = SubscriptionHandler(function, parsed.parameters, self._decode_published)
            self._room_table.open(parsed, Opening(handler=handler, token=token))
            return function

        return decorate

    @explained()
    def room_task(
        self,
        pattern: str,
        *,
        linger: float = 30.0,
        restart: Restart | None = Restart(max=3, within=60),  # noqa: B008 -- frozen
        start_timeout: float = 10.0,
        singleton: bool = False,
        lease: float = 10.0,
    ) -> Callable[[RoomTaskFunction], RoomTaskFunction]:
        """Add a task to the rooms with names that match `pattern`: a decorator of a coroutine function.

            @app.room_task("game:{id:int}")
            async def game(room: Room, id: int, *, task_status: trio.TaskStatus[None]) -> None: ...

        Each room runs it for itself: from the first join, until the last member has been gone for `linger` seconds or
        the drain begins, when it is cancelled. It is called with the room, and with those of the pattern's parameters
        that it asks for by name. If it asks for `task_status`, joins wait until it has called `task_status.started()`.
        A pattern may have several tasks, and settings by `app.rooms`, before or after. As those settings do, the tasks
        of the most specific pattern count alone.

        A task that fails is logged, and started again. After its last failure the room is given up: its members leave
        it, with 1011.

        With several processes, each that has members runs the task for itself. With `singleton=True` one of them does:
        the one that has the room's lease in the broker. The others wait, and take over: at once when that one ends in
        order, or has had no members for `linger` seconds; within `lease` seconds when it dies. A process that loses its
        lease cancels the task before another can have it. What it has on its way to others then may come late: give
        them the `fence` that the task asks for by name, a number that grows with each lease.

        Args:
            pattern: as in `rooms`.
            linger: seconds for which it goes on when the last member has left.
            restart: how often it is started again when it fails; `None` for never.
            start_timeout: seconds within which it must have called `task_status.started()`, if it asks for that;
                otherwise this run of it has failed.
            singleton: whether it runs once in all processes that share the broker.
            lease: of a singleton: seconds within which another process takes over when the one that runs it dies. It is
                cancelled where the broker has been away for two thirds of that, or a little less.

        Raises:
            TypeError: `pattern` is not a pattern, or an equal one has parameters of other names; the function is not a
                coroutine function, or asks for anything else; or a setting has the wrong type.
            ValueError: a time is too short, or not finite.
            RuntimeError: the application has started.
        """
        parsed = self._pattern(pattern)

        def decorate(function: RoomTaskFunction) -> RoomTaskFunction:
            self._check_not_open()
            names = tuple(parsed.parameters)
            task = RoomTask(
                function,
                names,
                linger=linger,
                restart=restart,
                start_timeout=start_timeout,
                singleton=singleton,
                lease=lease,
            )
            self._room_table.add_task(parsed, task)
            return function

        return decorate

    def _pattern(self, text: str) -> RoomPattern:
        self._check_not_open()
        return RoomPattern(text)

    def _check_not_open(self) -> None:
        if self._rooms_are_open():
            raise RuntimeError(
                "app.rooms(pattern, ...) and @app.room_task(pattern) must be called before the app has started; one of "
                "its rooms is app.room(name)"
            )


def _opening(subscribe: bool, publish: bool, token: bool) -> Opening | None:
    """What clients may do; `None`: nothing.

    Raises:
        TypeError: one of these is not `True` or `False`.
    """
    Opening(subscribe=subscribe, publish=publish, token=token)  # checks all three
    return Opening(publish=publish, token=token) if subscribe or publish or token else None
