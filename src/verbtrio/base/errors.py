"""What verbtrio raises.

VerbtrioError
├─ AuthenticationError    a token is not accepted
├─ ConnectionClosed       the connection has ended: `send` and `receive` can't go on
├─ HandshakeError         the upgrade request is not valid; carries the HTTP answer
├─ LimitExceeded          a handler asked for more than the connection's limits allow
├─ MessageError           a message is not what the handler takes; carries the answer to the peer
├─ NotRunning             the app's lifespan is not running; says what to do
└─ RoomUnavailable        a room can't be joined now: its task has failed, or is not ready
"""

from __future__ import annotations

from verbtrio.base.close import CloseInfo


class VerbtrioError(Exception):
    """The base of verbtrio's own exceptions."""


class AuthenticationError(VerbtrioError):
    """A token is not accepted. `str(error)` may be shown to the peer.

    Attributes:
        status: 401 (not valid), 403 (not sufficient for this route) or 503 (it can't be checked now).
    """

    def __init__(self, status: int, message: str) -> None:
        self.status = status
        super().__init__(message)


class ConnectionClosed(VerbtrioError):  # noqa: N818 -- the usual name (websockets, trio-websocket)
    """The connection has ended.

    A handler need not catch it: the connection has ended already, and its cause is recorded.
    """

    def __init__(self, info: CloseInfo) -> None:
        self.info = info
        super().__init__(f"the connection is closed: {info.cause} ({info.code} {info.reason!r})")


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

    `str(error)` may be shown to the peer: it says nothing of what the task has raised, which is in the log.
    """
