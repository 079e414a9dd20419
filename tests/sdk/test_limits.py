"""What the SDKs are told where a client wants too much, and what they make of it."""

from __future__ import annotations

import pytest

from tests.apps.sdk import MAX_CALLS, MAX_ROOMS, auth
from tests.sdk.conftest import Connect, Unique
from tests.sdk.driving import SDKError, Way


def test_too_many_rooms(way: Way, client: Connect, unique: Unique) -> None:
    """The SDK gives the subscription up; the others go on."""
    ada = client(way, path="/limited")
    ada.connect()
    rooms = [unique("plain:") for _ in range(MAX_ROOMS + 1)]
    for room in rooms[:-1]:
        ada.subscribe(room)

    ada.call("subscribe", channel=rooms[-1])

    assert ada.expect("unsubscribed", rooms[-1])["code"] == 106
    ada.rpc("publish", [rooms[0], ["still here"]])
    assert ada.received(rooms[0], 1) == ["still here"]


def test_too_many_calls(way: Way, client: Connect) -> None:
    """One too many is answered at once; the others when their time is over. Then there is room for more."""
    ada = client(way, path="/limited")
    ada.connect()

    calls = [ada.begin("rpc", method="wait") for _ in range(MAX_CALLS + 1)]

    codes = []
    for call in calls:
        with pytest.raises(SDKError) as raised:
            ada.driver.result(call)
        codes.append(raised.value.code)
    assert sorted(codes) == [100] * MAX_CALLS + [111]
    assert ada.rpc("add", {"a": 1, "b": 2}) == 3


def test_too_fast(way: Way, client: Connect) -> None:
    """Some calls are refused; whoever goes on like this is disconnected, and may come back."""
    ada = client(way, path="/hasty")
    ada.connect()

    for _ in range(100):
        ada.begin("rpc", method="nothing")

    ada.expect("connecting", code=3013, reason="too many requests")
    ada.expect("connected")


def test_too_many_connections_of_a_user(way: Way, client: Connect, unique: Unique) -> None:
    """The second one is told so, for good."""
    token = auth.connection_token(unique("ada"))
    ada, again = client(way, path="/limited", token=token), client(way, path="/limited", token=token)
    ada.connect()

    again.call("connect")

    assert again.expect("disconnected")["code"] == 3504
    assert ada.rpc("add", {"a": 1, "b": 2}) == 3
