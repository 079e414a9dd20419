"""`python -m benchmarks`: measure, print medians, write JSON and charts. `nox -s bench` brings what it needs."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from benchmarks import build, catalogue, loads, pages, report, targets
from benchmarks.process import LOAD_CORE, ROOT, pin
from benchmarks.run import Results, Run, log

KNOWN_LOADS = [load.name for load in loads.LOADS]
DEFAULT_LOADS = [load.name for load in loads.LOADS if load.by_default]
PACKAGES = ["verbtrio", "trio", "hypercorn", "quart-trio", "trio-websocket", "websockets", "uvicorn", "starlette"]
PACKAGES += ["granian", "aiohttp", "picows", "socketify", "uvloop"]


def names(known: Sequence[str], what: str) -> Any:
    """An argument's type: a list of `known` names, separated by commas."""

    def parse(value: str) -> list[str]:
        chosen = [name for name in value.split(",") if name]
        unknown = [name for name in chosen if name not in known]
        if unknown or not chosen:
            raise argparse.ArgumentTypeError(f"no such {what}: {', '.join(unknown)} (there are {', '.join(known)})")
        return chosen

    return parse


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="nox -s bench --", description=__doc__)
    known = [server.name for server in catalogue.SERVERS]
    parser.add_argument("--loads", type=names(KNOWN_LOADS, "load"), default=DEFAULT_LOADS, metavar="A,B", help="which")
    parser.add_argument("--servers", type=names(known, "server"), default=known, metavar="A,B", help="which")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.7, help="how long each server is measured in a round")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "bench", help="the folder for JSON and charts")
    parser.add_argument("--redraw", type=Path, metavar="JSON", help="measure nothing; take these results")
    parser.add_argument("--docs", action="store_true", help="put the medians and charts into the documentation")
    parser.add_argument("--list", action="store_true", help="say which loads and servers there are")
    options = parser.parse_args(argv)
    if options.rounds < 1 or not 0 < options.seconds <= 60:
        parser.error("--rounds must be 1 or more, --seconds more than 0 and 60 at most")
    if options.docs and not options.redraw and not (set(DEFAULT_LOADS) <= set(options.loads) and options.rounds >= 3):
        parser.error("--docs replaces everything in the pages: it wants all loads, and three rounds at least")
    return options


def main(argv: Sequence[str] | None = None) -> int:
    options = arguments(argv)
    if options.list:
        print("\n".join([*(f"{load.name:<20} {load.title}" for load in loads.LOADS), ""]))
        print("\n".join(f"{server.name:<20} {server.title}" for server in catalogue.SERVERS))
        return 0
    if options.redraw:
        results = json.loads(options.redraw.read_text())
    else:
        if build.load() is None:
            log("skipped: the load generator is written in C, and there is no compiler (Debian: gcc, libc6-dev)")
            return 0
        results = measure(options)
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    print(report.text(results))
    print(f"\n{targets.text(results['cells'])}")
    pages.charts(results, options.out)
    log(f"charts and results: {options.out}")
    if options.docs:
        pages.write(results)
    return 0


def measure(options: argparse.Namespace) -> dict[str, Any]:
    pin(LOAD_CORE)  # whatever we do ourselves stays away from the server
    results = Results(settings(options))
    chosen = [load for load in loads.LOADS if load.name in options.loads]
    if any(load.tls for load in chosen) and build.tls_load() is None:
        results.warn("no TLS loads: OpenSSL's headers are missing (Debian: apt install libssl-dev)")
        chosen = [load for load in chosen if not load.tls]
    servers = []
    for server in (catalogue.BY_NAME[name] for name in options.servers):
        if (why := server.missing()) is not None:
            log(f"skipped: {server.name}: {why}")
            results.skipped[server.name] = why
        else:
            servers.append(server)
    with tempfile.TemporaryDirectory() as folder:
        certificate = make_certificate(Path(folder)) if any(load.tls for load in chosen) else None
        run = Run(servers, chosen, options.rounds, options.seconds, results, certificate)
        try:
            run.all_rounds()
        except KeyboardInterrupt:
            results.warn("interrupted")
    return vars(results)


def settings(options: argparse.Namespace) -> dict[str, Any]:
    """What has to be known of a run: when, where, what."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            pass
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "rounds": options.rounds,
        "seconds": options.seconds,
        "versions": versions,
    }


def make_certificate(folder: Path) -> tuple[Path, Path]:
    import trustme

    issued = trustme.CA().issue_cert("127.0.0.1")
    cert, key = folder / "cert.pem", folder / "key.pem"
    cert.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    key.write_bytes(issued.private_key_pem.bytes())
    return cert, key


if __name__ == "__main__":
    sys.exit(main())
