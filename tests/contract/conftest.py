"""These tests take names of other packages away: each application has to look for itself."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="module", autouse=True)
def parts_checked_once() -> None:
    """Nothing is remembered here."""
