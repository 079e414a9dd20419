"""The example centrifuge: the protocol's messages, on a virtual clock; and what a person sees in a browser, where the
SDK is the one that npm has."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections import deque
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
import trio
import trio_websocket
from selenium.webdriver.common.by import By
from selenium.webdriver.support.select import Select
from trio.abc import Clock

from examples.centrifuge import NAMES, TOPICS, app, auth
from examples.page import CDN, CDN_INTEGRITY, SDK_FOLDER
from tests.support.browser import Browser, Panel
from tests.support.memory import Service, serving
from tests.support.node import require_node
from tests.support.process import Server, free_port, hypercorn

GENERAL = "chat:general"
GAP = "Some messages are missing here: you were away for too long"
ADA, BOB = ({"user": name, "conn_info": {"name": NAMES[name]}} for name in ("ada", "bob"))


WITHOUT_DELAY = """
    // As it is, but for the seconds that the page has it wait before it connects again.
    const SDK = Centrifuge;
    globalThis.Centrifuge = class extends SDK {
        constructor(transports, options) { super(transports, { ...options, minReconnectDelay: 100 }); }
    };
"""

SLOW_HISTORY = """
    // As it is, but that a request for a room's history goes out only when the test has called `release`.
    const held = new Promise((release) => Object.assign(globalThis, { release }));
    globalThis.Centrifuge = class extends Centrifuge {
        newSubscription(...options) {
            const subscription = super.newSubscription(...options);
            const history = subscription.history.bind(subscription);
            subscription.history = (...options) => held.then(() => history(...options));
            return subscription;
        }
    };
"""


class Talk:
    """A small client of the protocol."""

    def __init__(self, connection: trio_websocket.WebSocketConnection) -> None:
        self._connection = connection
        self._lines: deque[Any] = deque()
        self._pushes: deque[Any] = deque()
        self._last_id = 0
        self.id = ""
        self.close = connection.aclose

    async def ask(self, command: str, /, **request: Any) -> Any:
        """What the command results in, or its error."""
        self._last_id += 1
        await self.send({"id": self._last_id, command: request})
        while (reply := await self.next()).get("id") != self._last_id:
            self._pushes.append(reply["push"])
        return reply.get("error") or reply[command]

    async def push(self) -> Any:
        """What the server says by itself."""
        return self._pushes.popleft() if self._pushes else (await self.next())["push"]

    async def send(self, *commands: Any) -> None:
        """Send commands in one message."""
        await self._connection.send_message("\n".join(map(json.dumps, commands)))

    async def closed(self) -> tuple[int, str | None]:
        with pytest.raises(trio_websocket.ConnectionClosed) as caught:
            await self._connection.get_message()
        assert caught.value.reason is not None
        return caught.value.reason.code, caught.value.reason.reason

    async def next(self) -> Any:
        while not self._lines:
            self._lines += map(json.loads, (await self._connection.get_message()).splitlines())
        return self._lines.popleft()


async def open_line(service: Service) -> Talk:
    return Talk(await service.connect("/connection/websocket"))


async def connect(service: Service, name: str) -> Talk:
    talk = await open_line(service)
    answer = await talk.ask("connect", token=auth.connection_token(name, info={"name": NAMES[name]}))
    talk.id = answer["client"]
    assert answer["data"] == {"user": name, "name": NAMES[name], "rooms": list(TOPICS)}
    return talk


async def say(talk: Talk, *texts: str) -> None:
    for text in texts:
        assert await talk.ask("publish", channel=GENERAL, data={"text": text}) == {}


def check_said(publication: Any, text: str, sender: Talk, info: dict[str, Any], offset: int) -> None:
    said = publication["data"]
    assert datetime.now(UTC) - datetime.fromisoformat(said.pop("at")) < timedelta(minutes=1)
    assert publication == {"data": {"text": text}, "info": {**info, "client": sender.id}, "offset": offset}


async def test_a_room(autojump_clock: Clock) -> None:
    """Who is in it hears what is said, and who comes and goes. It remembers, and takes messages of its type alone."""
    async with serving(app) as service:
        ada, bob = await connect(service, "ada"), await connect(service, "bob")
        entered = await ada.ask("subscribe", channel=GENERAL, join_leave=True)
        assert entered["data"] == {"topic": TOPICS["general"]}
        assert entered["recoverable"] is True
        me = {**ADA, "client": ada.id}
        assert await ada.push() == {"channel": GENERAL, "join": {"info": me}}
        await bob.ask("subscribe", channel=GENERAL)
        him = {**BOB, "client": bob.id}
        assert await ada.push() == {"channel": GENERAL, "join": {"info": him}}
        assert await bob.ask("presence", channel=GENERAL) == {"presence": {ada.id: me, bob.id: him}}

        await say(bob, "hello")
        heard = [await talk.push() for talk in (ada, bob)]
        for push in heard:
            assert push["channel"] == GENERAL
            check_said(push["pub"], "hello", bob, BOB, 1)
        for data in ({"text": ""}, {"text": "x" * 2001}, {"text": 1}, {}, "hello"):
            assert (await bob.ask("publish", channel=GENERAL, data=data))["code"] == 107
        remembered = await ada.ask("history", channel=GENERAL, limit=-1)
        assert remembered.pop("epoch") == entered["epoch"]
        check_said(remembered["publications"][0], "hello", bob, BOB, 1)
        assert (len(remembered["publications"]), remembered["offset"]) == (1, 1)

        await bob.ask("unsubscribe", channel=GENERAL)
        assert await ada.push() == {"channel": GENERAL, "leave": {"info": him}}
        for talk in (ada, bob):
            await talk.close()


async def test_who_may_come_in(autojump_clock: Clock) -> None:
    async with serving(app) as service:
        bob = await connect(service, "bob")
        refused = {"code": 103, "message": "You may not enter this room"}
        for channel, error in {
            "chat:leads": refused,
            "chat:nowhere": refused,
            "nowhere": {"code": 102, "message": "unknown channel"},
        }.items():
            assert await bob.ask("subscribe", channel=channel) == error
        for method, request in {"publish": {"data": {"text": "psst"}}, "presence": {}, "history": {}}.items():
            assert (await bob.ask(method, channel=GENERAL, **request))["code"] == 103, "he is not in the room"
        ada = await connect(service, "ada")
        assert (await ada.ask("subscribe", channel="chat:leads"))["data"] == {"topic": TOPICS["leads"]}

        nobody, forger = await open_line(service), await open_line(service)
        assert await nobody.ask("connect") == {"code": 101, "message": "unauthorized"}
        await forger.send({"id": 1, "connect": {"token": "forged"}})
        assert await forger.closed() == (3500, "invalid token")
        for talk in (ada, bob, nobody):
            await talk.close()


async def test_a_call(autojump_clock: Clock) -> None:
    """The caller is answered, and the room is told the same."""
    async with serving(app) as service:
        ada = await connect(service, "ada")
        roll = {"room": "general", "sides": 100}
        assert await ada.ask("rpc", method="roll", data=roll) == {"code": 1001, "message": "You are not in this room"}
        await ada.ask("subscribe", channel=GENERAL)
        number = (await ada.ask("rpc", method="roll", data=roll))["data"]["number"]
        assert 1 <= number <= 100
        check_said((await ada.push())["pub"], f"rolled a {number}", ada, ADA, 1)
        for data in ({"room": "general", "sides": 1}, {"room": "general", "sides": 101}, {"sides": 6}):
            assert (await ada.ask("rpc", method="roll", data=data))["code"] == 107
        await ada.close()


async def test_a_call_comes_before_its_caller_is_let_in(autojump_clock: Clock) -> None:
    """Who is about to be refused can't say anything in the meantime."""
    async with serving(app) as service:
        ada, bob = await connect(service, "ada"), await connect(service, "bob")
        await ada.ask("subscribe", channel="chat:leads")
        await bob.send(
            {"id": 8, "subscribe": {"channel": "chat:leads"}},
            {"id": 9, "rpc": {"method": "roll", "data": {"room": "leads"}}},
        )
        assert {reply["id"]: reply["error"]["code"] for reply in (await bob.next(), await bob.next())} == {
            8: 103,
            9: 1001,
        }
        assert "publications" not in await ada.ask("history", channel="chat:leads", limit=-1)
        for talk in (ada, bob):
            await talk.close()


async def test_a_line_is_cut(autojump_clock: Clock) -> None:
    """What was said meanwhile comes with the reply, when the client comes back to where it was."""
    async with serving(app) as service:
        ada, bob = await connect(service, "ada"), await connect(service, "bob")
        await bob.ask("subscribe", channel=GENERAL)
        await ada.ask("subscribe", channel=GENERAL)
        await say(ada, "seen")
        seen = (await ada.push())["pub"]["offset"]
        await ada.send({"id": 9, "rpc": {"method": "cut"}})
        assert await ada.closed() == (4000, "you cut the line")
        await say(bob, "one", "two")
        epoch = (await bob.ask("history", channel=GENERAL))["epoch"]

        ada = await connect(service, "ada")
        back = await ada.ask("subscribe", channel=GENERAL, recover=True, epoch=epoch, offset=seen)
        assert back["recovered"] is True
        for offset, (publication, text) in enumerate(zip(back["publications"], ("one", "two"), strict=True), seen + 1):
            check_said(publication, text, bob, BOB, offset)
        await ada.close()
        await bob.close()


async def test_the_last_fifty_are_remembered_for_an_hour(autojump_clock: Clock) -> None:
    async with serving(app) as service:
        ada = await connect(service, "ada")
        epoch = (await ada.ask("subscribe", channel=GENERAL))["epoch"]
        for number in range(51):
            await say(ada, str(number))
            await trio.sleep(0.1)  # else it is faster than a client may be
        texts = [said["data"]["text"] for said in (await ada.ask("history", channel=GENERAL, limit=-1))["publications"]]
        assert texts == [str(number) for number in range(1, 51)]
        await ada.ask("unsubscribe", channel=GENERAL)
        late = await ada.ask("subscribe", channel=GENERAL, recover=True, epoch=epoch, offset=0)
        assert "recovered" not in late
        await ada.close()
        await trio.sleep(3601)
        ada = await connect(service, "ada")
        await ada.ask("subscribe", channel=GENERAL)
        assert "publications" not in await ada.ask("history", channel=GENERAL, limit=-1)
        await ada.close()


async def test_logging_in(autojump_clock: Clock) -> None:
    """What a log-in gives lets one in; there is none for who doesn't know the password."""
    async with (
        serving(app) as service,
        httpx.AsyncClient(transport=httpx.ASGITransport(service.asgi), base_url="http://test") as client,
    ):
        answer = await client.post("/login", json={"username": "ada", "password": "password"})
        talk = await open_line(service)
        connected = await talk.ask("connect", token=answer.json()["token"])
        assert connected["data"]["name"] == "Ada"
        assert (connected["expires"], 3500 < connected["ttl"] <= 3600) == (True, True)
        await talk.close()
        for body in ({"username": "ada", "password": "pässword"}, {"username": "eve", "password": "password"}):
            refused = await client.post("/login", json=body)
            assert (refused.status_code, refused.json()) == (401, {"error": "Invalid credentials"})
        for text in ("", "[]", '{"username": 1}', "[" * 10_000):
            assert (await client.post("/login", content=text)).status_code == 400


# -- in a browser


@pytest.fixture(scope="module")
def running_server() -> Iterator[Server]:
    """One of the module's own: the lines say who has come."""
    require_node()
    with hypercorn("examples.centrifuge:app", "--workers", "0") as server:
        yield server


@pytest.fixture
def server(running_server: Server, browser: Browser) -> Server:
    return running_server


def choose_transport(panel: Panel, name: str) -> None:
    Select(panel.part("transport")).select_by_visible_text(name)


def are_here(panel: Panel, *names: str) -> None:
    """Wait until the page says that these are in the room that is shown. (They stand in the order they came in.)"""
    panel.browser.until(
        lambda: sorted(re.findall(r"(\w+)[,.]", panel.part("people").text)) == list(names), f"{names} are there"
    )


def buttons(panel: Panel) -> list[Any]:
    return panel.browser.driver.find_elements(By.CSS_SELECTOR, f"{panel.css} [data-role='rooms'] button")


def rooms(panel: Panel) -> list[str]:
    return [button.text for button in buttons(panel)]


def say_in(panel: Panel, *texts: str) -> None:
    for text in texts:
        panel.say(text)
        panel.wait_line("own", f"You: {text}")


def cut_off(panel: Panel) -> None:
    panel.click("cut")
    panel.wait_status("Lost (4000 you cut the line). The SDK will connect again")


def test_two_pages(browser: Browser, server: Server) -> None:
    browser.open(server.url)
    ada, bob = browser.connect_all()
    for panel in (ada, bob):
        are_here(panel, "Ada", "Bob")
        panel.wait_line("info", f"general: {TOPICS['general']}")
    bob.say("hello")
    ada.wait_line("message", "Bob: hello")
    browser.until(lambda: not bob.part("input").get_attribute("value"), "the text is taken away")
    ada.click("roll")
    ada.wait_count("sent")
    (answer,) = ada.lines("sent")
    rolled = f"rolled a {answer.removeprefix('The answer to the call: ')}"
    ada.wait_line("own", f"You: {rolled}")
    bob.wait_line("message", f"Ada: {rolled}")

    buttons(ada)[1].click()  # "random"
    are_here(ada, "Ada")
    bob.say("elsewhere")
    browser.until(lambda: rooms(ada) == ["#general (1)", "#random", "+ leads"], "something new in the other room")
    buttons(bob)[2].click()  # "leads", which is not for him
    bob.wait_line("error", "Not in leads (103 You may not enter this room)")
    bob.say("let me in")
    bob.wait_line("error", "Error 103: permission denied")
    assert bob.part("input").get_attribute("value") == "let me in"  # it is not lost

    buttons(ada)[0].click()
    buttons(bob)[0].click()
    bob.click("leave")
    ada.wait_line("system", "Bob has left")
    are_here(ada, "Ada")
    assert rooms(bob) == ["+ general", "+ random", "+ leads"]
    bob.click("roll")
    bob.wait_line("error", "Error 1001: You are not in this room")
    said = len(bob.lines("message"))
    buttons(bob)[0].click()
    bob.wait_line("own", "You: hello")  # the room remembers
    bob.wait_line("message", f"Ada: {rolled}")
    assert len(bob.lines("message")) == said + 1
    ada.wait_line("system", "Bob has come")


def test_a_line_that_is_cut(browser: Browser, server: Server) -> None:
    """What is said meanwhile comes once, in order, and is shown to have been missed."""
    browser.open(server.url)
    ada, bob = browser.two_panels()
    choose_transport(bob, "server-sent events")
    browser.connect_all()
    assert (ada.status, bob.status) == ("Connected as Ada by websocket", "Connected as Bob by sse")
    say_in(bob, "seen")
    ada.wait_line("message", "Bob: seen")
    ada.click("cut")
    ada.wait_status("Lost (4000 you cut the line). The SDK will connect again")
    before = ada.lines("message")
    say_in(bob, "eins, zwei", "fünf")
    assert ada.lines("message") == before
    ada.click("connect")  # "Retry now": else it takes some seconds
    ada.wait_line("info", "Missed, and here now: 2")
    say_in(bob, "sechs")
    ada.wait_line("message", "Bob: sechs")
    assert ada.lines("message")[len(before) :] == ["Bob: eins, zwei missed", "Bob: fünf missed", "Bob: sechs"]
    assert GAP not in ada.lines("info")


def test_the_sdk_comes_back_by_itself(browser: Browser) -> None:
    """After a restart, too. That server remembers nothing, and the reader is told so."""
    require_node()
    port = free_port()
    browser.console.allow_connection_failures(port)
    with hypercorn("examples.centrifuge:app", "--workers", "0", port=port) as server:
        browser.open(server.url)
        browser.run(WITHOUT_DELAY)
        ada, bob = browser.connect_all()
        say_in(bob, "seen")
        ada.wait_line("message", "Bob: seen")
    ada.wait_state("lost")
    with hypercorn("examples.centrifuge:app", "--workers", "0", port=port):
        for panel in (ada, bob):
            panel.wait_line("info", GAP)
        say_in(bob, "again")
        ada.wait_line("message", "Bob: again")
        assert ada.lines("welcome") == ["Welcome, Ada!", "Connected again"]
        browser.close_page()


def test_something_is_said_while_one_comes_in(browser: Browser, server: Server) -> None:
    """It is shown once, behind what was said before."""
    browser.open(server.url)
    browser.run(SLOW_HISTORY)
    ada, bob = browser.connect_all()
    for panel in (ada, bob):
        are_here(panel, "Ada", "Bob")
    ada.say("first")
    browser.until(lambda: not ada.part("input").get_attribute("value"), "the server has taken it")
    assert (ada.lines("own"), bob.lines("message")) == ([], [])
    browser.run("release()")
    bob.wait_line("message", "Ada: first")
    assert bob.lines("message").count("Ada: first") == 1
    assert bob.lines("message")[-1] == "Ada: first"


def test_logging_in_again(browser: Browser, server: Server) -> None:
    """Who logs in next does not see what was there before. Whose token is not accepted has to log in again."""
    browser.open(server.url)
    panel = browser.panel()
    choose_transport(panel, "HTTP streaming")
    panel.log_in("ada")
    panel.wait_status("Connected as Ada by http_stream")
    buttons(panel)[2].click()  # "leads"
    are_here(panel, "Ada")
    say_in(panel, "for leads alone")
    panel.click("disconnect")
    panel.log_in("cy")
    panel.wait_status("Connected as Cy by http_stream")
    are_here(panel, "Cy")
    assert rooms(panel) == ["#general", "+ random", "+ leads"]
    assert [line for line in panel.lines() if "for leads alone" in line] == []

    panel.click("disconnect")
    browser.run("""window.fetch = async () => new Response('{"token": "forged"}')""")
    choose_transport(panel, "WebSocket, or else by HTTP")
    panel.log_in("ada")
    panel.wait_line("error", "invalid token: please log in again.")
    assert panel.status == "Disconnected (3500 invalid token)"


def test_without_the_sdk(browser: Browser, server: Server) -> None:
    """The page says how to get it."""
    browser.devtools("Network.enable")
    browser.devtools("Network.setBlockedURLs", urls=["*/sdk/centrifuge.js"])
    try:
        browser.open(server.url)
        panel = browser.panel()
        hint = "The SDK could not be loaded: “npm install --prefix examples centrifuge”, and restart the server."
        panel.wait_status(hint)
        panel.log_in("ada")
        assert panel.state == "disconnected"
    finally:
        browser.devtools("Network.setBlockedURLs", urls=[])
        browser.devtools("Network.disable")


def test_the_integrity_is_that_of_the_version_on_the_cdn() -> None:
    require_node()
    version = json.loads((SDK_FOLDER.parent / "package.json").read_text())["version"]
    if f"@{version}/" not in CDN:
        pytest.skip(f"npm has installed {version}, which is not the one in {CDN}")
    digest = hashlib.sha384((SDK_FOLDER / "centrifuge.js").read_bytes()).digest()
    assert f"sha384-{base64.b64encode(digest).decode()}" == CDN_INTEGRITY
