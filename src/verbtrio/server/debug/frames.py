"""Whose code is running: the application's, or that of the framework around it. Told by Python's frames."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from types import FrameType

import trio

FRAMEWORK = frozenset(
    ("anyio", "fastapi", "h11", "h2", "hpack", "hypercorn", "outcome", "starlette", "trio", "verbtrio", "websockets")
)
"""Packages around an application's functions."""


def frames_of(frame: FrameType | None, task: trio.lowlevel.Task) -> Iterator[tuple[FrameType, int]]:
    """The frames of a task that is at `frame`, and the lines they are at, innermost first. (Outside them are those of
    the program that has called Trio.)"""
    root = getattr(task.coro, "cr_frame", None)
    while frame is not None:
        yield frame, frame.f_lineno
        if frame is root:
            return
        frame = frame.f_back


def applications_function(frames: Iterable[tuple[FrameType, int]]) -> tuple[str, str] | None:
    """The application's function that the framework has called last, and where its code is: in that function, or in
    one that it has called. `None`: none of the frames is the application's.

    Args:
        frames: innermost first, with their lines.
    """
    handler: str | None = None
    where = ""
    for frame, line in frames:
        package = _package(frame)
        code = frame.f_code
        if package not in FRAMEWORK and package not in sys.stdlib_module_names:
            handler = f"{frame.f_globals.get('__name__')}.{code.co_qualname}"
            where = where or f"at {code.co_filename}:{line}"
        elif package in FRAMEWORK and handler is not None:
            break
    return None if handler is None else (handler, where)


def is_in_application(frames: Iterable[tuple[FrameType, int]]) -> bool:
    """Whether the innermost code that is not the standard library's is the application's."""
    for frame, _ in frames:
        if (package := _package(frame)) not in sys.stdlib_module_names:
            return package not in FRAMEWORK
    return False


def _package(frame: FrameType) -> str:
    name = frame.f_globals.get("__name__")
    return name.partition(".")[0] if isinstance(name, str) else ""
