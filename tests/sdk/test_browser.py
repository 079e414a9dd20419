"""The JavaScript SDK in a real Chromium, as npm has it for browsers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.conftest import Servers
from tests.sdk.conftest import Unique
from tests.support.browser import Browser, chromium, require_browser
from tests.support.node import require_node
from tests.support.process import Server

SCENARIO = """
const [transport, base, room, done] = arguments;
const endpoint = `${transport === "websocket" ? base.replace("http", "ws") : base}/connection/${transport}`;
const make = () => new Centrifuge([{ transport, endpoint }], { emulationEndpoint: `${base}/emulation` });
const next = (emitter, event) => new Promise((resolve) => emitter.once(event, resolve));

(async () => {
    const ada = make(), bob = make();
    ada.connect();
    bob.connect();
    await Promise.all([ada.ready(), bob.ready()]);

    const subscription = ada.newSubscription(room);
    const publications = [];
    subscription.on("publication", ({ data }) => publications.push(data));
    subscription.subscribe();
    await subscription.ready();
    const first = next(subscription, "publication");
    await bob.publish(room, "grüß dich 😀");
    await first;

    ada.disconnect();
    await bob.publish(room, "missed 1");
    await bob.publish(room, "missed 2");
    const again = next(subscription, "subscribed");
    ada.connect();
    const { recovered } = await again;
    const sum = await ada.rpc("add", { a: 40, b: 2 }).then(({ data }) => data, ({ code }) => code);
    ada.disconnect();
    bob.disconnect();
    return { publications, recovered, sum };
})().then(done, (error) => done({ error: error.message ?? String(error) }));
"""


@pytest.fixture(scope="module")
def browser(server: Server) -> Iterator[Browser]:
    require_node()
    require_browser()
    with chromium() as browser:
        browser.open(server.url)
        yield browser


TRANSPORTS = pytest.mark.parametrize("transport", ["websocket", "http_stream", "sse"])
PUBLICATIONS = ["grüß dich 😀", "missed 1", "missed 2"]


@TRANSPORTS
def test_in_a_page(browser: Browser, server: Server, transport: str, unique: Unique) -> None:
    """Connect, subscribe, publish, recover what was missed while away, call."""
    told = browser.driver.execute_async_script(SCENARIO, transport, server.url, unique("open:"))

    assert told == {"publications": PUBLICATIONS, "recovered": True, "sum": 42}
    assert browser.console.errors() == []


@TRANSPORTS
def test_in_a_page_of_another_origin(browser: Browser, servers: Servers, transport: str, unique: Unique) -> None:
    """The same with a server that lets all origins in, and has no calls."""
    other = servers.get("tests.apps.centrifuge:app")

    told = browser.driver.execute_async_script(SCENARIO, transport, other.url, unique("open:"))

    assert told == {"publications": PUBLICATIONS, "recovered": True, "sum": 108}
    assert browser.console.errors() == []
