"""Runs the Autobahn test suite's fuzzing client against verbtrio: `nox -s autobahn`.

`python -m tests.autobahn WSTEST [CASES...] [--exclude CASES...] [--write PAGE]`; `WSTEST` is the suite's command, in an
environment with Python 2.7 (the session makes it). All 517 cases take 13 minutes; `1.* 7.*` or so runs some of them.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.pages import replace_part
from tests.support.process import hypercorn

CASES = 517
"""What `*` selects: another number means that the suite has changed, or did not finish."""

PASSED = ("OK", "NON-STRICT", "INFORMATIONAL")


@dataclass(frozen=True)
class Outcome:
    """What the suite's report says, case by case: `behavior` for the conversation, `behaviorClose` for its end."""

    cases: dict[str, dict[str, Any]]

    def count(self) -> Counter[str]:
        return Counter(case["behavior"] for case in self.cases.values())

    def failed(self) -> dict[str, str]:
        """The cases that failed, in either respect, with what went wrong."""
        return {
            name: f"{case['behavior']}, close {case['behaviorClose']}"
            for name, case in self.cases.items()
            if case["behavior"] not in PASSED or case["behaviorClose"] not in PASSED
        }

    def summary(self) -> str:
        """A sentence in Markdown."""
        count, failed = self.count(), self.failed()
        return (
            f"{len(self.cases)} cases: {count['OK']} OK, {count['NON-STRICT']} non-strict, "
            f"{count['INFORMATIONAL']} informational, {len(failed)} failed."
        )


def run(wstest: str, cases: list[str], exclude: list[str]) -> Outcome:
    """Serve the echo, run the fuzzing client against it to its end, and read the report."""
    with tempfile.TemporaryDirectory() as folder, hypercorn("tests.apps.autobahn:app") as server:
        spec = {
            "outdir": folder,
            "servers": [{"agent": "verbtrio", "url": f"ws://127.0.0.1:{server.port}/"}],
            "cases": cases,
            "exclude-cases": exclude,
            "exclude-agent-cases": {},
        }
        path = Path(folder) / "spec.json"
        path.write_text(json.dumps(spec))
        subprocess.run([wstest, "-m", "fuzzingclient", "-s", str(path)], check=True)
        if (code := server.process.poll()) is not None:
            raise SystemExit(f"the server ended with exit code {code}; its log:\n{server.log_text()}")
        if "Traceback" in server.log_text():
            raise SystemExit(f"a traceback in the server's log:\n{server.log_text()}")
        return Outcome(json.loads((Path(folder) / "index.json").read_text())["verbtrio"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("wstest")
    parser.add_argument("cases", nargs="*", default=["*"])
    parser.add_argument("--exclude", nargs="*", default=[])
    parser.add_argument("--write", type=Path, metavar="PAGE", help="put the summary between the page's markers")
    options = parser.parse_args()
    outcome = run(options.wstest, options.cases, options.exclude)
    print(outcome.summary())
    if options.cases == ["*"] and not options.exclude and len(outcome.cases) != CASES:
        sys.exit(f"{CASES} cases were to be run, not {len(outcome.cases)}")
    if failed := outcome.failed():
        sys.exit("\n".join(f"failed: {name} ({what})" for name, what in failed.items()))
    if not outcome.cases:
        sys.exit("no case was run")
    if options.write is not None:
        replace_part(options.write, "autobahn", outcome.summary())


if __name__ == "__main__":
    main()
