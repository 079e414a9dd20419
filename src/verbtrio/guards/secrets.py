"""Secrets, from the environment: none in the code, and no demo key in production. And the port.

auth = JWTAuth(secret("SECRET_KEY", demo="for the demo only: everybody can read this key"))
"""

from __future__ import annotations

import logging
import os

logger = logging.getLogger("verbtrio.environment")

MODE = "ENVIRONMENT"
"""The variable that says "production" there."""

MAX_PORT = 65535

MIN_SECRET_BYTES = 32
"""What HS256 asks for (RFC 7518 section 3.2)."""


def is_production() -> bool:
    """Whether the environment says `ENVIRONMENT=production`."""
    return os.environ.get(MODE, "").strip().lower() == "production"


def port(default: int) -> int:
    """The port in the environment variable `PORT`; `default` where there is none.

    Raises:
        ValueError: it is no number, or no port.
    """
    text = os.environ.get("PORT") or str(default)
    if not (text.isascii() and text.isdigit()):
        raise ValueError(
            f"PORT is {text!r:.100}, which is no number: set it to a port, like PORT={default}, or unset it"
        )
    return check_port("PORT", int(text[:10]))


def check_port(name: str, number: int) -> int:
    """`number`, where it can be a port.

    Raises:
        ValueError: it can't.
    """
    if not 0 <= number <= MAX_PORT:
        raise ValueError(f"{name} is {number}, which is no port: they go from 1 to {MAX_PORT}, and 0 takes a free one")
    return number


def secret(name: str, *, demo: str) -> str:
    """The secret in the environment variable `name`; outside production `demo` where there is none, with a warning.

    Raises:
        SystemExit: in production, where the variable is missing, is the demo's or has less than 32 bytes. The message
            says what to do; the secret is not in it.
    """
    value = os.environ.get(name, "")
    if not is_production():
        if not value:
            logger.warning("%s is not set: the demo key is used, which everybody can read", name)
        return value or demo
    problem = None
    if not value:
        problem = "is not set"
    elif value == demo:
        problem = "is the demo key, which everybody can read"
    elif len(value.encode()) < MIN_SECRET_BYTES:
        problem = f"has less than {MIN_SECRET_BYTES} bytes"
    if problem is not None:
        raise SystemExit(
            f"{name} {problem}, and {MODE} is production: set it to a secret of your own, for example by "
            f'{name}=$(python -c "import secrets; print(secrets.token_urlsafe(32))")'
        )
    return value
