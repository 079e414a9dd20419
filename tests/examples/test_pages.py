"""What a person sees who tries the examples in a real Chromium."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from tests.conftest import Servers
from tests.support.browser import Browser, Panel, require_browser
from tests.support.process import Server, free_port, hypercorn

SAMPLES = ["echo", "broadcast", "rooms", "auth", "heartbeat"]
WELCOME = "Welcome to the WebSocket server!"
ONE_PROCESS = ("--workers", "0")
"""hypercorn without its worker process: it starts sooner, and any signal ends it at once, without a Close frame."""
HINTS = {"auth": " If it does not come back, log in again: the token may be too old."}
"""What an example's page adds to "Connection lost"."""
RECONNECT_SECONDS = 30.0
"""The page waits longer after each attempt: for some seconds, if the server starts slowly."""


# -- what each sample is for


class TestEcho:
    def test_what_is_typed_comes_back(self, browser: Browser, demo: Server) -> None:
        browser.open(f"{demo.url}/echo/")
        panel = browser.panel()
        panel.wait_line("welcome", WELCOME)
        assert (panel.state, panel.status) == ("connected", "Connected")
        panel.say("Grüße, 世界")
        panel.wait_line("own", "You: Grüße, 世界")
        panel.wait_line("echo", 'Echo: {"type":"message","text":"Grüße, 世界"}')
        assert panel.part("input").get_attribute("value") == ""
        panel.part("input").send_keys("by the Enter key", Keys.ENTER)
        panel.wait_line("echo", 'Echo: {"type":"message","text":"by the Enter key"}')
        assert len(panel.lines("echo")) == 2

    def test_raw_text_gets_the_error_and_the_connection_stays(self, browser: Browser, demo: Server) -> None:
        browser.open(f"{demo.url}/echo/")
        panel = browser.panel()
        panel.click("raw")
        panel.say("{not JSON")
        panel.wait_line("own", "You: {not JSON as raw text")
        panel.wait_line("error", "Error: Invalid JSON format")
        panel.say("[1, 2]")
        panel.wait_line("echo", "Echo: [1,2]")
        assert len(panel.lines("welcome")) == 1

    def test_markup_is_shown_and_not_obeyed(self, browser: Browser, demo: Server) -> None:
        browser.open(f"{demo.url}/echo/")
        panel = browser.panel()
        markup = "<img src=nowhere onerror=alert(1)><b>bold</b>"
        panel.say(markup)
        panel.wait_line("own", f"You: {markup}")
        panel.wait_line("echo", f'Echo: {{"type":"message","text":"{markup}"}}')
        assert panel.part("messages").find_elements(By.CSS_SELECTOR, "img, b") == []

    def test_disconnect_and_connect(self, browser: Browser, demo: Server) -> None:
        browser.open(f"{demo.url}/echo/")
        panel = browser.panel()
        panel.wait_line("welcome", WELCOME)
        assert not panel.part("connect").is_enabled()
        panel.click("disconnect")
        panel.wait_state("disconnected")
        assert panel.lines("info") == ["You disconnected"]
        assert not panel.part("send").is_enabled()
        assert not panel.part("disconnect").is_enabled()
        panel.click("connect")
        panel.wait_line("welcome", WELCOME, count=2)
        panel.say("again")
        panel.wait_line("echo", 'Echo: {"type":"message","text":"again"}')


class TestBroadcast:
    @pytest.fixture
    def chat(self, browser: Browser) -> Iterator[tuple[Panel, Panel]]:
        """A server of the test's own: the lines say how many are there."""
        with hypercorn("examples.broadcast:app", *ONE_PROCESS) as server:
            browser.open(server.url)
            browser.connect_all()
            yield browser.two_panels()
            browser.close_page()  # before its server goes

    def test_two_talk(self, chat: tuple[Panel, Panel]) -> None:
        ana, ben = chat
        ana.say("hello Ben")
        ben.wait_line("message", "Ana: hello Ben")
        ben.fill("username", "")
        ben.say("hello whoever")
        ana.wait_line("message", "Anonymous: hello whoever")
        assert ana.lines("message") == ["Anonymous: hello whoever"]  # and not what she said herself
        assert ana.lines("own") == ["You: hello Ben"]

    def test_join_and_leave_are_told_with_the_count(self, chat: tuple[Panel, Panel]) -> None:
        ana, ben = chat
        first_lines = sorted(ana.lines() + ben.lines())  # who was first is up to chance
        assert first_lines[:1] + first_lines[-2:] == [
            "A user has joined the chat (2 here)",
            "Welcome to the chat! (1 here)",
            "Welcome to the chat! (2 here)",
        ]
        ben.click("disconnect")
        ben.wait_state("disconnected")
        ana.wait_line("system", "A user has left the chat (1 here)")
        joined = ana.lines("system").count("A user has joined the chat (2 here)")
        ben.click("connect")
        ana.wait_line("system", "A user has joined the chat (2 here)", count=joined + 1)
        ben.browser.until(lambda: ben.lines("welcome")[1:] == ["Welcome to the chat! (2 here)"], "a second welcome")


class TestRooms:
    def test_two_in_one_room_talk(self, browser: Browser, demo: Server) -> None:
        browser.open(f"{demo.url}/rooms/")
        ana, ben = browser.two_panels()
        for panel in (ana, ben):
            panel.wait_status("Connected to lobby")
        ana.say("hello Ben")
        ben.wait_line("message", "Ana: hello Ben")
        ben.say("hello Ana")
        ana.wait_line("message", "Ben: hello Ana")
        assert ana.lines("message") == ["Ben: hello Ana"]

    def test_a_name_no_room_can_have(self, browser: Browser, demo: Server) -> None:
        """Connecting there could only fail: again and again."""
        browser.open(f"{demo.url}/rooms/")
        panel = browser.panel()
        panel.wait_status("Connected to lobby")
        panel.fill("room", "up-down")
        assert panel.part("connect").is_enabled()
        for name in [" ", "..", "up/down"]:
            panel.fill("room", name)
            assert not panel.part("connect").is_enabled(), name
        assert panel.state == "connected"

    def test_changing_the_room(self, browser: Browser, demo: Server) -> None:
        """Each can be heard in the room they are in, and only there."""
        browser.open(f"{demo.url}/rooms/")
        ana, ben = browser.two_panels()
        for panel in (ana, ben):
            panel.wait_status("Connected to lobby")
        assert not ben.part("connect").is_enabled()  # there is nowhere else to go yet
        ben.fill("room", "Café 2: up & down?")
        ben.click("connect")
        ben.wait_status("Connected to Café 2: up & down?")
        ben.wait_line("welcome", 'Welcome to room "Café 2: up & down?" (1 here)')
        ana.wait_line("system", "A user has left the room (1 here)")

        ana.say("said in the lobby")
        ben.say("said in the café")
        ana.part("room").clear()
        ana.part("room").send_keys("Café 2: up & down?", Keys.ENTER)
        ana.wait_line("welcome", 'Welcome to room "Café 2: up & down?" (2 here)')
        ben.wait_line("system", "A user has joined the room (2 here)")
        # What had not arrived before these does not come any more: each sends in order, on the same connection...
        ben.say("can you hear me now?")
        ana.wait_line("message", "Ben: can you hear me now?")
        assert ana.lines("message") == ["Ben: can you hear me now?"]
        # ...and to this one Ana came back later than the lobby dealt with what she said there.
        ana.say("yes")
        ben.wait_line("message", "Ana: yes")
        assert ben.lines("message") == ["Ana: yes"]


class TestAuth:
    def test_a_wrong_password_says_so(self, browser: Browser, demo: Server) -> None:
        browser.open(f"{demo.url}/auth/")
        panel = browser.panel()
        assert not panel.part("connect").is_enabled()
        panel.log_in("admin", "wrong")
        panel.wait_line("error", "Log-in failed: Invalid credentials")
        assert (panel.state, panel.status) == ("disconnected", "Disconnected. Log in to connect.")
        # The browser itself reports every 401 on the console.
        refusal = f"network: {demo.url}/auth/login - Failed to load resource: the server responded with a status of 401"
        browser.console.wait_for(refusal)
        panel.log_in("admin")
        panel.wait_status("Connected as admin (user 1)")

    def test_messages_to_one_and_to_everyone(self, browser: Browser, demo: Server) -> None:
        browser.open(f"{demo.url}/auth/")
        admin, guest = browser.two_panels()
        admin.log_in("admin")
        guest.log_in("guest")
        admin.wait_status("Connected as admin (user 1)")
        guest.wait_status("Connected as guest (user 2)")
        guest.wait_line("welcome", "Welcome, guest!")

        admin.fill("to", "2")
        admin.say("psst")
        admin.wait_line("own", "You: psst to user 2")
        guest.wait_line("direct", "admin: psst to you alone")
        admin.wait_line("sent", "Delivered to user 2: psst")

        admin.fill("to", "99")
        admin.say("anybody?")
        admin.wait_line("error", "Error: Recipient not found or not connected")
        assert admin.lines("sent") == ["Delivered to user 2: psst"]

        admin.fill("to", "")
        admin.say("hello all")
        admin.wait_line("own", "You: hello all to everyone")
        guest.wait_line("message", "admin: hello all")

        guest.fill("to", "1")
        guest.say("hello you")
        admin.wait_line("direct", "guest: hello you to you alone")
        received = [line for panel in (admin, guest) for kind in ("direct", "message") for line in panel.lines(kind)]
        assert received == ["guest: hello you to you alone", "admin: psst to you alone", "admin: hello all"]


class TestHeartbeat:
    def test_the_sample_itself(self, browser: Browser, demo: Server) -> None:
        browser.open(f"{demo.url}/heartbeat/")
        panel = browser.panel()
        panel.wait_line("welcome", WELCOME)
        assert panel.part("pings").text == "Pings answered: 0. No ping yet."
        panel.say("beat")
        panel.wait_line("echo", 'Echo: {"type":"message","text":"beat"}')

    def test_it_makes_its_point_in_seconds(self, browser: Browser, demo: Server) -> None:
        browser.open(f"{demo.url}/heartbeat/")
        (panel,) = browser.connect_all()
        assert re.fullmatch(r"Next ping in [123] s", panel.part("countdown").text)
        panel.wait_line("ping", "Ping, answered")
        panel.click("answer-pings")
        statuses = panel.record_statuses()
        browser.until(lambda: panel.part("countdown").text == "No pong: the server hangs up in 5 s", "the countdown")
        browser.until(statuses, "the server hangs up", 7)
        assert statuses()[0].startswith("Lost (1000 Connection timeout due to inactivity). Reconnecting in ")

    def test_answered_pings_keep_the_connection(self, browser: Browser, servers: Servers) -> None:
        browser.open(servers.get("tests.apps.quick_heartbeat:app").url)
        panel = browser.panel()
        panel.wait_line("ping", "Ping, answered", count=5)  # 1.5 s: longer than the timeout
        assert int(panel.part("pings").text.split()[2].rstrip(".")) >= 5
        assert panel.part("pings").text.endswith(", answered.")
        assert panel.state == "connected"
        assert (len(panel.lines("welcome")), panel.lines("info")) == (1, [])

    def test_without_answers_the_server_hangs_up_and_the_page_comes_back(
        self, browser: Browser, servers: Servers
    ) -> None:
        browser.open(servers.get("tests.apps.quick_heartbeat:app").url)
        panel = browser.panel()
        panel.wait_line("welcome", WELCOME)
        statuses = panel.record_statuses()
        panel.click("answer-pings")
        panel.wait_line("ping", "Ping, not answered")
        why = "1000 Connection timeout due to inactivity"
        panel.wait_line("info", f"Connection lost ({why}).")
        panel.click("answer-pings")
        panel.wait_line("welcome", WELCOME, count=2)
        panel.wait_line("info", "Reconnected at attempt 1")
        panel.wait_line("ping", "Ping, answered")
        assert statuses()[:3] == [
            f"Lost ({why}). Reconnecting in 1 s, attempt 1",
            "Connecting, attempt 1",
            "Connected",
        ]


# -- what they have in common


class TestConsoles:
    """The pages on which messages are typed as JSON, or chosen from some that are given."""

    def chosen(self, panel: Panel, number: int) -> str:
        """Send one of the messages that the page offers; return it."""
        chip = panel.browser.driver.find_elements(By.CSS_SELECTOR, f"{panel.css} [data-role='chip']")[number]
        chip.click()
        return chip.text

    def test_answers(self, browser: Browser, demo: Server) -> None:
        browser.open(f"{demo.url}/answers/")
        (panel,) = browser.connect_all(welcome=False)
        panel.wait_line("received", 'Received: {"type":"result","value":"0","ref":null}')
        message = self.chosen(panel, 0)
        panel.wait_line("own", f"You: {message}")
        panel.wait_line("received", 'Received: {"type":"result","value":"1/3","ref":1}')

    def test_validation(self, browser: Browser, demo: Server) -> None:
        browser.open(f"{demo.url}/validation/")
        first, second = browser.connect_all(welcome=False)
        for number in range(3):
            self.chosen(first, number)
        first.wait_line("error", "Error: Expected `str` of length >= 1 - at `$.text`")
        second.wait_line("received", 'Received: {"type":"said","by":"Ana","text":"Hello"}')

    def test_lifecycle(self, browser: Browser, demo: Server) -> None:
        browser.open(f"{demo.url}/lifecycle/")
        (panel,) = browser.connect_all()
        self.chosen(panel, 1)
        panel.wait_line("error", "Error: that can't be computed: ZeroDivisionError('division by zero')")
        panel.part("path").send_keys("/hooks")
        browser.until(lambda: panel.part("path").get_attribute("value") == "hooks", "the other path")
        panel.wait_state("connected")
        self.chosen(panel, 1)
        panel.wait_line("info", "Connection lost (1011 Internal server error).")
        panel.wait_line("info", "Reconnected at attempt 1")


class TestReconnection:
    def test_a_person_retries_or_gives_up(self, browser: Browser) -> None:
        port = free_port()
        browser.console.allow_connection_failures(port)

        def buttons() -> list[str]:
            found = browser.driver.find_elements(By.CSS_SELECTOR, f"{panel.css} .head button")
            return [button.text for button in found if button.is_displayed()]

        def primary() -> list[str]:
            found = browser.driver.find_elements(By.CSS_SELECTOR, f"{panel.css} button.primary")
            return [button.text for button in found if button.is_displayed()]

        with hypercorn("examples.echo:app", *ONE_PROCESS, port=port) as server:
            browser.open(server.url)
            (panel,) = browser.connect_all()
            assert (buttons(), primary()) == (["Disconnect"], ["Send"])
            browser.run("Math.random = () => 100")  # so that it waits for longer than the test takes
        browser.until(lambda: panel.status.endswith("Reconnecting in 50 s, attempt 1"), "which attempt, and when")
        assert (buttons(), primary()) == (["Give up", "Retry now"], ["Retry now"])
        with hypercorn("examples.echo:app", *ONE_PROCESS, port=port):
            panel.click("connect")
            panel.wait_line("info", "Reconnected at attempt 1")
            assert browser.run("return document.activeElement === arguments[0]", panel.part("input"))
        panel.wait_state("lost")
        panel.click("disconnect")
        assert (panel.state, panel.status) == ("disconnected", "Disconnected")
        assert panel.lines("info")[-1] == "You gave up reconnecting"
        assert (buttons(), primary()) == (["Connect"], ["Connect"])

    @pytest.mark.parametrize("sample", SAMPLES)
    def test_after_a_restart(self, browser: Browser, sample: str) -> None:
        self.restart(browser, sample, (), signal.SIGTERM, "1012 The server is restarting")

    def test_after_a_crash(self, browser: Browser) -> None:
        self.restart(browser, "echo", ONE_PROCESS, signal.SIGKILL, "1006 no connection")

    def restart(self, browser: Browser, sample: str, options: tuple[str, ...], sig: signal.Signals, why: str) -> None:
        app, port = f"examples.{sample}:app", free_port()
        browser.console.allow_connection_failures(port)
        with hypercorn(app, *options, port=port) as server:
            browser.open(server.url)
            panels = browser.connect_all()
            before = [panel.status for panel in panels]
            statuses = [panel.record_statuses() for panel in panels]
            server.stop(sig)
            for panel, recorded in zip(panels, statuses, strict=True):
                panel.wait_state("lost")
                assert recorded()[0].startswith(f"Lost ({why}). Reconnecting in ")
                assert panel.lines("info") == [f"Connection lost ({why}).{HINTS.get(sample, '')}"]
                assert not panel.part("send").is_enabled()
        with hypercorn(app, *ONE_PROCESS, port=port):
            for panel in panels:
                panel.wait_count("welcome", 2, RECONNECT_SECONDS)
                assert panel.lines("info")[-1].startswith("Reconnected at attempt ")
            assert [panel.status for panel in panels] == before
            panels[0].say("still there?")
            match panels:
                case [panel]:
                    panel.wait_line("echo", 'Echo: {"type":"message","text":"still there?"}')
                case [_, other]:
                    name = "admin" if sample == "auth" else "Ana"
                    other.wait_line("message", f"{name}: still there?")
            if sample == "auth":  # nobody had to log in again: two panels, two log-ins
                logins = "return performance.getEntriesByType('resource').filter((e) => e.name.endsWith('/login'))"
                assert len(browser.run(logins)) == 2
            browser.close_page()


# -- the tests' own tools


class TestTools:
    def test_errors_on_the_console_are_noticed(self, browser: Browser, demo: Server) -> None:
        """Else "no error in any test" would say nothing."""
        browser.open(demo.url)
        browser.run("setTimeout(() => { throw new Error('thrown') }); Promise.reject(new Error('rejected'))")
        browser.run("console.error('logged'); fetch('missing'); new WebSocket(`ws://${location.host}/missing`)")
        for text in ["Error: thrown", "Error: rejected", "logged", "missing - Failed to load", "Unexpected response"]:
            browser.console.wait_for(text)

    @pytest.mark.parametrize(("ci", "outcome"), [("true", pytest.fail.Exception), ("", pytest.skip.Exception)])
    def test_without_a_browser(self, monkeypatch: pytest.MonkeyPatch, ci: str, outcome: type[BaseException]) -> None:
        monkeypatch.setenv("PATH", "")
        monkeypatch.setenv("CI", ci)
        with pytest.raises(outcome, match="chromium and chromedriver not installed"):
            require_browser()
