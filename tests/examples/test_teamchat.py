"""The example teamchat: what a person sees in a browser, and what takes time, on a virtual clock. (Its messages, to the
letter, are in tests/examples/test_conversations.py.)"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
import trio
import trio_websocket
from selenium.webdriver.common.by import By
from selenium.webdriver.support.select import Select
from trio.abc import Clock

from examples.teamchat import NAMES, app, auth
from tests.support.browser import RECORD_STATUS, Browser, Panel
from tests.support.memory import Service, serving
from tests.support.process import Server, hypercorn

REMEMBERED = 50
GAP = "Some messages are missing here: you were away for too long"


class Member:
    """A client over a memory stream."""

    def __init__(self, connection: trio_websocket.WebSocketConnection) -> None:
        self.connection = connection
        self.close = connection.aclose

    async def send(self, kind: str, **fields: Any) -> None:
        await self.connection.send_message(json.dumps({"type": kind, **fields}))

    async def heard(self) -> list[Any]:
        """What comes until nothing more does."""
        found = []
        with trio.move_on_after(0.5):
            while True:
                found.append(json.loads(await self.connection.get_message()))
        return found


async def enter(service: Service, name: str, since: str | None = None) -> Member:
    """A client in the room "general"."""
    token = auth.issue({"id": name, "name": NAMES[name]})
    member = Member(await service.connect(f"/ws?token={token}"))
    await member.send("join", room="general", since=since)
    return member


def kinds(messages: list[Any]) -> list[str]:
    return [message["type"] for message in messages]


async def test_who_is_back_soon_was_never_gone(autojump_clock: Clock) -> None:
    async with serving(app) as service:
        ada, bob = await enter(service, "ada"), await enter(service, "bob")
        await ada.heard()
        await bob.close()
        await trio.sleep(9)
        bob = await enter(service, "bob")
        await trio.sleep(15)
        assert await ada.heard() == []
        await bob.close()
        await trio.sleep(11)
        (news,) = await ada.heard()
        assert (news["joins"], news["leaves"]) == ({}, {"bob": {"name": "Bob"}})
        await ada.close()


async def test_the_last_fifty_are_remembered_for_an_hour(autojump_clock: Clock) -> None:
    async with serving(app) as service:
        ada = await enter(service, "ada")
        first = (await ada.heard())[1]["position"]
        for number in range(REMEMBERED + 1):
            await ada.send("say", room="general", text=str(number))
        said = await ada.heard()
        await ada.close()
        texts = [str(number) for number in range(REMEMBERED + 1)]
        assert [message["text"] for message in said] == texts

        back = await enter(service, "ada", said[0]["position"])
        missed = [message for message in await back.heard() if message["type"] == "said"]
        assert missed == said[1:]
        await back.close()
        late = await enter(service, "ada", first)  # one too many was said since
        heard = await late.heard()
        assert kinds(heard)[:4] == ["welcome", "gap", "history", "presence_state"]
        assert [message["text"] for message in heard[2]["messages"]] == texts[1:]
        assert heard[2]["position"] == said[-1]["position"]
        await late.close()

        await trio.sleep(3601)
        later = await enter(service, "ada")
        assert (await later.heard())[1]["messages"] == []
        await later.close()


async def test_all_tabs_of_both_get_a_direct_message_and_none_of_one_s_own_that_one_types(
    autojump_clock: Clock,
) -> None:
    async with serving(app) as service:
        members = [await enter(service, name) for name in ("ada", "ada", "bob", "bob", "cy")]
        for member in members:
            await member.heard()
        await members[0].send("typing", room="general")
        await members[0].send("direct", to="bob", text="psst")
        heard = [kinds(await member.heard()) for member in members]
        assert heard == [["direct"], ["direct"], ["typing", "direct"], ["typing", "direct"], ["typing"]]
        for member in members:
            await member.close()


# -- in a browser


@pytest.fixture(scope="module")
def running_server() -> Iterator[Server]:
    """One of the module's own: the lines say who has come."""
    with hypercorn("examples.teamchat:app", "--workers", "0") as server:
        yield server


@pytest.fixture
def server(running_server: Server, browser: Browser) -> Iterator[Server]:
    """The server, for a browser in which nobody is logged in."""
    yield running_server
    browser.run("sessionStorage.clear()")


@contextmanager
def another_tab(browser: Browser) -> Iterator[None]:
    first = browser.driver.current_window_handle
    browser.driver.switch_to.new_window("tab")
    try:
        yield
    finally:
        browser.driver.close()
        browser.driver.switch_to.window(first)


@contextmanager
def in_tab(browser: Browser, handle: str) -> Iterator[None]:
    """Look into another tab."""
    mine = browser.driver.current_window_handle
    browser.driver.switch_to.window(handle)
    yield
    browser.driver.switch_to.window(mine)


def log_in(browser: Browser, url: str, name: str) -> Panel:
    """Open the page, and log in on its first side."""
    browser.open(url)
    panel = browser.panel()
    panel.log_in(name)
    panel.wait_status(f"Connected as {name.title()}")
    return panel


def shows(panel: Panel, role: str, text: str) -> None:
    panel.browser.until(lambda: panel.part(role).text == text, f"{panel.css} {role} reads {text!r}")


def are_here(panel: Panel, *names: str) -> None:
    """Wait until the page says that these are in the room that is shown. (They stand in the order they came in.)"""
    panel.browser.until(
        lambda: sorted(re.findall(r"(\w+)[,.]", panel.part("people").text)) == list(names), f"{names} are there"
    )


def is_answered(panel: Panel) -> None:
    """Wait until what was said is answered: then the page takes it away from where it was typed."""
    panel.browser.until(lambda: not panel.part("input").get_attribute("value"), "the text is taken away")


def rooms(panel: Panel) -> list[str]:
    found = panel.browser.driver.find_elements(By.CSS_SELECTOR, f"{panel.css} [data-role='rooms'] button")
    return [button.text for button in found]


def choose_room(panel: Panel, number: int) -> None:
    panel.browser.driver.find_elements(By.CSS_SELECTOR, f"{panel.css} [data-role='rooms'] button")[number].click()


def post(server: Server, *texts: str) -> None:
    """What a program says in the room "general"."""
    with httpx.Client(base_url=server.url) as client:
        token = client.post("/login", json={"username": "cy", "password": "password"}).json()["token"]
        for text in texts:
            headers = {"Authorization": f"Bearer {token}"}
            answer = client.post("/rooms/general/messages", json={"text": text}, headers=headers)
            assert answer.status_code == 201


def test_two_pages(browser: Browser, server: Server) -> None:
    """They see each other come, write and type. One is reloaded: nobody has left, and nobody has come."""
    ada = log_in(browser, server.url, "ada")
    are_here(ada, "Ada")
    ada_s = browser.driver.current_window_handle
    with another_tab(browser):
        bob = log_in(browser, server.url, "bob")
        bob_s = browser.driver.current_window_handle
        are_here(bob, "Ada", "Bob")
        browser.run(RECORD_STATUS, bob.part("typing"))
        with in_tab(browser, ada_s):
            ada.wait_line("system", "Bob has come")
            are_here(ada, "Ada", "Bob")
            ada.part("input").send_keys("hel")
        typing = "return arguments[0].recorded"  # however short it was shown
        browser.until(lambda: browser.run(typing, bob.part("typing")) == ["Ada is typing"], "it is told that she types")
        shows(bob, "typing", "")  # after a time
        with in_tab(browser, ada_s):
            ada.part("input").send_keys("lo")
            ada.click("send")
            ada.wait_line("own", "You: hello ✓")  # the answer with the command's `ref` has come
            is_answered(ada)
        bob.wait_line("message", "Ada: hello")
        assert bob.part("typing").text == ""  # at once

        Select(bob.part("to")).select_by_visible_text("Ada")
        bob.say("psst")
        bob.wait_line("own", "You: psst to Ada alone")
        with in_tab(browser, ada_s):
            ada.wait_line("direct", "Bob: psst to you alone")
            browser.driver.refresh()
            ada.wait_status("Connected as Ada")
            ada.wait_line("own", "You: hello")  # the room remembers it
            ada.say("I am back")
        bob.wait_line("message", "Ada: I am back")
        are_here(bob, "Ada", "Bob")
        assert bob.lines("system") == []
        assert browser.driver.current_window_handle == bob_s
    assert ada.lines("own")[-2:] == ["You: hello", "You: I am back ✓"]


def test_a_line_that_is_cut(browser: Browser, server: Server) -> None:
    """What is said meanwhile, in whichever room and by whomever, comes once and in order when it is back."""
    browser.open(server.url)
    ada, bob = browser.connect_all()
    for panel in (ada, bob):
        choose_room(panel, 1)  # "random"
    for panel in (ada, bob):
        are_here(panel, "Ada", "Bob")
    bob.say("seen")
    ada.wait_line("message", "Bob: seen")
    choose_room(ada, 0)  # "general"
    assert rooms(ada) == ["#general", "#random", "+ leads"]

    ada.click("cut")
    ada.wait_state("lost")
    before = ada.lines("message")
    for text in ("one", "two"):
        bob.say(text)
        bob.wait_line("own", f"You: {text} ✓")
    post(server, "three", "four")
    assert ada.lines("message") == before
    ada.click("connect")
    ada.wait_line("message", "Cy: four")
    browser.until(lambda: rooms(ada) == ["#general", "#random (2)", "+ leads"], "what is new in the other room")
    post(server, "five")
    ada.wait_line("message", "Cy: five")
    missed = ada.lines("message")[len(before) :]
    assert sorted(missed) == ["Bob: one", "Bob: two", "Cy: five", "Cy: four", "Cy: three"]
    assert [line for line in missed if "Cy" in line] == ["Cy: three", "Cy: four", "Cy: five"]
    assert [line for line in missed if "Bob" in line] == ["Bob: one", "Bob: two"]
    assert GAP not in ada.lines("info")


def test_away_for_too_long(browser: Browser, server: Server) -> None:
    """The reader is told that something is missing."""
    ada = log_in(browser, server.url, "ada")
    post(server, "seen")
    ada.wait_line("message", "Cy: seen")
    ada.click("cut")
    ada.wait_state("lost")
    post(server, *(str(number) for number in range(REMEMBERED + 1)))
    ada.click("connect")
    ada.wait_line("message", f"Cy: {REMEMBERED}")
    remembered = [f"Cy: {number}" for number in range(1, REMEMBERED + 1)]
    assert ada.lines()[ada.lines().index("Cy: seen") :] == [
        "Cy: seen",
        "Reconnected at attempt 1",
        "Welcome, Ada!",
        GAP,
        *remembered,
    ]


def test_rooms_are_left_and_entered(browser: Browser, server: Server) -> None:
    browser.open(server.url)
    ada, bob = browser.connect_all()
    are_here(ada, "Ada", "Bob")
    bob.say("hello")
    ada.wait_line("message", "Bob: hello")
    bob.click("leave")
    ada.wait_line("system", "Bob has left")
    are_here(ada, "Ada")
    shows(bob, "people", "You are not in this room.")
    assert rooms(bob) == ["+ general", "+ random"]
    assert bob.lines("own") == []
    bob.say("let me in")
    bob.wait_line("error", "Error: You may not enter this room, or are not in it")
    assert bob.part("input").get_attribute("value") == "let me in"  # it is not lost
    choose_room(bob, 0)
    ada.wait_line("system", "Bob has come", 1)
    bob.wait_line("own", "You: hello")
    bob.click("send")
    ada.wait_line("message", "Bob: let me in")
    Select(ada.part("to")).select_by_visible_text("Bob")
    ada.say("welcome back")
    is_answered(ada)
    assert ada.lines("own")[-1] == "You: welcome back to Bob alone"
    assert [line for line in ada.lines() if "✓" in line] == []  # that is for what was said to the room


def test_a_token_that_is_not_accepted_any_more(browser: Browser, server: Server) -> None:
    browser.open(server.url)
    browser.run("sessionStorage.setItem('teamchat 1', 'forged')")
    browser.driver.refresh()
    panel = browser.panel()
    panel.wait_line("error", "The server refused the connection: please log in again.")
    browser.console.wait_for("HTTP Authentication failed")
    assert browser.run("return sessionStorage.getItem('teamchat 1')") is None
    panel.log_in("ada")
    panel.wait_status("Connected as Ada")
