"""Quotas: the last place, one connection too many, and what counts as one client."""

from __future__ import annotations

from typing import Any

import pytest

from verbtrio.base.limits import Limits
from verbtrio.guards.quotas import FULL, FULL_FOR_CLIENT, FULL_FOR_USER, Quotas, Slot, client_key


@pytest.mark.parametrize(
    ("limits", "who", "full"),
    [
        (Limits(max_connections=3), [{}, {"client": "a"}, {"user": "b"}, {"client": "c"}], FULL),
        (Limits(max_connections_per_client=3), [{"client": "a"}] * 4, FULL_FOR_CLIENT),
        (Limits(max_connections_per_user=3), [{"user": "a"}] * 4, FULL_FOR_USER),
    ],
)
def test_the_last_and_one_too_many(limits: Limits, who: list[dict[str, str]], full: Any) -> None:
    quotas = Quotas(limits)
    held = [Slot(quotas) for _ in who]
    assert [slot.take(0, **one) for slot, one in zip(held, who, strict=True)] == [None, None, None, full]
    held[1].leave(0)
    held[1].leave(0)
    assert held[3].take(0, **who[3]) is None
    assert Slot(quotas).take(0, **who[0]) is full
    for slot in held:
        slot.leave(0)
    assert len(quotas) == 0


def test_others_have_places_of_their_own() -> None:
    quotas = Quotas(Limits(max_connections_per_client=1, max_connections_per_user=1))
    assert Slot(quotas).take(0, client="a", user="u") is None
    assert Slot(quotas).take(0, client="b", user="v") is None
    assert Slot(quotas).take(0, client="a", user="w") is FULL_FOR_CLIENT
    assert Slot(quotas).take(0, client="c", user="u") is FULL_FOR_USER
    assert Slot(quotas).take(0, client="c", user="w") is None, "what was refused has taken nothing"


def test_who_is_not_known_is_not_counted() -> None:
    quotas = Quotas(Limits(max_connections_per_client=1, max_connections_per_user=1))
    assert [Slot(quotas).take(0) for _ in range(3)] == [None] * 3
    assert len(quotas) == 0


def test_a_user_who_becomes_known_later() -> None:
    quotas = Quotas(Limits(max_connections=2, max_connections_per_user=1))
    first, second = Slot(quotas), Slot(quotas)
    assert (first.take(0), second.take(0)) == (None, None)
    assert first.take(0, user="a") is None
    assert first.take(0, user="a") is None, "it is there already"
    assert second.take(0, user="a") is FULL_FOR_USER
    first.leave(0)
    assert second.take(0, user="a") is None
    second.leave(0)
    assert len(quotas) == 0


def test_of_the_app_and_of_a_route() -> None:
    app, route = Quotas(Limits(max_connections=2)), Quotas(Limits(max_connections=1))
    assert Slot(app, route).take(0) is None
    assert Slot(app, route).take(0) is FULL
    assert Slot(app).take(0) is None
    assert Slot(app).take(0) is FULL


def test_without_limits_nothing_is_counted() -> None:
    quotas = Quotas(Limits())
    assert Slot(quotas).take(0, client="a", user="b") is None
    assert len(quotas) == 0


FAST: dict[str, Any] = {
    "max_connections_per_second_per_client": 1.0,
    "max_messages_per_second_per_client": 1.0,
    "max_messages_per_second_per_user": 1.0,
}


def kept(quotas: Quotas) -> int:
    tables = (quotas._connecting, quotas._from_client, quotas._of_user)
    return sum(len(table) for table in tables if table is not None)


def test_what_a_connection_shares() -> None:
    app, route = Quotas(Limits(**FAST)), Quotas(Limits(**FAST, message_burst=3))
    one, two = Slot(app, route), Slot(app)
    assert (one.take(0, client="a"), two.take(0, client="a", user="u")) == (None, None)
    assert [bucket.key for bucket in one.buckets] == ["a", "a"]
    assert one.take(0, user="u") is None
    assert one.take(0, client="a", user="u") is None, "all of it is there already"
    assert [bucket.key for bucket in one.buckets] == ["a", "a", "u", "u"]
    assert len({*one.buckets} & {*two.buckets}) == 2, "the app's; the route's are its own"
    for slot in (one, two):
        slot.leave(100)
        slot.leave(100)
        assert slot.buckets == []
    assert Slot(app, route).take(200, client="z") is None
    assert (kept(app), kept(route)) == (2, 2), "z's, as one that connects and as one that sends"


def test_the_rate_of_connections_is_taken_once() -> None:
    """A place is counted once, however often it is taken; and not at all if it is refused."""
    limits = Limits(max_connections_per_second_per_client=0.1, connection_burst=2, max_connections_per_user=1)
    quotas = Quotas(limits)
    first = Slot(quotas)
    for _ in range(5):
        assert first.take(0, client="a", user="u") is None
    assert Slot(quotas).take(0, client="a", user="u") is FULL_FOR_USER
    assert Slot(quotas).take(0, client="a") is None
    for _ in range(5):
        full = Slot(quotas).take(0, client="a", user="v")
        assert full is not None
        assert (full.status, full.retry_after) == (429, 10)
    assert Slot(quotas).take(10, client="a", user="v") is None, "refused, they have taken no place"
    assert Slot(quotas).take(10, client=None) is None, "nobody's address"


def test_a_rate_without_end_is_none() -> None:
    without_end: dict[str, Any] = dict.fromkeys(FAST, float("inf"))
    quotas = Quotas(Limits(**without_end))
    slot = Slot(quotas)
    assert slot.take(0, client="a", user="u") is None
    assert (slot.buckets, kept(quotas)) == ([], 0)


@pytest.mark.parametrize(
    ("client", "key"),
    [
        (None, None),
        (("192.0.2.1", 5), "192.0.2.1"),
        (("::ffff:192.0.2.1", 5), "192.0.2.1"),
        (("2001:db8::1", 5), "2001:db8::/64"),
        (("2001:db8:0:0:ffff::9", 5), "2001:db8::/64"),
        (("2001:db8:0:1::1", 5), "2001:db8:0:1::/64"),
        (("fe80::1%eth0", 5), "fe80::/64"),
        (("somewhere", 5), "somewhere"),
    ],
)
def test_one_client(client: Any, key: str | None) -> None:
    assert client_key(client) == key
