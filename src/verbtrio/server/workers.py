"""Whether this process is one of several hypercorn workers, which know nothing of each other."""

from __future__ import annotations

import logging
import multiprocessing
from multiprocessing.process import BaseProcess

from hypercorn.config import Config

logger = logging.getLogger("verbtrio.app")


def warn_if_several() -> None:
    """If hypercorn has started several workers, warn that rooms, users and limits are per process: one line for all."""
    process = multiprocessing.current_process()
    workers = workers_of(process)
    if workers > 1 and _speaks_for_all(process, workers):
        logger.warning(
            "hypercorn runs %d workers, and rooms, users and limits are per process: a broadcast reaches the clients "
            "of one worker only. Start it with `-w 1`; to use more cores, run several servers, each on a port of its "
            "own, behind a proxy that sends clients who share rooms to the same one",
            workers,
        )


def workers_of(process: BaseProcess) -> int:
    """How many workers there are: hypercorn starts each with its configuration, which a process keeps among its
    arguments. 1 in any other process (and if Python keeps the arguments elsewhere)."""
    config = getattr(process, "_kwargs", {}).get("config")
    return config.workers if isinstance(config, Config) else 1


def _speaks_for_all(process: BaseProcess, workers: int) -> bool:
    """Whether it is the first of its batch. Python numbers a parent's processes from 1 on, and those that replace the
    first `workers` (SIGHUP, `--reload`) go on from there."""
    number = process.name.rpartition("-")[2]
    return not number.isdecimal() or (int(number) - 1) % workers == 0
