"""What balancers and orchestrators are told, in each phase of a process's life."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from httpx import ASGITransport, AsyncClient
from starlette.responses import Response
from trio.abc import Clock

from tests.support.http import Exchange
from tests.support.memory import serving
from tests.support.switched_broker import SECRET, SwitchedBroker
from verbtrio import App


async def asked(app: App, path: str = "/health", method: str = "GET") -> tuple[int, Any]:
    """The status and the body of the answer."""
    async with AsyncClient(transport=ASGITransport(app), base_url="http://x") as client:
        answer = await client.request(method, path)
    assert "password" not in answer.text
    assert answer.headers["cache-control"] == "no-store"
    return answer.status_code, answer.json() if method == "GET" else answer.text


def app_with_health(**settings: Any) -> App:
    app = App(**settings)
    app.health()
    return app


async def test_a_whole_life(autojump_clock: Clock) -> None:
    broker = SwitchedBroker()
    app = app_with_health(broker=broker)
    ready = ("/health", "/health/ready")
    for path in ready:
        assert await asked(app, path) == (503, {"status": "starting"})
    assert await asked(app, "/health/live") == (200, {"status": "ok"})
    async with serving(app) as service:
        for path in (*ready, "/health/live"):
            assert await asked(app, path) == (200, {"status": "ok"})
        broker.is_away = True
        for path in ready:
            status, answer = await asked(app, path)
            assert (status, answer["status"]) == (200, "degraded"), "or all processes would be taken out at once"
            assert SECRET not in str(answer)
        assert await asked(app, "/health/live") == (200, {"status": "ok"})
        broker.come_back()
        assert await asked(app) == (200, {"status": "ok"})
        client = await Exchange(service.open_stream()).request("/health")
        await client.until(b"}")
        await service.shut_down()
        await trio.sleep(0.01)
        for path in ready:
            assert await asked(app, path) == (503, {"status": "draining"})
        assert await asked(app, "/health/live") == (200, {"status": "ok"}), "a process on its way out is not killed"
    assert await asked(app) == (503, {"status": "starting"})


async def test_without_a_broker_of_its_own() -> None:
    app = app_with_health()
    async with app.lifespan():
        assert await asked(app) == (200, {"status": "ok"})
        assert await asked(app, method="HEAD") == (200, "")


async def test_paths_and_middleware() -> None:
    app = App()

    async def for_some(request: Any, call_next: Any) -> Response:
        return Response(status_code=403, headers={"cache-control": "no-store"}, content=b"{}")

    app.health("/internal/", middleware=[for_some])
    async with app.lifespan():
        for path in ("/internal/", "/internal/ready", "/internal/live"):
            assert await asked(app, path) == (403, {})


def test_once() -> None:
    app = app_with_health()
    with pytest.raises(ValueError, match="/health"):
        app.health()
