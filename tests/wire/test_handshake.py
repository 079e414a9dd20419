"""The opening handshake: what is refused, how, and that nothing in a header does worse than be refused."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import h11
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from verbtrio.base.errors import HandshakeError
from verbtrio.wire.handshake import Handshake, RawHeaders, check_http1, check_http2

PROPERTY = settings(deadline=None, max_examples=200, derandomize=True)

KEY = b"dGhlIHNhbXBsZSBub25jZQ=="  # RFC 6455 section 1.3
REQUEST: dict[bytes, bytes] = {
    b"Host": b"example.org",
    b"Connection": b"Upgrade",
    b"Upgrade": b"websocket",
    b"Sec-WebSocket-Key": KEY,
    b"Sec-WebSocket-Version": b"13",
}


def request(**changes: bytes | list[bytes] | None) -> RawHeaders:
    """A valid request's headers with `changes`: `None` leaves a header out, a list repeats it."""
    headers: dict[bytes, Any] = dict(REQUEST)
    headers |= {name.replace("_", "-").encode(): value for name, value in changes.items()}
    return [
        (name, value)
        for name, values in headers.items()
        for value in (values if isinstance(values, list) else [values])
        if value is not None
    ]


def check(headers: RawHeaders, *, method: str = "GET", version: str = "1.1") -> Handshake:
    return check_http1(method, "/ws", version, headers)


def accept(
    handshake: Handshake,
    subprotocol: str | None = None,
    headers: RawHeaders | None = None,
    *,
    compression: bool = False,
) -> dict[bytes, bytes]:
    answer, _ = handshake.accept(subprotocol, headers or [], max_message_bytes=1000, compression=compression)
    assert len(dict(answer)) == len(answer)
    return dict(answer)


def test_the_rfcs_example() -> None:
    assert accept(check(request())) == {
        b"upgrade": b"websocket",
        b"connection": b"Upgrade",
        b"sec-websocket-accept": b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=",
    }


@pytest.mark.parametrize(
    "headers",
    [
        request(Connection=b"keep-alive, Upgrade"),
        request(Connection=[b"keep-alive", b"uPGRADE"]),
        request(Connection=b",, upgrade ,,"),
        request(Upgrade=b"WebSocket"),
        request(Content_Length=b"0"),
        request(Origin=b"\xff\xfe"),
        request(Cookie=b"\xe9=\xff"),
        [(name.lower(), value) for name, value in request()],
    ],
    ids=["with keep-alive", "two headers", "empty items", "case", "no body", "origin", "cookie", "lower case"],
)
def test_unusual_and_valid(headers: RawHeaders) -> None:
    assert check(headers).accept_token == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


BAD: dict[str, tuple[RawHeaders, int]] = {
    "no connection": (request(Connection=None), 426),
    "connection without upgrade": (request(Connection=b"keep-alive"), 426),
    "connection not ASCII": (request(Connection=b"Upgrade\xe9"), 400),
    "connection no list": (request(Connection=b'"Upgrade"'), 400),
    "connection empty": (request(Connection=b""), 400),
    "no upgrade": (request(Upgrade=None), 426),
    "upgrade to something else": (request(Upgrade=b"h2c"), 426),
    "upgrade to several": (request(Upgrade=b"websocket, h2c"), 426),
    "upgrade not ASCII": (request(Upgrade=b"websocket\xff"), 400),
    "no key": (request(Sec_WebSocket_Key=None), 400),
    "two keys": (request(Sec_WebSocket_Key=[KEY, KEY]), 400),
    "key empty": (request(Sec_WebSocket_Key=b""), 400),
    "key short": (request(Sec_WebSocket_Key=b"c2hvcnQ="), 400),
    "key long": (request(Sec_WebSocket_Key=KEY[:-2] + b"AAAA"), 400),
    "key no base64": (request(Sec_WebSocket_Key=b"!" * 24), 400),
    "key not ASCII": (request(Sec_WebSocket_Key=b"\xe9" + KEY[1:]), 400),
    "no version": (request(Sec_WebSocket_Version=None), 426),
    "version 12": (request(Sec_WebSocket_Version=b"12"), 426),
    "two versions": (request(Sec_WebSocket_Version=[b"13", b"13"]), 426),
    "version list": (request(Sec_WebSocket_Version=b"13, 8"), 426),
    "version not ASCII": (request(Sec_WebSocket_Version=b"1\xb3"), 426),
    "a body": (request(Content_Length=b"5"), 400),
    "a body of no number": (request(Content_Length=b"\xff"), 400),
    "two lengths": (request(Content_Length=[b"0", b"5"]), 400),
    "a body in chunks": (request(Transfer_Encoding=b"chunked"), 400),
    "subprotocol not ASCII": (request(Sec_WebSocket_Protocol=b"caf\xe9"), 400),
    "subprotocol no list": (request(Sec_WebSocket_Protocol=b"a b"), 400),
    "subprotocol no list, after an empty one": (request(Sec_WebSocket_Protocol=[b"", b"a b"]), 400),
    "a control character anywhere": (request(Cookie=b"a=\x01"), 400),
    "two origins": (request(Origin=[b"http://a", b"http://b"]), 400),
}


@pytest.mark.parametrize(("headers", "status"), BAD.values(), ids=BAD)
def test_refused(headers: RawHeaders, status: int) -> None:
    with pytest.raises(HandshakeError) as caught:
        check(headers)
    assert caught.value.status == status
    assert str(caught.value)
    if status == 426:
        assert (b"upgrade", b"websocket") in caught.value.headers, "RFC 9110 section 15.5.22"


def test_the_answer_to_another_version_names_ours() -> None:
    with pytest.raises(HandshakeError) as caught:
        check(request(Sec_WebSocket_Version=b"8"))
    assert (b"sec-websocket-version", b"13") in caught.value.headers


@pytest.mark.parametrize("method", ["POST", "HEAD", "get"])
def test_another_method(method: str) -> None:
    with pytest.raises(HandshakeError) as caught:
        check(request(), method=method)
    assert caught.value.status == 405


@pytest.mark.parametrize("version", ["1.0", "2"])
def test_another_http_version(version: str) -> None:
    with pytest.raises(HandshakeError) as caught:
        check(request(), version=version)
    assert caught.value.status == 505


def judge(examine: Callable[[], Handshake]) -> None:
    """A request is refused by a `HandshakeError`, or can be accepted: there is no third way."""
    status = 0
    try:
        handshake = examine()
    except HandshakeError as error:
        status = error.status
    else:
        accept(handshake, compression=True)
    assert status in (0, 400, 426)


NAMES = [
    *REQUEST,
    b"Sec-WebSocket-Protocol",
    b"Sec-WebSocket-Extensions",
    b"Origin",
    b"Content-Length",
    b"Transfer-Encoding",
]
VALUES = st.binary(max_size=40) | st.text(max_size=30, alphabet='aA1,;="\\/ \t').map(str.encode)


def without_controls(value: bytes) -> bytes:
    return bytes(byte for byte in value if byte == 9 or byte in range(32, 127) or byte > 127)


class TestAnything:
    @PROPERTY
    @given(changes=st.lists(st.tuples(st.sampled_from(NAMES), VALUES), min_size=1, max_size=4), more=st.booleans())
    def test_nothing_but_handshake_errors(self, changes: list[tuple[bytes, bytes]], more: bool) -> None:
        changed = {name for name, _ in changes}
        headers = [(name, value) for name, value in request() if more or name not in changed] + changes
        judge(lambda: check(headers))

    @PROPERTY
    @given(offer=VALUES.map(without_controls), name=st.binary(max_size=10))
    def test_extensions_and_unknown_headers(self, offer: bytes, name: bytes) -> None:
        """A malformed extension offer is declined, and the handshake goes on (RFC 6455 section 9.1)."""
        extras = [(b"Sec-WebSocket-Extensions", offer), (b"X" + name, offer)]
        for handshake in (check(request() + extras), check_http2([(b"sec-websocket-version", b"13"), *extras])):
            accept(handshake, compression=True)

    @PROPERTY
    @given(headers=st.lists(st.tuples(st.sampled_from(NAMES), VALUES), max_size=4))
    def test_over_http2(self, headers: list[tuple[bytes, bytes]]) -> None:
        judge(lambda: check_http2([(b"sec-websocket-version", b"13"), *headers]))

    def test_nothing_is_logged(self, caplog: pytest.LogCaptureFixture) -> None:
        """websockets would log the request, cookies and tokens among it."""
        with caplog.at_level(logging.DEBUG):
            accept(check(request(Authorization=b"secret", Sec_WebSocket_Extensions=b"\xff")), compression=True)
        assert caplog.records == []


class TestHttp2:
    def test_has_no_token(self) -> None:
        handshake = check_http2([(b"sec-websocket-version", b"13"), (b"sec-websocket-protocol", b"chat")])
        assert accept(handshake, "chat") == {b"sec-websocket-protocol": b"chat"}

    def test_needs_the_version(self) -> None:
        with pytest.raises(HandshakeError) as caught:
            check_http2([])
        assert caught.value.status == 426


class TestSubprotocols:
    def test_in_the_clients_order(self) -> None:
        offered = check(request(Sec_WebSocket_Protocol=[b"b, a", b"c"])).subprotocols
        assert offered == ["b", "a", "c"]

    def test_none_offered(self) -> None:
        assert check(request()).subprotocols == []

    @pytest.mark.parametrize("over", ["http1", "http2"])
    @pytest.mark.parametrize(
        ("values", "offered"),
        [
            ([b""], []),
            ([b" \t"], []),
            ([b","], []),
            ([b" ,\t, "], []),
            ([b"", b""], []),
            ([b"", b"b, a", b","], ["b", "a"]),
            ([b",b,, ,a, "], ["b", "a"]),
            ([b"\t,\tb\t,\ta\t"], ["b", "a"]),
        ],
    )
    def test_empty_elements_are_no_offers(self, over: str, values: list[bytes], offered: list[str]) -> None:
        """RFC 9110 section 5.6.1.2. Some clients send the header although they have nothing to offer."""
        if over == "http1":
            handshake = check(request(Sec_WebSocket_Protocol=values))
        else:
            headers = [(b"sec-websocket-protocol", value) for value in values]
            handshake = check_http2([(b"sec-websocket-version", b"13"), *headers])
        assert handshake.subprotocols == offered
        assert b"sec-websocket-protocol" not in accept(handshake)

    def test_one_is_chosen(self) -> None:
        handshake = check(request(Sec_WebSocket_Protocol=b"b, a"))
        assert accept(handshake, "a")[b"sec-websocket-protocol"] == b"a"

    def test_none_is_chosen(self) -> None:
        assert b"sec-websocket-protocol" not in accept(check(request(Sec_WebSocket_Protocol=b"a")))

    @pytest.mark.parametrize(("offer", "listed"), [(None, "none"), (b"b, c", "b, c")])
    def test_one_that_was_not_offered(self, offer: bytes | None, listed: str) -> None:
        with pytest.raises(ValueError, match=f"did not offer the subprotocol 'a'; it offers: {listed}$"):
            accept(check(request(Sec_WebSocket_Protocol=offer)), "a")


class TestDeflate:
    def answer(self, offer: bytes | list[bytes] | None, *, compression: bool = True) -> bytes | None:
        handshake = check(request(Sec_WebSocket_Extensions=offer))
        return accept(handshake, compression=compression).get(b"sec-websocket-extensions")

    @pytest.mark.parametrize(
        ("offer", "granted"),
        [
            (b"permessage-deflate", b"permessage-deflate; server_max_window_bits=12"),
            (
                b"permessage-deflate; client_max_window_bits",
                b"permessage-deflate; server_max_window_bits=12; client_max_window_bits=12",
            ),
            (
                b"permessage-deflate; client_max_window_bits=8; server_max_window_bits=9",
                b"permessage-deflate; server_max_window_bits=9; client_max_window_bits=8",
            ),
            (
                b"permessage-deflate; server_no_context_takeover; client_no_context_takeover",
                b"permessage-deflate; server_no_context_takeover; client_no_context_takeover; "
                b"server_max_window_bits=12",
            ),
            (b"x-webkit-deflate-frame, permessage-deflate", b"permessage-deflate; server_max_window_bits=12"),
            (
                b"permessage-deflate; client_max_window_bits=abc, permessage-deflate",
                b"permessage-deflate; server_max_window_bits=12",
            ),
        ],
    )
    def test_granted(self, offer: bytes, granted: bytes) -> None:
        assert self.answer(offer) == granted

    @pytest.mark.parametrize(
        "offer",
        [
            b"permessage-deflate; client_max_window_bits=abc",
            b"permessage-deflate; client_max_window_bits=7",
            b"permessage-deflate; client_max_window_bits=16",
            b"permessage-deflate; client_max_window_bits=\xb2",
            b"permessage-deflate; server_max_window_bits",
            b"permessage-deflate; server_max_window_bits=8",
            b"permessage-deflate; server_max_window_bits=99999999999999999999999999",
            b"permessage-deflate; server_no_context_takeover=1",
            b"permessage-deflate; server_no_context_takeover; server_no_context_takeover",
            b"permessage-deflate; unknown",
            b"permessage-deflate;;",
            b"permessage-deflate; =",
            b"permess\xe9ge-deflate",
            b"",
            b",",
            None,
            b"something-else",
        ],
    )
    def test_declined(self, offer: bytes | None) -> None:
        assert self.answer(offer) is None

    def test_off(self) -> None:
        assert self.answer(b"permessage-deflate", compression=False) is None

    def test_granted_once(self) -> None:
        answer = self.answer([b"permessage-deflate", b"permessage-deflate"])
        assert answer == b"permessage-deflate; server_max_window_bits=12"


class TestHeaders:
    def test_are_added(self) -> None:
        headers = [(b"X-One", b"1"), (b"set-cookie", b"a=b")]
        answer = accept(check(request()), headers=headers)
        assert answer.items() >= dict(headers).items()

    @pytest.mark.parametrize(
        "name",
        [
            b"Upgrade",
            b"connection",
            b"Sec-WebSocket-Accept",
            b"sec-websocket-protocol",
            b"SEC-WEBSOCKET-EXTENSIONS",
            b":status",
        ],
    )
    def test_its_own_are_refused(self, name: bytes) -> None:
        with pytest.raises(ValueError, match="the handshake sets the header"):
            accept(check(request()), headers=[(name, b"x")])

    @pytest.mark.parametrize(
        "header",
        [
            (b"x-a", b"1\r\nset-cookie: admin=1"),
            (b"x-a", b"1\nset-cookie: admin=1"),
            (b"x-a", b"1\x00"),
            (b"x-a: 1\r\nx-b", b"2"),
            (b"x a", b"1"),
            (b"", b"1"),
        ],
        ids=["CRLF", "LF", "NUL", "in the name", "a space", "no name"],
    )
    def test_an_injected_one_is_refused(self, header: tuple[bytes, bytes]) -> None:
        """Refused here, while the request can still be answered with 500: h11 refuses it too, but only in the middle
        of the answer, and then the client is left without one. (And HTTP/2 has no h11.)"""
        with pytest.raises(ValueError, match="header"):
            accept(check(request()), headers=[header])

    def test_an_injected_one_never_gets_out(self) -> None:
        headers = [(b"x-a", b"1\r\nset-cookie: admin=1")]
        with pytest.raises((ValueError, h11.LocalProtocolError)):
            h11.InformationalResponse(
                status_code=101, headers=list(accept(check(request()), headers=headers).items()), reason=b""
            )
