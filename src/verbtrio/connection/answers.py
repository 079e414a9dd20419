"""Answers: which values that hooks return are sent, and the `ref` by which a client matches an answer with its message.
(Phoenix's clients do so.)"""

from __future__ import annotations

import copy
from typing import Any, TypeGuard
from uuid import UUID

import msgspec
from starlette.requests import HTTPConnection

from verbtrio.connection.membership import Membership
from verbtrio.rooms.room import Room

MAX_REF_CHARACTERS = 64
"""A longer `ref` is not sent back."""
MAX_REF = 2**63
"""Nor is a number beyond this one."""

_NO_MESSAGES = (int, float, Membership, Room, HTTPConnection)
"""What a hook of one expression returns without meaning to: `lambda ws, text: ws.route.broadcast(text)` a number of
members, `lambda ws: ws.join("lobby")` a membership. Numbers and truth values are hardly ever messages."""


def is_message(value: object) -> bool:
    """Whether `value`, which a hook has returned, is sent."""
    return value is not None and not isinstance(value, _NO_MESSAGES)


def error_answer(text: str, ref: Any = None) -> dict[str, Any]:
    """The answer to a message that is refused. `ref`: that message's (see `ref_in`)."""
    answer = {"type": "error", "message": text}
    return answer if ref is None else {**answer, "ref": ref}


def ref_in(message: str | bytes) -> str | int | float | None:
    """The `ref` of a message as it was received, whatever else is wrong with it; `None` without one."""
    try:
        ref = _ref_alone.decode(message).ref
    except (msgspec.DecodeError, RecursionError, UnicodeError):
        return None
    return ref if _is_ref(ref) else None


def with_ref(answer: Any, message: Any) -> Any:
    """`answer` with the `ref` of the message it answers, if the message has one and the answer takes one: a dict
    without a `ref`, or an object whose `ref` is `None` or unset. The object itself stays as it is: the result is a
    copy."""
    ref = message.get("ref") if isinstance(message, dict) else getattr(message, "ref", None)
    if not _is_ref(ref):
        return answer
    if isinstance(answer, dict):
        return answer if "ref" in answer else {**answer, "ref": ref}
    if isinstance(answer, tuple) or getattr(answer, "ref", ref) not in (None, msgspec.UNSET):
        return answer  # it has a ref of its own, or can't have one
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
    """Whether it is sent back. (A UUID is, as the text that it is in JSON.)"""
    if isinstance(ref, str):
        return len(ref) <= MAX_REF_CHARACTERS
    if isinstance(ref, int | float):
        return not isinstance(ref, bool) and abs(ref) < MAX_REF
    return isinstance(ref, UUID)
