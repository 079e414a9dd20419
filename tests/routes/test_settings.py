"""What a group or a route overrides, and what it keeps."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, replace
from typing import Any

import pytest

from verbtrio import App, Heartbeat, Limits
from verbtrio.guards.origin import Origins
from verbtrio.routes.settings import RouteSettings


def settings(**own: Any) -> RouteSettings:
    given: dict[str, Any] = {
        "limits": Limits(max_message_bytes=100, max_connections=5),
        "heartbeat": Heartbeat(interval=5, timeout=10),
        "compression": True,
        "origins": Origins(["https://example.com"], require=True),
    }
    return RouteSettings(**given | own)


def test_nothing_of_its_own() -> None:
    here = settings(decode=lambda kind, value: value)
    kept = here.override()
    assert (kept.limits, kept.heartbeat, kept.compression) == (here.limits, here.heartbeat, True)
    assert (kept.origins.allowed, kept.origins.require) == (("https://example.com",), True)
    assert (kept.decode, kept.quotas) == (here.decode, ())


def test_one_limit_leaves_the_others() -> None:
    """However deep: nothing is loosened that nobody has named."""
    outer = settings().override(limits=Limits(max_rooms=3))
    inner = outer.override(limits=Limits(send_timeout=1))
    assert inner.limits == Limits(max_message_bytes=100, max_connections=5, max_rooms=3, send_timeout=1)


def test_counts_of_its_own_are_added() -> None:
    outer = settings().override(limits=Limits(max_connections=3))
    inner = outer.override(limits=Limits(max_connections_per_user=2))
    assert (len(outer.quotas), len(inner.quotas)) == (1, 2)
    assert inner.quotas[0] is outer.quotas[0], "the group's routes are counted together"
    limits = [[limit for _, limit, _ in quotas.counts("client", "user")] for quotas in inner.quotas]
    assert limits == [[3], [2]], "each counts what it names"


@pytest.mark.parametrize(
    ("own", "heartbeat", "compression", "allowed", "require"),
    [
        ({"heartbeat": None}, None, True, ("https://example.com",), True),
        ({"compression": False}, Heartbeat(interval=5, timeout=10), False, ("https://example.com",), True),
        ({"allowed_origins": []}, Heartbeat(interval=5, timeout=10), True, (), True),
        ({"require_origin": False}, Heartbeat(interval=5, timeout=10), True, ("https://example.com",), False),
    ],
)
def test_each_other_setting(own: Any, heartbeat: Any, compression: bool, allowed: Any, require: bool) -> None:
    """A value that is false, or `None` for the heartbeat, is a value."""
    here = settings().override(**own)
    assert (here.heartbeat, here.compression) == (heartbeat, compression)
    assert (here.origins.allowed, here.origins.require) == (allowed, require)


@pytest.mark.parametrize("own", [{"limits": 5}, {"limits": {}}, {"limits": 0}, {"heartbeat": 5}, {"heartbeat": False}])
def test_values_of_another_type(own: Any) -> None:
    for make in (settings, settings().override, lambda **own: App(**own)):
        with pytest.raises(TypeError, match=r"is a verbtrio\.(Limits|Heartbeat)\("):
            make(**own)


def test_limits_that_do_not_go_together() -> None:
    with pytest.raises(ValueError, match="high_water_bytes"):
        settings(limits=Limits(max_backlog_bytes=2**20)).override(limits=Limits(high_water_bytes=2**21))


def test_they_are_frozen() -> None:
    changed: Any = settings()
    with pytest.raises(FrozenInstanceError):
        changed.compression = False


def test_an_attribute_that_is_set_holds_for_what_is_added_next() -> None:
    app = App(limits=Limits(max_rooms=3))
    before = app.group("/before")
    app.limits = replace(app.limits, max_rooms=2)
    app.heartbeat, app.compression, app.origins = None, True, Origins(["null"])
    after = app.group("/after")
    assert (before.limits.max_rooms, before.compression) == (3, False)
    assert (after.limits.max_rooms, after.heartbeat, after.compression, after.origins.allowed) == (
        *(2, None, True),
        ("null",),
    )
