"""What hooks return is sent to their client; and a message's `ref`, by which a client matches an answer with what it
has asked. (Phoenix's clients do so.)"""

from __future__ import annotations

import copy
from typing import Any, TypeGuard
from uuid import UUID

import msgspec
from starlette.requests import HTTPConnection

from verbtrio.connection.membership import Membership
from verbtrio.rooms.room import Room

MAX_REF_CHARACTERS = 64
"""A longer `ref` does not come back."""
MAX_REF = 2**63
"""Nor does a number beyond these."""

_NO_MESSAGES = (int, float, Membership, Room, HTTPConnection)
"""What a hook of one expression returns by the way: `lambda ws, text: ws.route.broadcast(text)` how many were reached,
`lambda ws: ws.join("lobby")` a membership. Numbers and truth values are hardly ever a message of their own."""


def is_message(value: object) -> bool:
    """Whether `value`, which a hook has returned, is sent."""
    return value is not None and not isinstance(value, _NO_MESSAGES)


def error_answer(text: str, ref: Any = None) -> dict[str, Any]:
    """What a message is answered with that is not taken. `ref`: that message's (see `ref_in`)."""
    answer = {"type": "error", "message": text}
    return answer if ref is None else {**answer, "ref": ref}


def ref_in(message: str | bytes) -> str | int | float | None:
    """The `ref` of a message as it was received, whatever else is wrong with it; `None` where it has none."""
    try:
        ref = _ref_alone.decode(message).ref
    except (msgspec.DecodeError, RecursionError, UnicodeError):
        return None
    return ref if _is_ref(ref) else None


def with_ref(answer: Any, message: Any) -> Any:
    """`answer` with the `ref` of the message it answers, where that has one and the answer has a place for it: a dict
    without a `ref`, or an object whose `ref` is `None`, or unset. Others' objects stay as they are: it is a copy."""
    ref = message.get("ref") if isinstance(message, dict) else getattr(message, "ref", None)
    if not _is_ref(ref):
        return answer
    if isinstance(answer, dict):
        return answer if "ref" in answer else {**answer, "ref": ref}
    if isinstance(answer, tuple) or getattr(answer, "ref", ref) not in (None, msgspec.UNSET):
        return answer  # it has one of its own, or no place for one
    if isinstance(answer, msgspec.Struct):
        return msgspec.structs.replace(answer, ref=ref) if "ref" in answer.__struct_fields__ else answer
    if hasattr(answer, "model_copy"):  # Pydantic's way, which counts the field as set
        return answer.model_copy(update={"ref": ref})
    copied = copy.copy(answer)
    try:
        object.__setattr__(copied, "ref", ref)  # of a frozen dataclass, too
    except AttributeError:  # a property
        return answer
    return copied


class _RefAlone(msgspec.Struct):
    ref: str | int | float | None = None


_ref_alone = msgspec.json.Decoder(_RefAlone)


def _is_ref(ref: object) -> TypeGuard[str | int | float]:
    """Whether it comes back. (A UUID does, as the text that it is in JSON.)"""
    if isinstance(ref, str):
        return len(ref) <= MAX_REF_CHARACTERS
    if isinstance(ref, int | float):
        return not isinstance(ref, bool) and abs(ref) < MAX_REF
    return isinstance(ref, UUID)
