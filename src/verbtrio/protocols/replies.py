"""What clients are sent: replies to commands, and pushes, whatever the encoding. Pure.

Fields with their zero value are left out. What is `data` to an application stays in the form it has: a `Raw` holds
JSON or, for a Protobuf client, any bytes.
"""

from __future__ import annotations

from msgspec import Raw, Struct

from verbtrio.messages.published import ClientInfo as ClientInfo
from verbtrio.protocols.codes import ProtocolError
from verbtrio.protocols.commands import NO_DATA


class Publication(Struct, frozen=True, omit_defaults=True):
    """A message of a channel. `info`: who has published it, if it was a client. `offset`: its place in the history."""

    data: Raw = NO_DATA
    info: ClientInfo | None = None
    offset: int = 0


class SubscribeResult(Struct, frozen=True, omit_defaults=True):
    expires: bool = False
    ttl: int = 0
    recoverable: bool = False
    epoch: str = ""
    publications: list[Publication] = []
    recovered: bool = False
    offset: int = 0
    positioned: bool = False
    data: Raw | None = None
    was_recovering: bool = False


class ConnectResult(Struct, frozen=True, omit_defaults=True):
    """`ping`: seconds between two pings. `session`, `node`: for commands that come by requests of their own."""

    client: str = ""
    version: str = ""
    expires: bool = False
    ttl: int = 0
    data: Raw | None = None
    subs: dict[str, SubscribeResult] = {}
    ping: int = 0
    pong: bool = False
    session: str = ""
    node: str = ""


class Empty(Struct, frozen=True):
    """The result of unsubscribe, publish and ping."""


class PresenceResult(Struct, frozen=True):
    """The map is never left out: the JavaScript SDK passes it on as it comes."""

    presence: dict[str, ClientInfo] = {}


class PresenceStatsResult(Struct, frozen=True):
    """The numbers are never left out: to the JavaScript SDK, one that is missing is not 0."""

    num_clients: int = 0
    num_users: int = 0


class HistoryResult(Struct, frozen=True, omit_defaults=True):
    publications: list[Publication] = []
    epoch: str = ""
    offset: int = 0


class RPCResult(Struct, frozen=True, omit_defaults=True):
    data: Raw | None = None


class RefreshResult(Struct, frozen=True, omit_defaults=True):
    client: str = ""
    version: str = ""
    expires: bool = False
    ttl: int = 0


class SubRefreshResult(Struct, frozen=True, omit_defaults=True):
    expires: bool = False
    ttl: int = 0


class Reply(Struct, frozen=True, omit_defaults=True):
    """The answer to a command: an error, or the result under the command's name."""

    id: int = 0
    error: ProtocolError | None = None
    connect: ConnectResult | None = None
    subscribe: SubscribeResult | None = None
    unsubscribe: Empty | None = None
    publish: Empty | None = None
    presence: PresenceResult | None = None
    presence_stats: PresenceStatsResult | None = None
    history: HistoryResult | None = None
    ping: Empty | None = None
    rpc: RPCResult | None = None
    refresh: RefreshResult | None = None
    sub_refresh: SubRefreshResult | None = None


class JoinPush(Struct, frozen=True, omit_defaults=True):
    """Of join and leave."""

    info: ClientInfo | None = None


class UnsubscribePush(Struct, frozen=True, omit_defaults=True):
    code: int = 0
    reason: str = ""


class MessagePush(Struct, frozen=True, omit_defaults=True):
    data: Raw = NO_DATA


class SubscribePush(Struct, frozen=True, omit_defaults=True):
    """The server has subscribed the client."""

    recoverable: bool = False
    epoch: str = ""
    offset: int = 0
    positioned: bool = False
    data: Raw | None = None


class DisconnectPush(Struct, frozen=True, omit_defaults=True):
    code: int = 0
    reason: str = ""


class Push(Struct, frozen=True, omit_defaults=True):
    """What nobody has asked for. `channel` is empty for `message` and `disconnect`."""

    channel: str = ""
    pub: Publication | None = None
    join: JoinPush | None = None
    leave: JoinPush | None = None
    unsubscribe: UnsubscribePush | None = None
    message: MessagePush | None = None
    subscribe: SubscribePush | None = None
    disconnect: DisconnectPush | None = None
