"""Limits refuse what makes no sense, and name it."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from verbtrio.limits import KIB, MIB, Limits

NUMBERS = [field.name for field in dataclasses.fields(Limits) if field.name != "backlog_policy"]


def test_the_defaults() -> None:
    """Written down here because they are promises: DESIGN names them, and deployments rely on them."""
    assert Limits() == Limits(
        max_connections=None,
        max_connections_per_client=None,
        max_connections_per_user=None,
        max_rooms=1000,
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


def test_the_policy_is_one_of_three() -> None:
    for policy in ("close", "drop_oldest", "drop_newest"):
        settings: dict[str, Any] = {"backlog_policy": policy}
        assert Limits(**settings).backlog_policy == policy
    with pytest.raises(ValueError, match="'latest'"):
        Limits(backlog_policy="latest")  # type: ignore[arg-type]


def test_limits_do_not_change() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Limits().send_timeout = 1.0  # type: ignore[misc]
