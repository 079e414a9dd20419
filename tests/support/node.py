"""Node, and the npm packages of the tests, where a nox session has installed them."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

VARIABLE = "SDK_NPM"
"""The environment variable that names the folder in which npm has installed the packages."""
NEEDED = ("centrifuge", "ws", "eventsource")


def missing_parts() -> list[str]:
    """What the tests with Node need, and is not here."""
    missing = [] if shutil.which("node") else ["node (Debian: nodejs)"]
    folder = os.environ.get(VARIABLE)
    if folder is None:
        return [*missing, f"npm's packages (`nox -s tests` installs them and sets {VARIABLE})"]
    packages = Path(folder) / "node_modules"
    return missing + [f"npm's {name} in {folder}" for name in NEEDED if not (packages / name / "package.json").exists()]


def require_node() -> Path:
    """The folder with `node_modules`. Skip where something is missing; but where CI promises it, a skip would pass for
    success."""
    if missing := missing_parts():
        reason = f"THE TESTS WITH NODE DID NOT RUN: there is no {', no '.join(missing)}"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return Path(os.environ[VARIABLE])
