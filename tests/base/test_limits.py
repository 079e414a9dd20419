"""Limits refuse what makes no sense, and name it."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from verbtrio.base.limits import KIB, MIB, Limits

NUMBERS = [field.name for field in dataclasses.fields(Limits) if field.name != "backlog_policy"]


def test_the_defaults() -> None:
    """Written down here because they are promises: DESIGN names them, and deployments rely on them."""
    assert Limits() == Limits(
        max_connections=None,
        max_connections_per_client=None,
        max_connections_per_user=None,
        max_rooms=1000,
        max_calls=32,
        call_timeout=30.0,
        max_messages_per_second=None,
        max_messages_per_second_per_client=None,
        max_messages_per_second_per_user=None,
        message_burst=100,
        message_timeout=60.0,
        max_connections_per_second_per_client=None,
        connection_burst=20,
        handshake_timeout=10.0,
        max_message_bytes=1 * MIB,
        max_inbox_messages=64,
        max_inbox_bytes=256 * KIB,
        high_water_bytes=64 * KIB,
        max_backlog_bytes=1 * MIB,
        backlog_policy="close",
        send_timeout=10.0,
        http_send_timeout=60.0,
        close_timeout=5.0,
        hook_timeout=5.0,
    )
    assert MIB == 1024 * 1024


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("value", [0, -1, -0.5, float("nan")])
def test_every_number_is_positive(name: str, value: float) -> None:
    settings: dict[str, Any] = {name: value}
    with pytest.raises(ValueError, match=rf"^Limits\.{name} must be more than 0"):
        Limits(**settings)


@pytest.mark.parametrize("name", ["message_burst", "connection_burst"])
def test_a_burst_is_one_at_least(name: str) -> None:
    settings: dict[str, Any] = {name: 1}
    Limits(**settings)
    settings[name] = 0.5  # what an annotation forbids, a setting may still hold
    with pytest.raises(ValueError, match=f"{name} must be 1 at least"):
        Limits(**settings)


def test_the_high_water_mark_is_within_the_backlog() -> None:
    Limits(high_water_bytes=10, max_backlog_bytes=10)
    with pytest.raises(ValueError, match="high_water_bytes must not be more"):
        Limits(high_water_bytes=11, max_backlog_bytes=10)


def test_the_policy_is_one_of_four() -> None:
    for policy in ("close", "drop_oldest", "drop_newest", "latest"):
        settings: dict[str, Any] = {"backlog_policy": policy}
        assert Limits(**settings).backlog_policy == policy
    with pytest.raises(ValueError, match="or 'latest', not 'newest'"):
        Limits(backlog_policy="newest")  # type: ignore[arg-type]


def test_limits_do_not_change() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Limits().send_timeout = 1.0  # type: ignore[misc]


class TestOverride:
    """A route's limits change what they name, and keep the rest of the app's."""

    APP = Limits(max_messages_per_second=20, message_burst=5, max_message_bytes=1000, max_connections_per_client=3)

    @pytest.mark.parametrize("name", NUMBERS)
    def test_each_by_itself(self, name: str) -> None:
        for value in (2**17, getattr(Limits(), name)):  # its default, too, where it is named
            named: dict[str, Any] = {name: value}
            merged = self.APP.override(Limits(**named))
            assert getattr(merged, name) == value
            assert dataclasses.replace(merged, **{name: getattr(self.APP, name)}) == self.APP

    def test_the_policy(self) -> None:
        assert self.APP.override(Limits(backlog_policy="drop_oldest")).backlog_policy == "drop_oldest"

    def test_none_and_nothing(self) -> None:
        assert self.APP.override(None) == self.APP.override(Limits()) == self.APP

    def test_one_after_the_other(self) -> None:
        merged = self.APP.override(Limits(max_rooms=3)).override(Limits(max_message_bytes=5))
        assert (merged.max_rooms, merged.max_message_bytes, merged.message_burst) == (3, 5, 5)

    def test_named_in_order(self) -> None:
        assert self.APP.override(Limits(9)).max_connections == 9

    def test_what_is_replaced_is_named_whole(self) -> None:
        assert self.APP.override(dataclasses.replace(Limits(), max_rooms=3)).message_burst == 100

    def test_that_do_not_go_together(self) -> None:
        app = Limits(max_backlog_bytes=2**20)
        with pytest.raises(ValueError, match="high_water_bytes must not be more"):
            app.override(Limits(max_backlog_bytes=2**30, high_water_bytes=2**25)).override(
                Limits(max_backlog_bytes=2**16, high_water_bytes=2**16)
            ).override(Limits(max_backlog_bytes=2**17, high_water_bytes=2**17)).override(Limits(high_water_bytes=2**18))

    def test_only_what_it_names_is_counted_by_itself(self) -> None:
        own = Limits(max_connections=1, max_messages_per_second_per_user=5)
        counted = self.APP.override(own).counted_by(own)
        assert (counted.max_connections, counted.max_messages_per_second_per_user) == (1, 5)
        assert counted.max_connections_per_client is None
        assert counted.message_burst == 5
