"""What clients send: commands, whatever the encoding. Pure.

A command has an `id`, which its reply has, too, and one request. Fields that are not listed are ignored. A field that
is left out has its zero value, in JSON as in Protobuf.

A `Raw` may be a view of the line that it came in, and keeps all of it. Who keeps one keeps its `copy()`.
"""

from __future__ import annotations

from typing import Annotated, Final, NamedTuple, TypeAlias

import msgspec
from msgspec import Meta, Raw

NO_DATA: Final = Raw(b"")

MAX_ENTRIES: Final = 4096
"""The most entries of `ConnectRequest.subs` and `headers`. They are decoded in one go, while all others wait."""

# What is not within these bounds, in either encoding, can't be read.
UInt32: TypeAlias = Annotated[int, Meta(ge=0, le=2**32 - 1)]
Int32: TypeAlias = Annotated[int, Meta(ge=-(2**31), le=2**31 - 1)]
Int64: TypeAlias = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
Offset: TypeAlias = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Seconds: TypeAlias = Annotated[float, Meta(ge=0)]


class StreamPosition(msgspec.Struct, frozen=True):
    """A place in a channel's history. An empty epoch is any."""

    offset: Offset = 0
    epoch: str = ""


class SubscribeRequest(msgspec.Struct, frozen=True):
    """`recover`: go on after this `offset` of this `epoch`. `flag`: bits, of which 2 asks for an error where that is
    not possible."""

    channel: str = ""
    token: str = ""
    recover: bool = False
    epoch: str = ""
    offset: Offset = 0
    data: Raw = NO_DATA
    positioned: bool = False
    recoverable: bool = False
    join_leave: bool = False
    flag: Int64 = 0


class ConnectRequest(msgspec.Struct, frozen=True):
    """The first command. `subs`: positions from which to go on, in subscriptions that the server makes. `headers`: what
    a browser can't set as headers of its WebSocket."""

    token: str = ""
    data: Raw = NO_DATA
    subs: Annotated[dict[str, SubscribeRequest], Meta(max_length=MAX_ENTRIES)] = {}
    name: str = ""
    version: str = ""
    headers: Annotated[dict[str, str], Meta(max_length=MAX_ENTRIES)] = {}


class ChannelRequest(msgspec.Struct, frozen=True):
    """Of unsubscribe, presence and presence_stats."""

    channel: str = ""


class PublishRequest(msgspec.Struct, frozen=True):
    channel: str = ""
    data: Raw = NO_DATA


class HistoryRequest(msgspec.Struct, frozen=True):
    """`limit`: so many; 0 for the position alone; negative: all."""

    channel: str = ""
    limit: Int32 = 0
    since: StreamPosition | None = None
    reverse: bool = False


class PingRequest(msgspec.Struct, frozen=True):
    pass


class SendRequest(msgspec.Struct, frozen=True):
    """A message that is not answered. `cancel` is verbtrio's: the id of a call that its caller does not want any more.
    (Other servers ignore it.)"""

    data: Raw = NO_DATA
    cancel: UInt32 = 0


class RPCRequest(msgspec.Struct, frozen=True):
    """`timeout` is verbtrio's: seconds that the caller will wait; 0: it does not say. (Other servers ignore it.)"""

    data: Raw = NO_DATA
    method: str = ""
    timeout: Seconds = 0.0


class RefreshRequest(msgspec.Struct, frozen=True):
    token: str = ""


class SubRefreshRequest(msgspec.Struct, frozen=True):
    channel: str = ""
    token: str = ""


class Command(msgspec.Struct, frozen=True):
    """One command. One of its requests is set; where there are several, the first counts. (The first ones are found
    soonest: those that clients send most.)"""

    id: UInt32 = 0
    rpc: RPCRequest | None = None
    publish: PublishRequest | None = None
    send: SendRequest | None = None
    connect: ConnectRequest | None = None
    subscribe: SubscribeRequest | None = None
    unsubscribe: ChannelRequest | None = None
    presence: ChannelRequest | None = None
    presence_stats: ChannelRequest | None = None
    history: HistoryRequest | None = None
    ping: PingRequest | None = None
    refresh: RefreshRequest | None = None
    sub_refresh: SubRefreshRequest | None = None

    @property
    def method(self) -> str | None:
        """The name of its request; `None` for the empty command, which answers a ping, and for an unknown one."""
        values = msgspec.structs.astuple(self)
        for at in _REQUESTS:
            if values[at] is not None:
                return _FIELDS[at]
        return None


_FIELDS: Final = Command.__struct_fields__
_REQUESTS: Final = range(1, len(_FIELDS))
METHODS: Final = _FIELDS[1:]


class EmulationRequest(NamedTuple):
    """The body of a request that brings the commands of a client without a WebSocket."""

    session: str
    node: str
    data: str | bytes
    """A message with commands."""


class BadCommands(Exception):  # noqa: N818 -- says what the client has sent
    """A message can't be read: the client does not speak the protocol."""
