"""The examples about access: sessions by cookie, and an API with all guards on."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import httpx
import pytest
import trio
import trio_websocket
from selenium.webdriver.common.by import By
from selenium.webdriver.support.wait import WebDriverWait
from trio.abc import Clock

from examples import sessions
from tests.conftest import Servers
from tests.support.browser import POLL_SECONDS, WAIT_SECONDS, Browser
from tests.support.memory import serving, shake_hands
from tests.support.peers import Refused, connect
from tests.support.process import ROOT
from tests.test_app import http, rejected
from verbtrio.security import DEFAULT_HEADERS

ADA = {"username": "ada", "password": "password"}
EVIL = {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"}


class TestSessions:
    @pytest.fixture
    def url(self, servers: Servers) -> str:
        return servers.get("examples.sessions:app").url

    async def log_in(self, url: str, **account: str) -> dict[str, str]:
        """The cookie, as a header."""
        async with httpx.AsyncClient() as client:
            response = await client.post(f"{url}/login", json=ADA | account)
        assert response.status_code == 200
        set_cookie = response.headers["set-cookie"].lower()
        assert "httponly" in set_cookie
        assert "samesite=lax" in set_cookie
        return {"Cookie": response.headers["set-cookie"].partition(";")[0]}

    async def refused(self, url: str, *headers: tuple[bytes, bytes]) -> int:
        with pytest.RaisesGroup(Refused, flatten_subgroups=True, allow_unwrapped=True) as refusal:
            async with connect(url.replace("http", "ws") + "/ws", extra_headers=list(headers)):
                pass
        error: Any = refusal.value
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        status: int = error.status
        return status

    async def test_a_conversation(self, url: str) -> None:
        origin = (b"Origin", url.encode())
        cookies = [(await self.log_in(url, username=name))["Cookie"].encode() for name in ("ada", "bob")]
        address = url.replace("http", "ws") + "/ws"
        async with connect(address, extra_headers=[origin, (b"Cookie", cookies[0])]) as ada:
            assert await ada.receive() == {"type": "welcome", "message": "Welcome, ada!"}
            async with connect(address, extra_headers=[origin, (b"Cookie", cookies[1])]) as bob:
                assert await bob.receive() == {"type": "welcome", "message": "Welcome, bob!"}
                await bob.send({"text": "hello"})
                for peer in (ada, bob):
                    assert await peer.receive() == {"type": "message", "sender": "bob", "text": "hello"}
            async with httpx.AsyncClient() as client:
                headers = {"Cookie": cookies[0].decode(), "Origin": url}
                response = await client.post(f"{url}/logout", headers=headers)
            assert response.json() == {"closed": 1}
            assert await ada.closed() == (1008, "Logged out")

    async def test_who_does_not_get_in(self, url: str) -> None:
        cookie = (b"Cookie", (await self.log_in(url))["Cookie"].encode())
        assert await self.refused(url, (b"Origin", url.encode())) == 401, "no cookie"
        assert await self.refused(url, cookie) == 403, "no origin"
        assert await self.refused(url, cookie, (b"Origin", b"https://evil.example")) == 403
        assert await self.refused(url, cookie, (b"Origin", b"null")) == 403
        forged = (b"Cookie", cookie[1][:-4] + b"AAAA")
        assert await self.refused(url, forged, (b"Origin", url.encode())) == 401

    async def test_a_cookie_from_before_the_logout(self, url: str) -> None:
        """A logout ends every session of that user, and no other user's."""
        origin = (b"Origin", url.encode())
        adas, bobs = [await self.log_in(url) for _ in range(2)], await self.log_in(url, username="bob")
        async with httpx.AsyncClient(base_url=url, headers={"Origin": url}) as client:
            assert (await client.post("/logout", headers=adas[0])).status_code == 200
            for cookie in adas:
                assert (await client.post("/logout", headers=cookie)).status_code == 401
                assert await self.refused(url, origin, (b"Cookie", cookie["Cookie"].encode())) == 401
            again = await self.log_in(url)
            for cookie in adas:
                assert await self.refused(url, origin, (b"Cookie", cookie["Cookie"].encode())) == 401, "still"
            for cookie in (again, bobs):
                headers = [origin, (b"Cookie", cookie["Cookie"].encode())]
                async with connect(url.replace("http", "ws") + "/ws", extra_headers=headers) as peer:
                    assert (await peer.receive())["type"] == "welcome"

    async def test_a_cookie_from_before_another_login(self, url: str) -> None:
        """A browser has one session at a time. A sixth session of an account ends the oldest."""
        origin = (b"Origin", url.encode())
        first = await self.log_in(url)
        async with httpx.AsyncClient(base_url=url, headers=first | {"Origin": url}) as client:
            assert (await client.post("/login", json=ADA | {"username": "bob"})).status_code == 200
        assert await self.refused(url, origin, (b"Cookie", first["Cookie"].encode())) == 401
        several = [await self.log_in(url) for _ in range(6)]
        assert await self.refused(url, origin, (b"Cookie", several[0]["Cookie"].encode())) == 401
        headers = [origin, (b"Cookie", several[1]["Cookie"].encode())]
        async with connect(url.replace("http", "ws") + "/ws", extra_headers=headers) as peer:
            assert await peer.receive() == {"type": "welcome", "message": "Welcome, ada!"}

    async def test_a_session_ends(self, autojump_clock: Clock) -> None:
        """An hour after the login, for open connections and for new ones."""
        async with serving(sessions.app) as service:
            async with http(sessions.app) as client:
                response = await client.post("/login", json=ADA)
            cookie = response.headers["set-cookie"].partition(";")[0].encode()
            headers = [(b"Origin", b"http://test"), (b"Cookie", cookie)]
            peer: Any = await service.connect(headers=headers)
            assert "Welcome" in await peer.get_message()
            await trio.sleep(sessions.SECONDS - 1)
            assert sessions.app.statistics().connections == 1
            with pytest.raises(trio_websocket.ConnectionClosed):
                await peer.get_message()
            assert (peer.closed.code, peer.closed.reason) == (4401, "Session expired")
            headers = [(b"Origin", b"http://test"), (b"Cookie", cookie)]
            assert (await rejected(service, headers=headers)).status_code == 401

    async def test_nothing_is_written_across_sites(self, url: str) -> None:
        cookie = await self.log_in(url)
        async with httpx.AsyncClient() as client:
            assert (await client.post(f"{url}/logout", headers=cookie | EVIL)).status_code == 403
            assert (await client.post(f"{url}/login", json=ADA, headers=EVIL)).status_code == 403
            assert (await client.post(f"{url}/logout", headers=cookie)).status_code == 403
            assert (await client.post(f"{url}/logout")).status_code == 401

    @pytest.mark.parametrize(
        ("body", "status"),
        [
            (b"nonsense", 400),
            (b"[" * 5000, 400),
            (b"{}", 401),
            (b'{"username":"ada","password":"wrong"}', 401),
            (b'{"username":["ada"],"password":{}}', 401),
            (b'{"username":"eve","password":"password"}', 401),
            (b'{"username":"ada","password":"\xc3\xbc"}', 401),
        ],
    )
    async def test_who_does_not_log_in(self, url: str, body: bytes, status: int) -> None:
        async with httpx.AsyncClient() as client:
            response = await client.post(f"{url}/login", content=body)
        assert response.status_code == status
        assert "set-cookie" not in response.headers


def test_sessions_in_a_browser(browser: Browser, servers: Servers) -> None:
    """The page works under the example's own Content-Security-Policy."""
    driver = browser.driver
    driver.get(servers.get("examples.sessions:app").url)

    def wait_for(role: str, text: str) -> None:
        WebDriverWait(driver, WAIT_SECONDS, POLL_SECONDS).until(
            lambda d: text in d.find_element(By.CSS_SELECTOR, f"[data-role={role}]").text, f"{role}: {text}"
        )

    driver.find_element(By.CSS_SELECTOR, "[data-role=login] button").click()
    wait_for("status", "Connected")
    wait_for("messages", "Welcome, ada!")
    driver.find_element(By.NAME, "text").send_keys("hello")
    driver.find_element(By.CSS_SELECTOR, "[data-role=send]").click()
    wait_for("messages", "ada: hello")
    assert driver.execute_script("return document.cookie") == "", "no script can read it"
    driver.find_element(By.CSS_SELECTOR, "[data-role=logout]").click()
    wait_for("status", "Logged out")


class TestGuarded:
    SITE = "http://localhost:5173"

    @pytest.fixture
    def url(self, servers: Servers) -> str:
        return servers.get("examples.guarded:app").url

    async def token(self, url: str) -> str:
        async with httpx.AsyncClient() as client:
            response = await client.post(f"{url}/api/token", headers={"Origin": self.SITE})
        assert response.headers["access-control-allow-origin"] == self.SITE
        assert {name: response.headers[name] for name in DEFAULT_HEADERS} == DEFAULT_HEADERS
        token: str = response.json()["token"]
        return token

    @pytest.mark.parametrize("way", ["first message", "subprotocol", "query"])
    async def test_by_token(self, url: str, way: str) -> None:
        token, query = await self.token(url), ""
        options: dict[str, Any] = {}
        if way == "subprotocol":
            options = {"subprotocols": ["bearer", token]}
        elif way == "query":
            query = f"?token={token}"
        origin = [(b"Origin", self.SITE.encode())]
        async with connect(f"{url.replace('http', 'ws')}/api/ws{query}", extra_headers=origin, **options) as peer:
            if way == "first message":
                await peer.send({"type": "auth", "token": token})
                assert await peer.receive() == {"type": "authenticated"}
            assert await peer.receive() == {"type": "welcome", "user": "guest"}
            for number in range(75):  # within 1 s or so: 40 at once, the token among them, and 20 for the second
                await peer.send({"n": number})
            answers = [await peer.receive() for _ in range(40)]
            refusal = {"type": "error", "message": "Too many messages: at most 20 a second"}
            while refusal not in answers:  # it does not wait for the handler's answers to what came before
                answers.append(await peer.receive())
            echoes = [answer["data"]["n"] for answer in answers if answer["type"] == "echo"]
            assert echoes[:39] == list(range(39))

    async def test_by_another_name(self, url: str) -> None:
        """Somebody else's domain that points here: the origin of its pages matches the Host header."""
        evil = {"Host": "evil.example", "Origin": "http://evil.example"}
        async with httpx.AsyncClient() as client:
            assert (await client.post(f"{url}/api/token", headers=evil)).status_code == 400
        port = int(url.rpartition(":")[2])
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            answer = await shake_hands(stream, "/api/ws", b"Origin: http://x\r\n")  # whose Host is x
        assert b" 400 " in answer

    async def test_one_role_too_few(self, url: str) -> None:
        async with httpx.AsyncClient() as client:
            answers = []
            for headers in ({}, {"Authorization": f"Bearer {await self.token(url)}"}):
                answers.append((await client.get(f"{url}/api/connections", headers=headers)).status_code)
        assert answers == [401, 403]


@pytest.mark.parametrize("name", ["auth", "sessions", "guarded", "demo"])
@pytest.mark.parametrize("key", [None, "for the demo only: everybody can read this key", "short"])
def test_no_demo_key_in_production(name: str, key: str | None) -> None:
    environment = {k: v for k, v in os.environ.items() if k != "SECRET_KEY"} | {"ENVIRONMENT": "production"}
    if key is not None:
        environment["SECRET_KEY"] = key
    run = subprocess.run(
        [sys.executable, f"examples/{name}.py"], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=30
    )
    assert run.returncode == 1
    assert "SECRET_KEY" in run.stderr
    assert "token_urlsafe" in run.stderr
    assert "Traceback" not in run.stderr
