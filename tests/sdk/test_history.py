"""The SDKs read what a room remembers, and recover what they have missed."""

from __future__ import annotations

from typing import Any

import pytest

from tests.apps.sdk import auth
from tests.sdk.conftest import Connect, Unique
from tests.sdk.driving import WAYS, Client, SDKError, Way
from tests.support.process import free_port, hypercorn


@pytest.fixture
def user(unique: Unique) -> str:
    return unique("ada")


@pytest.fixture
def ada(way: Way, client: Connect, user: str) -> Client:
    ada = client(way, token=auth.connection_token(user))
    ada.connect()
    return ada


@pytest.fixture
def bob(way: Way, client: Connect) -> Client:
    """A client by which the tests reach the server."""
    bob = client(way)
    bob.connect()
    return bob


def data(page: dict[str, Any]) -> list[Any]:
    return [publication["data"] for publication in page["publications"]]


def test_history(ada: Client, bob: Client, unique: Unique) -> None:
    room = unique("open:")
    ada.subscribe(room)
    bob.rpc("publish", [room, [1, 2, 3, 4, 5]])

    last = ada.history(room)
    since = {"offset": 3, "epoch": last["epoch"]}

    assert (data(last), last["offset"]) == ([], 5)
    assert data(ada.history(room, limit=-1)) == [1, 2, 3, 4, 5]
    assert data(ada.history(room, limit=2)) == [1, 2]
    assert data(ada.history(room, limit=2, reverse=True)) == [5, 4]
    assert data(ada.history(room, limit=10, since=since)) == [4, 5]
    assert data(ada.history(room, limit=10, since=since, reverse=True)) == [2, 1]
    assert [each["offset"] for each in ada.history(room, limit=-1)["publications"]] == [1, 2, 3, 4, 5]


def test_history_says_who_has_published(ada: Client, user: str, unique: Unique) -> None:
    room = unique("open:")
    ada.subscribe(room)
    ada.publish(room, "mine")

    [publication] = ada.history(room, limit=1)["publications"]

    assert publication["info"] == {"user": user, "client": ada.rpc("who")["id"]}


def test_history_of_another_epoch(ada: Client, unique: Unique) -> None:
    room = unique("open:")
    ada.subscribe(room)

    with pytest.raises(SDKError) as raised:
        ada.history(room, limit=10, since={"offset": 0, "epoch": "another"})

    assert raised.value.code == 112


def test_who_may_ask_for_history(ada: Client, bob: Client, unique: Unique) -> None:
    """Who is in the room, or may subscribe without being asked anything more."""
    open_room, handled, plain = unique("open:"), unique("chat:"), unique("plain:")
    ada.subscribe(handled)
    bob.rpc("publish", [open_room, ["said"]])

    assert data(bob.history(open_room, limit=1)) == ["said"]
    for room, code in ((handled, 103), (unique("feed:"), 103), (plain, 108), (unique("nowhere:"), 102)):
        with pytest.raises(SDKError) as raised:
            bob.history(room, limit=1)
        assert raised.value.code == code


def test_recovery_after_the_server_has_ended_the_connection(
    ada: Client, bob: Client, user: str, unique: Unique
) -> None:
    """What is published meanwhile comes when the client is back, in order, and each once."""
    room = unique("open:")
    first = ada.subscribe(room)
    bob.rpc("publish", [room, ["before"]])
    assert ada.received(room, 1) == ["before"]

    missed = [f"missed {number}" for number in range(10)]
    bob.rpc("end", {"user": user, "code": 3000, "reason": "come back", "room": room, "publish": missed})
    again = ada.expect("subscribed", room)
    bob.rpc("publish", [room, ["after"]])

    assert (first["was_recovering"], first["recoverable"]) == (False, True)
    assert (again["was_recovering"], again["recovered"]) == (True, True)
    assert ada.received(room, 11) == [*missed, "after"]
    assert ada.events("publication") == []


def test_recovery_after_the_client_was_away(ada: Client, bob: Client, unique: Unique) -> None:
    room = unique("open:")
    ada.subscribe(room)
    ada.disconnect()

    bob.rpc("publish", [room, ["grüß", "dich", "😀"]])
    ada.connect()

    again = ada.expect("subscribed", room)
    assert (again["was_recovering"], again["recovered"]) == (True, True)
    assert ada.received(room, 3) == ["grüß", "dich", "😀"]


def test_recovery_of_a_room_with_a_handler(ada: Client, bob: Client, unique: Unique) -> None:
    room = unique("chat:")
    ada.subscribe(room)
    ada.disconnect()

    bob.rpc("publish", [room, ["missed"]])
    ada.connect()

    assert ada.expect("subscribed", room)["recovered"]
    assert ada.received(room, 1) == ["missed"]


def test_a_position_that_is_remembered_no_more(ada: Client, bob: Client, unique: Unique) -> None:
    """The client is told that it has missed something, and gets no part of it."""
    room = unique("small:")
    ada.subscribe(room)
    ada.disconnect()

    bob.rpc("publish", [room, [1, 2, 3, 4, 5]])
    ada.connect()

    again = ada.expect("subscribed", room)
    assert (again["was_recovering"], again["recovered"]) == (True, False)
    bob.rpc("publish", [room, ["after"]])
    assert ada.received(room, 1) == ["after"]
    assert ada.events("publication") == []


def test_what_is_remembered_of_a_small_history(ada: Client, bob: Client, unique: Unique) -> None:
    room = unique("small:")
    ada.subscribe(room)
    ada.disconnect()

    bob.rpc("publish", [room, [1, 2]])
    ada.connect()

    assert ada.expect("subscribed", room)["recovered"]
    assert ada.received(room, 2) == [1, 2]


def test_more_than_a_client_takes_in_one_message(ada: Client, bob: Client, unique: Unique) -> None:
    """The Python SDK takes 1 MiB. It is told that it has missed something, or gets a part; and stays connected."""
    room = unique("open:")
    ada.subscribe(room)
    ada.disconnect()

    for _ in range(12):
        bob.rpc("repeat", [room, "x", 100_000])
    ada.connect()

    again = ada.expect("subscribed", room)
    assert (again["was_recovering"], again["recovered"]) == (True, False)
    page = ada.history(room, limit=-1)
    assert page["offset"] == 12
    assert [each["offset"] for each in page["publications"]] == list(range(1, len(page["publications"]) + 1))
    assert len(page["publications"]) >= 1
    assert len(ada.events("connecting")) == 2


def test_no_recovery_without_a_history(ada: Client, bob: Client, unique: Unique) -> None:
    room = unique("plain:")
    first = ada.subscribe(room)
    ada.disconnect()

    bob.rpc("publish", [room, ["missed"]])
    ada.connect()

    again = ada.expect("subscribed", room)
    assert not first["recoverable"]
    assert not again["was_recovering"]
    bob.rpc("publish", [room, ["after"]])
    assert ada.received(room, 1) == ["after"]


def test_a_server_that_is_started_anew(client: Connect, unique: Unique) -> None:
    """All clients are told that it shuts down, and come back when it is there again: it remembers nothing, which each
    of their subscriptions is told."""
    room, port = unique("open:"), free_port()
    with hypercorn("tests.apps.sdk:app", port=port) as server:
        clients = [client(way, server.url) for way in WAYS]
        for each in clients:
            each.connect()
            each.subscribe(room)
        clients[0].publish(room, "before")
        for each in clients:
            assert each.received(room, 1) == ["before"]

    for each in clients:
        each.expect("connecting", code=3001, reason="shutdown")
    with hypercorn("tests.apps.sdk:app", "-w", "0", port=port):
        for each in clients:
            each.expect("connected")
            again = each.expect("subscribed", room)
            assert (again["was_recovering"], again["recovered"]) == (True, False)
        clients[0].publish(room, "after")
        for each in clients:
            assert each.received(room, 1) == ["after"]
