"""An application's life: its hub, its own lifespan, and the applications mounted in it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from starlette.applications import Starlette
from starlette.routing import Mount
from trio.abc import Clock

from tests.support.memory import serving
from verbtrio import App, NotRunning, WebSocket


async def test_what_needs_a_running_app_says_what_to_add() -> None:
    app = App()
    for use in (lambda: app.room("x"), lambda: app.users, lambda: app.connections, app.statistics):
        with pytest.raises(NotRunning, match=r"Starlette\(\.\.\., lifespan=chat\.lifespan\)"):
            use()


async def test_one_at_a_time() -> None:
    app = App()
    async with app.lifespan():
        with pytest.raises(RuntimeError, match="running already"):
            async with app.lifespan():
                pass
    async with app.lifespan():
        pass  # but again afterwards


async def test_the_applications_own_is_inside_the_hub() -> None:
    seen: list[int] = []

    @asynccontextmanager
    async def lifespan(app: App) -> AsyncIterator[dict[str, int]]:
        seen.append(len(app.connections))
        yield {"answer": 42}
        seen.append(len(app.connections))

    async with App(lifespan=lifespan).lifespan() as state:
        assert state["answer"] == 42
    assert seen == [0, 0]


async def test_mounted_apps_run_with_it() -> None:
    inner, deep = App(), App()
    inner.mount("/deep", deep)
    outer = App(routes=[Mount("/a", routes=[Mount("/inner", app=inner)])])
    async with outer.lifespan():
        assert (len(inner.connections), len(deep.connections)) == (0, 0)
    with pytest.raises(NotRunning):
        _ = deep.connections


async def test_mounted_in_starlette(autojump_clock: Clock) -> None:
    app = App()

    @app.ws("/ws")
    async def handler(ws: WebSocket) -> None:
        await ws.send(ws.url.path)

    outer = Starlette(routes=[Mount("/chat", app=app)])
    async with serving(app, outer) as service:
        client = await service.connect("/chat/ws")
        assert await client.get_message() == "/chat/ws"
        await client.aclose()
