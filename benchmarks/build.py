"""Compile the load generator and the minimal server, with whatever C compiler there is, into a cache."""

from __future__ import annotations

import functools
import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

SOURCES = Path(__file__).parent / "c"
CACHE = Path(os.environ.get("BENCH_CACHE") or Path(tempfile.gettempdir()) / f"verbtrio-bench-{os.getuid()}")


@functools.cache
def compiler() -> str | None:
    return next((path for name in ("cc", "gcc", "clang") if (path := shutil.which(name))), None)


@functools.cache
def load() -> Path | None:
    """The load generator, for `ws://` alone; `None` without a compiler."""
    return _compile("load", ["load.c", "samples.h", "wire.h"])


@functools.cache
def tls_load() -> Path | None:
    """The load generator with TLS; `None` where OpenSSL's headers are missing (Debian: libssl-dev)."""
    return _compile("load-tls", ["load.c", "samples.h", "wire.h"], "-DTLS", "-lssl", "-lcrypto", optional=True)


@functools.cache
def minimal() -> Path | None:
    """The trivial server that shows the limit."""
    return _compile("minimal", ["minimal.c"])


def _compile(name: str, sources: list[str], *options: str, optional: bool = False) -> Path | None:
    command = compiler()
    if command is None:
        return None
    content = b"".join((SOURCES / source).read_bytes() for source in sources) + repr((command, options)).encode()
    binary = CACHE / f"{name}-{hashlib.sha256(content).hexdigest()[:16]}"
    if binary.exists():
        return binary
    CACHE.mkdir(mode=0o700, parents=True, exist_ok=True)
    unfinished = binary.with_name(f"{binary.name}.{os.getpid()}")
    flags = [option for option in options if not option.startswith("-l")]
    libraries = [option for option in options if option.startswith("-l")]
    arguments = [command, "-O2", "-Wall", *flags, "-o", str(unfinished), str(SOURCES / sources[0]), *libraries]
    result = subprocess.run(arguments, capture_output=True, text=True)
    if result.returncode:
        if optional:
            return None
        raise RuntimeError(f"{' '.join(arguments)} failed:\n{result.stderr}")
    unfinished.replace(binary)
    return binary
