"""How an end is told to a client of the protocol."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verbtrio.base.close import MAX_REASON_BYTES, PEERS_ENDS, Cause, CloseInfo, check_close
from verbtrio.protocols import codes
from verbtrio.protocols.codes import ProtocolError, closing, reason_of

OURS = [cause for cause in Cause if cause not in PEERS_ENDS]
SENDABLE = [*range(1000, 1004), *range(1007, 1015), 3000, 3001, 3499, 3500, 3999, 4000, 4401, 4408, 4499, 4999]
REASONS = st.text(st.characters(codec="utf-8"), max_size=MAX_REASON_BYTES) | st.sampled_from(
    ["", " ", "12", " 12\n", "null", '"a"', "[]", "{}", "1e999", '"\\ud800"', "NaN", "1" * MAX_REASON_BYTES, "\u00a0"]
)


def fits(reason: str) -> bool:
    return len(reason.encode()) <= MAX_REASON_BYTES


@given(st.sampled_from(OURS), st.sampled_from(SENDABLE), REASONS.filter(fits))
def test_what_goes_out(cause: Cause, code: int, reason: str) -> None:
    """The JavaScript SDK connects again after a terminal code with an empty reason, and takes JSON for advice."""
    info = closing(CloseInfo(cause, code, reason))
    check_close(info.code, info.reason)
    assert info.cause is cause
    assert info.reason.strip()
    with pytest.raises(json.JSONDecodeError):
        json.loads(info.reason)
    assert info.code >= 3000 or cause in (Cause.SIZE, Cause.PROTOCOL)
    if 3000 <= code < 4000 or (code >= 4000 and cause in (Cause.CLOSED, Cause.KICKED)):
        assert info.code == code


@pytest.mark.parametrize(
    ("info", "code", "reason"),
    [
        (CloseInfo(Cause.RETURNED), 3000, "connection closed"),
        (CloseInfo(Cause.CLOSED), 3000, "connection closed"),
        (CloseInfo(Cause.CLOSED, 4123, "bye"), 4123, "bye"),
        (CloseInfo(Cause.CLOSED, 1000, "bye"), 3000, "bye"),
        (CloseInfo(Cause.ERROR, 1011, "Internal error"), 3004, "internal server error"),
        (CloseInfo(Cause.HEARTBEAT, 4408, "x"), 3012, "no pong"),
        (CloseInfo(Cause.EXPIRED, 4401, "x"), 3005, "connection expired"),
        (CloseInfo(Cause.SLOW, 1008, "x"), 3008, "slow"),
        (CloseInfo(Cause.RATE, 1008, "x"), 3013, "too many requests"),
        (CloseInfo(Cause.RATE, 1013, "x"), 3504, "connection limit"),
        (CloseInfo(Cause.UNAUTHENTICATED, 1008, "x"), 3500, "invalid token"),
        (CloseInfo(Cause.UNAUTHENTICATED, 1013, "x"), 3004, "internal server error"),
        (CloseInfo(Cause.UNAUTHENTICATED, 3502, "stale"), 3502, "stale"),
        (CloseInfo(Cause.SIZE, 1009, "Too big"), 1009, "Too big"),
        (CloseInfo(Cause.SIZE, 1009), 1009, "disconnected"),
        (CloseInfo(Cause.PROTOCOL, 1002, "Bad frame"), 1002, "Bad frame"),
        (CloseInfo(Cause.PROTOCOL, 1007), 1007, "disconnected"),
        (CloseInfo(Cause.DENIED, 1008, "x"), 3507, "permission denied"),
        (CloseInfo(Cause.DENIED, 1013, "x"), 3004, "internal server error"),
        (CloseInfo(Cause.INVALID, 1008, "x"), 3509, "too many errors"),
        (CloseInfo(Cause.KICKED, 1008), 3503, "force disconnect"),
        (CloseInfo(Cause.KICKED, 1008, "Banned"), 3503, "Banned"),
        (CloseInfo(Cause.KICKED, 4001, "Banned"), 4001, "Banned"),
        (CloseInfo(Cause.DRAIN, 1012, "The server is restarting"), 3001, "shutdown"),
        (CloseInfo(Cause.CLOSED, 3503), 3503, "force disconnect"),
        (CloseInfo(Cause.CLOSED, 4000), 4000, "disconnected"),
        (CloseInfo(Cause.CLOSED, 1013, "Busy"), 3004, "Busy"),
        (CloseInfo(Cause.EXPIRED, 3006), 3006, "subscription expired"),
        (CloseInfo(Cause.HEARTBEAT, 4000, "Their own code"), 3012, "no pong"),
        (CloseInfo(Cause.CLOSED, 4000, "12"), 4000, "closed: 12"),
        (CloseInfo(Cause.CLOSED, 4000, "1e999"), 4000, "closed: 1e999"),
        (CloseInfo(Cause.CLOSED, 4000, '"\\ud800"'), 4000, 'closed: "\\ud800"'),
    ],
    ids=str,
)
def test_causes(info: CloseInfo, code: int, reason: str) -> None:
    assert closing(info) == CloseInfo(info.cause, code, reason)


@pytest.mark.parametrize("cause", PEERS_ENDS)
def test_the_peer_s_end_is_the_peer_s(cause: Cause) -> None:
    info = CloseInfo(cause, 1006)
    assert closing(info) is info


def test_the_exception_is_kept() -> None:
    error = ValueError()
    assert closing(CloseInfo(Cause.ERROR, 1011, exception=error)).exception is error


def test_every_code_has_its_words() -> None:
    numbers = {
        name: value
        for name, value in vars(codes).items()
        if not name.startswith("_") and isinstance(value, int) and value >= 3000
    }
    assert len(set(numbers.values())) == len(numbers)
    assert not [name for name, number in numbers.items() if not reason_of(number)]
    assert reason_of(4000) == ""


def test_errors() -> None:
    errors = [value for value in vars(codes).values() if isinstance(value, ProtocolError)]
    assert {error.code for error in errors} == set(range(100, 113))
    assert all(error.message for error in errors)
    assert {error.code for error in errors if error.temporary} == {100, 111}
