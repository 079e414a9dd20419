"""What clients send must not forge a line of a log, nor talk to the terminal it is read on, nor show a token there."""

from __future__ import annotations

import dataclasses

import trio

from tests.robustness.probes import ONE_PROCESS, VERBTRIO, Figures, Probe, Target, figures_of
from tests.support.http2_frames import AUTHORITY, HELLO, METHOD, SCHEME, headers
from tests.support.wire import close, plain, request, text

FORGED = "FORGED"
EVIL = f"a\n{FORGED}\r{FORGED}\x1b[31m{FORGED}"
"""A line feed, a carriage return, an escape sequence."""
ENCODED = f"a%0a{FORGED}%0d{FORGED}%1b[31m{FORGED}%c2%85{FORGED}%e2%80%a8{FORGED}"
SECRET = "hush-hush"
QUERY = f"?token={SECRET}"
AGENT = f"User-Agent: a\x1b[31m{FORGED}\x85{FORGED}\r\nReferer: \x1b]0;{FORGED}\x07\r\n"
OPTIONS = ("--access-logfile", "-", "--access-logformat", '%(h)s "%(r)s" %(s)s "%(f)s" "%(a)s"', "--log-level", "debug")


async def injections(target: Target, n: int, figures: Figures) -> None:
    """`n` times everything a client can put into a log, in paths, headers, close reasons, names and query strings."""
    http1 = [
        (request(f"/{route}/{ENCODED}{QUERY}", further), text("{}") + close(4000, EVIL.encode()))
        for route in ("named", "nowhere", "starlette-raise", "ws")
        for further in ("", AGENT)
    ]
    http1.append((request(f"/ws{QUERY}"), close(4000, EVIL.encode())))
    for asked, further in ((f"/left/{ENCODED}{QUERY}", AGENT), (f"/{EVIL}", "")):
        head = f"GET {asked} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{further}\r\n"
        http1.append((head.encode("latin-1"), b""))
    asking = [METHOD, (b":path", f"/{ENCODED}{QUERY}".encode()), SCHEME, AUTHORITY, (b"user-agent", EVIL.encode())]
    http2 = (HELLO + headers(asking), b"")
    async with target.serve(*OPTIONS) as server:
        for _ in range(n):
            for first, second in (*http1, http2):
                async with plain(server.port) as wire:
                    await wire.send(first + second)
                    with trio.move_on_after(1):
                        await wire.to_end()
        await trio.to_thread.run_sync(server.stop)
        log = server.log_text()
        figures["forged"] = sum(line.startswith(FORGED) for line in log.splitlines())
        figures["controls"] = sum(not (char.isprintable() or char == "\n") for char in log)
        figures["secrets"] = log.count(SECRET)
        figures["mentioned"] = log.count(FORGED)


LOUD = dataclasses.replace(VERBTRIO, app="tests.apps.loud:app")


async def test_injections() -> None:
    figures = await figures_of(injections, 1, dataclasses.replace(LOUD, options=ONE_PROCESS.options))
    assert figures["mentioned"] > 5, "it is logged, and can be seen"
    assert {**figures, "mentioned": 0} == {"forged": 0, "controls": 0, "secrets": 0, "mentioned": 0}


async def loud(target: Target, n: int, figures: Figures) -> None:
    """`injections`, with everything logged."""
    await injections(LOUD if target is VERBTRIO else target, n, figures)


PROBES = [
    Probe(
        "CR, LF, ESC and more in paths, headers, close reasons and names, {n} times, with all logs on: no forged line, "
        "no control character, no query string",
        loud,
        10,
        "{forged} forged, {controls} control characters, {secrets} query strings",
        lambda f: f["forged"] == f["controls"] == f["secrets"] == 0 and f["mentioned"] > 0,
    ),
]
