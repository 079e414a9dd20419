"""Settings from environment variables: secrets, the port, and whether this is production.

    auth = JWTAuth(secret("SECRET_KEY", demo="for the demo only: everybody can read this key"))

So no secret is in the code, and no demo key is used in production.
"""

from __future__ import annotations

import logging
import os

logger = logging.getLogger("verbtrio.environment")

MODE_VARIABLE = "ENVIRONMENT"
"""Its value is "production" in production."""

MAX_PORT = 65535

MIN_SECRET_BYTES = 32
"""What HS256 requires (RFC 7518 section 3.2)."""


def is_production() -> bool:
    """Whether `ENVIRONMENT=production` is set."""
    return os.environ.get(MODE_VARIABLE, "").strip().lower() == "production"


def port(default: int) -> int:
    """The port in the environment variable `PORT`; `default` if that is not set.

    Raises:
        ValueError: it is not a number, or not a valid port.
    """
    text = os.environ.get("PORT") or str(default)
    if not (text.isascii() and text.isdigit()):
        raise ValueError(
            f"PORT is {text!r:.100}, which is not a number: set it to a port, like PORT={default}, or unset it"
        )
    return check_port("PORT", int(text[:10]))


def check_port(name: str, number: int) -> int:
    """Return `number`, if it is a valid port.

    Raises:
        ValueError: it is not.
    """
    if not 0 <= number <= MAX_PORT:
        raise ValueError(f"{name} is {number}, which is not a port: use 1 to {MAX_PORT}, or 0 for any free one")
    return number


def secret(name: str, *, demo: str) -> str:
    """The secret in the environment variable `name`. If that is not set, outside production `demo`, with a warning.

    Raises:
        SystemExit: in production, if the variable is not set, is `demo`, or has less than 32 bytes. The message says
            what to do; it does not contain the secret.
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
            f"{name} {problem}, and {MODE_VARIABLE} is production: set it to a secret of your own, for example by "
            f'{name}=$(python -c "import secrets; print(secrets.token_urlsafe(32))")'
        )
    return value
