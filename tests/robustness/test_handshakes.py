"""Requests that end a worker: each against a fresh one, which lives, says one line at most, and serves the next."""

from __future__ import annotations

import trio

from tests.robustness.probes import ONE_PROCESS, Figures, Probe, Target, died, leaked, repeat, served, settled, warm
from tests.support import http2_frames
from tests.support.process import Server
from tests.support.wire import HEADERS, KEY, plain

UPGRADE = f"GET /ws HTTP/1.1\r\n{HEADERS}"
WITHOUT_KEY = UPGRADE.removesuffix(KEY)
NOWHERE = UPGRADE.replace("/ws", "/nowhere")
PREFACE = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
H2C = "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
DEFLATE = "Sec-WebSocket-Extensions: permessage-deflate"

PRESUMPTUOUS = "a subprotocol nobody offered"
"""The one that is the application's mistake: it is told so, with a traceback."""

REQUESTS = {
    **{
        f"non-ASCII {name}": f"{UPGRADE}{name}: caf\xe9\r\n\r\n"
        for name in ("Sec-WebSocket-Protocol", "Sec-WebSocket-Extensions", "Connection", "Upgrade", "Origin", "Host")
    },
    "non-ASCII key": f"{WITHOUT_KEY}Sec-WebSocket-Key: caf\xe9\r\n\r\n",
    "non-ASCII version": UPGRADE.replace("13", "1\xb3") + "\r\n",
    "non-ASCII path": UPGRADE.replace("/ws", "/w\xe9") + "\r\n",
    "percent-encoded nonsense in the path": f"{UPGRADE.replace('/ws', '/%ff%00%zz')}\r\n",
    **{
        f"deflate with {offer}": f"{UPGRADE}{DEFLATE}; {offer}\r\n\r\n"
        for offer in (
            "client_max_window_bits=abc",
            "server_max_window_bits=99",
            "server_max_window_bits",
            "client_max_window_bits=\xb2",
            "what=ever",
            ";;;=",
        )
    },
    "ten thousand extensions": f"{UPGRADE}Sec-WebSocket-Extensions: {'x,' * 10_000}x\r\n\r\n",
    "a body": f"{UPGRADE}Content-Length: 5\r\n\r\nhello",
    "a chunked body": f"{UPGRADE}Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "a body on a rejected upgrade": f"{NOWHERE}Content-Length: 5\r\n\r\nhello",
    "bytes behind an accepted upgrade": f"{UPGRADE}\r\nmore than this",
    "bytes behind a rejected upgrade": f"{NOWHERE}\r\nmore than this",
    "another request behind a rejected upgrade": f"{NOWHERE}\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n",
    PRESUMPTUOUS: f"{UPGRADE.replace('/ws', '/presumptuous/')}\r\n",
    "a lower-case method": f"{UPGRADE.replace('GET', 'get')}\r\n",
    "odd white space": UPGRADE.replace(": websocket", ": \xa0websocket") + "\r\n",
    "HTTP/1.0": f"{UPGRADE.replace('HTTP/1.1', 'HTTP/1.0')}\r\n",
    "no key": f"{WITHOUT_KEY}\r\n",
    "two keys": f"{UPGRADE}{KEY}\r\n",
    "version 8": f"{UPGRADE.replace('13', '8')}\r\n",
    "no host": f"{UPGRADE.replace('Host: x', 'X: x')}\r\n",
    "a control character in a header": f"{UPGRADE}X: a\x01b\r\n\r\n",
    "bad HTTP2-Settings": f"{H2C}HTTP2-Settings: ?\r\n\r\n",
    "non-ASCII HTTP2-Settings": f"{H2C}HTTP2-Settings: \xe9\r\n\r\n",
    "no HTTP2-Settings": f"{H2C}\r\n",
    "bytes behind an h2c upgrade": f"{H2C}HTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\nnonsense",
    "nonsense behind the HTTP/2 preface": f"{PREFACE}nonsense",
    "garbage": "\x00\x01\x02\xff" * 100 + "\r\n\r\n",
    "a TLS handshake in clear": "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + "\xaa" * 200,
    "200 KB of header": f"{UPGRADE}X: {'x' * 200_000}\r\n\r\n",
    "ten thousand headers": UPGRADE + "X: x\r\n" * 10_000 + "\r\n",
}


LATE_SECONDS = 0.05
"""The pause before what is sent next."""
AT_ONCE = 3
"""Servers that run at the same time."""


def attacks() -> dict[str, tuple[bytes, ...]]:
    """All of them, by name: what is sent, part by part."""
    plain_ones = {name: (request.encode("latin-1"),) for name, request in REQUESTS.items()}
    return {**plain_ones, **{f"HTTP/2: {name}": parts for name, parts in http2_frames.ATTACKS.items()}}


async def attack(port: int, parts: tuple[bytes, ...]) -> bytes:
    """Send the parts, half-close, and return what comes back within two seconds."""
    received = b""
    async with plain(port) as wire:
        for number, part in enumerate(parts):
            if number:
                await trio.sleep(LATE_SECONDS)
            await wire.send(part)
        with trio.move_on_after(2):
            try:
                await wire.stream.send_eof()
            except trio.BrokenResourceError:
                pass
            while data := await wire.receive():
                received += data
    return received


async def kill(target: Target, n: int, figures: Figures) -> None:
    """Each attack, `n` times, against a server of its own: whether it lives, what it says, who is served next."""
    figures.update(tried=0, killed=0, not_served=0, noisy=0, killers=[])

    async def one(name: str, parts: tuple[bytes, ...]) -> None:
        async with target.serve("-w", "0") as server:  # starts twice as fast
            try:
                for _ in range(n):
                    await attack(server.port, parts)
            except (OSError, trio.BrokenResourceError):
                pass  # it has gone before the last one
            figures["tried"] += 1
            if not await served(server):
                figures["not_served"] += 1
                if died(server):
                    figures["killed"] += 1
                    figures["killers"].append(name)
            if said(server) > n and name != PRESUMPTUOUS:
                figures["noisy"] += 1

    every = list(attacks().items())
    await repeat(len(every), lambda number: one(*every[number]), at_once=AT_ONCE)


def said(server: Server) -> int:
    """The number of lines in the server's log, without its greeting."""
    return sum("Running on" not in line for line in server.log_text().splitlines())


async def test_no_request_ends_the_worker() -> None:
    """All of them against one worker: who ends it is named, the next client is served each time, and there is no
    traceback and one line each at most."""
    every = attacks()
    async with ONE_PROCESS.serve() as server:
        before = await warm(server)
        for name, parts in every.items():
            lines = said(server)
            await attack(server.port, parts)
            assert await served(server), f"{name}:\n{server.log_text()}"
            if name != PRESUMPTUOUS:
                assert said(server) - lines <= 1, f"{name}:\n{server.log_text()}"
        assert leaked(before, await settled(server)) == 0
        assert server.log_text().count("Traceback") == 1, "the application's own mistake, a wrong subprotocol"


PROBES = [
    Probe(
        "One client that asks for what it should not (113 ways, each against a fresh worker): it lives, and serves the "
        "next client",
        kill,
        1,
        "{killed} of {tried} end the worker",
        lambda f: f["killed"] == f["not_served"] == f["noisy"] == 0,
        limit=300,
    ),
]
