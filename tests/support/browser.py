"""A real Chromium on the example pages, driven as a person would drive it: by typing, clicking and reading."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

import pytest
from selenium import webdriver
from selenium.common.exceptions import NoSuchElementException, StaleElementReferenceException, TimeoutException
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.wait import WebDriverWait

COMMANDS = ("chromium", "chromedriver")
ARGUMENTS = [
    "--headless=new",
    "--no-sandbox",  # a container's root has no other way
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    # No errands of the browser's own:
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-quic",
]
WAIT_SECONDS = 15.0
POLL_SECONDS = 0.02

T = TypeVar("T")
State = Literal["connected", "connecting", "disconnected", "lost"]

LINES = """
    return [...document.querySelectorAll(arguments[0])].map((line) =>
        [...line.children].filter((part) => part.tagName !== "TIME").map((part) => part.textContent).join(" "));
"""
RECORD_STATUS = """
    const texts = arguments[0].recorded = [];
    new MutationObserver((changes) => {
        for (const change of changes) for (const { textContent } of change.addedNodes)
            if (textContent !== texts.at(-1)) texts.push(textContent);
    }).observe(arguments[0], { childList: true });
"""


def missing_commands() -> list[str]:
    """What a browser test needs and this machine doesn't have."""
    return [command for command in COMMANDS if shutil.which(command) is None]


def require_browser() -> None:
    """Skip where there is no browser; but where CI promises one, a skip would pass for success."""
    if missing := missing_commands():
        reason = f"THE BROWSER TESTS DID NOT RUN: {' and '.join(missing)} not installed (Debian: chromium-driver)"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)


@dataclass
class Console:
    """The browser's console: what a person would see in the developer tools."""

    driver: webdriver.Chrome
    _unread: list[str] = field(default_factory=list)
    _allowed: list[re.Pattern[str]] = field(default_factory=list)

    def allow_connection_failures(self, port: int) -> None:
        """From now on, take no notice of WebSockets that could not be opened at `port`.

        A page cannot prevent those lines: the browser itself writes one whenever nobody answers (refused), or
        whoever answered goes away before the handshake is done (reset, closed). All else still counts, and so does a
        handshake that a server answers with a status.
        """
        unopened = rf"WebSocket connection to 'ws://127\.0\.0\.1:{port}/[^']*' failed: "
        nobody = "net::ERR_CONNECTION_(REFUSED|RESET|CLOSED)"
        self._allowed.append(
            re.compile(
                f"{unopened}(Error in connection establishment: {nobody}|Error during WebSocket handshake: {nobody}"
                "|Connection closed before receiving a handshake response)$"
            )
        )

    def _read(self) -> list[dict[str, Any]]:
        """The log's new entries: reading takes them out."""
        entries: list[dict[str, Any]] = self.driver.get_log("browser")  # type: ignore[no-untyped-call]
        return entries

    def errors(self) -> list[str]:
        """All errors so far that nobody allowed or took out: the browser's, the page's, and uncaught exceptions."""
        for entry in self._read():
            network = entry["source"] == "network"
            allowed = network and any(pattern.search(entry["message"]) for pattern in self._allowed)
            if entry["level"] == "SEVERE" and not allowed:
                self._unread.append(f"{entry['source']}: {entry['message']}")
        return self._unread

    def wait_for(self, text: str) -> None:
        """Wait for an error with `text` in it, which then no longer counts: the test expects it."""
        wait = WebDriverWait(self.driver, WAIT_SECONDS, POLL_SECONDS)
        wait.until(lambda _: any(text in error for error in self.errors()), f"no such error on the console: {text!r}")
        self._unread = [error for error in self._unread if text not in error]

    def clear(self) -> None:
        self.errors()
        self._unread.clear()


class Browser:
    """One Chromium with one window."""

    def __init__(self, driver: webdriver.Chrome) -> None:
        self.driver = driver
        self.console = Console(driver)

    def open(self, url: str) -> None:
        self.driver.get(url)

    def close_page(self) -> None:
        """Leave the page, and with it all its connections."""
        self.driver.get("about:blank")

    def panel(self, number: int = 1) -> Panel:
        return Panel(self, number)

    def panels(self) -> list[Panel]:
        """All panels of the page."""
        sections = self.driver.find_elements(By.CSS_SELECTOR, "section.client")
        return [self.panel(number) for number in range(1, len(sections) + 1)]

    def connect_all(self, *, welcome: bool = True) -> list[Panel]:
        """Connect every panel of the page, logging in where that is asked for; wait for each one's welcome, too."""
        panels = self.panels()
        assert panels
        for panel in panels:
            for login in self.driver.find_elements(By.CSS_SELECTOR, f"{panel.css} [data-role='login'] button"):
                login.click()  # the page has filled the fields in
        for panel in panels:
            panel.wait_state("connected")
            if welcome:
                panel.wait_count("welcome")
        return panels

    def two_panels(self) -> tuple[Panel, Panel]:
        return self.panel(1), self.panel(2)

    def run(self, script: str, *arguments: Any) -> Any:
        """Run JavaScript in the page; give what it returns."""
        return self.driver.execute_script(script, *arguments)

    def until(self, condition: Callable[[], T], what: str, seconds: float = WAIT_SECONDS) -> T:
        """Wait until `condition` gives something true, and give that. In time, or the error says how the page looks."""
        wait = WebDriverWait(
            self.driver, seconds, POLL_SECONDS, (NoSuchElementException, StaleElementReferenceException)
        )
        try:
            return wait.until(lambda _: condition())
        except TimeoutException:
            page = self.driver.find_element(By.TAG_NAME, "body").text
            raise AssertionError(
                f"not within {seconds} s: {what}\nat {self.driver.current_url}\n{page}\n{self.console.errors()}"
            ) from None

    @contextmanager
    def viewport(self, width: int, height: int = 800, *, dark: bool = False) -> Iterator[None]:
        """Look at the page in a window of this size (a real window can't be as narrow as a phone)."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.devtools("Emulation.setDeviceMetricsOverride", **size)
        self.devtools("Emulation.setEmulatedMedia", features=[scheme])
        try:
            yield
        finally:
            self.devtools("Emulation.clearDeviceMetricsOverride")
            self.devtools("Emulation.setEmulatedMedia", features=[])

    def devtools(self, command: str, **parameters: Any) -> Any:
        """A command of the Chrome DevTools Protocol."""
        return self.driver.execute_cdp_cmd(command, parameters)


class Panel:
    """One `<section class="client">`. Its elements are looked up each time, so it outlives a reload."""

    def __init__(self, browser: Browser, number: int) -> None:
        self.browser = browser
        self.css = f"section.client[data-client='{number}']"

    def part(self, role: str) -> WebElement:
        return self.browser.driver.find_element(By.CSS_SELECTOR, f"{self.css} [data-role='{role}']")

    # -- what a person does

    def click(self, role: str) -> None:
        """Click something, once it can be clicked: a click on a button that is still grey would just be lost."""
        self.browser.until(lambda: self.part(role).is_enabled(), f"{self.css}: {role} can be clicked")
        self.part(role).click()

    def fill(self, role: str, text: str) -> None:
        """Type `text` over what was there."""
        self.part(role).clear()
        self.part(role).send_keys(text)

    def say(self, text: str) -> None:
        self.fill("input", text)
        self.click("send")

    def log_in(self, username: str, password: str = "password") -> None:
        self.fill("login-username", username)
        self.fill("login-password", password)
        self.part("login").find_element(By.TAG_NAME, "button").click()

    # -- what a person sees

    @property
    def state(self) -> str:
        return self.part("status").get_attribute("data-state") or ""

    @property
    def status(self) -> str:
        return self.part("status").text

    def lines(self, kind: str = "") -> list[str]:
        """The lines of one kind (of all) from first to last, without their times: "Ana: hello"."""
        li = f"li[data-kind='{kind}']" if kind else "li"
        texts: list[str] = self.browser.run(LINES, f"{self.css} [data-role='messages'] > {li}")
        return texts

    def record_statuses(self) -> Callable[[], list[str]]:
        """From now on keep each new text of the status, however short: a look now and then could miss one."""
        self.browser.run(RECORD_STATUS, self.part("status"))

        def recorded() -> list[str]:
            texts: list[str] = self.browser.run("return arguments[0].recorded", self.part("status"))
            return texts

        return recorded

    def wait_state(self, state: State, seconds: float = WAIT_SECONDS) -> None:
        self.browser.until(lambda: self.state == state, f"{self.css} is {state}", seconds)

    def wait_status(self, text: str) -> None:
        self.browser.until(lambda: self.status == text, f"{self.css} has the status {text!r}")

    def wait_line(self, kind: str, text: str, count: int = 1) -> None:
        """Wait for a line (or `count` of them) of this kind that reads exactly `text`."""
        what = f"{self.css} has {count} line(s) {text!r} of kind {kind!r}"
        self.browser.until(lambda: self.lines(kind).count(text) >= count, what)

    def wait_count(self, kind: str, count: int = 1, seconds: float = WAIT_SECONDS) -> None:
        """Wait for `count` lines of this kind, whatever they say."""
        self.browser.until(lambda: len(self.lines(kind)) >= count, f"{self.css} has {count} {kind!r} lines", seconds)


@contextmanager
def chromium() -> Iterator[Browser]:
    """A new Chromium, with a new profile, that writes no message to any other machine."""
    options = Options()
    options.binary_location = shutil.which("chromium") or ""
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    with tempfile.TemporaryDirectory(
        ignore_cleanup_errors=True
    ) as profile:  # Chromium may still write when told to end
        for argument in [*ARGUMENTS, f"--user-data-dir={profile}"]:
            options.add_argument(argument)
        driver = webdriver.Chrome(options, Service(shutil.which("chromedriver")))
        try:
            yield Browser(driver)
        finally:
            driver.quit()
