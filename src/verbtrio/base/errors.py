"""What verbtrio raises.

VerbtrioError
├─ AuthenticationError    a token is not accepted
├─ ConnectionClosed       the connection has ended: `send` and `receive` can't go on
├─ HandshakeError         the upgrade request is no valid one; carries the HTTP answer
├─ LimitExceeded          a handler asked for more than the connection's limits allow
├─ MessageError           a message is not what the handler takes; carries the answer to the peer
└─ NotRunning             the app's lifespan is not running; says what to add
"""

from __future__ import annotations

from verbtrio.base.close import CloseInfo


class VerbtrioError(Exception):
    """The base of everything verbtrio raises on its own account."""


class AuthenticationError(VerbtrioError):
    """A token is not accepted. `str(error)` says no more than the peer may know.

    Attributes:
        status: 401 (not valid), 403 (not enough for this route) or 503 (it can't be checked now).
    """

    def __init__(self, status: int, message: str) -> None:
        self.status = status
        super().__init__(message)


class ConnectionClosed(VerbtrioError):  # noqa: N818 -- the name the field knows (websockets, trio-websocket)
    """The connection has ended.

    A handler may let it pass: a connection whose handler raises it has ended by its own cause already.
    """

    def __init__(self, info: CloseInfo) -> None:
        self.info = info
        super().__init__(f"the connection is closed: {info.cause} ({info.code} {info.reason!r})")


class HandshakeError(VerbtrioError):
    """An upgrade request that can't be granted. Carries the answer it asks for.

    Attributes:
        status: the HTTP status of the answer.
        headers: the answer's headers beside `content-type` and `content-length`.
    """

    def __init__(self, status: int, message: str, headers: list[tuple[bytes, bytes]] | None = None) -> None:
        self.status = status
        self.headers = headers or []
        super().__init__(message)


class LimitExceeded(VerbtrioError):  # noqa: N818 -- a fact about the peer more often than a mistake
    """More was asked for than the connection's `Limits` allow.

    A handler may let it pass: then its connection ends with 1008, and nothing is logged as its failure. To answer the
    peer and go on, catch it.
    """


class MessageError(VerbtrioError):
    """A message that is not what the handler takes. `str(error)` is the text the peer is answered with."""


class NotRunning(VerbtrioError):  # noqa: N818 -- a state, said as one
    """The app is used outside its lifespan."""
