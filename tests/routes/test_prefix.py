"""An app under a prefix, behind a real nginx that passes it on or strips it; and in several processes: as
docs/deployment.md describes it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.middleware import Middleware

from tests.apps.prefixed import build
from tests.support.nginx import nginx, require_nginx, snippet
from tests.support.peers import Refused, connect
from tests.support.process import ROOT, Server, hypercorn

PAGE = (ROOT / "docs" / "deployment.md").read_text()
SECTION = PAGE[PAGE.index("### Under a prefix") : PAGE.index("## Stopping")]
PLACES = {"own": "", "group": "/group", "mounted": "/mounted"}


def prefix_back() -> Any:
    """The page's middleware."""
    (program,) = re.findall(r"```python\n(.*?)```", SECTION, re.DOTALL)
    names: dict[str, Any] = {"__name__": "page"}
    exec(program, names)
    return names["PrefixBack"]


put_back = build(middleware=[Middleware(prefix_back())])


def location(proxy_pass: str) -> str:
    """nginx's snippet, for `/chat/` alone."""
    text = snippet()
    for old, new in (("location / {", "location /chat/ {"), ("proxy_pass http://chat;", proxy_pass)):
        assert text.count(old) == 1
        text = text.replace(old, new)
    return text


@pytest.fixture(scope="module")
def proxies(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Server]]:
    """A proxy for each way of serving under the prefix."""
    require_nginx()
    (whole,) = re.findall(r"^    (proxy_pass .*?;)", SECTION, re.MULTILINE)
    assert "location /chat/ {" in SECTION
    stripped = "proxy_pass http://chat/;"
    assert stripped in SECTION
    ways = {
        "whole": ("tests.apps.prefixed:app", whole),
        "stripped": ("tests.apps.prefixed:app", stripped),
        "put back": ("tests.routes.test_prefix:put_back", stripped),
    }
    with ExitStack() as stack:
        found = {}
        for way, (app, proxy_pass) in ways.items():
            server = stack.enter_context(hypercorn(app, "--root-path", "/chat", "--workers", "0"))
            folder = tmp_path_factory.mktemp("nginx")
            found[way] = stack.enter_context(nginx(folder, server.port, location(proxy_pass)))
        yield found


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("way", ["whole", "put back"])
class TestUnderAPrefix:
    async def test_routes_are_found_and_links_have_the_prefix(
        self, proxies: dict[str, Server], way: str, place: str
    ) -> None:
        server, path = proxies[way], f"/chat{PLACES[place]}"
        async with httpx.AsyncClient() as client:
            answer = await client.get(f"{server.url}{path}/page")
            assert answer.status_code == 200
            http, ws = answer.json()["links"]
            assert http == f"{server.url}{path}/page"
            assert ws == f"ws://127.0.0.1:{server.port}{path}/ws"
        async with connect(ws) as peer:
            assert (await peer.receive())["path"] == f"{path}/ws"

    async def test_redirects_stay_in_it(self, proxies: dict[str, Server], way: str, place: str) -> None:
        server, path = proxies[way], f"/chat{PLACES[place]}"
        async with httpx.AsyncClient() as client:
            answer = await client.get(f"{server.url}{path}/page/")
        assert answer.headers["location"] == f"{server.url}{path}/page"


class TestStripped:
    """What the page warns of. If hypercorn or Starlette mend it, the page can say less."""

    @pytest.mark.parametrize(("place", "found"), [("own", True), ("group", False), ("mounted", False)])
    async def test_routes(self, proxies: dict[str, Server], place: str, found: bool) -> None:
        server, path = proxies["stripped"], f"/chat{PLACES[place]}"
        async with httpx.AsyncClient() as client:
            assert (await client.get(f"{server.url}{path}/page")).status_code == (200 if found else 404)
        if found:
            async with connect(f"ws://127.0.0.1:{server.port}{path}/ws") as peer:
                await peer.receive()
        else:
            with pytest.RaisesGroup(Refused, flatten_subgroups=True, allow_unwrapped=True):
                async with connect(f"ws://127.0.0.1:{server.port}{path}/ws"):
                    pass

    async def test_redirects_lead_out(self, proxies: dict[str, Server]) -> None:
        server = proxies["stripped"]
        async with httpx.AsyncClient() as client:
            answer = await client.get(f"{server.url}/chat/page/")
        assert answer.headers["location"] == f"{server.url}/page"


async def test_a_path_goes_to_one_process(tmp_path: Path) -> None:
    """With the page's `hash`, all members of a room meet in one of two processes."""
    require_nginx()
    directive = "hash $uri consistent;"
    assert f"`{directive}`" in PAGE
    with ExitStack() as stack:
        one, two = (stack.enter_context(hypercorn("tests.apps.prefixed:app", "--workers", "0")) for _ in range(2))
        text = snippet().replace("upstream chat {", f"upstream chat {{ {directive} server 127.0.0.1:{two.port};", 1)
        proxy = stack.enter_context(nginx(tmp_path, one.port, text))
        processes = list[int]()
        for number in range(20):
            found = set()
            for _ in range(3):
                async with connect(f"ws://127.0.0.1:{proxy.port}/ws/room-{number}") as peer:
                    found.add(await peer.receive())
            assert len(found) == 1
            processes += found
        assert len(set(processes)) == 2, "both have some"
