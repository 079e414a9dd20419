"""What clients send: commands, whatever the encoding. Pure.

A command has an `id`, which its reply has, too, and one request. Fields that are not listed are ignored. A field that
is left out has its zero value, in JSON as in Protobuf.
"""

from __future__ import annotations

from typing import Final

import msgspec
from msgspec import Raw

NO_DATA: Final = Raw(b"")


class StreamPosition(msgspec.Struct, frozen=True):
    """A place in a channel's history. An empty epoch is any."""

    offset: int = 0
    epoch: str = ""


class SubscribeRequest(msgspec.Struct, frozen=True):
    """`recover`: go on after this `offset` of this `epoch`. `flag`: bits, of which 2 asks for an error where that is
    not possible."""

    channel: str = ""
    token: str = ""
    recover: bool = False
    epoch: str = ""
    offset: int = 0
    data: Raw = NO_DATA
    positioned: bool = False
    recoverable: bool = False
    join_leave: bool = False
    flag: int = 0


class ConnectRequest(msgspec.Struct, frozen=True):
    """The first command. `subs`: positions from which to go on, in subscriptions that the server makes. `headers`: what
    a browser can't set as headers of its WebSocket."""

    token: str = ""
    data: Raw = NO_DATA
    subs: dict[str, SubscribeRequest] = {}
    name: str = ""
    version: str = ""
    headers: dict[str, str] = {}


class ChannelRequest(msgspec.Struct, frozen=True):
    """Of unsubscribe, presence and presence_stats."""

    channel: str = ""


class PublishRequest(msgspec.Struct, frozen=True):
    channel: str = ""
    data: Raw = NO_DATA


class HistoryRequest(msgspec.Struct, frozen=True):
    """`limit`: so many; 0 for the position alone; negative: all."""

    channel: str = ""
    limit: int = 0
    since: StreamPosition | None = None
    reverse: bool = False


class PingRequest(msgspec.Struct, frozen=True):
    pass


class SendRequest(msgspec.Struct, frozen=True):
    """A message that is not answered. `cancel` is verbtrio's: the id of a call that its caller does not want any more.
    (Other servers ignore it.)"""

    data: Raw = NO_DATA
    cancel: int = 0


class RPCRequest(msgspec.Struct, frozen=True):
    """`timeout` is verbtrio's: seconds that the caller will wait; 0: it does not say. (Other servers ignore it.)"""

    data: Raw = NO_DATA
    method: str = ""
    timeout: float = 0.0


class RefreshRequest(msgspec.Struct, frozen=True):
    token: str = ""


class SubRefreshRequest(msgspec.Struct, frozen=True):
    channel: str = ""
    token: str = ""


class Command(msgspec.Struct, frozen=True):
    """One command. One of its requests is set; where there are several, the first counts."""

    id: int = 0
    connect: ConnectRequest | None = None
    subscribe: SubscribeRequest | None = None
    unsubscribe: ChannelRequest | None = None
    publish: PublishRequest | None = None
    presence: ChannelRequest | None = None
    presence_stats: ChannelRequest | None = None
    history: HistoryRequest | None = None
    ping: PingRequest | None = None
    send: SendRequest | None = None
    rpc: RPCRequest | None = None
    refresh: RefreshRequest | None = None
    sub_refresh: SubRefreshRequest | None = None

    @property
    def method(self) -> str | None:
        """The name of its request; `None` for the empty command, which answers a ping, and for an unknown one."""
        for name in METHODS:
            if getattr(self, name) is not None:
                return name
        return None


METHODS: Final = Command.__struct_fields__[1:]


class BadCommands(Exception):  # noqa: N818 -- says what the client has sent
    """A message can't be read: the client does not speak the protocol."""
