"""What the benchmark's tests share."""

from __future__ import annotations

import os

import pytest

from benchmarks import build


def needs_compiler() -> None:
    """Skip the module where there is no C compiler for the load generator; with CI=true that fails."""
    if build.compiler() is None:
        reason = "no C compiler, which the benchmark's load generator needs (Debian: gcc, libc6-dev)"
        if os.environ.get("CI") == "true":
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason, allow_module_level=True)
