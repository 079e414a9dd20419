"""A handler in its nursery, and how its end becomes its connection's end.

The connection ends when the handler does: when it returns, when it or a child of `ws.nursery` raises, or when
`ws.nursery.cancel_scope` is cancelled, which counts as a return. Children that are still cleaning up delay the hooks,
but neither the Close frame nor leaving the rooms.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any, Protocol, TypeVar
from weakref import ref

import trio

from verbtrio.base.calls import single
from verbtrio.base.close import (
    DRAINED,
    INTERNAL_ERROR,
    POLICY_VIOLATION,
    RETURNED,
    TRY_AGAIN_LATER,
    Cause,
    CloseInfo,
    fitting_reason,
)
from verbtrio.base.errors import (
    BrokerUnavailable,
    ConnectionClosed,
    Denied,
    HistoryGap,
    LimitExceeded,
    RoomUnavailable,
)
from verbtrio.connection.peer import handled_by

logger = logging.getLogger("verbtrio.connection")

_REFUSALS = (BrokerUnavailable, Denied, HistoryGap, LimitExceeded, RoomUnavailable)
"""What a handler need not catch: it says why the client can't have what it asks for, and is no mistake of the
handler's. Each client that comes again would be a traceback in the log."""


class Handled(Protocol):
    """A connection, so far as this knows it: a `WebSocketPeer`, or one that an HTTP response carries."""

    nursery: trio.Nursery | None

    @property
    def ws(self) -> Any:
        """What applications hold of it."""

    @property
    def closed(self) -> CloseInfo | None: ...

    def end(self, info: CloseInfo) -> object: ...


PeerT = TypeVar("PeerT", bound=Handled)


PeerT_contra = TypeVar("PeerT_contra", bound=Handled, contravariant=True)


class Runs(Protocol[PeerT_contra]):
    """What is run: a `Handler`, or what is one for another kind of connection."""

    def run(self, peer: PeerT_contra, /) -> Awaitable[None]: ...


async def handle(
    peer: PeerT,
    handler: Runs[PeerT],
    may_begin: Callable[[], Awaitable[bool]],
    on_failure: Callable[[Exception], None],
) -> None:
    """Run the handler in the connection's nursery, if it may begin, until both are over. Raises no `Exception`.

    If cancelled, the handler is; a connection that has not ended by then ends as drained.

    Args:
        on_failure: called with what the handler and its children have raised, as one exception.
    """
    handled_by.set(ref(peer.ws))
    try:
        async with trio.open_nursery() as nursery:
            peer.nursery = nursery
            try:
                begins = await may_begin()
                del may_begin  # a bound method, perhaps the last that is kept of something
                if begins:
                    await handler.run(peer)
            except BaseException as error:
                _end(peer, nursery, error)
                raise
            _end(peer, nursery, None)
            if nursery.child_tasks:
                nursery.cancel_scope.cancel()
    except* Exception as group:
        if (failure := _failure_of(peer, group)) is not None:
            info = _info_of(failure)
            peer.end(info)
            if info.cause is Cause.ERROR:
                logger.error("the handler of %r raised", peer, exc_info=failure)
                on_failure(failure)
    else:
        peer.end(RETURNED)
    finally:
        handled_by.set(None)


def describe_unfinished(peer: Handled) -> str:
    """The connection, and which of its tasks have not ended, for the log."""
    tasks = [] if peer.nursery is None else sorted(task.name for task in peer.nursery.child_tasks)
    return f"{peer!r} ({', '.join(tasks) or 'its handler, or a hook'})"


def _end(peer: Handled, nursery: trio.Nursery, error: BaseException | None) -> None:
    """The handler has returned, or raised `error`: end the connection, while its nursery's children end."""
    scope = nursery.cancel_scope
    # What children have raised so far, and whose cancellation it is: Trio has no public names for either before all
    # children have ended. If a version of Trio keeps them elsewhere, the connection ends when they have.
    raised_before = getattr(nursery, "_pending_excs", None)
    from_outside = getattr(getattr(scope, "_cancel_status", None), "parent_cancellation_is_visible_to_us", None)
    if not isinstance(raised_before, list) or not isinstance(from_outside, bool):
        return
    raised: list[BaseException] = [*raised_before]
    if error is not None:
        raised.append(error)
    failure = _failure_of(peer, BaseExceptionGroup("", raised)) if raised else None
    if failure is not None:
        peer.end(_info_of(failure))
    elif error is None or (from_outside is False and scope.cancel_called):
        peer.end(RETURNED)
    elif from_outside:
        peer.end(DRAINED)


def _failure_of(peer: Handled, error: BaseException) -> Exception | None:
    """The exceptions in `error`, without the connection's own `ConnectionClosed`, which a handler may let pass. Several
    are one group."""
    group, _ = BaseExceptionGroup("", [error]).split(Exception)
    if group is None:
        return None
    _, others = group.split(lambda e: isinstance(e, ConnectionClosed) and e.info is peer.closed)
    return None if others is None else single(others)


def _info_of(failure: Exception) -> CloseInfo:
    """How a connection ends whose handler has raised `failure`."""
    refusals, others = ExceptionGroup("", [failure]).split(_REFUSALS)
    if others is not None or refusals is None:
        return CloseInfo(Cause.ERROR, INTERNAL_ERROR, "Internal server error", failure)
    first: Exception = refusals
    while isinstance(first, ExceptionGroup):
        first = first.exceptions[0]
    if isinstance(first, BrokerUnavailable):  # its text may have the broker's address
        return CloseInfo(Cause.DENIED, TRY_AGAIN_LATER, "Not available")
    cause = Cause.RATE if isinstance(first, LimitExceeded) else Cause.DENIED
    code = TRY_AGAIN_LATER if isinstance(first, RoomUnavailable) else POLICY_VIOLATION
    return CloseInfo(cause, code, fitting_reason(str(first)))
