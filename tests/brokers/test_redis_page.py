"""docs/redis.md: its program runs, and its figures are the code's."""

from __future__ import annotations

import inspect
import re

import pytest

from tests.support.process import ROOT
from verbtrio import App
from verbtrio.brokers.redis import RedisBroker
from verbtrio.brokers.redis.epochs import EPOCH_SECONDS
from verbtrio.brokers.redis.liveness import DEATH_SECONDS, HEARTBEAT_SECONDS
from verbtrio.brokers.redis.outgoing import MAX_GAPS
from verbtrio.brokers.redis.servers import SCHEMES, parse_url
from verbtrio.brokers.redis.upkeep import ECHO_SECONDS, FIRST_PAUSE, LONGEST_PAUSE

PAGE = (ROOT / "docs" / "redis.md").read_text()
WORDS = " ".join(PAGE.split())


def test_its_program_runs() -> None:
    """It connects only when the app is served."""
    names: dict[str, object] = {}
    for block in re.findall(r"^```python\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE):
        exec(compile(block, "docs/redis.md", "exec", dont_inherit=True), names)
    app = names["app"]
    assert isinstance(app, App)
    assert isinstance(app.broker, RedisBroker)


def test_its_urls() -> None:
    """Each names a Redis, and each kind that there is has one."""
    urls = re.findall(r"`((?:redis|unix)[\w+]*://[^`]*)`", PAGE)
    for url in urls:
        if url.partition("://")[2]:
            parse_url(url, None)
    told = set(re.findall(r"`([\w+]+)(?:://[^`]*)?`", PAGE))
    assert {scheme for scheme in SCHEMES if "cluster" not in scheme} - told == set()


def test_its_defaults() -> None:
    """The table has every parameter, with its default."""
    shown = {"prefix": '`"verbtrio"`', "ssl_context": "`None`", "timeout": "2 s", "max_pending_bytes": "16 MiB"}
    shown["buffer_bytes"] = "0"
    values = {"2 s": 2.0, "16 MiB": 16 * 1024 * 1024, "0": 0, "`None`": None, '`"verbtrio"`': "verbtrio"}
    rows = dict(re.findall(r"^\| `(\w+)` \| ([^|]+?) \|", PAGE, re.MULTILINE))
    parameters = inspect.signature(RedisBroker).parameters
    assert {name: rows.get(name) for name in parameters if name != "url"} == shown
    assert {name: values[text] for name, text in shown.items()} == {
        name: parameter.default for name, parameter in parameters.items() if name != "url"
    }


@pytest.mark.parametrize(
    "words",
    [
        f"after {FIRST_PAUSE * 1000:g} ms at first and up to a second later",
        f"noticed after {DEATH_SECONDS:g} s",
        f"a script every {HEARTBEAT_SECONDS:g} s, a `PUBLISH` every second",
        f"{MAX_GAPS:,} rooms that are remembered",
        "outlive it by a day",
    ],
)
def test_its_figures(words: str) -> None:
    """They are the code's."""
    assert words in WORDS
    assert (ECHO_SECONDS, LONGEST_PAUSE, EPOCH_SECONDS) == (1.0, 1.0, 24 * 3600)
