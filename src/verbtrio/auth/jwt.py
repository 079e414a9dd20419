"""Authentication by JSON Web Tokens (RFC 7519), with PyJWT: who may connect, and until when.

    auth = JWTAuth(key=os.environ["SECRET_KEY"])

    @app.ws("/ws", middleware=[auth])
    async def chat(ws): ...                      # ws.user is the token's claims

    token = auth.issue({"id": 1, "username": "ada"})    # for the login route

Import it from `verbtrio.auth`. PyJWT is loaded only then. Nothing here logs a token or a key.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import jwt
from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse, Response

from verbtrio.auth.centrifuge_claims import connection_claims, subscription_claims
from verbtrio.auth.jwks import KeySet, KeysUnavailable
from verbtrio.base.errors import AuthenticationError
from verbtrio.guards.middleware import CallNext, Upgrade, UpgradeRequest

SUBPROTOCOL = "bearer"
"""A browser can't set a WebSocket's headers, only its subprotocols: `new WebSocket(url, ["bearer", token])`."""

MAX_TOKEN_CHARACTERS = 16 * 1024
"""A longer token is refused unread."""

Key = str | bytes

SECRET_BYTES = {"HS256": 32, "HS384": 48, "HS512": 64}
"""The least size of a secret: that of the hash (RFC 7518 section 3.2). With one token, a shorter secret can be guessed
offline."""


class JWTAuth:
    """Middleware that admits clients with a valid token, on HTTP and WebSocket routes alike.

    The token is looked for in the header `Authorization: Bearer`, in the subprotocols (`"bearer"`, then the token) and
    in the query (`?token=`), in that order. Its claims become `request.user` and `ws.user`. Its `exp` is the
    connection's deadline: the connection is then closed with 4401, unless the client has sent a newer token of the same
    user, as a message `{"type": "auth", "token": "..."}`. Without a valid token the answer is 401.

    Args:
        key: the secret (HS256: 32 bytes at least, HS384: 48, HS512: 64) or the public key.
        keys: several keys by id, the token's `kid`, so that keys can be changed without logging everybody out. Tokens
            are issued with the first.
        jwks_url: where the public keys are (RFC 7517). They are fetched when needed; while that fails, the answer is
            503.
        algorithms: the algorithms accepted; the token's own claim about it does not count. Tokens are issued with the
            first. Default: HS256; with `jwks_url` RS256.
        signing_key: the private key to issue tokens with. Default: `key`, or the first of `keys`.
        audience, issuer: what `aud` and `iss` have to be. (A token with an `aud` is not valid without `audience`.)
        leeway: seconds by which clocks may differ.
        require: claims that a token must have, for example `["exp"]`.
        first_message_timeout: let clients connect without a token. They send it in their first message,
            `{"type": "auth", "token": "..."}`, within so many seconds, or are closed with 1008. Only an `App`'s own
            routes wait for it, not other frameworks' routes in the same app. `None`: a client needs a token to connect.

    Raises:
        ValueError: not exactly one of `key`, `keys` and `jwks_url` is given; or it is empty, or a secret that is too
            short; or `algorithms` is empty, has "none", or mixes algorithms with secrets and with public keys.
    """

    def __init__(
        self,
        key: Key | None = None,
        *,
        keys: Mapping[str, Key] | None = None,
        jwks_url: str | None = None,
        algorithms: Sequence[str] | None = None,
        signing_key: Key | None = None,
        audience: str | Sequence[str] | None = None,
        issuer: str | Sequence[str] | None = None,
        leeway: float = 0.0,
        require: Sequence[str] = (),
        first_message_timeout: float | None = None,
    ) -> None:
        self._algorithms = _checked(algorithms, secrets_allowed=jwks_url is None)
        if not key and not keys and not jwks_url:
            raise ValueError("the key is empty: JWTAuth needs a secret of 32 bytes or more, or a public key")
        if sum(map(bool, (key, keys, jwks_url))) != 1 or (keys and not all(keys.values())):
            raise ValueError("JWTAuth takes one of key, keys and jwks_url, and no empty key")
        for secret in (key, signing_key, *(keys or {}).values()):
            if secret:
                _check_secret(secret, self._algorithms)
        self._key = key
        self._keys = dict(keys or {})
        self._key_set = KeySet(jwks_url) if jwks_url else None
        self._signing_key = signing_key or key or next(iter(self._keys.values()), None)
        self._checks: dict[str, Any] = {"audience": audience, "issuer": issuer, "leeway": leeway}
        self._checks["options"] = {"require": list(require)}
        self._leeway = leeway
        self._scopes: frozenset[str] = frozenset()
        self._roles: frozenset[str] = frozenset()
        self.first_message_timeout = first_message_timeout

    def __deepcopy__(self, memo: dict[int, Any]) -> JWTAuth:
        """Itself: scopes hold it, and middleware may deep-copy a scope. All requests share the cached keys."""
        return self

    def __repr__(self) -> str:
        return f"JWTAuth(algorithms={self._algorithms})"

    def requiring(self, *, scopes: Sequence[str] = (), roles: Sequence[str] = ()) -> JWTAuth:
        """A copy that also checks what a user may do. Others get 403 (after a first message: 1008).

        Args:
            scopes: all of them must be in the claim `scope` (text with spaces, RFC 8693), `scp` or `scopes` (lists).
            roles: one of them must be in the claim `roles` (a list) or `role` (text).
        """
        if isinstance(scopes, str) or isinstance(roles, str):
            raise TypeError('scopes and roles are sequences: ["chat:write"]')
        narrower = copy.copy(self)
        narrower._scopes, narrower._roles = self._scopes | set(scopes), frozenset(roles) or self._roles
        return narrower

    def issue(self, claims: Mapping[str, Any], *, expires_in: float = 3600.0) -> str:
        """Return a signed token with `claims`, valid for `expires_in` seconds from now (rounded up to a whole second).

        The claim `id` (or `sub`) identifies the user in `app.users`.

        Raises:
            ValueError: there is no key to sign with.
        """
        if self._signing_key is None:
            raise ValueError("a token can't be issued without a signing_key")
        now = datetime.now(UTC).timestamp()
        payload = {"iss": self._checks["issuer"], "aud": self._checks["audience"]}
        payload = {name: value for name, value in payload.items() if isinstance(value, str)}
        payload |= {**claims, "iat": int(now), "exp": math.ceil(now + expires_in)}  # whole seconds, rounded up
        headers = {"kid": next(iter(self._keys))} if self._keys else None
        return jwt.encode(payload, self._signing_key, algorithm=self._algorithms[0], headers=headers)

    def connection_token(
        self,
        user: str,
        *,
        info: Any = None,
        channels: Sequence[str] = (),
        expires_in: float = 3600.0,
        claims: Mapping[str, Any] | None = None,
    ) -> str:
        """Return a token with which a client of the Centrifuge protocol connects (see `issue`).

        Args:
            user: the user's id; "" for an anonymous user.
            info: what others may know of the user (in presence, joins, leaves and what the user publishes): any JSON.
                `None`: nothing.
            channels: the rooms that the server subscribes the client to.
            expires_in: seconds until the client needs another token.
            claims: further claims.

        Raises:
            TypeError: `user` or a channel is not a `str`, or `channels` is one.
            ValueError: a channel is empty, or `claims` has what another argument sets; or there is no key to sign with.
        """
        return self.issue(connection_claims(user, info, channels, claims or {}), expires_in=expires_in)

    def subscription_token(self, user: str, channel: str, *, info: Any = None, expires_in: float = 3600.0) -> str:
        """Return a token with which a client of the Centrifuge protocol subscribes to `channel` (see `issue`).

        Args:
            user: the id of the connection's user; "" for an anonymous user.
            channel: the room. The token is for no other.
            info: what others may know of the user in this room: any JSON. `None`: nothing more.
            expires_in: seconds until the client needs another token.

        Raises:
            TypeError: `user` or `channel` is not a `str`.
            ValueError: `channel` is empty; or there is no key to sign with.
        """
        return self.issue(subscription_claims(user, channel, info), expires_in=expires_in)

    def verify(self, token: str) -> dict[str, Any] | None:
        """Return the claims of `token`, or `None` if it is not valid, for whatever reason.

        With a `jwks_url`, only the keys that `authenticate` has fetched are used.
        """
        try:
            return self._decode(token)
        except jwt.ExpiredSignatureError:
            return None

    def _decode(self, token: str, *, verify_exp: bool = True) -> dict[str, Any] | None:
        """The claims of `token`; `None` if it is not valid.

        Raises:
            jwt.ExpiredSignatureError: it is signed by the key, and its `exp` is over. Claims that PyJWT looks at later
                (the issuer, the audience, the subject) may be wrong, too.
        """
        if len(token) > MAX_TOKEN_CHARACTERS:
            return None
        checks = self._checks
        if not verify_exp:
            checks = checks | {"options": checks["options"] | {"verify_exp": False}}
        try:
            key: Any = self._key
            if key is None:
                kid: Any = jwt.get_unverified_header(token).get("kid")  # a `str` or `None`: PyJWT checks that
                key = self._key_set.known(kid) if self._key_set is not None else self._keys.get(kid)
                if key is None:
                    return None
            claims: dict[str, Any] = jwt.decode(token, key, algorithms=self._algorithms, **checks)
            float(claims.get("exp", 0))  # an absurd time: OverflowError
        except jwt.ExpiredSignatureError:
            raise
        except (jwt.PyJWTError, ValueError, TypeError, RecursionError, OverflowError):
            # Besides its own errors, PyJWT raises whatever decoding a forged token's base64 and JSON does.
            return None
        return claims

    async def authenticate(self, token: str) -> dict[str, Any]:
        """Return the claims of `token`; fetch the keys first if need be. A checkpoint only if keys are fetched.

        Raises:
            AuthenticationError: the token is not valid (401; `is_expired` where nothing but its `exp` is wrong), it
                lacks what `requiring` asks for (403), or the keys can't be fetched (503).
        """
        if self._key_set is not None and len(token) <= MAX_TOKEN_CHARACTERS:
            try:
                header = jwt.get_unverified_header(token)
            except (jwt.PyJWTError, ValueError, TypeError, RecursionError):
                raise AuthenticationError(401, "Unauthorized") from None
            if header.get("alg") in self._algorithms:
                try:
                    await self._key_set.key(header.get("kid"))
                except KeysUnavailable:
                    raise AuthenticationError(503, "The token can't be checked now") from None
        try:
            claims = self._decode(token)
        except jwt.ExpiredSignatureError:
            rest = self._decode(token, verify_exp=False)
            is_expired = rest is not None and self._is_sufficient(rest)
            raise AuthenticationError(401, "Unauthorized", is_expired=is_expired) from None
        if claims is None:
            raise AuthenticationError(401, "Unauthorized")
        if not self._is_sufficient(claims):
            raise AuthenticationError(403, "Forbidden")
        return claims

    def _is_sufficient(self, claims: Mapping[str, Any]) -> bool:
        """Whether `claims` have what `requiring` asks for."""
        return self._scopes <= _scopes(claims) and (not self._roles or bool(self._roles & _roles(claims)))

    def admit(self, scope: Any, claims: dict[str, Any]) -> None:
        """Put the user, and the connection's deadline, into the scope."""
        scope["user"] = claims
        scope.pop("verbtrio.expires", None)
        if "exp" in claims:
            scope["verbtrio.expires"] = float(claims["exp"]) + self._leeway

    async def __call__(self, request: HTTPConnection, call_next: CallNext) -> Response:
        token, subprotocol = _find_token(request)
        if token is not None:
            try:
                self.admit(request.scope, await self.authenticate(token))
            except AuthenticationError as error:
                return self._refuse(error)
        elif self.first_message_timeout is None or not isinstance(request, UpgradeRequest):
            return self._refuse(AuthenticationError(401, "Unauthorized"))
        if isinstance(request, UpgradeRequest):
            request.scope["verbtrio.auth"] = self
            request.scope["verbtrio.unauthenticated"] = token is None
        response = await call_next(request)
        if isinstance(response, Upgrade):
            response.subprotocol = subprotocol
        return response

    def _refuse(self, error: AuthenticationError) -> Response:
        headers = {}
        if error.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        elif error.status == 403:  # RFC 6750 section 3.1
            scope = f', scope="{" ".join(sorted(self._scopes))}"' if self._scopes else ""
            headers["WWW-Authenticate"] = f'Bearer error="insufficient_scope"{scope}'
        elif error.status == 503:
            headers["Retry-After"] = "5"
        return PlainTextResponse(str(error), error.status, headers=headers)


def _checked(algorithms: Sequence[str] | None, *, secrets_allowed: bool) -> list[str]:
    if algorithms is None:
        return ["HS256"] if secrets_allowed else ["RS256"]
    if isinstance(algorithms, str) or not algorithms or "none" in {name.lower() for name in algorithms}:
        raise ValueError('algorithms must be a sequence of signed algorithms, for example ["HS256"]')
    secret = [name for name in algorithms if name.upper().startswith("HS")]
    if secret and (len(secret) != len(algorithms) or not secrets_allowed):
        raise ValueError(
            f"{secret[0]} takes a secret, and the others, or a jwks_url, a public key, with which anybody could then "
            f"sign. Use one kind"
        )
    return list(algorithms)


def _check_secret(secret: Key, algorithms: Sequence[str]) -> None:
    """Raise `ValueError` for a secret that is too short for one of `algorithms`. The error does not contain it."""
    size = len(secret.encode() if isinstance(secret, str) else secret)
    for name in algorithms:
        needed = SECRET_BYTES.get(name.upper(), 0)
        if size < needed:
            raise ValueError(
                f"the secret has {size} bytes, and {name} needs {needed} or more (RFC 7518 section 3.2). To make one: "
                f'python -c "import secrets; print(secrets.token_urlsafe({needed}))"'
            )


def _scopes(claims: Mapping[str, Any]) -> set[str]:
    found: set[str] = set()
    for name in ("scope", "scp", "scopes"):
        value = claims.get(name)
        found |= set(value.split()) if isinstance(value, str) else _texts(value)
    return found


def _roles(claims: Mapping[str, Any]) -> set[str]:
    role = claims.get("role")
    return _texts(claims.get("roles")) | ({role} if isinstance(role, str) else set())


def _texts(value: object) -> set[str]:
    return {item for item in value if isinstance(item, str)} if isinstance(value, list) else set()


def _find_token(request: HTTPConnection) -> tuple[str | None, str | None]:
    """The token, and the subprotocol to answer with if the token came in the subprotocols."""
    scheme, _, credentials = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and credentials.strip():
        return credentials.strip(), None
    offered = [name for name in request.scope.get("subprotocols", ()) if name]  # hypercorn's parser offers empty ones
    if len(offered) >= 2 and offered[0] == SUBPROTOCOL:
        return offered[1], SUBPROTOCOL
    return request.query_params.get("token") or None, None
