"""Imported first. Where verbtrio can't work, this says so at once, in place of an error from deep inside."""

from __future__ import annotations

from verbtrio.contract.check import STARLETTE

_FAULTS = [fault for use in STARLETTE for fault in use.faults()]
if _FAULTS:
    raise ImportError(
        f"this version of Starlette is not one verbtrio can work with ({'; '.join(_FAULTS[:3])}): install one that "
        f"verbtrio's own requirements admit, as `pip install verbtrio` does; see docs/architecture.md, By contract"
    )
