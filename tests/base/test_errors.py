"""Errors that applications raise refuse what could not be sent."""

from __future__ import annotations

from typing import Any

import pytest

from verbtrio import CallError


@pytest.mark.parametrize("code", [400, 404, 1999])
def test_a_calls_error(code: int) -> None:
    error = CallError(code, "no such message", temporary=True)
    assert (error.code, error.message, error.temporary) == (code, "no such message", True)
    assert str(error) == f"{code} no such message"
    assert not CallError(code, "no such message").temporary


@pytest.mark.parametrize("code", [-400, 0, 100, 111, 399, 2000, 3500])
def test_a_code_that_is_the_protocols(code: int) -> None:
    with pytest.raises(ValueError, match=f"from 400 to 1999, not {code}: the others are the protocol's"):
        CallError(code, "no")


@pytest.mark.parametrize(
    ("code", "message", "error"),
    [
        (404.0, "no", TypeError),
        (True, "no", TypeError),
        ("404", "no", TypeError),
        (404, b"no", TypeError),
        (404, None, TypeError),
        (404, "", ValueError),
    ],
)
def test_what_could_not_be_sent(code: Any, message: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="a call's error"):
        CallError(code, message)
