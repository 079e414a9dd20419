"""Tokens: which are valid, for how long, where a request may have them, and that no log shows them."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import logging
import time
from collections.abc import Callable
from typing import Any, ClassVar

import jwt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse, Response
from trio.abc import Clock

from tests.auth.test_jwks import Server
from tests.support.keys import document, private_pem, public_jwk, public_pem, signed_with
from verbtrio import AuthenticationError
from verbtrio.auth.jwt import MAX_TOKEN_CHARACTERS, JWTAuth
from verbtrio.middleware import Upgrade, UpgradeRequest

KEY = "a secret of thirty-two bytes, or more"
PROPERTY = settings(deadline=None, max_examples=150, derandomize=True)
FUTURE = int(time.time()) + 10_000
PAST = FUTURE - 20_000


@pytest.fixture
def auth() -> JWTAuth:
    return JWTAuth(KEY)


def segment(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def signed(payload: bytes, header: bytes = b'{"alg":"HS256"}', key: str = KEY) -> str:
    """A token signed by hand: PyJWT would refuse to make the odd ones."""
    body = f"{segment(header)}.{segment(payload)}"
    return f"{body}.{segment(hmac.new(key.encode(), body.encode(), hashlib.sha256).digest())}"


def claims(**changes: Any) -> bytes:
    return json.dumps({"id": 1, "exp": FUTURE} | changes).encode()


VALID = signed(claims())

INVALID: dict[str, str] = {
    "empty": "",
    "garbage": "garbage",
    "dots": "..",
    "many dots": "." * 1000,
    "not ASCII": "é.ü.ß",
    "a surrogate": VALID[:-1] + "\ud800",
    "NUL": "\0",
    "1 MB": "A" * 1_000_000,
    "1 MB in segments": f"{'A' * 300_000}.{'A' * 300_000}.{'A' * 300_000}",
    "truncated": VALID[:-1],
    "without a signature": VALID.rpartition(".")[0] + ".",
    "another payload": ".".join(segment(claims(id=2)) if i == 1 else part for i, part in enumerate(VALID.split("."))),
    "wrong key": signed(claims(), key="another secret of thirty-two bytes!"),
    "expired": signed(claims(exp=PAST)),
    "expired now": signed(claims(exp=int(time.time()))),
    "not yet valid": signed(claims(nbf=FUTURE)),
    "issued in the future": signed(claims(iat=FUTURE)),
    "alg none": signed(claims(), b'{"alg":"none"}'),
    "alg none, unsigned": segment(b'{"alg":"none"}') + "." + segment(claims()) + ".",
    "alg None": signed(claims(), b'{"alg":"None"}'),
    "alg null": signed(claims(), b'{"alg":null}'),
    "alg a list": signed(claims(), b'{"alg":["HS256"]}'),
    "alg an object": signed(claims(), b'{"alg":{"HS256":1}}'),
    "no alg": signed(claims(), b"{}"),
    "another alg": signed(claims(), b'{"alg":"HS384"}'),
    "an unknown alg": signed(claims(), b'{"alg":"XX"}'),
    "header no JSON": signed(claims(), b"nope"),
    "header no object": signed(claims(), b"[1]"),
    "header not UTF-8": signed(claims(), b'{"alg":"HS256","x":"\xff"}'),
    "header nested deep": signed(claims(), b"[" * 100_000),
    "header objects nested deep": signed(claims(), b'{"alg":' * 100_000),
    "header with crit": signed(claims(), b'{"alg":"HS256","crit":["exp"]}'),
    "header with crit of no list": signed(claims(), b'{"alg":"HS256","crit":5}'),
    "header with b64": signed(claims(), b'{"alg":"HS256","b64":false,"crit":["b64"]}'),
    "header with a kid of no text": signed(claims(), b'{"alg":"HS256","kid":5}'),
    "payload no JSON": signed(b"nope"),
    "payload empty": signed(b""),
    "payload no object": signed(b'"id"'),
    "payload not UTF-8": signed(b'{"id":"\xff"}'),
    "payload nested deep": signed(b"[" * 100_000),
    "payload objects nested deep": signed(b'{"id":' * 100_000),
    "exp a text": signed(claims(exp="tomorrow")),
    "exp null": signed(claims(exp=None)),
    "exp a list": signed(claims(exp=[FUTURE])),
    "exp an object": signed(claims(exp={})),
    "exp true": signed(claims(exp=True)),
    "exp zero": signed(claims(exp=0)),
    "exp negative": signed(claims(exp=-1)),
    "exp very negative": signed(claims(exp=-(10**400))),
    "exp NaN": signed(b'{"exp":NaN}'),
    "exp infinite": signed(b'{"exp":Infinity}'),
    "exp overflowing": signed(b'{"exp":1e999}'),
    "exp of too many digits": signed(b'{"exp":' + b"9" * 5000 + b"}"),
    "exp a text of too many digits": signed(b'{"exp":"' + b"9" * 5000 + b'"}'),
    "nbf a text": signed(claims(nbf="yesterday")),
    "iat NaN": signed(b'{"iat":NaN}'),
    "sub no text": signed(claims(sub=5)),
    "jti no text": signed(claims(jti=5)),
    "an audience": signed(claims(aud="somebody else")),
}


async def ask(
    auth: JWTAuth,
    *,
    header: str | None = None,
    subprotocols: list[str] | None = None,
    query: str = "",
    answer: Callable[[], Response] = Upgrade,
) -> tuple[Response, dict[str, Any]]:
    """Call the middleware; return the response, and the scope afterwards."""
    scope: dict[str, Any] = {
        "type": "websocket",
        "path": "/ws",
        "headers": [] if header is None else [(b"authorization", header.encode("latin-1"))],
        "query_string": query.encode(),
        "subprotocols": subprotocols or [],
    }

    async def call_next(request: Any) -> Response:
        return answer()

    request: HTTPConnection = UpgradeRequest(scope)
    return await auth(request, call_next), scope


class TestVerify:
    def test_the_hand_made_token_is_a_valid_one(self, auth: JWTAuth) -> None:
        assert jwt.encode({"a": 1}, KEY, headers={"typ": ""}) == signed(b'{"a":1}')
        assert auth.verify(VALID) == {"id": 1, "exp": FUTURE}

    @pytest.mark.parametrize("token", INVALID.values(), ids=INVALID)
    def test_invalid(self, auth: JWTAuth, token: str) -> None:
        assert auth.verify(token) is None

    def test_without_an_expiry(self, auth: JWTAuth) -> None:
        assert auth.verify(signed(b'{"id":1}')) == {"id": 1}

    @PROPERTY
    @given(token=st.text() | st.lists(st.binary().map(segment), max_size=4).map(".".join))
    def test_garbage(self, token: str) -> None:
        assert JWTAuth(KEY).verify(token) is None

    @PROPERTY
    @given(
        payload=st.dictionaries(
            st.sampled_from(["exp", "nbf", "iat", "sub", "aud", "iss", "jti", "x"]),
            st.recursive(
                st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
                lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(), inner, max_size=2),
                max_leaves=3,
            ),
        ),
        header=st.dictionaries(
            st.sampled_from(["typ", "kid", "crit", "b64", "jwk", "x5c", "cty"]),
            st.none() | st.booleans() | st.integers() | st.text() | st.lists(st.text(), max_size=2),
        ),
    )
    async def test_odd_claims_under_a_valid_signature(self, payload: dict[str, Any], header: dict[str, Any]) -> None:
        """Issuers make mistakes. Such tokens are valid or not, but nothing fails."""
        token = signed(json.dumps(payload).encode(), json.dumps({"alg": "HS256"} | header).encode())
        response, scope = await ask(JWTAuth(KEY), header=f"Bearer {token}")
        assert response.status_code in (101, 401)
        if "verbtrio.expires" in scope:
            assert scope["verbtrio.expires"] > time.time()

    def test_a_public_key_is_no_secret(self) -> None:
        """The server chooses the algorithm: a token "signed" with the public key as a secret is not valid."""
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ec

        private = ec.generate_private_key(ec.SECP256R1())
        pem = private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        public = private.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        auth = JWTAuth(public, algorithms=["ES256"], signing_key=pem)
        verified = auth.verify(auth.issue({"id": 1}))
        assert verified is not None
        assert verified["id"] == 1
        assert auth.verify(signed(claims(), key=public.decode())) is None


class TestIssue:
    def test_is_valid_for_as_long_as_it_says(self, auth: JWTAuth) -> None:
        before = int(time.time())
        issued = auth.verify(auth.issue({"id": 1, "username": "ada"}, expires_in=60))
        assert issued is not None
        assert (issued["id"], issued["username"]) == (1, "ada")
        assert before + 60 <= issued["exp"] <= time.time() + 61  # whole seconds, none too few
        assert issued["iat"] <= time.time()

    def test_may_be_over_already(self, auth: JWTAuth) -> None:
        assert auth.verify(auth.issue({"id": 1}, expires_in=-1)) is None

    def test_does_not_change_the_claims_it_is_given(self, auth: JWTAuth) -> None:
        given_claims = {"id": 1}
        auth.issue(given_claims)
        assert given_claims == {"id": 1}

    @pytest.mark.parametrize("algorithms", ["HS256", [], ["none"], ["HS256", "None"], ()])
    def test_the_algorithms_are_signed_ones(self, algorithms: Any) -> None:
        with pytest.raises(ValueError, match="algorithms must be a sequence of signed algorithms"):
            JWTAuth(KEY, algorithms=algorithms)


class TestDoor:
    async def test_claims_and_expiry_are_in_the_scope(self, auth: JWTAuth) -> None:
        response, scope = await ask(auth, header=f"Bearer {VALID}")
        assert response.status_code == 101
        assert (scope["user"], scope["verbtrio.expires"]) == ({"id": 1, "exp": FUTURE}, float(FUTURE))

    async def test_a_token_that_never_expires(self, auth: JWTAuth) -> None:
        _, scope = await ask(auth, header=f"Bearer {signed(b'{}')}")
        assert scope["user"] == {}
        assert "verbtrio.expires" not in scope

    @pytest.mark.parametrize(
        "exp", [FUTURE + 0.5, str(FUTURE), 10**15, 1e300], ids=["a fraction", "text", "large", "huge"]
    )
    async def test_unusual_expiries(self, auth: JWTAuth, exp: Any) -> None:
        _, scope = await ask(auth, header=f"Bearer {signed(claims(exp=exp))}")
        assert scope["verbtrio.expires"] == float(exp)

    async def test_an_expiry_past_all_clocks(self, auth: JWTAuth) -> None:
        """More than a float can hold. Such a token may be valid or not, but nothing raises."""
        response, _ = await ask(auth, header=f"Bearer {signed(claims(exp=10**400))}")
        assert response.status_code in (101, 401)

    @pytest.mark.parametrize(
        "ask_with",
        [
            {},
            {"header": ""},
            {"header": "Bearer"},
            {"header": "Bearer  "},
            {"query": "token="},
            {"subprotocols": ["bearer"]},
        ]
        + [{"header": f"Bearer {token}"} for name, token in INVALID.items() if name in ("expired", "garbage", "1 MB")],
    )
    async def test_nobody_else_is_let_in(self, auth: JWTAuth, ask_with: dict[str, Any]) -> None:
        response, scope = await ask(auth, **ask_with)
        assert (response.status_code, bytes(response.body)) == (401, b"Unauthorized")
        assert response.headers["www-authenticate"] == "Bearer"
        assert "user" not in scope
        assert "verbtrio.expires" not in scope

    async def test_a_header_that_is_not_ascii(self, auth: JWTAuth) -> None:
        response, _ = await ask(auth, header="Bearer \xff\xfe")
        assert response.status_code == 401

    async def test_http_routes_alike(self, auth: JWTAuth) -> None:
        response, scope = await ask(auth, header=f"Bearer {VALID}", answer=lambda: PlainTextResponse("page"))
        assert (response.status_code, scope["user"]["id"]) == (200, 1)


class TestSources:
    @pytest.mark.parametrize("header", [f"Bearer {VALID}", f"bearer {VALID}", f"BEARER   {VALID} "])
    async def test_header(self, auth: JWTAuth, header: str) -> None:
        response, _ = await ask(auth, header=header)
        assert isinstance(response, Upgrade)
        assert response.subprotocol is None

    async def test_subprotocol(self, auth: JWTAuth) -> None:
        """The answer names "bearer", which a browser needs, and never the token."""
        response, _ = await ask(auth, subprotocols=["bearer", VALID, "chat"])
        assert isinstance(response, Upgrade)
        assert response.subprotocol == "bearer"
        assert response.raw_headers == []

    async def test_query(self, auth: JWTAuth) -> None:
        response, _ = await ask(auth, query=f"a=b&token={VALID}")
        assert isinstance(response, Upgrade)
        assert response.subprotocol is None

    @pytest.mark.parametrize("subprotocols", [["chat", VALID], [VALID], [VALID, "bearer"], ["Bearer", VALID]])
    async def test_no_subprotocols(self, auth: JWTAuth, subprotocols: list[str]) -> None:
        assert (await ask(auth, subprotocols=subprotocols))[0].status_code == 401

    async def test_empty_subprotocols(self, auth: JWTAuth) -> None:
        """hypercorn's parser leaves them in. They are no offers, and so no tokens."""
        assert (await ask(auth, subprotocols=["", "bearer", "", VALID]))[1]["user"]["id"] == 1
        assert (await ask(auth, subprotocols=["bearer", ""], query=f"token={VALID}"))[1]["user"]["id"] == 1

    async def test_precedence(self, auth: JWTAuth) -> None:
        """Header, subprotocol, query; the first that is there decides, valid or not."""
        one, two, three = (signed(claims(id=number)) for number in (1, 2, 3))
        everywhere: dict[str, Any] = {"subprotocols": ["bearer", two], "query": f"token={three}"}
        assert (await ask(auth, header=f"Bearer {one}", **everywhere))[1]["user"]["id"] == 1
        assert (await ask(auth, **everywhere))[1]["user"]["id"] == 2
        assert (await ask(auth, header="Basic dXNlcjpwdw==", **everywhere))[1]["user"]["id"] == 2
        assert (await ask(auth, subprotocols=["chat"], query=f"token={three}"))[1]["user"]["id"] == 3
        assert (await ask(auth, header="Bearer wrong", **everywhere))[0].status_code == 401
        assert (await ask(auth, subprotocols=["bearer", "wrong"], query=f"token={three}"))[0].status_code == 401


class TestSecrecy:
    async def test_nothing_is_logged(self, auth: JWTAuth, caplog: pytest.LogCaptureFixture) -> None:
        with caplog.at_level(logging.DEBUG):
            for token in [VALID, *INVALID.values()]:
                await ask(auth, header=f"Bearer {token.encode('ascii', 'replace').decode()}")
                await ask(auth, subprotocols=["bearer", token])
        assert caplog.records == []

    def test_nothing_shows(self, auth: JWTAuth) -> None:
        assert repr(auth) == "JWTAuth(algorithms=['HS256'])"


@pytest.mark.parametrize("key", ["", b"", None])
def test_an_empty_key_shows_at_once(key: Any) -> None:
    """A forgotten environment variable must not make a server that silently refuses everybody."""
    with pytest.raises(ValueError, match="the key is empty"):
        JWTAuth(key)


@pytest.mark.parametrize("algorithm", ["HS256", "HS384", "HS512", "hs256"])
@pytest.mark.parametrize("kind", [str, bytes])
@pytest.mark.parametrize("where", ["key", "keys", "signing_key"])
def test_a_short_secret_shows_at_once(where: str, kind: type, algorithm: str) -> None:
    """And is not repeated in the error, which may be logged."""

    def make(size: int) -> JWTAuth:
        secret: Any = "s" * size if kind is str else b"s" * size
        arguments: dict[str, Any] = {"keys": {"good": KEY * 2, "it": secret}} if where == "keys" else {where: secret}
        if where == "signing_key":
            arguments["key"] = KEY * 2
        return JWTAuth(**arguments, algorithms=[algorithm])

    needed = int(algorithm[2:]) // 8
    make(needed)
    with pytest.raises(ValueError, match=f"has {needed - 1} bytes, and {algorithm} needs {needed} or more") as caught:
        make(needed - 1)
    assert f"secrets.token_urlsafe({needed})" in str(caught.value)
    assert "sss" not in str(caught.value)


def test_a_public_key_may_have_any_length() -> None:
    JWTAuth("short, and PyJWT's to judge", algorithms=["ES256"])


class TestDoorTable:
    """What a forger or a mistake may bring: 401, before the handshake is accepted."""

    @staticmethod
    def table() -> dict[str, tuple[JWTAuth, str]]:
        symmetric = JWTAuth(KEY)
        named = JWTAuth(keys={"new": KEY, "old": "an older secret of thirty-two bytes!"})
        public = JWTAuth(public_pem("a"), algorithms=["RS256"], signing_key=private_pem("a"))
        strict = JWTAuth(KEY, audience="chat", issuer="https://login.example", require=["exp", "sub"])
        good = {"sub": "ada", "aud": "chat", "iss": "https://login.example", "exp": FUTURE}
        return {
            **{name: (symmetric, token) for name, token in INVALID.items() if name != "empty"},
            "RS256 with the public key as the secret": (public, signed(claims(), key=public_pem("a").decode())),
            "the same, which says it is RS256": (
                public,
                signed(claims(), b'{"alg":"RS256"}', key=public_pem("a").decode()),
            ),
            "RS256 where a secret is wanted": (symmetric, signed_with("a", {"exp": FUTURE})),
            "another's key": (public, signed_with("b", {"exp": FUTURE})),
            "another's key in its header": (
                public,
                signed_with("b", {"exp": FUTURE}, jwk=public_jwk("b"), jku="https://evil.example/jwks"),
            ),
            "no kid": (named, VALID),
            "an unknown kid": (named, signed(claims(), b'{"alg":"HS256","kid":"newest"}')),
            "the kid of another key": (named, signed(claims(), b'{"alg":"HS256","kid":"old"}')),
            "a kid that is a path": (named, signed(claims(), b'{"alg":"HS256","kid":"../../dev/null"}', key="")),
            "wrong audience": (strict, signed(claims(**good | {"aud": "mail"}))),
            "no audience": (strict, signed(json.dumps({k: v for k, v in good.items() if k != "aud"}).encode())),
            "wrong issuer": (strict, signed(claims(**good | {"iss": "https://login.example.evil.com"}))),
            "no issuer": (strict, signed(json.dumps({k: v for k, v in good.items() if k != "iss"}).encode())),
            "no exp, where it is required": (
                strict,
                signed(json.dumps({k: v for k, v in good.items() if k != "exp"}).encode()),
            ),
            "no sub, where it is required": (
                strict,
                signed(json.dumps({k: v for k, v in good.items() if k != "sub"}).encode()),
            ),
        }

    async def test_all_get_401(self) -> None:
        table = self.table()
        assert len(table) >= 30
        for name, (auth, token) in table.items():
            header = f"Bearer {token.encode('ascii', 'replace').decode()}"
            response, scope = await ask(auth, header=header)
            assert response.status_code == 401, name
            assert "user" not in scope, name
            assert "verbtrio.auth" not in scope, name
            response, _ = await ask(auth, subprotocols=["bearer", token])
            assert response.status_code == 401, name

    async def test_what_they_would_have_to_be(self) -> None:
        """The same doors open for what is right: else the table would show nothing."""
        strict = JWTAuth(KEY, audience="chat", issuer="https://login.example", require=["exp", "sub"])
        for auth, token in (
            (JWTAuth(KEY), VALID),
            (JWTAuth(keys={"new": "x" * 32, "old": KEY}), signed(claims(), b'{"alg":"HS256","kid":"old"}')),
            (JWTAuth(public_pem("a"), algorithms=["RS256"]), signed_with("a", {"exp": FUTURE})),
            (strict, strict.issue({"sub": "ada"})),
        ):
            response, _ = await ask(auth, header=f"Bearer {token}")
            assert response.status_code == 101


class TestExpiry:
    """Expired is not the same as invalid: a client with an expired token need only get another one."""

    STRICT: ClassVar[dict[str, Any]] = {
        "audience": "chat",
        "issuer": "https://login.example",
        "require": ["exp", "sub"],
    }
    GOOD: ClassVar[dict[str, Any]] = {"aud": "chat", "iss": "https://login.example", "sub": "ada", "exp": PAST}

    async def failure(self, auth: JWTAuth, token: str) -> AuthenticationError:
        with pytest.raises(AuthenticationError) as caught:
            await auth.authenticate(token)
        assert auth.verify(token) is None
        assert (caught.value.status, str(caught.value)) == (401, "Unauthorized")
        assert caught.value.__cause__ is None
        return caught.value

    async def test_expired(self, auth: JWTAuth) -> None:
        assert (await self.failure(auth, signed(claims(exp=PAST)))).is_expired
        assert (await self.failure(JWTAuth(KEY, **self.STRICT), signed(json.dumps(self.GOOD).encode()))).is_expired
        assert not AuthenticationError(401, "Unauthorized").is_expired

    @pytest.mark.parametrize(
        "wrong",
        [
            {"aud": "another"},
            {"aud": None},
            {"aud": ["another"]},
            {"iss": "elsewhere"},
            {"sub": 5},
            {"sub": None},
            {"jti": 5},
            {"nbf": FUTURE},
            {"iat": FUTURE},
            {"iat": "yesterday"},
        ],
        ids=lambda wrong: "-".join(f"{claim}-{type(value).__name__}" for claim, value in wrong.items()),
    )
    async def test_expired_and_wrong_in_another_way(self, wrong: dict[str, Any]) -> None:
        """Another one of its kind would not be accepted either."""
        payload = {name: value for name, value in (self.GOOD | wrong).items() if value is not None}
        assert not (await self.failure(JWTAuth(KEY, **self.STRICT), signed(json.dumps(payload).encode()))).is_expired

    async def test_expired_and_signed_by_somebody_else(self, auth: JWTAuth) -> None:
        """Nobody learns anything of a token that is not ours."""
        forged = signed(claims(exp=PAST), key="another secret of thirty-two bytes!")
        assert not (await self.failure(auth, forged)).is_expired
        assert not (await self.failure(auth, signed(claims(exp=PAST), b'{"alg":"none"}'))).is_expired
        assert not (await self.failure(auth, signed(claims(exp=PAST))[:-1])).is_expired

    @pytest.mark.parametrize("token", INVALID.values(), ids=INVALID)
    async def test_invalid(self, auth: JWTAuth, token: str) -> None:
        name = next(name for name, value in INVALID.items() if value == token)
        only_expired = ("expired", "expired now", "exp true", "exp zero", "exp negative")
        assert (await self.failure(auth, token)).is_expired == (name in only_expired)

    async def test_expired_and_not_sufficient(self) -> None:
        """A newer one would be refused with 403."""
        auth = JWTAuth(KEY).requiring(roles=["admin"], scopes=["chat:write"])
        for roles, scope, is_expired in (
            (["admin"], "chat:write", True),
            (["member"], "chat:write", False),
            (["admin"], "", False),
        ):
            error = await self.failure(auth, signed(claims(exp=PAST, roles=roles, scope=scope)))
            assert error.is_expired == is_expired

    async def test_within_the_leeway(self) -> None:
        auth = JWTAuth(KEY, leeway=60)
        just, long = (signed(claims(exp=int(time.time()) - seconds)) for seconds in (5, 100))
        assert (await auth.authenticate(just))["id"] == 1
        assert (await self.failure(auth, long)).is_expired

    async def test_with_fetched_keys(self, autojump_clock: Clock) -> None:
        auth = JWTAuth(jwks_url="https://keys.example")
        auth._key_set = Server("a")
        assert (await self.failure(auth, signed_with("a", {"exp": PAST}))).is_expired
        assert not (await self.failure(auth, signed_with("b", {"exp": PAST}, kid="a"))).is_expired
        assert not (await self.failure(auth, signed_with("b", {"exp": PAST}))).is_expired


class TestIssuing:
    """The two tokens of the Centrifuge protocol."""

    def test_a_connections(self, auth: JWTAuth) -> None:
        token = auth.connection_token(
            "ada", info={"name": "Ada"}, channels=["news", "chat:1"], expires_in=900, claims={"roles": ["member"]}
        )
        got = auth.verify(token)
        assert got is not None
        assert got.pop("exp") - got.pop("iat") == pytest.approx(900, abs=1)
        assert got == {"sub": "ada", "info": {"name": "Ada"}, "channels": ["news", "chat:1"], "roles": ["member"]}

    def test_a_subscriptions(self, auth: JWTAuth) -> None:
        got = auth.verify(auth.subscription_token("ada", "chat:1", info=0, expires_in=900))
        assert got is not None
        assert got.pop("exp") - got.pop("iat") == pytest.approx(900, abs=1)
        assert got == {"sub": "ada", "channel": "chat:1", "info": 0}

    def test_what_is_not_given_is_left_out(self, auth: JWTAuth) -> None:
        times = ("iat", "exp")
        for token, expected in (
            (auth.connection_token(""), {"sub": ""}),
            (auth.subscription_token("", "chat:1"), {"sub": "", "channel": "chat:1"}),
        ):
            assert {name: value for name, value in (auth.verify(token) or {}).items() if name not in times} == expected

    def test_issuer_and_audience(self) -> None:
        auth = JWTAuth(KEY, issuer="chat", audience="clients")
        assert (auth.verify(auth.connection_token("ada")) or {})["iss"] == "chat"
        assert (auth.verify(auth.subscription_token("ada", "chat:1")) or {})["aud"] == "clients"

    def test_mistakes(self, auth: JWTAuth) -> None:
        untyped: Any = auth
        connection, subscription = untyped.connection_token, untyped.subscription_token
        with pytest.raises(TypeError, match="a str, not int: give the id, as text"):
            connection(1)
        with pytest.raises(TypeError, match="a str, not dict: give the id, as text"):
            subscription({"id": 1}, "chat:1")
        with pytest.raises(TypeError, match=r"channels is a sequence: \['news'\]"):
            connection("ada", channels="news")
        with pytest.raises(TypeError, match="a str, not 1"):
            connection("ada", channels=[1])
        with pytest.raises(TypeError, match="a str, not None"):
            subscription("ada", None)
        with pytest.raises(ValueError, match="not empty"):
            connection("ada", channels=[""])
        with pytest.raises(ValueError, match="not empty"):
            subscription("ada", "")
        with pytest.raises(ValueError, match="claims has info, sub: write"):
            connection("ada", claims={"sub": "bob", "info": 1, "roles": []})


class TestKeys:
    def test_the_first_is_used_to_issue(self) -> None:
        auth = JWTAuth(keys={"new": KEY, "old": "an older secret of thirty-two bytes!"})
        token = auth.issue({"id": 1})
        assert jwt.get_unverified_header(token)["kid"] == "new"
        assert auth.verify(token) is not None

    def test_leeway(self) -> None:
        token = signed(claims(exp=int(time.time()) - 5))
        assert JWTAuth(KEY).verify(token) is None
        assert JWTAuth(KEY, leeway=60).verify(token) is not None

    async def test_leeway_counts_for_the_connection_too(self) -> None:
        """Otherwise a client that the leeway lets in would be closed at once."""
        _, scope = await ask(JWTAuth(KEY, leeway=60), header=f"Bearer {signed(claims())}")
        assert scope["verbtrio.expires"] == FUTURE + 60

    @pytest.mark.parametrize(
        "settings",
        [
            {},
            {"key": ""},
            {"keys": {}},
            {"jwks_url": ""},
            {"key": KEY, "jwks_url": "https://keys.example"},
            {"key": KEY, "keys": {"a": KEY}},
            {"keys": {"a": KEY, "b": ""}},
            {"key": KEY, "algorithms": ["HS256", "RS256"]},
            {"jwks_url": "https://keys.example", "algorithms": ["HS256"]},
            {"jwks_url": "keys.example"},
        ],
    )
    def test_settings_that_make_no_sense(self, settings: Any) -> None:
        with pytest.raises(ValueError, match=r"key|public|https"):
            JWTAuth(**settings)

    def test_nothing_to_issue_with(self) -> None:
        with pytest.raises(ValueError, match="signing_key"):
            JWTAuth(jwks_url="https://keys.example").issue({"id": 1})


def test_a_token_that_is_too_long() -> None:
    """Valid, and yet not looked at: what is signed has to be read before its signature is known to be right."""
    auth = JWTAuth(KEY)

    def token(characters: int) -> str:
        """One with so many, or up to three fewer."""
        tokens = [signed(claims(x="x" * size)) for size in range(12_150, 12_300)]
        return max((token for token in tokens if len(token) <= characters), key=len)

    longest, longer = token(MAX_TOKEN_CHARACTERS), token(MAX_TOKEN_CHARACTERS + 4)
    assert MAX_TOKEN_CHARACTERS - 4 < len(longest) <= MAX_TOKEN_CHARACTERS < len(longer)
    assert auth.verify(longest) is not None
    assert auth.verify(longer) is None


class TestKeySet:
    @staticmethod
    def auth(answer: Any) -> tuple[JWTAuth, Server]:
        auth, keys = JWTAuth(jwks_url="https://keys.example"), Server()
        keys.answer = answer
        auth._key_set = keys
        return auth, keys

    async def test_by_its_kid(self, autojump_clock: Clock) -> None:
        auth, keys = self.auth(document("a", "b"))
        for name, status in (("a", 101), ("b", 101), ("c", 401)):
            response, _ = await ask(auth, header=f"Bearer {signed_with(name, {'exp': FUTURE})}")
            assert response.status_code == status
        assert keys.asked == 1

    async def test_nobody_is_asked_for_what_can_be_no_token(self, autojump_clock: Clock) -> None:
        auth, keys = self.auth(document("a"))
        for name, token in INVALID.items():
            if token:
                response, _ = await ask(auth, subprotocols=["bearer", token])
                assert response.status_code == 401, name
        assert keys.asked == 0

    async def test_a_key_server_that_is_down(self, autojump_clock: Clock) -> None:
        """The token may be valid: 503 says come again, 401 would say log in again."""
        auth, _ = self.auth(OSError("refused"))
        response, scope = await ask(auth, header=f"Bearer {signed_with('a', {'exp': FUTURE})}")
        assert (response.status_code, response.headers["retry-after"]) == (503, "5")
        assert "user" not in scope


class TestRequiring:
    @pytest.mark.parametrize(
        ("has", "needs", "status"),
        [
            ({"scope": "read write"}, {"scopes": ["write"]}, 101),
            ({"scope": "read write"}, {"scopes": ["write", "read"]}, 101),
            ({"scope": "read"}, {"scopes": ["write", "read"]}, 403),
            ({"scope": "writer"}, {"scopes": ["write"]}, 403),
            ({"scp": ["write"]}, {"scopes": ["write"]}, 101),
            ({"scopes": ["write"]}, {"scopes": ["write"]}, 101),
            ({"scope": ["write"]}, {"scopes": ["write"]}, 101),
            ({"scope": {"write": 1}, "scp": 5}, {"scopes": ["write"]}, 403),
            ({}, {"scopes": ["write"]}, 403),
            ({"roles": ["admin"]}, {"roles": ["admin", "owner"]}, 101),
            ({"role": "owner"}, {"roles": ["admin", "owner"]}, 101),
            ({"roles": ["guest", 5]}, {"roles": ["admin", "owner"]}, 403),
            ({"roles": "admin"}, {"roles": ["admin"]}, 403),
            ({"scope": "write"}, {"scopes": ["write"], "roles": ["admin"]}, 403),
        ],
    )
    async def test_scopes_and_roles(self, has: dict[str, Any], needs: dict[str, Any], status: int) -> None:
        response, scope = await ask(JWTAuth(KEY).requiring(**needs), header=f"Bearer {signed(claims(**has))}")
        assert response.status_code == status
        assert ("user" in scope) is (status == 101)

    async def test_tells_what_is_missing(self) -> None:
        auth = JWTAuth(KEY).requiring(scopes=["write"]).requiring(scopes=["read"])
        response, _ = await ask(auth, header=f"Bearer {VALID}")
        assert response.headers["www-authenticate"] == 'Bearer error="insufficient_scope", scope="read write"'

    async def test_leaves_the_door_it_was_made_from(self) -> None:
        auth = JWTAuth(KEY)
        auth.requiring(scopes=["write"])
        response, _ = await ask(auth, header=f"Bearer {VALID}")
        assert response.status_code == 101

    def test_a_text_is_no_sequence(self) -> None:
        needs: Any = "write"
        with pytest.raises(TypeError, match="sequences"):
            JWTAuth(KEY).requiring(scopes=needs)
