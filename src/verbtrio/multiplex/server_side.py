"""Subscriptions that the server makes: a token's, a user's own room, and those of `client.subscribe`."""

from __future__ import annotations

from typing import Any

import msgspec
import trio

from verbtrio.base.errors import Denied, LimitExceeded, RoomUnavailable, VerbtrioError
from verbtrio.base.types import Data
from verbtrio.multiplex.life import SubscriptionLife
from verbtrio.protocols import codes
from verbtrio.protocols.codes import ProtocolError
from verbtrio.protocols.commands import SubscribeRequest
from verbtrio.protocols.replies import Push, SubscribePush, SubscribeResult


class ServerSide:
    """The outcome of one, for those who wait for it.

    Args:
        data, presence: as in `Client.subscribe`.

    Attributes:
        result: what the client is to be told; `None` where it was refused, or is not decided.
        error: why it was refused.
    """

    def __init__(self, data: Data = None, presence: Any = None) -> None:
        self.given = (data, presence)
        self.result: SubscribeResult | None = None
        self.error: ProtocolError | None = None
        self._done = trio.Event()

    def tell(self, life: SubscriptionLife, result: SubscribeResult) -> None:
        """The client is accepted."""
        self.result = result
        self._done.set()

    def refuse(self, error: ProtocolError) -> None:
        """It is not."""
        self.error = error
        self._done.set()

    async def wait(self) -> None:
        """Wait for either."""
        await self._done.wait()


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
    return RoomUnavailable(error.message)


def at_position(request: SubscribeRequest | None, name: str) -> SubscribeRequest:
    """The request of a subscription that the server makes: of the client's own, the position alone counts."""
    if request is None:
        return SubscribeRequest(channel=name)
    return msgspec.structs.replace(request, channel=name, token="", flag=0)
