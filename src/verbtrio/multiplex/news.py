"""Tells subscribers which clients come and go, in rooms with `join_leave`."""

from __future__ import annotations

import msgspec
from msgspec import Raw

from verbtrio.brokers.records import ConnectionChange, PresentConnection
from verbtrio.messages.frame import ProtocolFrame
from verbtrio.multiplex.peer import ClientPeer
from verbtrio.protocols.replies import ClientInfo, JoinPush, Push


class ConnectionNews:
    """Those clients of an app that want to be told, by room."""

    def __init__(self) -> None:
        self._listeners: dict[str, dict[ClientPeer, None]] = {}

    def __len__(self) -> int:
        """How many rooms there are with such clients."""
        return len(self._listeners)

    def add(self, room: str, peer: ClientPeer) -> None:
        """Tell `peer` from now on."""
        self._listeners.setdefault(room, {})[peer] = None

    def discard(self, room: str, peer: ClientPeer) -> None:
        """Tell `peer` nothing more."""
        listeners = self._listeners.get(room)
        if listeners is not None:
            listeners.pop(peer, None)
            if not listeners:
                del self._listeners[room]

    def tell(self, room: str, change: ConnectionChange) -> None:
        """A connection has come, or gone. Each push is made once for each encoding."""
        listeners = self._listeners.get(room)
        if not listeners:
            return
        about = JoinPush(info_of(change.connection, change))
        push = Push(channel=room, join=about) if change.kind == "join" else Push(channel=room, leave=about)
        made: dict[str, ProtocolFrame] = {}
        for peer in tuple(listeners):
            encoding = peer.encoding
            frame = made.get(encoding.name)
            if frame is None:
                frame = ProtocolFrame(encoding.encode_push(push), text=not encoding.is_binary)
                made[encoding.name] = frame
            peer.hold(frame)


def info_of(connection: str, known: PresentConnection | ConnectionChange) -> ClientInfo:
    """Who a present connection is, in the protocol's terms. That of another protocol has its public info as that of the
    channel."""
    user = "" if known.user == connection else known.user  # one without a user is present by its own id
    details = known.details
    if isinstance(details, dict):
        return ClientInfo(user, connection, _raw(details.get("conn_info")), _raw(details.get("chan_info")))
    return ClientInfo(user, connection, None, _raw(known.info))


def _raw(value: object) -> Raw | None:
    return None if value is None else Raw(msgspec.json.encode(value))
