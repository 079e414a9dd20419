"""A share of what test_fuzz.py sends, in one process: `python -m tests.robustness.fuzz_share KIND FROM TO`.

The clock is virtual, so that nobody waits for a time limit. Prints how many tracebacks were logged; fails where a
connection does, or where anything is left of one.
"""

from __future__ import annotations

import gc
import json
import sys

import trio
import trio.testing

from tests.robustness.test_fuzz import within


def main(kind: str, start: str, stop: str) -> None:
    gc.collect()
    gc.freeze()  # what is imported for the tests alone, the collector would look through in the server's steps
    clock = trio.testing.MockClock(autojump_threshold=0)
    json.dump(trio.run(within, kind, range(int(start), int(stop)), clock=clock), sys.stdout)


if __name__ == "__main__":
    main(*sys.argv[1:])
