"""Security headers on every response."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from trio.abc import Clock

from tests.support.memory import serving, shake_hands
from tests.test_app import http
from verbtrio import App
from verbtrio.security import DEFAULT_HEADERS, SecurityHeaders


async def page(request: Request) -> Response:
    return PlainTextResponse("hello")


def app_with(**options: Any) -> App:
    app = App(middleware=[Middleware(SecurityHeaders, **options)])
    app.get("/")(page)
    app.ws("/ws", open=lambda ws: None)
    return app


class TestHeaders:
    def test_are_all_that_is_asked_for(self) -> None:
        assert set(DEFAULT_HEADERS) >= {
            "content-security-policy",
            "x-frame-options",
            "x-content-type-options",
            "referrer-policy",
            "permissions-policy",
        }

    @pytest.mark.parametrize("path", ["/", "/nowhere"])
    async def test_are_on_every_response(self, path: str) -> None:
        async with http(app_with()) as client:
            headers = (await client.get(path)).headers
        assert {name: headers[name] for name in DEFAULT_HEADERS} == DEFAULT_HEADERS
        assert "strict-transport-security" not in headers

    async def test_are_on_a_denied_upgrade(self, autojump_clock: Clock) -> None:
        async with serving(app_with()) as service:
            stream = service.open_stream()
            answer = await shake_hands(stream, headers=b"Origin: https://evil.com\r\n")
            assert b" 403 " in answer
            assert b"\r\nx-content-type-options: nosniff\r\n" in answer.lower()
            await stream.aclose()
            stream = service.open_stream()
            answer = await shake_hands(stream)
            assert b" 101 " in answer
            assert b"nosniff" not in answer, "a WebSocket is no document"
            await stream.aclose()

    @pytest.mark.parametrize(("seconds", "expected"), [(31_536_000, "max-age=31536000"), (60, "max-age=60")])
    async def test_under_tls(self, seconds: int, expected: str) -> None:
        async with http(app_with(hsts_seconds=seconds)) as client:
            assert (await client.get("https://test/")).headers["strict-transport-security"] == expected
            assert "strict-transport-security" not in (await client.get("http://test/")).headers
        async with http(app_with(hsts_seconds=None)) as client:
            assert "strict-transport-security" not in (await client.get("https://test/")).headers

    async def test_of_ones_own(self) -> None:
        changes = {"X-Frame-Options": "SAMEORIGIN", "permissions-policy": None, "x-more": "1"}
        async with http(app_with(headers=changes)) as client:
            headers = (await client.get("/")).headers
        assert (headers["x-frame-options"], headers["x-more"]) == ("SAMEORIGIN", "1")
        assert "permissions-policy" not in headers
        assert headers["referrer-policy"] == DEFAULT_HEADERS["referrer-policy"]

    async def test_what_a_route_sets_stays(self) -> None:
        app = app_with()

        @app.get("/own")
        async def own(request: Request) -> Response:
            return StreamingResponse(iter(["a", "b"]), headers={"Content-Security-Policy": "default-src *"})

        async with http(app) as client:
            response = await client.get("/own")
        assert response.headers.get_list("content-security-policy") == ["default-src *"]
        assert (response.text, response.headers["x-frame-options"]) == ("ab", "DENY")
