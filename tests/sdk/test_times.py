"""What takes seconds: tokens that run out, and pings. All clients wait at the same time."""

from __future__ import annotations

import time

from tests.apps.sdk import TOKEN_SLACK, auth
from tests.sdk.conftest import Connect, Unique
from tests.sdk.driving import WAYS, Client

SHORT = 1.0
"""Seconds that a token is valid for: less can't be said to an SDK."""
CONNECTED_ONCE = [{"event": "connecting", "code": 0, "reason": "connect called"}]


def token(expires_in: float = 3600.0) -> str:
    return auth.connection_token("ada", expires_in=expires_in)


def test_times(client: Connect, unique: Unique) -> None:
    """A token that runs out is refreshed, and the connection goes on; one that is not refreshed ends it, once its slack
    is over. So do the tokens of subscriptions, which end alone. Pings are answered meanwhile."""
    rooms = {way: unique("token:") for way in WAYS}

    def subscription_tokens(client: Client, *seconds: float) -> list[str]:
        return [auth.subscription_token("ada", rooms[client.way], expires_in=each) for each in seconds]

    refreshing = [client(way, tokens=[token(SHORT), token()]) for way in WAYS]
    expiring = [client(way, tokens=[token(SHORT)]) for way in WAYS]
    subscribed = [client(way, token=token()) for way in WAYS]
    unsubscribed = [client(way, token=token()) for way in WAYS]
    lasting = [*refreshing, *subscribed, *unsubscribed]
    begin = time.monotonic()
    for each in expiring:
        each.connect()
    ids = [each.connect()["client"] for each in lasting]
    for each in subscribed:
        each.subscribe(rooms[each.way], tokens=subscription_tokens(each, SHORT, 3600))
    for each in unsubscribed:
        each.subscribe(rooms[each.way], tokens=subscription_tokens(each, SHORT))

    for each in expiring:
        each.expect("connecting", code=3005, reason="connection expired")
    assert time.monotonic() - begin >= SHORT + TOKEN_SLACK
    for each in unsubscribed:
        each.expect("subscribing", rooms[each.way], code=2501)
    for each in refreshing:
        assert len(each.events("get_token")) == 2
    for each in subscribed:
        room = rooms[each.way]
        assert len(each.events("get_token")) == 2
        assert each.events("subscribing", "unsubscribed") == [
            {"channel": room, "event": "subscribing", "code": 0, "reason": "subscribe called"}
        ]
        assert each.rpc("who")["id"] in each.presence(room)
    assert [each.rpc("who")["id"] for each in lasting] == ids
    for each in lasting:
        assert each.events("connecting", "disconnected") == CONNECTED_ONCE
