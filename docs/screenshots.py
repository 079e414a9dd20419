"""Takes the documentation's pictures of the example pages: `python -m docs.screenshots`, from the project's folder.

Needs Chromium, as the browser tests do. Each picture is of a page after a little conversation, cut to its content. It
takes a minute and a half, since heartbeat's pings come every 30 s.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from tests.support.browser import Browser, chromium, missing_commands
from tests.support.process import hypercorn

IMAGES = Path(__file__).parent / "images"
WIDE = (1000, 860)
PHONE = (390, 740)


def echo(browser: Browser) -> None:
    panel = browser.panel()
    panel.wait_count("welcome")
    panel.say("Hello, Trio!")
    panel.wait_count("echo")
    panel.click("raw")
    panel.say("{this is not JSON")
    panel.wait_count("error")
    panel.click("raw")
    panel.say("Still connected?")
    panel.wait_count("echo", 2)


def broadcast(browser: Browser) -> None:
    ana, ben = browser.two_panels()
    for panel in (ana, ben):
        panel.wait_count("welcome")
    ben.click("disconnect")
    ana.wait_line("system", "A user has left the chat (1 here)")
    ben.click("connect")
    ben.wait_count("welcome", 2)
    converse(browser, "Is everybody here?", "I am. Who else?")


def rooms(browser: Browser) -> None:
    ana, ben = browser.two_panels()
    for panel in (ana, ben):
        panel.wait_status("Connected to lobby")
    converse(browser, "Shall we go to the garden?", "You go first!")
    ana.fill("room", "garden")
    ana.click("connect")
    ana.wait_status("Connected to garden")
    ben.wait_line("system", "A user has left the room (1 here)")
    ana.say("Ben can't hear this")


def auth(browser: Browser) -> None:
    admin, guest = browser.two_panels()
    for panel, name in ((admin, "admin"), (guest, "guest")):
        panel.log_in(name)
        panel.wait_count("welcome")
    converse(browser, "Good morning, everyone", "Good morning!")
    admin.fill("to", "2")
    admin.say("Only you can read this")
    guest.wait_count("direct")
    admin.wait_count("sent")
    admin.fill("to", "7")
    admin.say("And you?")
    admin.wait_count("error")


def heartbeat(browser: Browser) -> None:
    panel = browser.panel()
    panel.wait_count("ping", 1, 40)
    panel.say("Hello, Trio!")
    panel.wait_count("echo")
    panel.wait_count("ping", 2, 40)
    panel.click("answer-pings")
    panel.wait_count("ping", 3, 40)


def index(browser: Browser) -> None:
    """There is nothing to do on it."""


def converse(browser: Browser, question: str, answer: str) -> None:
    first, second = browser.two_panels()
    first.say(question)
    second.wait_count("message")
    second.say(answer)
    first.wait_count("message")


def picture(browser: Browser, width: int) -> bytes:
    """A PNG of the page as it is, as high as its content."""
    browser.run("document.activeElement.blur()")  # no cursor, which would blink
    browser.run("document.documentElement.style.scrollbarGutter = 'auto'; scrollTo(0, 0)")  # nor room for a scroll bar
    height: int = browser.run("return Math.ceil(document.body.getBoundingClientRect().bottom)")
    clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
    options = {"format": "png", "clip": clip, "captureBeyondViewport": True}
    return base64.b64decode(browser.devtools("Page.captureScreenshot", **options)["data"])


def main() -> None:
    if missing := missing_commands():
        raise SystemExit(f"not installed: {', '.join(missing)}")
    IMAGES.mkdir(exist_ok=True)
    with ExitStack() as stack:
        demo = stack.enter_context(hypercorn("examples.demo:app"))
        browser = stack.enter_context(chromium())

        def take(name: str, url: str, act: Callable[[Browser], None], size: tuple[int, int], dark: bool) -> None:
            with browser.viewport(*size, dark=dark):
                browser.devtools("Emulation.setScrollbarsHidden", hidden=True)
                browser.open(url)
                act(browser)
                (IMAGES / f"{name}.png").write_bytes(picture(browser, size[0]))
            browser.close_page()

        take("index", f"{demo.url}/", index, WIDE, False)
        take("echo", f"{demo.url}/echo/", echo, WIDE, False)
        take("broadcast", f"{demo.url}/broadcast/", broadcast, WIDE, False)
        take("rooms", f"{demo.url}/rooms/", rooms, WIDE, False)
        take("auth", f"{demo.url}/auth/", auth, WIDE, False)
        take("heartbeat", f"{demo.url}/heartbeat/", heartbeat, WIDE, False)
        take("rooms-dark-phone", f"{demo.url}/rooms/", rooms, PHONE, True)


if __name__ == "__main__":
    main()
