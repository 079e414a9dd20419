"""The SDKs connect, with a token or without one, and see how their connections end."""

from __future__ import annotations

import pytest

from tests.apps.sdk import auth
from tests.sdk.conftest import Connect, Unique
from tests.sdk.driving import JS, Way

EXPIRED = -10.0


def token(user: str, *, expires_in: float = 3600.0) -> str:
    return auth.connection_token(user, expires_in=expires_in)


def test_without_a_token(way: Way, client: Connect) -> None:
    ada = client(way)

    connected = ada.connect()

    assert ada.rpc("who") == {"user": None, "id": connected["client"], "name": way.sdk, "transport": way.transport}


def test_with_a_token(way: Way, client: Connect, unique: Unique) -> None:
    user = unique("ada")
    ada = client(way, token=token(user))

    ada.connect()

    assert ada.rpc("who")["user"]["sub"] == user


def test_where_a_token_is_needed(way: Way, client: Connect) -> None:
    """Without one, the SDK is told so for good."""
    ada, bob = client(way, path="/members"), client(way, path="/members", token=token("bob"))

    ada.call("connect")
    bob.connect()

    assert ada.expect("disconnected") == {"event": "disconnected", "code": 101, "reason": "unauthorized"}
    assert bob.rpc("add", {"a": 1, "b": 2}) == 3


def test_data_both_ways(way: Way, client: Connect) -> None:
    ada = client(way, data={"greeting": "grüß dich 😀"})

    assert ada.connect()["data"] == {"received": {"greeting": "grüß dich 😀"}}


def test_a_token_that_is_not_valid(way: Way, client: Connect) -> None:
    """It is the end: the SDK does not try again."""
    ada = client(way, token=token("ada")[:-4])

    ada.call("connect")

    assert ada.expect("disconnected") == {"event": "disconnected", "code": 3500, "reason": "invalid token"}
    assert len(ada.events("connecting")) == 1


def test_a_token_that_has_expired(way: Way, client: Connect) -> None:
    """The SDK gets another one, and connects with that."""
    ada = client(way, token=token("ada", expires_in=EXPIRED), tokens=[token("ada")])

    ada.connect()

    assert len(ada.events("get_token")) == 1
    assert ada.rpc("who")["user"]["sub"] == "ada"


@pytest.mark.parametrize("code", [3000, 4499], ids=str)
def test_an_end_after_which_clients_come_back(way: Way, client: Connect, unique: Unique, code: int) -> None:
    user = unique("ada")
    ada, other = client(way, token=token(user)), client(way)
    first = ada.connect()
    other.connect()

    assert other.rpc("end", {"user": user, "code": code, "reason": "come back"}) == 1

    ada.expect("connecting", code=code, reason="come back")
    assert ada.expect("connected")["client"] != first["client"]


@pytest.mark.parametrize("code", [3500, 4999], ids=str)
def test_an_end_for_good(way: Way, client: Connect, unique: Unique, code: int) -> None:
    user = unique("ada")
    ada, other = client(way, token=token(user)), client(way)
    ada.connect()
    other.connect()

    assert other.rpc("end", {"user": user, "code": code, "reason": "stay away"}) == 1

    assert ada.expect("disconnected") == {"event": "disconnected", "code": code, "reason": "stay away"}


def test_an_end_without_a_reason(way: Way, client: Connect, unique: Unique) -> None:
    """The reason that goes out is not empty: the JavaScript SDK would come back."""
    user = unique("ada")
    ada, other = client(way, token=token(user)), client(way)
    ada.connect()
    other.connect()

    other.rpc("end", {"user": user, "code": 4999, "reason": ""})

    assert ada.expect("disconnected")["code"] == 4999


def test_a_reason_that_is_json(way: Way, client: Connect, unique: Unique) -> None:
    """It does not go out as such: the JavaScript SDK would take it for advice, and stay away."""
    user = unique("ada")
    ada, other = client(way, token=token(user)), client(way)
    ada.connect()
    other.connect()

    other.rpc("end", {"user": user, "code": 4000, "reason": "12"})

    ada.expect("connecting", code=4000, reason="closed: 12")
    ada.expect("connected")


def test_an_end_behind_many_messages(way: Way, client: Connect) -> None:
    """The client reads to the end, and knows the last words, although the response that carries it ends at once."""
    ada = client(way)
    ada.connect()

    ada.begin("rpc", method="leave", data=300)

    assert ada.expect("disconnected") == {"event": "disconnected", "code": 4500, "reason": "that was all"}
    if way.sdk == JS:  # the Python SDK shows no messages
        assert [event["data"] for event in ada.events("message")] == list(range(300))
