"""The users who are connected, and their connections."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator

from verbtrio.base.close import POLICY_VIOLATION, Cause, CloseInfo, check_close
from verbtrio.base.types import Data
from verbtrio.brokers.base import Session
from verbtrio.messages.frame import Encode, Frame
from verbtrio.rooms.member import Member, Peer


class UserTable:
    """The connections of each user who has any, oldest first."""

    __slots__ = ("_peers",)

    def __init__(self) -> None:
        self._peers: dict[str, dict[Member, Peer]] = {}

    def __len__(self) -> int:
        return len(self._peers)

    def ids(self) -> Collection[str]:
        return self._peers.keys()

    def members(self, user_id: object) -> tuple[Member, ...]:
        return tuple(self._peers.get(str(user_id), ()))

    def peers(self, user_id: object) -> tuple[Peer, ...]:
        return tuple(self._peers.get(str(user_id), {}).values())

    def add(self, user_id: str, member: Member, peer: Peer) -> None:
        self._peers.setdefault(user_id, {})[member] = peer

    def remove(self, user_id: str, member: Member) -> None:
        peers = self._peers.get(user_id, {})
        peers.pop(member, None)
        if not peers:
            self._peers.pop(user_id, None)

    def send(self, user_id: object, frame: Frame) -> int:
        """Send a frame to the user's connections; return how many."""
        peers = self.peers(user_id)
        for peer in peers:
            peer.put(frame)
        return len(peers)

    def disconnect(self, user_id: object, code: int, reason: str) -> int:
        """End the user's connections; return how many."""
        peers = self.peers(user_id)
        for peer in peers:
            peer.end(CloseInfo(Cause.KICKED, code, reason))
        return len(peers)


class Users:
    """The users who are connected. A user may have several connections. Ids are compared as text: 1 and "1" are one
    user.

    It may be read in any thread: the answer is that of the moment.
    """

    def __init__(self, table: UserTable, session: Session, check: Callable[[], None], encode: Encode) -> None:
        self._table = table
        self._session = session
        self._check = check
        self._encode = encode

    def __len__(self) -> int:
        return len(self._table)

    def __iter__(self) -> Iterator[str]:
        return iter(tuple(self._table.ids()))

    def __contains__(self, user_id: object) -> bool:
        return str(user_id) in self._table.ids()

    def connections(self, user_id: object) -> tuple[Member, ...]:
        """The connections of one user, oldest first: `WebSocket`s, and `EventSubscriber`s of `app.sse` routes."""
        return self._table.members(user_id)

    async def send(self, user_id: object, data: Data) -> int:
        """Send `data` to all connections of one user; return how many it reached.

        Always a checkpoint, after `data` is on its way: if cancelled, it has been sent. In functions that are not
        coroutines: `send_nowait`.

        Raises:
            TypeError, RuntimeError: as in `send_nowait`. Nothing was sent.
        """
        self._check()
        frame = self._encode(data)
        reached = self._table.send(user_id, frame)
        return reached + await self._session.send_user(str(user_id), frame)

    def send_nowait(self, user_id: object, data: Data) -> int:
        """Send `data` to all connections of one user; return how many it reached in this process. Synchronous, like a
        broadcast: for hooks that are plain functions.

        Raises:
            TypeError: `data` can't be encoded; or what the app's `encode=` hook raises. Nothing was sent.
            RuntimeError: called in another thread than the one in which the app is served. Nothing was sent.
        """
        self._check()
        frame = self._encode(data)
        self._session.send_user_nowait(str(user_id), frame)
        return self._table.send(user_id, frame)

    async def disconnect(self, user_id: object, *, code: int = POLICY_VIOLATION, reason: str = "") -> int:
        """Close all connections of one user; return how many were closed.

        It keeps nobody out: a client that still has a valid token may come in again, unless your middleware says no.

        Always a checkpoint, after they have begun to close: if cancelled, they close all the same. In functions that
        are not coroutines: `disconnect_nowait`.

        Raises:
            ValueError, TypeError, RuntimeError: as in `disconnect_nowait`. Nothing was closed.
        """
        self._check()
        check_close(code, reason)
        ended = self._table.disconnect(user_id, code, reason)
        return ended + await self._session.disconnect_user(str(user_id), code, reason)

    def disconnect_nowait(self, user_id: object, *, code: int = POLICY_VIOLATION, reason: str = "") -> int:
        """Close all connections of one user; return how many were closed in this process. Synchronous: for hooks that
        are plain functions. It keeps nobody out, as `disconnect`.

        Raises:
            ValueError: `code` or `reason` must not be sent. Nothing was closed.
            TypeError: `code` is not an `int`, or `reason` not a `str`. Nothing was closed.
            RuntimeError: called in another thread than the one in which the app is served. Nothing was closed.
        """
        self._check()
        check_close(code, reason)
        self._session.disconnect_user_nowait(str(user_id), code, reason)
        return self._table.disconnect(user_id, code, reason)
