"""The SDKs subscribe to rooms, publish, and see who is there."""

from __future__ import annotations

import json
from typing import Any

import pytest
from websockets.sync.client import connect

from tests.apps.sdk import auth
from tests.sdk.conftest import Connect, Unique
from tests.sdk.driving import WAYS, Client, SDKError, Way
from tests.support.process import Server

EXPIRED = -10.0


def token(user: str, room: str, **options: Any) -> str:
    """A subscription's."""
    return auth.subscription_token(user, room, **options)


@pytest.fixture
def ada(way: Way, client: Connect, unique: Unique) -> Client:
    ada = client(way, token=auth.connection_token("ada", info={"name": "Ada"}))
    ada.connect()
    return ada


@pytest.fixture
def bob(way: Way, client: Connect) -> Client:
    bob = client(way, token=auth.connection_token("bob"))
    bob.connect()
    return bob


def test_publish_and_receive(ada: Client, bob: Client, unique: Unique) -> None:
    """A publication says who it is from, and its publisher receives it, too."""
    room = unique("open:")
    ada.subscribe(room)
    bob.subscribe(room)

    ada.publish(room, {"text": "grüß dich 😀"})

    for publication in (ada.expect("publication", room), bob.expect("publication", room)):
        assert publication["data"] == {"text": "grüß dich 😀"}
        assert publication["offset"] == 1
        assert publication["info"]["user"] == "ada"
        assert publication["info"]["client"] == ada.rpc("who")["id"]
        assert publication["info"]["conn_info"] == {"name": "Ada"}


def test_the_server_publishes(ada: Client, bob: Client, unique: Unique) -> None:
    room = unique("open:")
    ada.subscribe(room)

    bob.rpc("publish", [room, ["text", 1.5, None, [], {"deep": {"deeper": ["est"]}}]])

    assert ada.received(room, 5) == ["text", 1.5, None, [], {"deep": {"deeper": ["est"]}}]
    assert all("info" not in event for event in ada.events("publication"))


def test_publications_keep_their_order(ada: Client, bob: Client, unique: Unique) -> None:
    room = unique("open:")
    bob.subscribe(room)

    for number in range(20):
        ada.publish(room, number)

    assert bob.received(room, 20) == list(range(20))


@pytest.mark.parametrize("way", [way for way in WAYS if way.transport == "websocket"], ids=str)
def test_unanswered_publications_keep_their_order(ada: Client, bob: Client, unique: Unique) -> None:
    """In a WebSocket. Elsewhere each command has a request of its own, and they overtake each other."""
    room = unique("open:")
    bob.subscribe(room)

    calls = [ada.begin("publish", channel=room, data=number) for number in range(20)]

    for call in calls:
        ada.driver.result(call)
    assert bob.received(room, 20) == list(range(20))


def test_unsubscribe(ada: Client, bob: Client, unique: Unique) -> None:
    room = unique("open:")
    ada.subscribe(room)
    bob.subscribe(room)

    ada.unsubscribe(room)
    bob.expect("leave", room)
    bob.publish(room, "nobody else is here")
    bob.expect("publication", room)

    assert ada.rpc("nothing") is None
    assert ada.events("publication") == []
    ada.subscribe(room)


def test_subscribing_and_unsubscribing_without_waiting(ada: Client, unique: Unique) -> None:
    """Commands that overtake each other included: in the end the client is in the room, once."""
    room = unique("open:")

    calls = [ada.begin(do, channel=room) for _ in range(10) for do in ("subscribe", "unsubscribe")]
    for call in calls:
        ada.driver.result(call)
    ada.call("subscribe", channel=room)
    ada.call("ready", channel=room)  # an event might be of an earlier turn

    ada.publish(room, "here")
    assert ada.received(room, 1) == ["here"]
    assert ada.call("presence_stats", channel=room) == {"clients": 1, "users": 1}


@pytest.mark.parametrize(("prefix", "code"), [("chat:closed", 103), ("token:", 103), ("feed:", 103), ("nowhere:", 102)])
def test_rooms_that_are_closed(ada: Client, unique: Unique, prefix: str, code: int) -> None:
    """The SDK does not try again, and the connection goes on."""
    room = unique(prefix)

    ada.call("subscribe", channel=room)

    assert ada.expect("unsubscribed", room)["code"] == code
    assert ada.rpc("add", {"a": 1, "b": 2}) == 3


def test_publishing_needs_a_permission(ada: Client, unique: Unique) -> None:
    room = unique("plain:")
    ada.subscribe(room)

    for where in (room, "nowhere:1"):
        with pytest.raises(SDKError) as raised:
            ada.publish(where, "loud")
        assert raised.value.code in (102, 103)
    assert ada.events("publication") == []


def test_presence(ada: Client, bob: Client, unique: Unique) -> None:
    room = unique("open:")
    ada.subscribe(room)
    bob.subscribe(room)
    ada_id, bob_id = ada.rpc("who")["id"], bob.rpc("who")["id"]

    assert bob.presence(room) == {
        ada_id: {"user": "ada", "client": ada_id, "conn_info": {"name": "Ada"}},
        bob_id: {"user": "bob", "client": bob_id},
    }
    assert bob.call("presence_stats", channel=room) == {"clients": 2, "users": 2}


def test_who_may_ask_for_presence(ada: Client, bob: Client, unique: Unique) -> None:
    """Who is in the room, or may subscribe without being asked anything more."""
    open_room, handled, tokened, plain = unique("open:"), unique("chat:"), unique("token:"), unique("plain:")
    ada.subscribe(open_room)
    ada.subscribe(handled)
    ada.subscribe(tokened, token=token("ada", tokened))
    ada.subscribe(plain)

    assert bob.call("presence_stats", channel=open_room) == {"clients": 1, "users": 1}
    assert bob.presence(open_room) == ada.presence(open_room)
    for room, code in ((handled, 103), (tokened, 103), (plain, 108), (unique("nowhere:"), 102)):
        for what in ("presence", "presence_stats"):
            with pytest.raises(SDKError) as raised:
                bob.call(what, channel=room)
            assert raised.value.code == code


def test_join_and_leave(ada: Client, bob: Client, unique: Unique) -> None:
    """Who asks is told of all others who come and go, and of its own coming."""
    room = unique("open:")
    ada.subscribe(room)
    own = ada.expect("join", room)["info"]

    bob.subscribe(room)
    joined = ada.expect("join", room)["info"]
    bob.unsubscribe(room)
    left = ada.expect("leave", room)["info"]

    assert own["conn_info"] == {"name": "Ada"}
    assert joined == left == {"user": "bob", "client": bob.rpc("who")["id"]}
    assert bob.events("leave") == []


def test_who_does_not_ask_is_not_told(ada: Client, bob: Client, unique: Unique) -> None:
    room = unique("open:")
    ada.subscribe(room, joinLeave=False)
    bob.subscribe(room)

    bob.publish(room, "first")

    ada.expect("publication", room)
    assert ada.events("join") == []


def test_a_room_with_a_handler(ada: Client, bob: Client, unique: Unique) -> None:
    """Its handler takes what clients publish, and says it in their names."""
    room = unique("chat:")
    subscribed = ada.subscribe(room, data={"hello": 1})
    bob.subscribe(room)

    ada.publish(room, {"text": "quiet"})

    received = bob.expect("publication", room)
    assert subscribed["data"]["room"] == room.removeprefix("chat:")
    assert subscribed["data"]["received"].replace(" ", "") == '{"hello":1}'
    assert received["data"] == {"text": "QUIET"}
    assert received["info"]["user"] == "ada"


def test_what_a_handler_does_not_take(ada: Client, unique: Unique) -> None:
    room = unique("chat:")
    ada.subscribe(room)

    with pytest.raises(SDKError) as raised:
        ada.publish(room, {"words": "none"})

    assert raised.value.code == 107


def test_a_handler_ends_a_subscription(ada: Client, unique: Unique) -> None:
    room = unique("chat:")
    ada.subscribe(room)

    ada.publish(room, {"text": "end"})

    ended = ada.expect("unsubscribed", room)
    assert (ended["code"], ended["reason"]) == (2000, "as you wish")


@pytest.mark.parametrize(("text", "code"), [("again", 2500), ("fail", 2503)])
def test_a_subscription_that_ends_and_begins_again(ada: Client, unique: Unique, text: str, code: int) -> None:
    """It ends alone: the connection goes on."""
    room = unique("chat:")
    ada.subscribe(room)
    connection = ada.rpc("who")["id"]

    ada.publish(room, {"text": text})

    ada.expect("subscribing", room, code=code)
    ada.expect("subscribed", room)
    ada.publish(room, {"text": "hello"})
    assert ada.received(room, 1) == [{"text": "HELLO"}]
    assert ada.rpc("who")["id"] == connection


def test_a_subscription_token(ada: Client, unique: Unique) -> None:
    """What it says of its owner, others see."""
    room = unique("token:")

    ada.subscribe(room, token=token("ada", room, info={"role": "guest"}))

    assert [info["chan_info"] for info in ada.presence(room).values()] == [{"role": "guest"}]


@pytest.mark.parametrize(("user", "suffix"), [("bob", ""), ("", ""), ("ada", "another")])
def test_a_subscription_token_of_somebody_else(ada: Client, unique: Unique, user: str, suffix: str) -> None:
    room = unique("token:")

    ada.call("subscribe", channel=room, token=token(user, room + suffix))

    assert ada.expect("unsubscribed", room)["code"] == 103


def test_a_subscription_token_that_has_expired(ada: Client, unique: Unique) -> None:
    room = unique("token:")

    ada.subscribe(room, token=token("ada", room, expires_in=EXPIRED), tokens=[token("ada", room)])

    assert len(ada.events("get_token")) == 1


def test_a_hundred_subscriptions(ada: Client, bob: Client, unique: Unique) -> None:
    rooms = [unique("plain:") for _ in range(100)]
    for call in [ada.begin("subscribe", channel=room) for room in rooms]:
        ada.driver.result(call)
    for room in rooms:
        ada.expect("subscribed", room)

    for room in rooms:
        bob.rpc("publish", [room, [room]])

    assert [ada.received(room, 1) for room in rooms] == [[room] for room in rooms]


def test_a_large_publication(ada: Client, unique: Unique) -> None:
    """In several chunks, whose ends are anywhere in what takes several bytes."""
    room = unique("open:")
    ada.subscribe(room)

    ada.rpc("repeat", [room, "ß😀", 30_000])
    ada.rpc("publish", [room, ["behind it"]])

    assert ada.received(room, 2) == ["ß😀" * 30_000, "behind it"]


def test_removed_from_a_room(ada: Client, bob: Client, unique: Unique) -> None:
    room = unique("open:")
    ada.subscribe(room)
    bob.subscribe(room)

    assert bob.rpc("kick", [room, "ada"]) == 1

    ended = ada.expect("unsubscribed", room)
    assert (ended["code"], ended["reason"]) == (2000, "out")
    bob.publish(room, "without her")
    assert bob.received(room, 1) == ["without her"]
    assert ada.rpc("nothing") is None
    assert ada.events("publication") == []


def test_plain_websockets_are_in_the_same_rooms(ada: Client, server: Server, unique: Unique) -> None:
    room = unique("small:")
    with connect(f"{server.url.replace('http', 'ws', 1)}/plain/{room}") as plain:
        assert plain.recv(10) == "here"
        ada.subscribe(room)

        ada.publish(room, {"from": "the SDK"})
        plain.send('{"from": "the plain one"}')
        said = [json.loads(plain.recv(10)) for _ in range(2)]

    assert ada.received(room, 2) == [{"from": "the SDK"}, {"from": "the plain one"}]
    assert [message["from"] for message in said] == ["the SDK", "the plain one"]
