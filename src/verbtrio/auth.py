"""JSON Web Tokens (RFC 7519) at the door, by PyJWT: who comes in, and until when.

    auth = JWTAuth(key=os.environ["SECRET_KEY"])

    @app.ws("/ws", middleware=[auth])
    async def chat(ws): ...                      # ws.user is the token's claims

    token = auth.issue({"id": 1, "username": "ada"})    # for the login route

Import it as `verbtrio.auth`: PyJWT is loaded only by those who use it. Nothing here logs a token or a key.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import jwt
from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse, Response

from verbtrio.middleware import CallNext, Upgrade

SUBPROTOCOL = "bearer"
"""A browser can't set headers on a WebSocket, but subprotocols: `new WebSocket(url, ["bearer", token])`."""


class JWTAuth:
    """Middleware that lets in who has a valid token, for HTTP and WebSocket routes alike.

    The token is looked for in the header `Authorization: Bearer`, in the subprotocols (`"bearer"`, then the token) and
    in the query (`?token=`), in that order. Its claims become `request.user` and `ws.user`; its `exp` is the
    connection's deadline: at that time it is closed with 4401. Without a valid token the answer is 401.

    Args:
        key: the secret (HS256: 32 bytes at least) or the public key.
        algorithms: the algorithms accepted, never taken from the token; the first is used to issue.
        signing_key: the private key to issue with, where it is not `key`.
    """

    def __init__(
        self,
        key: str | bytes,
        *,
        algorithms: Sequence[str] = ("HS256",),
        signing_key: str | bytes | None = None,
    ) -> None:
        if isinstance(algorithms, str) or not algorithms or "none" in {a.lower() for a in algorithms}:
            raise ValueError('algorithms must be a sequence of signed algorithms, for example ["HS256"]')
        if not key:
            raise ValueError("the key is empty: JWTAuth needs a secret of 32 bytes or more, or a public key")
        self._key = key
        self._algorithms = list(algorithms)
        self._signing_key = signing_key or key

    def __repr__(self) -> str:
        return f"JWTAuth(algorithms={self._algorithms})"

    def issue(self, claims: Mapping[str, Any], *, expires_in: float = 3600.0) -> str:
        """Return a signed token with `claims`, valid from now for `expires_in` seconds (rounded up to a whole one).

        `id` (or `sub`) among the claims is what `app.users` knows the user by.
        """
        now = datetime.now(UTC).timestamp()
        payload = {**claims, "iat": int(now), "exp": math.ceil(now + expires_in)}  # whole seconds, none too few
        return jwt.encode(payload, self._signing_key, algorithm=self._algorithms[0])

    def verify(self, token: str) -> dict[str, Any] | None:
        """Return the claims of `token`, or `None` where it is not valid, for whatever reason."""
        try:
            claims: dict[str, Any] = jwt.decode(token, self._key, algorithms=self._algorithms)
            float(claims.get("exp", 0))  # beyond all clocks: OverflowError
        except (jwt.PyJWTError, ValueError, TypeError, RecursionError, OverflowError):
            # Beside its own errors PyJWT lets out what a forged token's base64 and JSON may raise.
            return None
        return claims

    async def __call__(self, request: HTTPConnection, call_next: CallNext) -> Response:
        token, subprotocol = _find_token(request)
        claims = None if token is None else self.verify(token)
        if claims is None:
            return PlainTextResponse("Unauthorized", 401, headers={"WWW-Authenticate": "Bearer"})
        request.scope["user"] = claims
        if "exp" in claims:
            request.scope["verbtrio.expires"] = float(claims["exp"])
        response = await call_next(request)
        if isinstance(response, Upgrade):
            response.subprotocol = subprotocol
        return response


def _find_token(request: HTTPConnection) -> tuple[str | None, str | None]:
    """The token, and the subprotocol to answer with where it came as one."""
    scheme, _, credentials = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and credentials.strip():
        return credentials.strip(), None
    offered = list(request.scope.get("subprotocols", ()))
    if len(offered) >= 2 and offered[0] == SUBPROTOCOL:
        return offered[1], SUBPROTOCOL
    return request.query_params.get("token") or None, None
