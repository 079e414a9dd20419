"""Whether a task has its turns while others work."""

from __future__ import annotations

import trio


class Turns:
    """The turns that a task, `run`, has had so far."""

    def __init__(self) -> None:
        self.number = 0

    async def run(self) -> None:
        while True:
            self.number += 1
            await trio.lowlevel.checkpoint()
