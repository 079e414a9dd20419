"""The settings of routes: an app's hold for its groups and routes, and each of those may override some of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from verbtrio.base.limits import Limits
from verbtrio.base.types import DecodeHook
from verbtrio.connection.heartbeat import Heartbeat
from verbtrio.guards.origin import Origins
from verbtrio.guards.quotas import Quotas

UNSET: Any = object()
"""The default of an argument for which `None` means something."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteSettings:
    """What holds for the connections of a route.

    Raises:
        TypeError: `limits` is not a `Limits`, or `heartbeat` neither a `Heartbeat` nor `None`. (Unchecked, it would
            only fail at the first connection.)
    """

    limits: Limits
    heartbeat: Heartbeat | None
    compression: bool
    """Agree on permessage-deflate where the client offers it."""
    origins: Origins
    """The pages that may open WebSockets."""
    decode: DecodeHook | None = None
    quotas: tuple[Quotas, ...] = ()
    """Where connections are counted besides the app: for the limits that the groups and the route name themselves."""

    def __post_init__(self) -> None:
        _check_limits(self.limits)
        if self.heartbeat is not None and not isinstance(self.heartbeat, Heartbeat):
            raise TypeError(f"heartbeat is a verbtrio.Heartbeat(...), or None for none, not {self.heartbeat!r}")

    def override(
        self,
        limits: Limits | None = None,
        heartbeat: Heartbeat | None = UNSET,
        compression: bool | None = None,
        allowed_origins: Iterable[str] | None = None,
        require_origin: bool | None = None,
    ) -> RouteSettings:
        """The settings of a group or a route that has these of its own, and takes the others from here.

        Of `limits`, only those that it names are its own. Connections are counted for them by themselves, and still
        count here.

        Raises:
            TypeError: see `RouteSettings`.
            ValueError: the limits don't go together, or one of `allowed_origins` is not an origin.
        """
        merged, quotas = self.limits, self.quotas
        if limits is not None:
            _check_limits(limits)
            merged = self.limits.override(limits)
            quotas = (*quotas, Quotas(merged.counted_by(limits)))
        return RouteSettings(
            limits=merged,
            heartbeat=self.heartbeat if heartbeat is UNSET else heartbeat,
            compression=self.compression if compression is None else compression,
            origins=self.origins.replace(allowed_origins, require_origin),
            decode=self.decode,
            quotas=quotas,
        )


def _check_limits(limits: object) -> None:
    if not isinstance(limits, Limits):
        raise TypeError(f"limits is a verbtrio.Limits(...), not {limits!r}")
