"""Origins: which pages may connect, every trick to look like them, and what the log says about a refusal."""

from __future__ import annotations

import ast
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.middleware import Middleware
from starlette.requests import HTTPConnection
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send
from trio.abc import Clock

from tests.support.memory import Service, serving, shake_hands
from verbtrio import App, WebSocket
from verbtrio.guards.origin import MAX_ORIGIN_CHARACTERS, Origin, Origins, parse_origin, server_origin
from verbtrio.guards.refusals import MAX_SHOWN, MAX_WARNINGS

OWN = server_origin("wss", "example.com")

# The page's origin, the scheme and Host of the upgrade request, and whether it is the same origin (RFC 6454 section 5).
TABLE: list[tuple[str, str, str, bool]] = [
    ("https://example.com", "wss", "example.com", True),
    ("http://example.com", "ws", "example.com", True),
    ("https://example.com:443", "wss", "example.com", True),  # the default port, said or not
    ("https://example.com", "wss", "example.com:443", True),
    ("http://localhost:3000", "ws", "localhost:3000", True),
    ("HTTPS://EXAMPLE.com", "wss", "Example.COM", True),  # case
    ("http://[::1]:3000", "ws", "[0:0:0:0:0:0:0:1]:3000", True),  # IPv6 in another spelling
    ("http://example.com", "wss", "example.com", False),  # a page that came unencrypted, and so from anybody
    ("https://example.com", "ws", "example.com", False),
    ("https://example.com:8443", "wss", "example.com", False),
    ("https://example.com:80", "wss", "example.com:443", False),
    ("https://example.com.evil.com", "wss", "example.com", False),  # a suffix
    ("https://evilexample.com", "wss", "example.com", False),  # a prefix
    ("https://www.example.com", "wss", "example.com", False),
    ("https://example.com@evil.com", "wss", "example.com", False),  # a user's name
    ("https://example.com.", "wss", "example.com", False),
    ("http://[::2]", "ws", "[::1]", False),
    ("http://127.0.0.1", "ws", "localhost", False),
    ("null", "wss", "example.com", False),
    ("", "wss", "example.com", False),
    ("https://example.com, https://evil.com", "wss", "example.com", False),
    ("https://example.com/", "wss", "example.com", False),  # no browser writes one
    ("https://example.com\x00.evil.com", "wss", "example.com", False),
    ("https://ex\xe4mple.com", "wss", "ex\xe4mple.com", False),  # browsers write punycode
    ("https://example.com:99999", "wss", "example.com:99999", False),
    ("file://", "wss", "example.com", False),
]


@pytest.mark.parametrize(("origin", "scheme", "host", "same"), TABLE)
def test_same_origin(origin: str, scheme: str, host: str, same: bool) -> None:
    own = server_origin(scheme, host)
    assert (Origins().refusal([origin], own, session=False) is None) is same


OWN_NAMES = [
    "file://",
    "app://",
    "app://.",
    "capacitor-electron://-",
    "capacitor://localhost",
    "ionic://localhost",
    "tauri://localhost",
    "vscode-webview://1abc",
    "chrome-extension://aapbdbdomjkkjkaonfhkkikfgjllcleb",
    "moz-extension://b5f4a2c9-8e8a-4c0f-9f4e-0d8f2b1f1d11",
    "safari-web-extension://B5F4A2C9-8E8A-4C0F-9F4E-0D8F2B1F1D11",
]
"""What programs that are a browser inside name as their pages' origin."""


@pytest.mark.parametrize(
    ("allowed", "origin", "passes"),
    [
        ("https://app.example.org", "https://app.example.org", True),
        ("https://APP.example.org:443", "https://app.example.org", True),
        ("https://app.example.org", "http://app.example.org", False),
        ("https://app.example.org", "https://app.example.org:444", False),
        ("https://app.example.org", "https://app.example.org.evil.com", False),
        ("https://*.example.org", "https://a.b.example.org", True),
        ("https://*.example.org", "https://example.org", False),
        ("https://*.example.org", "https://evilexample.org", False),
        ("https://*.example.org", "http://a.example.org", False),
        ("https://*.example.org:444", "https://a.example.org", False),
        ("https://*.example.org", "https://a.example.org.evil.com", False),
        ("chrome-extension://abcdef", "chrome-extension://abcdef", True),
        *((own, own, True) for own in OWN_NAMES),
        *((own, own.upper(), True) for own in OWN_NAMES),
        *((own, "app://evil", False) for own in OWN_NAMES),
        ("file://", "file:///", False),
        ("file://", "file://host", False),
        ("file://", "app://", False),
        ("app://*.example", "app://a.example", True),
        ("null", "null", True),
        ("null", "file://", False),
        ("file://", "null", False),
        ("null", "https://evil.com", False),
        ("*", "https://evil.com", True),
        ("*", "null", True),
        ("*", "what is this", True),
    ],
)
def test_allowed(allowed: str, origin: str, passes: bool) -> None:
    origins = Origins([allowed])
    assert (origins.refusal([origin], OWN, session=True) is None) is passes
    assert origins.refusal(["https://example.com"], OWN, session=True) is None, "its own are always let in"


@pytest.mark.parametrize(
    "allowed",
    [
        "example.org",
        "https://example.org/",
        "https://*example.org",
        "",
        *(scheme + "://" for scheme in ("http", "https", "HTTPS", "ws", "wss")),
        "file://:80",
        "file:///",
        "file://*",
        "file://*.",
        "app:",
        "file:// ",
    ],
)
def test_what_is_no_origin_shows_at_once(allowed: str) -> None:
    with pytest.raises(ValueError, match="is not an origin"):
        Origins([allowed])
    with pytest.raises(ValueError, match="is a sequence"):
        Origins(allowed)


def test_two_headers_are_one_too_many() -> None:
    assert Origins().refusal(["https://example.com", "https://example.com"], OWN, session=False) is not None


@pytest.mark.parametrize(
    ("require", "session", "passes"),
    [(None, False, True), (None, True, False), (True, False, False), (False, True, True)],
)
def test_without_an_origin(require: bool | None, session: bool, passes: bool) -> None:
    reason = Origins(require=require).refusal([], OWN, session=session)
    assert (reason is None) is passes
    assert reason is None or "require_origin=False" in reason


def test_what_is_replaced_and_what_stays() -> None:
    origins = Origins(["https://a.com"], require=True)
    assert repr(origins.replace(None, None)) == "Origins(['https://a.com'], require=True)"
    assert repr(origins.replace([], False)) == "Origins([], require=False)"


class TestHint:
    """A refusal says what to add: most developers who see one are testing a page of their own."""

    def test_an_origin(self) -> None:
        reason = Origins().refusal(["https://app.example.org"], OWN, session=False)
        assert reason is not None
        assert "'https://app.example.org' is not 'https://example.com'" in reason
        assert "add allowed_origins=['https://app.example.org']" in reason
        assert "Host header" in reason
        assert "trusted_proxies" in reason

    @pytest.mark.parametrize("origin", ["null", *OWN_NAMES, "https://a" + "b" * 250 + ".example"])
    def test_what_it_says_to_add_lets_exactly_that_in(self, origin: str) -> None:
        reason = str(Origins().refusal([origin], OWN, session=True))
        (quoted,) = re.findall(r"allowed_origins=\[(['\"].*?['\"])\]", reason)
        allowed = ast.literal_eval(quoted)
        assert Origins([allowed]).refusal([origin], OWN, session=True) is None
        assert allowed == origin.lower()
        assert ("reverse proxy" in reason) is origin.startswith("https:"), "no proxy serves pages of the others"

    def test_null(self) -> None:
        assert 'allowed_origins=["null"]' in str(Origins().refusal(["null"], OWN, session=False))

    @pytest.mark.parametrize("own", [OWN, None])
    def test_is_one_short_line(self, own: Origin | None) -> None:
        for value in ("https://" + "a" * 60_000, "\r\nforged line" + "b" * 60_000, "\x1b[31m"):
            reason = str(Origins().refusal([value], own, session=False))
            assert len(reason) < 5 * MAX_SHOWN + MAX_ORIGIN_CHARACTERS
            assert reason.isprintable()


@settings(deadline=None, max_examples=200, derandomize=True)
@given(text=st.text() | st.text(alphabet="htps:/.*[]@ex1\x00,").map("https://".__add__))
def test_whatever_it_says(text: str) -> None:
    """Nothing fails; and what can be read is read the same again when it is written."""
    origin = parse_origin(text)
    assert Origins().refusal([text], OWN, session=False) is not None
    if origin is not None:
        assert parse_origin(str(origin)) == origin


async def status(service: Service, path: str = "/ws", headers: bytes = b"") -> bytes:
    """The status line of the answer to an upgrade of a page's."""
    stream = service.open_stream()
    head = await shake_hands(stream, path, headers)
    await stream.aclose()
    return head.split(b" ")[1]


class TestRoutes:
    async def test_same_origin_by_default(self, autojump_clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
        app = App()
        app.ws("/ws", open=lambda ws: None)
        async with serving(app) as service:
            assert await status(service) == b"101", "other programs than browsers send none"
            assert await status(service, headers=b"Origin: http://x\r\n") == b"101"
            assert caplog.records == []
            assert await status(service, headers=b"Origin: https://evil.com\r\n") == b"403"
        (record,) = caplog.records
        assert (record.name, record.levelname) == ("verbtrio.endpoint", "WARNING")
        assert "the upgrade of '/ws' is refused" in caplog.text
        assert "allowed_origins=['https://evil.com']" in caplog.text

    async def test_others_cant_fill_the_log(self, autojump_clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
        """Each refusal is warned of once, and only so many different ones are: repeating a request adds no line."""
        app = App()
        app.ws("/ws/:room", open=lambda ws: None)
        async with serving(app) as service:
            for number in range(3 * MAX_WARNINGS):
                headers = f"Origin: https://evil{number // 2}.com\r\n".encode()
                assert await status(service, "/ws/" + "a" * 5000, headers) == b"403"
        records = [record for record in caplog.records if record.levelname == "WARNING"]
        assert len(records) == MAX_WARNINGS
        assert max(map(len, caplog.text.splitlines())) < 1000

    async def test_the_apps_the_groups_the_routes(self, autojump_clock: Clock) -> None:
        app = App(allowed_origins=["https://app.com"])
        group = app.group("/group", allowed_origins=["https://group.com"])
        app.ws("/ws", open=lambda ws: None)
        group.ws("/ws", open=lambda ws: None)
        group.ws("/own", open=lambda ws: None, allowed_origins=["*"], require_origin=True)
        async with serving(app) as service:
            for path, allowed in (("/ws", {"app"}), ("/group/ws", {"group"}), ("/group/own", {"app", "group"})):
                for name in ("app", "group"):
                    expected = b"101" if name in allowed else b"403"
                    assert await status(service, path, f"Origin: https://{name}.com\r\n".encode()) == expected
            assert await status(service, "/group/own") == b"403"

    async def test_a_session_wants_an_origin(self, autojump_clock: Clock) -> None:
        """A request that a cookie lets in must come from a page of ours."""

        class Sessions:
            def __init__(self, app: ASGIApp) -> None:
                self.app = app

            async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
                scope["session"] = {"user": "ada"}
                await self.app(scope, receive, send)

        app = App(middleware=[Middleware(Sessions)])
        app.ws("/ws", open=lambda ws: None)
        app.ws("/tokens", open=lambda ws: None, require_origin=False)
        async with serving(app) as service:
            assert await status(service) == b"403"
            assert await status(service, headers=b"Origin: http://x\r\n") == b"101"
            assert await status(service, "/tokens") == b"101"

    async def test_nothing_of_the_handlers_has_run(self, autojump_clock: Clock) -> None:
        ran: list[str] = []

        async def middleware(request: HTTPConnection, call_next: Any) -> Response:
            ran.append("middleware")
            response: Response = await call_next(request)
            return response

        app = App(middleware=[middleware])

        @app.ws("/ws")
        class Chat:
            def __init__(self) -> None:
                ran.append("handler")

            def open(self, ws: WebSocket) -> None: ...

        async with serving(app) as service:
            assert await status(service, headers=b"Origin: https://evil.com\r\n") == b"403"
        assert ran == ["middleware"]
