"""`tests/apps/centrifuge.py` serves what the SDKs' own suites expect: here is what they rely on."""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from base64 import urlsafe_b64encode
from typing import Any

import httpx
import pytest

from tests.apps.centrifuge import API_KEY, SECRET
from tests.conftest import Servers
from tests.sdk.conftest import Connect, Unique
from tests.sdk.driving import WAIT_SECONDS, Client, SDKError, Way
from tests.support.process import Server


@pytest.fixture(scope="module")
def suites(servers: Servers) -> Server:
    return servers.get("tests.apps.centrifuge:app")


@pytest.fixture
def ada(way: Way, client: Connect, suites: Server) -> Client:
    ada = client(way, suites.url)
    ada.connect()
    return ada


def token(**claims: Any) -> str:
    """Signed with the suites' short secret, of which PyJWT warns; `sub` may be a number."""
    parts = [json.dumps(part).encode() for part in ({"typ": "JWT", "alg": "HS256"}, claims)]
    signed = b".".join(urlsafe_b64encode(part).rstrip(b"=") for part in parts)
    signature = hmac.digest(SECRET.encode(), signed, hashlib.sha256)
    return (signed + b"." + urlsafe_b64encode(signature).rstrip(b"=")).decode()


def ask(server: Server, method: str, **body: Any) -> dict[str, Any]:
    response = httpx.post(f"{server.url}/api/{method}", json=body, headers={"X-API-Key": API_KEY})
    assert response.status_code == 200
    result: dict[str, Any] = response.json()["result"]
    return result


def test_nobody_is_kept_out(ada: Client, suites: Server, unique: Unique) -> None:
    room = unique("channel")
    subscribed = ada.subscribe(room)
    ada.publish(room, {"input": "test"})
    position = ask(suites, "publish", channel=room, data="by the API")

    assert subscribed["recoverable"]
    assert ada.received(room, 2) == [{"input": "test"}, "by the API"]
    assert [each["data"] for each in ada.history(room, limit=-1)["publications"]] == [{"input": "test"}, "by the API"]
    assert position == ask(suites, "history", channel=room, limit=0)
    assert position["offset"] == 2
    assert ada.call("presence_stats", channel=room) == {"clients": 1, "users": 1}


def test_who_is_there_is_told_to_those_who_are_not(ada: Client, unique: Unique) -> None:
    """The suites look whether a client that has unsubscribed is gone."""
    room = unique("channel")
    ada.subscribe(room)
    ada.unsubscribe(room)

    deadline = time.monotonic() + WAIT_SECONDS
    while ada.call("presence_stats", channel=room) != {"clients": 0, "users": 0}:  # it may overtake the unsubscribe
        assert time.monotonic() < deadline
    assert ada.presence(room) == {}
    assert ada.history(room)["offset"] == 0


def test_the_api_asks_for_its_key(suites: Server) -> None:
    for method in ("publish", "history"):
        assert httpx.post(f"{suites.url}/api/{method}", json={"channel": "a"}).status_code == 401


def test_joins_are_told_to_all(ada: Client, way: Way, client: Connect, suites: Server, unique: Unique) -> None:
    room = unique("channel")
    ada.subscribe(room, joinLeave=False)
    ada.expect("join", room)
    bob = client(way, suites.url)
    bob.connect()

    bob.subscribe(room, joinLeave=False)
    bob.unsubscribe(room)

    assert ada.expect("join", room)["info"] == ada.expect("leave", room)["info"]


def test_a_user_with_a_number(way: Way, client: Connect, suites: Server, unique: Unique) -> None:
    """Subscribed by the server to the channel of its own."""
    number = unique("")
    ada = client(way, suites.url, token=token(sub=int(number)))
    ada.connect()
    ada.expect("server_subscribed", f"#{number}")

    ask(suites, "publish", channel=f"#{number}", data={"only": "for you"})

    assert ada.expect("server_publication", f"#{number}")["data"] == {"only": "for you"}


def test_the_channels_of_a_token(way: Way, client: Connect, suites: Server, unique: Unique) -> None:
    room = unique("channel")
    ada = client(way, suites.url, token=token(sub="ada", channels=[room]))
    ada.connect()

    ada.expect("server_subscribed", room)

    assert ada.call("presence_stats", channel=room) == {"clients": 1, "users": 1}


def test_tokens(way: Way, client: Connect, suites: Server) -> None:
    expired, invalid = token(sub="ada", exp=int(time.time()) - 10), token(sub="ada")[:-4]
    ada = client(way, suites.url, token=expired, tokens=[token(sub="ada")])
    ada.connect()
    bob = client(way, suites.url, token=invalid)
    bob.call("connect")

    assert len(ada.events("get_token")) == 1
    assert bob.expect("disconnected")["code"] == 3500


def test_subscription_tokens(ada: Client, unique: Unique) -> None:
    """Of an anonymous user, and without an end."""
    rooms = [unique("channel") for _ in range(5)]

    for room in rooms:
        ada.call("subscribe", channel=room, tokens=[token(channel=room, iat=1737532348)])

    for room in rooms:
        ada.expect("subscribed", room)


def test_connecting_and_disconnecting_without_waiting(
    way: Way, client: Connect, suites: Server, unique: Unique
) -> None:
    ada = client(way, suites.url)
    room = unique("channel")

    for do in ("connect", "disconnect") * 10:
        ada.begin(do)
    ada.begin("subscribe", channel=room)
    for do in ("connect", "disconnect", "connect"):
        ada.begin(do)
    ada.begin("unsubscribe", channel=room)
    ada.begin("subscribe", channel=room)
    ada.call("ready", channel=room)

    ada.publish(room, "here")
    assert ada.received(room, 1) == ["here"]


def test_what_was_missed(ada: Client, suites: Server, unique: Unique) -> None:
    """Recovery where the history reaches back, and none where it does not."""
    rooms = [unique("recovery:"), unique("smallhistory:")]
    for room in rooms:
        ada.subscribe(room)
    ada.disconnect()
    for room in rooms:
        for number in range(3):
            ask(suites, "publish", channel=room, data=number)
    ada.connect()

    again = [ada.expect("subscribed", room) for room in rooms]
    assert [(each["was_recovering"], each["recovered"]) for each in again] == [(True, True), (True, False)]
    assert ada.received(rooms[0], 3) == [0, 1, 2]
    assert ada.events("publication") == []


def test_no_calls(ada: Client) -> None:
    with pytest.raises(SDKError) as raised:
        ada.rpc("test", {"a": 1})

    assert raised.value.code == 108
