"""An application's life: its hub, its own lifespan, and the applications mounted in it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Mount
from trio.abc import Clock

from tests.support.http import Exchange
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


async def test_what_a_mounted_apps_lifespan_yields_is_in_its_state(autojump_clock: Clock) -> None:
    """Beside what the outer one yields, and for its own requests alone."""

    def yielding(**state: str) -> Any:
        @asynccontextmanager
        async def lifespan(app: App) -> AsyncIterator[dict[str, str]]:
            yield state

        return lifespan

    async def page(request: Request) -> JSONResponse:
        return JSONResponse([request.state.database, request.state.cache])

    async def handler(ws: WebSocket) -> None:
        await ws.send([ws.state.database, ws.state.cache])

    outer = App(lifespan=yielding(database="outer", cache="outer"))
    inner = App(lifespan=yielding(database="inner"))
    for app in (inner, outer):
        app.get("/page")(page)
        app.ws("/ws")(handler)
    outer.mount("/inner", inner)
    async with serving(outer) as service:
        for prefix, database in [("", "outer"), ("/inner", "inner"), ("", "outer")]:
            expected = [database, "outer"]
            answer = await Exchange(service.open_stream()).request(f"{prefix}/page")
            assert json.loads(await answer.rest()) == expected
            client = await service.connect(f"{prefix}/ws")
            assert json.loads(await client.get_message()) == expected
            await client.aclose()


async def test_and_no_longer_when_that_has_ended(autojump_clock: Clock) -> None:
    """An App may be mounted at first, and served by itself later."""
    databases = iter(["first", "second"])

    @asynccontextmanager
    async def lifespan(app: App) -> AsyncIterator[dict[str, str]]:
        yield {"database": next(databases)}

    app, outer = App(lifespan=lifespan), App()
    app.get("/page")(lambda request: JSONResponse(request.state.database))
    outer.mount("/inner", app)
    for asgi, path, database in [(outer, "/inner/page", "first"), (app, "/page", "second")]:
        async with serving(asgi) as service:
            answer = await Exchange(service.open_stream()).request(path)
            assert json.loads(await answer.rest()) == database


async def test_a_mounted_apps_endpoint_and_outer_middleware_share_the_state(autojump_clock: Clock) -> None:
    told: list[str] = []

    async def around(request: Request, call_next: Any) -> Any:
        request.state.before = "set by the middleware"
        response = await call_next(request)
        told.append(request.state.after)
        return response

    def page(request: Request) -> JSONResponse:
        request.state.after = "set by the endpoint"
        return JSONResponse([request.state.before, request.state.database])

    @asynccontextmanager
    async def lifespan(app: App) -> AsyncIterator[dict[str, str]]:
        yield {"database": "inner"}

    inner, outer = App(lifespan=lifespan), App(middleware=[around])
    inner.get("/page")(page)
    outer.mount("/inner", inner)
    async with serving(outer) as service:
        answer = await Exchange(service.open_stream()).request("/inner/page")
        assert json.loads(await answer.rest()) == ["set by the middleware", "inner"]
    assert told == ["set by the endpoint"]


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
