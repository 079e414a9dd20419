"""What a `RedisBroker` is told."""

from __future__ import annotations

from dataclasses import dataclass

from verbtrio.base.checks import check_count, check_seconds


@dataclass(frozen=True, slots=True)
class Settings:
    """See `RedisBroker`."""

    prefix: str
    timeout: float
    max_pending_bytes: int
    buffer_bytes: int

    def __post_init__(self) -> None:
        check_seconds("timeout", self.timeout)
        check_count("max_pending_bytes", self.max_pending_bytes)
        if self.buffer_bytes < 0:
            raise ValueError(f"buffer_bytes is a number of bytes, 0 or more, not {self.buffer_bytes!r}")
        if not self.prefix or "{" in self.prefix or "}" in self.prefix:
            raise ValueError("prefix is what all keys begin with: some text without { and }")
