"""What the tokens of the Centrifuge protocol claim: who connects, and who may subscribe to what. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def connection_claims(user: str, info: Any, channels: Sequence[str], others: Mapping[str, Any]) -> dict[str, Any]:
    """See `JWTAuth.connection_token`; `others` are its `claims`."""
    _check_user(user)
    if isinstance(channels, str):
        raise TypeError(f"channels is a sequence: [{channels!r}]")
    for channel in channels:
        _check_channel(channel)
    own = {"sub": user, "info": info, "channels": list(channels) or None}
    if twice := own.keys() & others:
        raise ValueError(f"claims has {', '.join(sorted(twice))}: write connection_token(user, info=, channels=)")
    return {**_given(own), **others}


def subscription_claims(user: str, channel: str, info: Any) -> dict[str, Any]:
    """See `JWTAuth.subscription_token`."""
    _check_user(user)
    _check_channel(channel)
    return _given({"sub": user, "channel": channel, "info": info})


def _check_user(user: object) -> None:
    if not isinstance(user, str):
        # Not the value: it may be a user's record.
        raise TypeError(f"a token's user is a str, not {type(user).__name__}: give the id, as text: str(user_id)")


def _check_channel(channel: object) -> None:
    if not isinstance(channel, str):
        raise TypeError(f'a channel is the name of a room, a str, not {channel!r}: "chat:lobby"')
    if not channel:
        raise ValueError('a channel is the name of a room, and not empty: "chat:lobby"')


def _given(claims: Mapping[str, Any]) -> dict[str, Any]:
    """Those that are not `None`."""
    return {name: value for name, value in claims.items() if value is not None}
