"""Takes the documentation's pictures of the example pages: `python -m docs.screenshots`, from the project's folder.

Needs Chromium, as the browser tests do. Each page is shown after a short conversation, three times: light and dark on a
desktop, cut to its content, and light on a phone. It takes two minutes. Arguments name single pages.
"""

from __future__ import annotations

import base64
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from selenium.webdriver.common.by import By
from selenium.webdriver.support.select import Select

from examples.demo import samples
from tests.support.browser import Browser, Panel, chromium, missing_commands
from tests.support.process import free_port, hypercorn, running

IMAGES = Path(__file__).parent / "images"
WIDE = (1200, 900)
PHONE = (390, 844)

QUANTIZE = """
    // A picture's pixels as indexes of a palette, which makes a third of its bytes: the most frequent colours, and of
    // those that are much alike the most frequent one.
    const bitmap = await createImageBitmap(await (await fetch(`data:image/png;base64,${arguments[0]}`)).blob());
    const { width, height } = bitmap;
    const context = new OffscreenCanvas(width, height).getContext("2d");
    context.drawImage(bitmap, 0, 0);
    const pixels = new Uint32Array(context.getImageData(0, 0, width, height).data.buffer);
    const counts = new Map();
    for (const pixel of pixels) counts.set(pixel, (counts.get(pixel) ?? 0) + 1);
    const sorted = [...counts.keys()].sort((a, b) => counts.get(b) - counts.get(a));
    const kinds = new Map(sorted.toReversed().map((color) => [color & 0xf0f0f0, color]));
    const chosen = sorted.filter((color, index) => index < 48 || kinds.get(color & 0xf0f0f0) === color);
    const palette = chosen.slice(0, 128);
    const parts = (color) => [color & 255, (color >> 8) & 255, (color >> 16) & 255];
    const distance = (a, b) => parts(a).reduce((sum, part, i) => sum + (part - parts(b)[i]) ** 2, 0);
    const nearest = (color) => palette.reduce((best, other) =>
        distance(color, other) < distance(color, best) ? other : best);
    const indexes = new Map(palette.map((color, index) => [color, index]));
    for (const color of counts.keys()) if (!indexes.has(color)) indexes.set(color, indexes.get(nearest(color)));
    const indexed = Uint8Array.from(pixels, (color) => indexes.get(color));
    return { width, height, palette: palette.flatMap(parts), pixels: indexed.toBase64() };
"""
SETTLE = """
    document.activeElement.blur(); // no cursor, which would blink
    scrollTo(0, 0);
    for (const list of document.querySelectorAll(".messages")) list.scrollTop = list.scrollHeight;
    for (const chips of document.querySelectorAll(".chips")) chips.scrollLeft = 0;
"""


def index(browser: Browser) -> None:
    """There is nothing to do on it."""


def echo(browser: Browser) -> None:
    (panel,) = browser.connect_all()
    panel.say("Hello, Trio!")
    panel.wait_count("echo")
    panel.click("raw")
    panel.say("{this is not JSON")
    panel.wait_count("error")
    panel.click("raw")
    panel.say("Still connected?")
    panel.wait_count("echo", 2)


def broadcast(browser: Browser) -> None:
    ana, ben = browser.connect_all()
    ben.click("disconnect")
    ana.wait_line("system", "A user has left the chat (1 here)")
    ben.click("connect")
    ben.wait_count("welcome", 2)
    converse(ana, ben, "Is everybody here?", "I am. Who else?")


def rooms(browser: Browser) -> None:
    ana, ben = browser.connect_all()
    converse(ana, ben, "Shall we go to the garden?", "You go first!")
    ana.fill("room", "garden")
    ana.click("connect")
    ana.wait_status("Connected to garden")
    ben.wait_line("system", "A user has left the room (1 here)")
    ana.say("Ben can't hear this")


def auth(browser: Browser) -> None:
    admin, guest = browser.connect_all()
    converse(admin, guest, "Good morning, everyone", "Good morning!")
    admin.fill("to", "2")
    admin.say("Only you can read this")
    guest.wait_count("direct")
    admin.wait_count("sent")
    admin.fill("to", "7")
    admin.say("And you?")
    admin.wait_count("error")


def heartbeat(browser: Browser) -> None:
    (panel,) = browser.connect_all()
    panel.wait_count("ping", 1)
    panel.say("Hello, Trio!")
    panel.wait_count("ping", 2)
    panel.click("answer-pings")
    panel.wait_count("ping", 3)


def sessions(browser: Browser) -> None:
    (panel,) = browser.connect_all()
    panel.say("No script can read my cookie")
    panel.wait_count("message")


def streaming(browser: Browser) -> None:
    def lines(role: str) -> int:
        return len(browser.driver.find_elements(By.CSS_SELECTOR, f"[data-role='{role}'] li"))

    browser.driver.find_element(By.CSS_SELECTOR, "[data-role='countdown']").click()
    browser.until(lambda: browser.driver.find_element(By.CSS_SELECTOR, "[data-state='connected']"), "it listens")
    browser.driver.find_element(By.NAME, "text").send_keys("Written over a WebSocket\n")
    browser.until(lambda: lines("heard"), "the message is heard")
    browser.until(lambda: lines("made") == 4, "the countdown ends")


def ticker(browser: Browser) -> None:
    def figure(role: str) -> int:
        return int(browser.driver.find_element(By.CSS_SELECTOR, f"[data-role='{role}']").text or 0)

    events = f"{browser.driver.current_url}events"
    with subprocess.Popen([sys.executable, "examples/slow.py", events], stdout=subprocess.DEVNULL) as slow:
        try:
            browser.until(lambda: figure("dropped") > 1000, "prices are dropped")
        finally:
            slow.terminate()


def answers(browser: Browser) -> None:
    (panel,) = browser.connect_all(welcome=False)
    choose(panel, 0, 1, 2)
    panel.wait_count("received", 4)


def validation(browser: Browser) -> None:
    first, second = browser.connect_all(welcome=False)
    choose(first, 0, 1, 2)
    second.wait_count("received")
    first.wait_count("error")
    choose(second, 3)
    second.wait_count("error")


def lifecycle(browser: Browser) -> None:
    (panel,) = browser.connect_all()
    choose(panel, 0, 1)
    panel.wait_count("error")


def teamchat(browser: Browser) -> None:
    ada, bob = browser.connect_all()
    ada.say("Who has the keys?")
    bob.wait_count("message")
    bob.click("cut")
    ada.say("Found them!")
    ada.wait_count("own", 2)
    bob.click("connect")
    bob.wait_count("message", 2)
    Select(bob.part("to")).select_by_visible_text("Ada")
    bob.say("I had them all along")
    ada.wait_count("direct")
    ada.wait_line("system", "Bob has come")
    ada.part("input").send_keys("So")
    browser.until(lambda: bob.part("typing").text, "it is told that she types")


def centrifuge(browser: Browser) -> None:
    ada, bob = browser.connect_all()
    ada.say("Who has the keys?")
    bob.wait_count("message")
    bob.click("cut")
    bob.wait_state("lost")
    ada.say("Found them!")
    ada.wait_count("own", 2)
    bob.click("connect")
    bob.wait_line("info", "Missed, and here now: 1")
    ada.click("roll")
    ada.wait_count("sent")
    bob.wait_count("message", 3)


def cluster(browser: Browser) -> None:
    """Kill a worker, and wait until its clients are at others."""

    def connected() -> bool:
        """Whether all clients are, and the page knows at which workers they are."""
        rows = browser.driver.find_elements(By.CSS_SELECTOR, "[data-role='workers'] tr")
        status = browser.driver.find_element(By.CSS_SELECTOR, "[data-role='status']")
        return status.text.startswith("8 of 8") and sum(int(row.text.split()[1]) for row in rows) >= 8

    browser.until(connected, "all clients are connected")
    time.sleep(5)  # some have been heard
    browser.driver.find_element(By.CSS_SELECTOR, "[data-role='workers'] button:enabled").click()
    browser.until(lambda: browser.driver.find_element(By.CSS_SELECTOR, "[data-state='lost']"), "a worker is dead")
    browser.until(connected, "its clients are at others")
    time.sleep(1)  # and the page shows them there


def converse(first: Panel, second: Panel, question: str, answer: str) -> None:
    first.say(question)
    second.wait_count("message")
    second.say(answer)
    first.wait_count("message")


def choose(panel: Panel, *numbers: int) -> None:
    """Send messages that the page offers."""
    chips = panel.browser.driver.find_elements(By.CSS_SELECTOR, f"{panel.css} [data-role='chip']")
    for number in numbers:
        chips[number].click()


ACTS: dict[str, Callable[[Browser], None]] = {
    "index": index,
    "echo": echo,
    "broadcast": broadcast,
    "rooms": rooms,
    "auth": auth,
    "heartbeat": heartbeat,
    "sessions": sessions,
    "streaming": streaming,
    "ticker": ticker,
    "answers": answers,
    "validation": validation,
    "lifecycle": lifecycle,
    "teamchat": teamchat,
    "centrifuge": centrifuge,
    "cluster": cluster,
    "guarded": index,
    "wss": index,
}


def take(browser: Browser, name: str, size: tuple[int, int], *, dark: bool = False) -> tuple[str, str]:
    """The name and the PNG, in base64, of the page as it is: of the whole screen, or less where the page is shorter."""
    width, height = size
    with browser.viewport(width, height, dark=dark):
        browser.devtools("Emulation.setScrollbarsHidden", hidden=True)
        browser.devtools("Input.dispatchMouseEvent", type="mouseMoved", x=0, y=0)  # over no button
        browser.until(lambda: browser.run("return innerWidth") == width, "the page has its size")
        browser.run(SETTLE)
        content: int = browser.run(
            "return Math.ceil(Math.max(...[...document.querySelectorAll('main > *')].map("
            "(e) => e.getBoundingClientRect().bottom))) + 16"
        )
        clip = {"x": 0, "y": 0, "width": width, "height": min(height, content), "scale": 1}
        data: str = browser.devtools("Page.captureScreenshot", format="png", clip=clip)["data"]
    return name, data


def small_png(browser: Browser, data: str) -> bytes:
    """The picture with 128 colours at the most."""
    found = browser.run(QUANTIZE, data)
    width, height, pixels = found["width"], found["height"], base64.b64decode(found["pixels"])
    rows = b"".join(b"\0" + pixels[start : start + width] for start in range(0, len(pixels), width))
    header = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"PLTE", bytes(found["palette"])), (b"IDAT", zlib.compress(rows, 9)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )


def main(names: Sequence[str]) -> None:
    if missing := missing_commands():
        raise SystemExit(f"not installed: {', '.join(missing)}")
    with ExitStack() as stack:
        demo = stack.enter_context(hypercorn("examples.demo:app"))
        browser = stack.enter_context(chromium())
        for name in names:
            url = f"{demo.url}/{name}/" if name in samples else demo.url
            if name == "cluster":  # it is a program of its own
                port = free_port()
                command = [sys.executable, "examples/cluster.py"]
                url = stack.enter_context(running(command, port, PORT=str(port), REDIS_URL="")).url
            with browser.viewport(*WIDE):
                browser.open(url)
                ACTS[name](browser)
            pictures = [
                take(browser, name, WIDE),
                take(browser, f"{name}-dark", WIDE, dark=True),
                take(browser, f"{name}-phone", PHONE),
            ]
            if name == "rooms":  # the README's
                pictures.append(take(browser, "rooms-dark-phone", PHONE, dark=True))
            browser.close_page()
            for file, data in pictures:
                (IMAGES / f"{file}.png").write_bytes(small_png(browser, data))


if __name__ == "__main__":
    main(sys.argv[1:] or list(ACTS))
