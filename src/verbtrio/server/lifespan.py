"""An application's lifespan: opens its hub, the Apps mounted in it and its own `lifespan=`, and closes them in
reverse."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager, AsyncExitStack, asynccontextmanager
from contextvars import copy_context
from typing import Any, Protocol

from verbtrio.base.errors import NotRunning
from verbtrio.base.limits import Limits
from verbtrio.base.types import EncodeHook
from verbtrio.brokers.base import Broker
from verbtrio.contract.check import NURSERY, TAKE_OVER, TLS, UNWIND, is_available
from verbtrio.hub.hub import Hub, open_hub
from verbtrio.messages.frame import encoder
from verbtrio.rooms.rules import RoomTable
from verbtrio.server import not_trio
from verbtrio.server.debug.debugging import debugging
from verbtrio.server.tasks.family import RunningApp, running_tasks
from verbtrio.server.tasks.supervised import Task

logger = logging.getLogger("verbtrio.rooms")


class Application(Protocol):
    """What an `App` says of itself. It is read when the app starts."""

    debug: bool
    limits: Limits
    encode_hook: EncodeHook | None
    broker: Broker | None


class AppLifespan:
    """The lifespan of one application. It has one at a time.

    Args:
        app: the application.
        lifespan: its own, if it has one: called with the application.
        tasks: what it runs beside its connections.
        room_table: what its rooms have, by the patterns of their names. They are logged at the start.
        mounted: returns the lifespans of the Apps mounted directly in it.
        take_over: a context manager within which connections are taken over; it yields what it adds to the lifespan's
            state. `None` leaves connections to the server.
        drain_timeout: seconds the WebSockets have to end when the server shuts down.

    Attributes:
        hub: the hub; `None` while the application is not running.
        state: what a mounted application's own lifespan has yielded; the server knows only the outermost one's.
    """

    hub: Hub | None = None

    def __init__(
        self,
        app: Application,
        *,
        lifespan: Callable[[Any], AbstractAsyncContextManager[Any]] | None,
        tasks: Sequence[Task],
        room_table: RoomTable,
        mounted: Callable[[], Iterable[AppLifespan]],
        take_over: Callable[[Hub], AbstractContextManager[dict[str, Any]]] | None,
        drain_timeout: float,
    ) -> None:
        self.drain_timeout = drain_timeout
        self.state: dict[str, Any] = {}
        self._app = app
        self._lifespan = lifespan
        self._tasks = tasks
        self._room_table = room_table
        self._mounted = mounted
        self._take_over = take_over

    @asynccontextmanager
    async def run(self) -> AsyncIterator[dict[str, Any]]:
        """The application running, with those mounted in it. Gives the lifespan's state.

        Raises:
            NotRunning: this is an asyncio event loop.
            RuntimeError: the application is running already.
        """
        await not_trio.check_start()
        family: list[RunningApp] = []
        async with AsyncExitStack() as stack:
            state = await self._open(stack, family)
            is_available(NURSERY)
            if any(app.tasks for app in family):
                await stack.enter_async_context(running_tasks(family))
            if self._take_over is not None and is_available(TAKE_OVER):
                for part in (TLS, UNWIND):
                    is_available(part)
                state |= stack.enter_context(self._take_over(family[0].hub))
            if self._app.broker is None or not self._app.broker.spans_processes:
                from verbtrio.server import workers  # here: it imports hypercorn, which takes 80 ms; tools don't serve

                workers.warn_if_several()
            if self._app.debug:
                stack.enter_context(debugging())
            yield state

    async def _open(self, stack: AsyncExitStack, family: list[RunningApp]) -> dict[str, Any]:
        """Open the hub, the mounted applications and the application's own lifespan, until `stack` is left."""
        self.check_not_running()
        opening = open_hub(
            drain_timeout=self.drain_timeout,
            limits=self._app.limits,
            room_table=self._room_table,
            encode=encoder(self._app.encode_hook),
            broker=self._app.broker,
        )
        self.hub = await stack.enter_async_context(opening)
        stack.callback(setattr, self, "hub", None)
        stack.callback(setattr, self, "state", {})
        if patterns := self._room_table.describe():
            logger.info("%s", patterns)
        family.append(RunningApp(self._app, self._tasks, self.hub, self.drain_timeout))
        for life in self._mounted():
            life.state = await life._open(stack, family)
            if life._app.debug:  # last, as in `run`
                stack.enter_context(debugging())
        if self._lifespan is None:
            return {}
        state = dict(await stack.enter_async_context(self._lifespan(self._app)) or {})
        self.hub.room_tasks.context = self.hub.gaps.context = copy_context()  # with what the lifespan has set
        return state

    def check_not_running(self) -> None:
        """Raise `RuntimeError` if the application is running."""
        if self.hub is not None:
            raise RuntimeError(
                "this App is running already, and has one lifespan at a time: serve it once, or make a second App"
            )

    def running_hub(self) -> Hub:
        """The hub.

        Raises:
            NotRunning: the application is not running; or the caller runs on asyncio. The message says what to do.
        """
        if self.hub is None:
            not_trio.check()
            raise NotRunning(
                "this App is not being served (its lifespan is not running): it has no rooms, users or connections. "
                "If it is mounted in another application, enter its lifespan there: "
                "Starlette(..., lifespan=chat.lifespan), or `async with chat.lifespan():` in the "
                "lifespan you have (chat being the mounted App). In a test: "
                '`with TestClient(app, backend="trio") as client:`, or `async with app.lifespan():`'
            )
        return self.hub

    def hub_here(self) -> Hub:
        """The hub, in the thread that it belongs to.

        Raises:
            NotRunning: see `running_hub`.
            RuntimeError: this is another thread.
        """
        hub = self.running_hub()
        hub.check()
        return hub
