"""Which pages may send requests, and what their browsers are told."""

from __future__ import annotations

from typing import Any

import pytest

from verbtrio.guards.cross_origin import CrossOrigin
from verbtrio.guards.origin import Origins


def scope_of(*headers: tuple[str, str], scheme: str = "http", host: str | None = "here", **more: Any) -> dict[str, Any]:
    raw = [(name.encode(), value.encode()) for name, value in headers]
    if host is not None:
        raw.append((b"host", host.encode()))
    return {"type": "http", "scheme": scheme, "headers": raw, **more}


def origin(value: str) -> tuple[str, str]:
    return ("origin", value)


def site(value: str) -> tuple[str, str]:
    return ("sec-fetch-site", value)


DEFAULT = CrossOrigin(Origins())
NAMED = CrossOrigin(Origins(["https://app.example", "null"]))
OPEN = CrossOrigin(Origins(["*"]))
STRICT = CrossOrigin(Origins(require=True))


class TestWhoMaySend:
    @pytest.mark.parametrize(
        ("headers", "allowed"),
        [
            ([], True),  # no browser
            ([origin("http://here")], True),
            ([origin("http://HERE:80")], True),
            ([origin("https://here")], False),
            ([origin("http://here:8080")], False),
            ([origin("http://evil.example")], False),
            ([origin("http://here.evil.example")], False),
            ([origin("null")], False),
            ([origin("")], False),
            ([origin("http://here"), origin("http://evil.example")], False),
            ([site("same-origin")], True),
            ([site("none")], True),  # typed into the address bar
            ([site("cross-site")], False),  # an image of another page's
            ([site("same-site")], False),
            ([site("same-origin"), site("cross-site")], False),
            ([site("anything")], False),
            ([site("same-origin"), origin("http://evil.example")], False),
        ],
    )
    def test_by_default(self, headers: list[tuple[str, str]], allowed: bool) -> None:
        assert (DEFAULT.refusal(scope_of(*headers)) is None) is allowed

    @pytest.mark.parametrize("hosts", [[], ["here", "here"]])
    def test_without_one_host_there_is_no_own_origin(self, hosts: list[str]) -> None:
        headers = [("host", host) for host in hosts]
        assert DEFAULT.refusal(scope_of(*headers, origin("http://here"), host=None)) is not None

    def test_pages_that_are_named(self) -> None:
        assert NAMED.refusal(scope_of(origin("https://app.example"))) is None
        assert NAMED.refusal(scope_of(origin("null"))) is None
        assert NAMED.refusal(scope_of(origin("https://app.example.evil"))) is not None
        assert NAMED.refusal(scope_of(site("cross-site"))) is not None, "it may be any page's"

    def test_all_pages(self) -> None:
        assert OPEN.refusal(scope_of(origin("https://any.example"))) is None
        assert OPEN.refusal(scope_of(site("cross-site"))) is None

    def test_what_requires_an_origin(self) -> None:
        """A browser says of a GET of the page's own that it is one, and leaves `Origin` out."""
        assert STRICT.refusal(scope_of()) is not None
        assert STRICT.refusal(scope_of(site("same-origin"))) is None
        assert STRICT.refusal(scope_of(origin("http://here"))) is None

    def test_a_session_requires_one(self) -> None:
        assert DEFAULT.refusal(scope_of(session={})) is not None
        assert DEFAULT.refusal(scope_of(site("same-origin"), session={})) is None
        assert DEFAULT.refusal(scope_of(origin("http://here"), session={})) is None
        assert CrossOrigin(Origins(require=False)).refusal(scope_of(session={})) is None

    def test_endpoints_that_share_a_path(self) -> None:
        both = CrossOrigin(Origins(["https://a.example"]), Origins(["https://b.example"]))
        assert both.refusal(scope_of(origin("https://a.example"))) is None
        assert both.refusal(scope_of(origin("https://b.example"))) is None
        assert "'https://c.example'" in (both.refusal(scope_of(origin("https://c.example"))) or "")

    def test_a_reason_is_short(self) -> None:
        assert len(DEFAULT.refusal(scope_of(origin("https://" + "x" * 100_000))) or "") < 1000
        assert len(DEFAULT.refusal(scope_of(site("x" * 100_000))) or "") < 1000


class TestWhatBrowsersAreTold:
    def test_pages_that_are_named_may_use_cookies(self) -> None:
        assert NAMED.headers(scope_of(origin("https://app.example"))) == {
            "access-control-allow-origin": "https://app.example",
            "access-control-allow-credentials": "true",
            "vary": "Origin",
        }

    def test_all_pages_may_not(self) -> None:
        for open_ in (OPEN, CrossOrigin(Origins(["https://app.example"]), Origins(["*"]))):
            headers = open_.headers(scope_of(origin("https://app.example")))
            assert headers == {"access-control-allow-origin": "https://app.example", "vary": "Origin"}

    def test_who_is_no_page_of_another_origin(self) -> None:
        assert NAMED.headers(scope_of()) == {"vary": "Origin"}

    def test_a_preflight(self) -> None:
        asked = ("access-control-request-headers", "content-type, x-y")
        response = NAMED.preflight(scope_of(origin("https://app.example"), asked), "POST")
        assert response.status_code == 204
        assert response.headers["access-control-allow-origin"] == "https://app.example"
        assert response.headers["access-control-allow-methods"] == "POST"
        assert response.headers["access-control-allow-headers"] == "content-type, x-y"
        assert response.headers["access-control-max-age"] == "600"
        assert "access-control-allow-headers" not in NAMED.preflight(scope_of(), "GET").headers
