"""Checks of what applications give: each raises at once, where it was written, and says what was wrong. Pure."""

from __future__ import annotations

import math


def check_count(what: str, value: object, *, least: int = 1) -> None:
    """Raise where `value` is not a number of things, `least` of them or more.

    Raises:
        TypeError, ValueError: it is not.
    """
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{what} is a whole number, an int, not {value!r}")
    if value < least:
        raise ValueError(f"{what} must be {least} at least, not {value!r}")


def check_seconds(what: str, value: object, *, zero: bool = False) -> None:
    """Raise where `value` is not a time that can be waited for: more than 0 (or, with `zero`, 0), and finite.

    Raises:
        TypeError, ValueError: it is not.
    """
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise TypeError(f"{what} is a number of seconds, not {value!r}")
    if not (0 < value < math.inf or (zero and value == 0)):
        least = "0 or more" if zero else "more than 0"
        raise ValueError(f"{what} is a number of seconds, {least} and finite, not {value!r}")
