"""Pages of other sites change nothing."""

from __future__ import annotations

import pytest
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from tests.test_app import http
from verbtrio import App
from verbtrio.security import CSRFProtection

SAME, CROSS = "http://test", "https://evil.com"
COOKIE = {"Cookie": "session=x"}


async def page(request: Request) -> Response:
    return PlainTextResponse("hello")


@pytest.mark.parametrize(
    ("method", "headers", "status"),
    [
        ("POST", {"Sec-Fetch-Site": "same-origin", "Origin": SAME}, 200),
        ("POST", {"Sec-Fetch-Site": "none"}, 200),
        ("POST", {"Sec-Fetch-Site": "cross-site", "Origin": CROSS}, 403),
        ("POST", {"Sec-Fetch-Site": "same-site", "Origin": "http://other.test"}, 403),
        ("POST", {"Sec-Fetch-Site": "cross-site", "Origin": "null"}, 403),
        ("POST", {"Sec-Fetch-Site": "cross-site"}, 403),
        ("POST", {"Sec-Fetch-Site": "same-site"}, 403),
        ("POST", {"Sec-Fetch-Site": "cross-site", "Origin": "https://friend.com"}, 200),
        ("POST", {"Sec-Fetch-Site": "what"}, 403),
        ("POST", {"Origin": SAME}, 200),  # a browser of before 2023
        ("POST", {"Origin": CROSS}, 403),
        ("POST", {"Origin": "null"}, 403),
        ("POST", {"Origin": "http://test.evil.com"}, 403),
        ("POST", {"Origin": "https://friend.com"}, 200),
        ("POST", {}, 200),  # no browser, and nothing to ride on
        ("POST", COOKIE, 403),
        ("POST", COOKIE | {"Origin": SAME}, 200),
        ("POST", COOKIE | {"Referer": "http://test/"}, 403),
        ("PUT", {"Origin": CROSS}, 403),
        ("PATCH", {"Origin": CROSS}, 403),
        ("DELETE", {"Origin": CROSS}, 403),
        ("GET", COOKIE | {"Sec-Fetch-Site": "cross-site", "Origin": CROSS}, 200),
        ("OPTIONS", {"Origin": CROSS}, 405),
    ],
)
async def test_cross_site(method: str, headers: dict[str, str], status: int, caplog: pytest.LogCaptureFixture) -> None:
    app = App(middleware=[Middleware(CSRFProtection, allowed_origins=["https://friend.com"])])
    for add in (app.get, app.post, app.put, app.patch, app.delete):
        add("/")(page)
    async with http(app) as client:
        assert (await client.request(method, "/", headers=headers)).status_code == status
    assert ("is refused" in caplog.text) is (status == 403)


async def test_cross_site_by_two_headers() -> None:
    """A second value, whoever has added it, is no proof."""
    app = App(middleware=[Middleware(CSRFProtection)])
    app.post("/")(page)
    async with http(app) as client:
        headers = [("Sec-Fetch-Site", "cross-site"), ("Sec-Fetch-Site", "same-origin"), ("Origin", CROSS)]
        assert (await client.post("/", headers=headers)).status_code == 403
