"""What all pages of the examples have in common: they fit, they can be read, and they show the code behind them."""

from __future__ import annotations

import html
import re

import httpx
import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.expected_conditions import url_to_be
from selenium.webdriver.support.wait import WebDriverWait

from examples.demo import samples
from examples.page import SDK_FOLDER
from tests.conftest import Servers
from tests.support.browser import POLL_SECONDS, WAIT_SECONDS, Browser
from tests.support.node import require_node
from tests.support.process import ROOT, Server

PAGES = ["", *samples]
NO_WELCOME = ["answers", "validation"]
NO_PANELS = ["", "streaming", "ticker", "guarded", "wss"]
WITHOUT_PAGES = {"guarded": "accepts only connections with a token", "wss": "needs a certificate"}

BEYOND = """
    return [...document.body.querySelectorAll("*")]
        .filter((e) => !e.closest("pre *, .chips *")) // these scroll
        .filter((e) => e.getBoundingClientRect().right > innerWidth || e.getBoundingClientRect().left < 0)
        .map((e) => e.outerHTML);
"""
HARD_TO_READ = """
    // WCAG 2.2, 1.4.3: text that contrasts with its background by less than 4.5 to 1.
    const channel = (value) => (value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
    const luminance = (color) => {
        const [r, g, b] = color.match(/[\\d.]+/g).map((value) => channel(value / 255));
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const background = (e) => {
        for (; e; e = e.parentElement) {
            const color = getComputedStyle(e).backgroundColor;
            if (!color.startsWith("rgba")) return color; // here, what is not opaque is transparent
        }
    };
    const contrast = (e) => {
        const [dark, light] = [getComputedStyle(e).color, background(e)].map(luminance).sort((a, b) => a - b);
        return (light + 0.05) / (dark + 0.05);
    };
    const hasText = (e) =>
        e.matches("input, select") || [...e.childNodes].some((n) => n.nodeType === Node.TEXT_NODE && n.data.trim());
    return [...document.body.querySelectorAll("*")]
        .filter((e) => e.checkVisibility() && !e.disabled && hasText(e) && contrast(e) < 4.5)
        .map((e) => `${contrast(e).toFixed(2)} ${e.outerHTML}`);
"""
DARK = "return matchMedia('(prefers-color-scheme: dark)').matches"
UNLABELLED = """
    const fields = [...document.querySelectorAll("input, select")];
    return fields.filter((e) => !e.labels.length).map((e) => e.outerHTML);
"""


def open_page(browser: Browser, demo: Server, page: str) -> None:
    """Open the page, and have each of its panels say something."""
    if page == "centrifuge":
        require_node()
    browser.open(f"{demo.url}/{page}/" if page else demo.url)
    if page not in NO_PANELS:
        panels = browser.connect_all(welcome=page not in NO_WELCOME)
        for panel in panels:
            panel.say("W" * 80)  # nowhere to break it
        browser.until(lambda: all(panel.lines("own") or panel.lines("message") for panel in panels), "the long lines")


def check_width(browser: Browser, width: int) -> None:
    assert browser.run("return innerWidth") == width
    assert browser.run("return document.documentElement.scrollWidth") <= width
    assert browser.run(BEYOND) == []


FOCUS = "const style = getComputedStyle(document.activeElement); return style.outlineStyle + style.outlineWidth"


@pytest.mark.parametrize("page", PAGES)
def test_a_page(browser: Browser, demo: Server, page: str) -> None:
    """It fits on a screen and on phones, it can be read and used, light and dark, and it needs no other server."""
    open_page(browser, demo, page)
    focused = browser.driver.switch_to.active_element
    for dark in (False, True):
        with browser.viewport(1200, 900, dark=dark):
            browser.until(lambda: browser.run(DARK) == dark, "the colours")  # noqa: B023
            check_width(browser, 1200)
            assert browser.run("return document.documentElement.scrollHeight") <= 900
            assert browser.run(HARD_TO_READ) == []
            assert browser.run(UNLABELLED) == []
            browser.run("arguments[0].focus()", focused)
            browser.driver.switch_to.active_element.send_keys(Keys.TAB)
            assert browser.run(FOCUS) == "solid2px"
    url = browser.driver.current_url
    loaded: list[str] = browser.run("return performance.getEntriesByType('resource').map((entry) => entry.name)")
    assert f"{url}pages/page.css" in loaded  # so the list does list
    assert [name for name in loaded if not name.startswith(f"{demo.url}/")] == []
    with browser.viewport(390, 844):
        check_width(browser, 390)
        browser.run("scrollTo(0, 0)")
        for field in browser.driver.find_elements(By.CSS_SELECTOR, "[name='text'], [data-role='send']"):
            assert field.rect["y"] + field.rect["height"] <= 844, "above the fold, on the pages of two clients twice"
    with browser.viewport(360, 740):
        check_width(browser, 360)


def test_what_is_hard_to_read_is_noticed(browser: Browser, demo: Server) -> None:
    """Else the test above would say nothing."""
    browser.open(demo.url)
    browser.run("document.querySelector('h1').style.color = '#8a8a8a'")
    assert [found.partition(" ")[0] for found in browser.run(HARD_TO_READ)] == ["3.17"]


@pytest.mark.parametrize("name", samples)
def test_the_code_on_a_page_is_the_example_s(demo: Server, name: str) -> None:
    page = httpx.get(f"{demo.url}/{name}/").text
    found = re.search(r"<code>(examples/\w+\.py)</code>.*<pre[^>]*><code>(.*)</code></pre>", page, re.DOTALL)
    assert found is not None
    assert found[1] == f"examples/{name}.py"
    code = html.unescape(re.sub("<[^>]*>", "", found[2]))
    source = (ROOT / found[1]).read_text()
    blocks = re.split(r"\n\n(?=[@\w])", code)  # what stands at the left margin begins a block
    assert [block for block in blocks if f"{block}\n" not in source] == []
    assert 6 <= len(code.splitlines()) <= (80 if name in WITHOUT_PAGES else 45)


@pytest.mark.parametrize(("name", "why"), WITHOUT_PAGES.items())
def test_an_example_without_a_page_says_why(demo: Server, name: str, why: str) -> None:
    text = " ".join(httpx.get(f"{demo.url}/{name}/").text.split())
    assert why in text
    assert f"<code>python examples/{name}.py</code>" in text


def test_the_index_has_every_example() -> None:
    files = {path.stem for path in (ROOT / "examples").glob("*.py")}
    assert files - set(samples) == {"demo", "page", "slow", "cluster"}, "cluster runs processes of its own"


def test_the_index_leads_to_every_example(browser: Browser, demo: Server) -> None:
    browser.open(demo.url)
    links = [link.get_attribute("href") for link in browser.driver.find_elements(By.CSS_SELECTOR, "main a")]
    assert links == [f"{demo.url}/{name}/" for name in samples]
    for number, name in enumerate(samples):
        if name == "centrifuge" and not SDK_FOLDER.is_dir():
            continue  # its page would load the SDK from another server
        browser.driver.find_elements(By.CSS_SELECTOR, ".card")[number].click()  # at its centre: all of it is the link
        WebDriverWait(browser.driver, WAIT_SECONDS, POLL_SECONDS).until(url_to_be(f"{demo.url}/{name}/"))
        browser.driver.find_element(By.CSS_SELECTOR, "[data-role='home']").click()
        WebDriverWait(browser.driver, WAIT_SECONDS, POLL_SECONDS).until(url_to_be(f"{demo.url}/"))


def test_alone_an_example_offers_no_way_to_the_others(browser: Browser, servers: Servers) -> None:
    browser.open(servers.get("examples.echo:app").url)
    browser.connect_all()
    assert not browser.driver.find_element(By.CSS_SELECTOR, "[data-role='home']").is_displayed()
