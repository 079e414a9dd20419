"""What the Python servers share: their address, and what the rooms sample makes of a message.

Every server serves three paths: `/echo` (a message comes back), `/room` (a message goes to everybody else who is
connected there) and `/json` (the same, after the message has been parsed, given its sender and the time, and
serialised again). Those whose clients speak a protocol of their own (benchmarks/dialects.py) do the same by its means.
Settings come by environment, so that one command line starts each of them:

    BENCH_PORT        where to listen, on 127.0.0.1
    BENCH_HEARTBEAT   seconds between two pings; the server's own default where it is not set
    BENCH_CERT, BENCH_KEY   files for TLS, where it is wanted
    BENCH_GC          "off": no garbage collection, for `regress`
"""

from __future__ import annotations

import gc
import json
import os
import ssl
from datetime import UTC, datetime

HOST = "127.0.0.1"

if os.environ.get("BENCH_GC") == "off":
    gc.disable()


def port() -> int:
    return int(os.environ["BENCH_PORT"])


def heartbeat() -> float | None:
    value = os.environ.get("BENCH_HEARTBEAT")
    return float(value) if value else None


def tls_context() -> ssl.SSLContext | None:
    if not os.environ.get("BENCH_CERT"):
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(os.environ["BENCH_CERT"], os.environ["BENCH_KEY"])
    return context


def now() -> str:
    """The time as JavaScript's `toISOString` writes it."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def say(message: str | bytes) -> str:
    """The rooms sample, with the standard library's json, as most Python servers would write it."""
    data = json.loads(message)
    return json.dumps(
        {
            "type": "message",
            "sender": data.get("username") or "Anonymous",
            "text": data.get("text"),
            "timestamp": now(),
        },
        separators=(",", ":"),
    )
