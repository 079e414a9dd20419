"""What holds for the clients of an endpoint, and what they use of the app."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from verbtrio.base.checks import check_seconds
from verbtrio.base.counters import Counters
from verbtrio.base.timers import Timers
from verbtrio.guards.quotas import Denial, Slot
from verbtrio.multiplex.calls import Call
from verbtrio.multiplex.news import ConnectionNews
from verbtrio.multiplex.present_clients import PresentClients
from verbtrio.rooms.host import RoomHost
from verbtrio.rooms.local import Rooms
from verbtrio.rooms.member import Member, Peer


class Authenticator(Protocol):
    """Checks tokens: `JWTAuth`, or an application's own."""

    async def authenticate(self, token: str) -> dict[str, Any]:
        """The token's claims.

        Raises:
            AuthenticationError: the token is not accepted.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientSettings:
    """The settings of `app.centrifuge`.

    Raises:
        TypeError, ValueError: a time is not a number of seconds, or a setting has the wrong type.
    """

    auth: Authenticator | None = None
    anonymous: bool = False
    """Whether clients may connect without a token, although there is `auth`."""
    connect: Call | None = None
    """Called with the client and its `data` when it connects; returns the reply's `data`."""
    message: Call | None = None
    """Called with the client and what it has sent without expecting an answer."""
    calls: Mapping[str, Call] = field(default_factory=dict)
    """The functions that clients may call, by name: those of `@app.call`."""
    ping: float = 25.0
    """Seconds between two pings."""
    pong_timeout: float = 10.0
    """Seconds within which a ping has to be answered."""
    token_slack: float = 25.0
    """Seconds that a client has to bring another token once its own has expired: SDKs ask for one then, not before."""
    personal: str | None = None
    """The room that each user is subscribed to by the server: `"#{user}"`."""
    force_join_leave: bool = False
    """Whether all subscribers are told who comes and goes, in rooms with `join_leave`, and not only those who ask."""

    def __post_init__(self) -> None:
        check_seconds("ping", self.ping)
        check_seconds("pong_timeout", self.pong_timeout)
        check_seconds("token_slack", self.token_slack, zero=True)
        if self.ping < 1:
            raise ValueError(f"ping is 1 second at least, not {self.ping!r}: clients are told it in whole seconds")
        if isinstance(self.auth, type):
            raise TypeError(
                f"auth is an object, and {self.auth.__name__} a class: write auth={self.auth.__name__}(...)"
            )
        if self.auth is not None and not callable(getattr(self.auth, "authenticate", None)):
            raise TypeError(
                f"auth is a verbtrio.auth.JWTAuth(...), or has `async authenticate(token)`: {self.auth!r:.100}"
            )
        _check_personal(self.personal)

    def is_personal(self, name: str) -> bool:
        """Whether a room of that name would be some user's own: nobody else gets into it, whatever `app.rooms` opens.
        (Where a user's id alone is the name, that can't be told.)"""
        before, _, after = (self.personal or "").partition("{user}")
        return bool(before or after) and name.startswith(before) and name.endswith(after)


def _check_personal(name: object) -> None:
    says = 'personal is the name of a user\'s own room, like "#{user}", not'
    if not isinstance(name, str | None):
        raise TypeError(f"{says} {name!r:.100}")
    if name is not None and "{user}" not in name:
        raise ValueError(f"{says} {name!r:.100}")


class App(Protocol):
    """What clients use of the app: its hub."""

    rooms: Rooms
    host: RoomHost
    timers: Timers
    counters: Counters
    client_news: ConnectionNews
    present_clients: PresentClients

    def admit_client(self, member: Member, peer: Peer, slot: Slot, user_id: str | None) -> Denial | None:
        """Its user is known. Returns why it may not come in; else it is registered."""

    def leave_client(self, member: Member, user_id: str | None) -> None:
        """It has ended."""
