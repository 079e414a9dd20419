"""Close codes and reasons that may be sent, and the record of an end."""

from __future__ import annotations

import dataclasses
import re

import pytest
from websockets import CloseCode
from websockets.exceptions import ProtocolError

from verbtrio.base import close
from verbtrio.base.close import MAX_REASON_BYTES, Cause, CloseInfo, check_close, fitting_reason, sendable_close
from verbtrio.wire.codec import Codec

SENDABLE = [1000, 1001, 1002, 1003, *range(1007, 1015), 3000, 3999, 4000, 4401, 4999]
NOT_SENDABLE = [-1, 0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65536]


@pytest.mark.parametrize("code", SENDABLE)
def test_codes_that_may_be_sent(code: int) -> None:
    check_close(code, "")


@pytest.mark.parametrize("code", NOT_SENDABLE)
def test_codes_that_may_not_be_sent(code: int) -> None:
    with pytest.raises(ValueError, match=rf"^the close code {code} must not be sent"):
        check_close(code, "")


def test_what_is_allowed_is_what_the_codec_can_send() -> None:
    """Else a `close()` that was checked would fail later, in the middle of the connection's end."""
    for code in range(5100):
        if code == close.NO_STATUS_RECEIVED:
            continue  # the codec's way to echo a Close frame without a code
        codec = Codec(max_message_bytes=1)
        try:
            check_close(code, "")
        except ValueError:
            with pytest.raises(ProtocolError):
                codec.close(code, "")
        else:
            assert codec.close(code, "") == b"\x88\x02" + code.to_bytes(2, "big")


@pytest.mark.parametrize("reason", ["", "x" * 123, "é" * 61 + "x", "€" * 41])
def test_reasons_that_fit(reason: str) -> None:
    check_close(1000, reason)
    assert Codec(max_message_bytes=1).close(1000, reason)


@pytest.mark.parametrize("reason", ["x" * 124, "é" * 62, "€" * 42])
def test_reasons_are_measured_in_bytes(reason: str) -> None:
    with pytest.raises(ValueError, match=f"has {len(reason.encode())} bytes; .* {MAX_REASON_BYTES} at most"):
        check_close(1000, reason)


def test_a_reason_that_is_no_text() -> None:
    with pytest.raises(ValueError, match="surrogates"):
        check_close(1000, "\ud800")


@pytest.mark.parametrize("code", [4000.0, 1000.0, True, False, "4000", None, b"4000", 4000 + 0j])
def test_a_code_that_is_no_int(code: object) -> None:
    with pytest.raises(TypeError, match=f"a close code is an int, not {re.escape(repr(code))}"):
        check_close(code, "")


@pytest.mark.parametrize("reason", [None, b"bye", 5, ["bye"]])
def test_a_reason_of_another_type(reason: object) -> None:
    with pytest.raises(TypeError, match="a close reason is a str, not "):
        check_close(1000, reason)


def test_a_code_of_an_enumeration() -> None:
    check_close(CloseCode.NORMAL_CLOSURE, "")


@pytest.mark.parametrize("text", ["", "short", "x" * 124, "é" * 62, "€" * 42, "\ud800" * 200, "😀" * 31])
def test_whatever_an_exception_says_can_be_made_to_fit(text: str) -> None:
    fitting = fitting_reason(text)
    check_close(1000, fitting)
    assert text.startswith(fitting) or "\ud800" in text
    assert len(fitting.encode()) > MAX_REASON_BYTES - 4 or len(fitting) == len(text)


def test_a_cause_is_logged_as_its_value() -> None:
    assert f"{Cause.PEER}" == "peer"
    assert len({cause.value for cause in Cause}) == len(Cause.__members__)


def test_the_record_does_not_change() -> None:
    info = CloseInfo(Cause.ERROR, 1011, "Internal server error", ValueError())
    with pytest.raises(dataclasses.FrozenInstanceError):
        info.code = 1000  # type: ignore[misc]
    assert info == CloseInfo(Cause.ERROR, 1011, "Internal server error", KeyError()), "exceptions are not compared"
    assert info != CloseInfo(Cause.ERROR, 1011, "")


def test_every_code_becomes_one_that_can_be_sent() -> None:
    for code in range(-10, 5011):
        sent, reason = sendable_close(code, "why")
        check_close(sent, reason)
        try:
            check_close(code, "")
        except ValueError:
            assert sent == 1011
        else:
            assert sent == code
