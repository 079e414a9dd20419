"""The SDKs call functions of the server's, and are sent what they have not asked for."""

from __future__ import annotations

from typing import Any

import pytest

from tests.apps.sdk import auth
from tests.sdk.conftest import Connect, Unique
from tests.sdk.driving import JS, WAYS, Client, SDKError, Way

only_js = pytest.mark.parametrize("way", [way for way in WAYS if way.sdk == JS], ids=str)
"""The Python SDK sends no messages, and shows none."""


@pytest.fixture
def user(unique: Unique) -> str:
    return unique("ada")


@pytest.fixture
def ada(way: Way, client: Connect, user: str) -> Client:
    ada = client(way, token=auth.connection_token(user, channels=[f"feed:{user}"]))
    ada.connect()
    return ada


@pytest.fixture
def bob(way: Way, client: Connect) -> Client:
    bob = client(way)
    bob.connect()
    return bob


def failure(client: Client, method: str, *data: Any) -> str:
    with pytest.raises(SDKError) as raised:
        client.rpc(method, *data)
    return str(raised.value)


def test_calls(bob: Client) -> None:
    assert bob.rpc("add", {"a": 40, "b": 2}) == 42
    assert bob.rpc("reflect", {"text": "grüß dich 😀", "list": [1, None, 1.5, ""]}) == {
        "text": "grüß dich 😀",
        "list": [1, None, 1.5, ""],
    }


def test_a_call_without_data(bob: Client) -> None:
    assert bob.rpc("nothing") is None
    assert bob.rpc("nothing", {"unasked": "for"}) is None


def test_calls_at_the_same_time(bob: Client) -> None:
    calls = [bob.begin("rpc", method="add", data={"a": number, "b": number}) for number in range(10)]

    assert [bob.driver.result(call) for call in calls] == [2 * number for number in range(10)]


def test_calls_that_fail(bob: Client) -> None:
    """Each with its own code; and of an error that nobody has foreseen, no word goes out."""
    assert failure(bob, "fail", "for good") == "1001 not today"
    assert failure(bob, "deny") == "103 not for you"
    assert failure(bob, "crash") == "100 internal server error"
    assert failure(bob, "add", {"a": 1}).startswith("107 ")
    assert failure(bob, "add", "text").startswith("107 ")
    assert failure(bob, "unheard of", 1).startswith("104 ")
    assert bob.rpc("add", {"a": 1, "b": 2}) == 3


@only_js
def test_sending_without_an_answer(bob: Client) -> None:
    bob.call("send", data={"text": "grüß dich 😀"})

    assert bob.expect("message")["data"] == {"echo": {"text": "grüß dich 😀"}}


@only_js
def test_a_message_to_one_client(bob: Client) -> None:
    bob.rpc("message", {"note": [1, "two"]})

    assert bob.expect("message")["data"] == {"note": [1, "two"]}


def test_rooms_of_the_token(ada: Client, bob: Client, user: str) -> None:
    """The server subscribes the client to them, and to the room that each user has."""
    for room in (f"feed:{user}", f"#{user}"):
        ada.expect("server_subscribed", room)

        bob.rpc("publish", [room, [room]])

        assert ada.expect("server_publication", room)["data"] == room


def test_rooms_of_the_token_recover(ada: Client, bob: Client, user: str) -> None:
    room = f"feed:{user}"
    ada.expect("server_subscribed", room)

    bob.rpc("end", {"user": user, "code": 3000, "reason": "come back", "room": room, "publish": [1, 2]})

    again = ada.expect("server_subscribed", room)
    assert (again["was_recovering"], again["recovered"]) == (True, True)
    assert [ada.expect("server_publication", room)["data"] for _ in range(2)] == [1, 2]


def test_the_server_subscribes_and_unsubscribes(ada: Client, bob: Client, unique: Unique) -> None:
    room = unique("feed:")

    ada.rpc("subscribe", room)
    subscribed = ada.expect("server_subscribed", room)
    bob.rpc("publish", [room, ["hello"]])
    publication = ada.expect("server_publication", room)
    was_subscribed = ada.rpc("unsubscribe", room)

    assert subscribed["data"] == {"by": "the server"}
    assert publication["data"] == "hello"
    assert was_subscribed
    ada.expect("server_unsubscribed", room)
    assert ada.rpc("unsubscribe", room) is False


def test_an_order_by_which_the_client_leaves_its_own_subscription(ada: Client, unique: Unique) -> None:
    room = unique("open:")
    ada.subscribe(room)

    assert ada.rpc("unsubscribe", room)

    assert ada.expect("unsubscribed", room)["code"] == 2000
