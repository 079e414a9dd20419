"""Subscriptions that the server makes: a token's, a user's own room, and those of `client.subscribe`."""

from __future__ import annotations

from typing import Any

import msgspec
import trio

from verbtrio.base.errors import (
    FIRST_CALL_ERROR,
    CallError,
    ConnectionClosed,
    Denied,
    LimitExceeded,
    RoomUnavailable,
    VerbtrioError,
)
from verbtrio.base.types import Data
from verbtrio.multiplex.client import Subscription
from verbtrio.multiplex.life import SubscriptionLife, forms
from verbtrio.multiplex.peer import ClientPeer
from verbtrio.multiplex.recovery import Allowance
from verbtrio.multiplex.subscriptions import ServerSide, Subscriptions
from verbtrio.protocols import codes
from verbtrio.protocols.codes import ProtocolError, Refused
from verbtrio.protocols.commands import NO_DATA, SubscribeRequest
from verbtrio.protocols.replies import Push, SubscribePush, SubscribeResult
from verbtrio.rooms.room import check_name


async def accept_by_server(
    peer: ClientPeer,
    subscriptions: Subscriptions,
    request: SubscribeRequest,
    data: Data,
    presence: Any,
    allowance: Allowance | None = None,
) -> tuple[SubscriptionLife, ServerSide]:
    """Subscribe a client to a room, and wait until it is accepted. It has to be told then, and the subscription opened.
    If cancelled, it has ended.

    Raises:
        (what `Client.subscribe` raises)
    """
    name = request.channel
    check_name(name)
    if not name:
        raise ValueError("a client is subscribed to a room by its name, which is not empty")
    forms(peer, data, presence)  # raises for what can't be encoded, before anything has changed
    outcome = ServerSide(data, presence, allowance)
    try:
        life = subscriptions.subscribe_by_server(request, outcome)
    except Refused as refused:
        if refused.error is codes.ALREADY_SUBSCRIBED:
            raise RuntimeError(f"the client is subscribed to {name!r:.100} already") from None
        if refused.error is codes.BAD_REQUEST:
            raise ValueError(
                f"the name of a room that clients subscribe to has 255 bytes at most: {name!r:.100}"
            ) from None
        raise LimitExceeded(refused.error.message) from None
    try:
        await outcome.wait()
    except trio.Cancelled:
        life.leave(discard=True)
        raise
    if peer.closed is not None:
        raise ConnectionClosed(peer.closed)
    if outcome.error is not None:
        raise exception_of(outcome.error)
    if outcome.result is None or life.is_over:  # it was accepted, and ended before this task could run
        raise Denied("The subscription has ended")
    return life, outcome


async def subscribe_client(
    peer: ClientPeer, subscriptions: Subscriptions, name: str, data: Data, presence: Any
) -> Subscription[Any]:
    """See `Client.subscribe`, for a client that has connected."""
    life, outcome = await accept_by_server(peer, subscriptions, SubscribeRequest(channel=name), data, presence)
    assert outcome.result is not None, "it has been accepted"
    peer.push(push_of(name, outcome.result))
    life.open()
    return Subscription(life)


def push_of(name: str, result: SubscribeResult) -> Push:
    """How a client learns of a subscription that the server has made."""
    return Push(
        channel=name,
        subscribe=SubscribePush(
            recoverable=result.recoverable,
            epoch=result.epoch,
            offset=result.offset,
            positioned=result.positioned,
            data=result.data,
        ),
    )


def exception_of(error: ProtocolError) -> VerbtrioError:
    """What `client.subscribe` raises where the client can't be in the room."""
    if error.code == codes.PERMISSION_DENIED.code:
        return Denied(error.message)
    if error.code == codes.LIMIT_EXCEEDED.code:
        return LimitExceeded(error.message)
    if error.code >= FIRST_CALL_ERROR:  # the handler's own
        return CallError(error.code, error.message, temporary=error.temporary)
    return RoomUnavailable(error.message)


def at_position(request: SubscribeRequest | None, name: str) -> SubscribeRequest:
    """The request of a subscription that the server makes: of the client's own, the position alone counts, and whether
    it wants to know who comes and goes."""
    if request is None:
        return SubscribeRequest(channel=name)
    return msgspec.structs.replace(request, channel=name, token="", flag=0, data=NO_DATA)
