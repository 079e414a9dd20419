"""What verbtrio raises.

VerbtrioError
├─ AuthenticationError    a token is not accepted
├─ BrokerUnavailable      the broker can't be reached now; what was asked may have been done
├─ CallError              a call's own answer to its caller: a code, a message, and whether to try again
├─ ConnectionClosed       the connection has ended: `send` and `receive` can't go on
├─ Denied                 a room's guard does not let this member in
├─ HandshakeError         the upgrade request is not valid; carries the HTTP answer
├─ HistoryGap             a room's history does not reach back to where a client was; carries how far it does
├─ LimitExceeded          a handler asked for more than the connection's limits allow
├─ MessageError           a message is not what the handler takes; carries the answer to the peer
├─ NotRunning             the app's lifespan is not running; says what to do
└─ RoomUnavailable        a room can't be joined now: its task has failed, or is not ready
"""

from __future__ import annotations

from verbtrio.base.close import CloseInfo
from verbtrio.base.position import Position


class VerbtrioError(Exception):
    """The base of verbtrio's own exceptions."""


class AuthenticationError(VerbtrioError):
    """A token is not accepted. `str(error)` may be shown to the peer.

    Attributes:
        status: 401 (not valid), 403 (not sufficient for this route) or 503 (it can't be checked now).
        is_expired: the token is one of ours, and would be accepted if it had not expired: a newer one will do.
    """

    def __init__(self, status: int, message: str, *, is_expired: bool = False) -> None:
        self.status = status
        self.is_expired = is_expired
        super().__init__(message)


class BrokerUnavailable(VerbtrioError):  # noqa: N818 -- a state, not a failure of ours
    """The broker can't be reached now. (`MemoryBroker` always can.)

    What was asked of it has been done or not, but as a whole: the connection may have been lost before the answer came.
    So ask again only for what does no harm twice. `str(error)` may have the broker's address: it is for the log.

    If the handler does not catch it, the connection ends with 1013, which is not logged as an error.
    """


FIRST_CALL_ERROR, LAST_CALL_ERROR = 400, 1999
"""The codes that the protocol leaves to applications."""


class CallError(VerbtrioError):
    """Raise it in a call to answer the caller with an error of the application's. It is not logged.

    A handler of `app.rooms` may raise it before it accepts a client, to answer the subscribe; after that it ends the
    subscription. A function of `app.centrifuge(connect=)` may raise it to answer the connect.

    Attributes:
        code: what the client decides by.
        message: the client is shown it: nothing secret.
        temporary: the client may try again, and the SDKs do so where they can.

    Raises:
        ValueError: `code` is not from 400 to 1999 (those below are the protocol's), or `message` is empty.
        TypeError: `code` is not an `int`, or `message` not a `str`.
    """

    def __init__(self, code: int, message: str, *, temporary: bool = False) -> None:
        _check_call_error(code, message)
        self.code = code
        self.message = message
        self.temporary = temporary
        super().__init__(f"{code} {message}")


class ConnectionClosed(VerbtrioError):  # noqa: N818 -- the usual name (websockets, trio-websocket)
    """The connection has ended.

    A handler need not catch it: the connection has ended already, and its cause is recorded.
    """

    def __init__(self, info: CloseInfo) -> None:
        self.info = info
        super().__init__(f"the connection is closed: {info.cause} ({info.code} {info.reason!r})")


class Denied(VerbtrioError):  # noqa: N818 -- an answer, not a failure
    """A room's guard (`app.rooms(guard=...)`) does not let this member in.

    If the handler of a WebSocket does not catch it, the connection ends with 1008, which is not logged as an error.
    Catch it to answer the peer and go on.

    Raise it in a guard, a call, a handler of `app.rooms` or a function of `app.centrifuge(connect=)` to say no to a
    client. It is shown the text: in error 103, or, where it is subscribed already, as the reason for the end (2000).
    """


class HandshakeError(VerbtrioError):
    """An upgrade request can't be granted. Carries the answer.

    Attributes:
        status: the HTTP status of the answer.
        headers: the answer's headers except `content-type` and `content-length`.
    """

    def __init__(self, status: int, message: str, headers: list[tuple[bytes, bytes]] | None = None) -> None:
        self.status = status
        self.headers = headers or []
        super().__init__(message)


class HistoryGap(VerbtrioError):  # noqa: N818 -- a fact about the history, not a failure
    """A room's history does not reach back to a position: its messages are too old, or were too many; or the history
    has begun anew; or the position is not one of this room's.

    If the handler does not catch it, the connection ends with 1008, which is not logged as an error. Catch it to send
    the client the present state instead, and to join from `last`.

    Attributes:
        room: the room's name.
        oldest: the position of the oldest message there is; `None` if there is none.
        last: the position of the newest message: `ws.join(name, since=gap.last)` goes on from here.
    """

    def __init__(self, room: str, oldest: Position | None, last: Position) -> None:
        self.room = room
        self.oldest = oldest
        self.last = last
        there_is = "it has no messages" if oldest is None else f"its oldest message is {oldest}"
        super().__init__(f"The room's history does not reach back so far: {there_is}")


class LimitExceeded(VerbtrioError):  # noqa: N818 -- mostly the peer's doing, not a mistake
    """The connection's `Limits` do not allow this.

    If the handler does not catch it, the connection ends with 1008, which is not logged as an error. Catch it to answer
    the peer and go on.
    """


class MessageError(VerbtrioError):
    """A message is not what the handler takes. `str(error)` is the text of the answer to the peer."""


class NotRunning(VerbtrioError):  # noqa: N818 -- a state, not a failure
    """The app is used outside its lifespan."""


class RoomUnavailable(VerbtrioError):  # noqa: N818 -- a state, not a failure of the caller's
    """A room can't be joined now: its task has failed, is not ready in time, or ends with the server.

    `str(error)` may be shown to the peer: it says nothing of what the task has raised, which is in the log. If the
    handler does not catch it, the connection ends with 1013, which is not logged as an error.
    """


def _check_call_error(code: object, message: object) -> None:
    if not isinstance(code, int) or isinstance(code, bool):
        raise TypeError(f"a call's error code is an int, not {code!r}: CallError(404, 'no such message')")
    if not isinstance(message, str):
        raise TypeError(f"a call's error message is a str, not {message!r}: CallError(404, 'no such message')")
    if not FIRST_CALL_ERROR <= code <= LAST_CALL_ERROR:
        raise ValueError(f"a call's error code is from 400 to 1999, not {code}: the others are the protocol's")
    if not message:
        raise ValueError("a call's error message is not empty: say what the client can't have, and why")
