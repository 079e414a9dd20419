"""The project's sessions. `nox` alone runs lint, types and tests; `nox -s demo` serves the examples.

The first two commands of the README call this file on a machine that has nothing but Python: what the tests need
beside Python packages is installed by apt-get where that can be done.
"""

from __future__ import annotations

import os
import shutil

import nox

nox.options.sessions = ["lint", "types", "tests"]
nox.options.error_on_missing_interpreters = False
nox.options.reuse_existing_virtualenvs = True
nox.needs_version = ">=2025.2.9"

PYPROJECT = nox.project.load_toml("pyproject.toml")
SYSTEM_PACKAGES = {"chromium": "chromium", "chromedriver": "chromium-driver"}
"""Commands the tests run, and the Debian packages that bring them."""


def groups(*names: str) -> list[str]:
    """The requirements of dependency groups."""
    return list(nox.project.dependency_groups(PYPROJECT, *names))


@nox.session
def lint(session: nox.Session) -> None:
    """ruff: rules and format."""
    session.install(*groups("lint"))
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def types(session: nox.Session) -> None:
    """mypy --strict, over everything."""
    session.install("-e", ".", *groups("test", "types"), "nox")
    session.run("mypy")


@nox.session
def tests(session: nox.Session) -> None:
    """All tests. Arguments go to pytest: `nox -s tests -- tests/test_rooms.py`."""
    install_system_packages(session)
    session.install("-e", ".", *groups("test"))
    session.run("pytest", *session.posargs)


@nox.session
def lowest(session: nox.Session) -> None:
    """All tests, with the lowest versions that pyproject.toml admits: its bounds are to be true."""
    install_system_packages(session)
    dependencies = PYPROJECT["project"]["dependencies"]
    session.install("-e", ".", *(entry.replace(">=", "==") for entry in dependencies), *groups("test"))
    session.run("pytest", *session.posargs)


@nox.session
def demo(session: nox.Session) -> None:
    """Serve all samples on http://127.0.0.1:3000 (PORT overrides)."""
    session.install("-e", ".")
    session.run("python", "examples/demo.py")


def install_system_packages(session: nox.Session) -> None:
    """Bring what the tests need from Debian. Where that can't be done they skip, loudly; with CI=true that fails."""
    missing = [package for command, package in SYSTEM_PACKAGES.items() if shutil.which(command) is None]
    if not missing:
        return
    if shutil.which("apt-get") is None or os.geteuid() != 0:
        session.warn(f"not installed, and not installable here (needs apt-get and root): {', '.join(missing)}")
        return
    environment = {"DEBIAN_FRONTEND": "noninteractive"}
    session.log(f"installing {', '.join(missing)} by apt-get (once; some minutes)")
    session.run("apt-get", "update", "-qq", external=True, env=environment)
    session.run("apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing, external=True, env=environment)
