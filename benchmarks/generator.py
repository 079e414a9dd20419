"""The load generator from Python: start it, hear when its measured time begins and ends, read its answer."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from typing import Any, Self

from benchmarks import build
from benchmarks.loads import Load
from benchmarks.process import LOAD_CORE, Process, ServerError, pin
from benchmarks.quiet import busy_seconds

PATIENCE = 30.0
"""Seconds that a load may take beside its measured time, to connect and to close; one more for 100 connections."""
SETTLE_SECONDS = 1.0
"""Between the last connection and the look at the memory."""


def run(load: Load, server: Process, prefix: str, seconds: float, *, own: bool = False) -> dict[str, float]:
    """Put `server` under `load`; return the generator's figures and those of the processes.

    `server_cpu`, `load_cpu` and `others_cpu` are shares of a core: a server below 1 was not working at its limit,
    a generator close to 1 was the bottleneck, and what others used makes the figure worthless.

    Raises:
        ServerError: the generator had a reason to give up.
    """
    seconds = load.seconds or seconds
    server.look_around()
    memory = server.memory_bytes()
    with Generator(load, server.port, prefix, seconds, own=own) as generator:
        if load.mode == "idle":
            return _idle(load, server, generator, seconds, memory)
        generator.expect("begin")
        before, busy, begin = server.cpu_seconds(), busy_seconds(), time.monotonic()
        generator.expect("end")
        took = time.monotonic() - begin
        used, others = server.cpu_seconds() - before, busy_seconds() - busy
        values = generator.answer()
    values["server_cpu"] = used / took
    values["others_cpu"] = max(0.0, others / took - values["server_cpu"] - values["load_cpu"])
    return values


def _idle(load: Load, server: Process, generator: Generator, seconds: float, memory: int) -> dict[str, float]:
    connections = int(load.options["clients"])
    generator.expect("ready")
    time.sleep(SETTLE_SECONDS)
    grown = server.memory_bytes() - memory
    before, begin = server.cpu_seconds(), time.monotonic()
    time.sleep(seconds)
    cpu = (server.cpu_seconds() - before) / (time.monotonic() - begin)
    answer = generator.answer()
    if answer["connections"] != connections:
        raise ServerError(f"only {answer['connections']:.0f} of {connections} connections were left")
    return {"kilobytes": grown / 1000 / connections, "cpu": 100 * cpu}


class Generator:
    """One run of it, ended by force if it takes too long."""

    def __init__(self, load: Load, port: int, prefix: str, seconds: float, *, own: bool = False) -> None:
        binary = build.tls_load() if load.tls else build.load()
        if binary is None:
            raise ServerError("no load generator: a C compiler" + (" and libssl-dev" if load.tls else "") + " needed")
        options = {
            **load.options,
            "port": port,
            "path": prefix + load.path,
            "seconds": seconds,
            "tls": int(load.tls),
            "own": int(own),
        }
        command = [str(binary), load.mode, *(f"{name}={value}" for name, value in options.items())]
        connections = sum(int(load.options.get(name, 0)) for name in ("clients", "quiet"))
        self._limit = seconds + PATIENCE + connections / 100
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, preexec_fn=lambda: pin(LOAD_CORE)
        )
        self._timer = threading.Timer(self._limit, self._process.kill)
        self._timer.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._timer.cancel()
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()

    def expect(self, word: str) -> None:
        """Wait until the generator says `word`."""
        line = self._line()
        if line != word:
            raise ServerError(json.loads(line)["error"] if line.startswith("{") else f"the generator said {line!r}")

    def answer(self) -> dict[str, float]:
        """Its last line. A load that holds until standard input ends, ends."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        values: dict[str, Any] = json.loads(self._line())
        if "error" in values:
            raise ServerError(values["error"])
        return values

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline().strip()
        if not line:
            raise ServerError(f"nothing came of it within {self._limit:.0f} s")
        return line
