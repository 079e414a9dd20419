"""Keys from a URL: fetched once for all tasks that ask, again when that may help, and without blocking others."""

from __future__ import annotations

import http.server
import json
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import trio
import trio.testing
from trio.abc import Clock

from tests.support.keys import document, public_jwk
from verbtrio.auth.jwks import RETRY_SECONDS, KeySet, KeysUnavailable


class Server(KeySet):
    """A key set whose URL this test answers."""

    def __init__(self, *names: str, **options: Any) -> None:
        super().__init__("http://keys.example/jwks", **options)
        self.answer: Any = document(*names)
        self.takes = 1.0
        self.asked = 0

    async def _fetch(self) -> dict[str, Any]:
        self.asked += 1
        await trio.sleep(self.takes)
        if isinstance(self.answer, Exception):
            raise self.answer
        answer: dict[str, Any] = self.answer
        return answer


async def test_fetched_when_needed_and_kept(autojump_clock: Clock) -> None:
    keys = Server("a", "b", lifespan=300)
    assert keys.asked == 0
    assert keys.known("a") is None
    key = await keys.key("a")
    assert key is not None
    assert key.key_id == "a"
    assert await keys.key("b") is keys.known("b") is not None
    await trio.sleep(298)
    await keys.key("a")
    assert keys.asked == 1
    await trio.sleep(2)
    await keys.key("a")
    assert keys.asked == 2, "they may have been withdrawn"


async def test_one_request_for_all_who_ask(autojump_clock: Clock) -> None:
    keys = Server("a")
    async with trio.open_nursery() as nursery:
        for kid in ["a"] * 50 + ["unknown"] * 50:
            nursery.start_soon(keys.key, kid)
    assert keys.asked == 1


async def test_a_new_key_is_fetched(autojump_clock: Clock) -> None:
    keys = Server("a", cooldown=30)
    await keys.key("a")
    keys.answer = document("a", "new")
    assert await keys.key("new") is None, "not so soon"
    await trio.sleep(30)
    assert await keys.key("new") is not None
    assert keys.asked == 2


async def test_unknown_keys_do_not_flood_the_server(autojump_clock: Clock) -> None:
    keys = Server("a", cooldown=30)
    await keys.key("a")
    begin = trio.current_time()
    for number in range(1000):
        assert await keys.key(f"forged {number}") is None
        await trio.sleep(0.1)
    assert keys.asked == 1 + (trio.current_time() - begin) // 30


async def test_a_key_that_is_withdrawn(autojump_clock: Clock) -> None:
    keys = Server("a", "b", lifespan=300)
    await keys.key("a")
    keys.answer = document("b")
    await trio.sleep(300)
    assert await keys.key("a") is None


class TestFailure:
    @pytest.mark.parametrize(
        "answer",
        [OSError("refused"), {}, {"keys": []}, {"keys": [{"kty": "what"}]}, {"keys": 5}, [], {"keys": [5]}],
    )
    async def test_without_keys(self, answer: Any, autojump_clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
        keys = Server()
        keys.answer = answer
        with pytest.raises(KeysUnavailable):
            await keys.key("a")
        (record,) = caplog.records
        assert (record.levelno, "http://keys.example/jwks" in caplog.text) == (logging.WARNING, True)

    async def test_is_not_repeated_for_each_who_asks(self, autojump_clock: Clock) -> None:
        keys = Server()
        keys.answer = OSError("refused")
        for _ in range(10):
            with pytest.raises(KeysUnavailable):
                await keys.key("a")
        assert keys.asked == 1
        keys.answer = document("a")
        await trio.sleep(RETRY_SECONDS)
        assert await keys.key("a") is not None

    async def test_known_keys_go_on_to_count(self, autojump_clock: Clock) -> None:
        keys = Server("a", lifespan=300)
        await keys.key("a")
        keys.answer = OSError("refused")
        await trio.sleep(10_000)
        assert await keys.key("a") is not None
        assert await keys.key("b") is None

    async def test_a_server_that_hangs(self, autojump_clock: Clock) -> None:
        keys = Server("a", timeout=5, lifespan=300)
        await keys.key("a")
        keys.takes = 1_000
        await trio.sleep(300)
        begin = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(keys.key, "a")  # asks, since they are old
            await trio.testing.wait_all_tasks_blocked()
            assert await keys.key("a") is not None
            assert trio.current_time() == begin, "the others have a key, and needn't wait for another"
        assert trio.current_time() - begin == 5

    async def test_whoever_asked_has_left(self, autojump_clock: Clock) -> None:
        """The request goes on. Otherwise a client that comes and goes could keep the keys from all others."""
        keys = Server("a")
        with trio.move_on_after(0.5):
            await keys.key("a")
        assert keys.asked == 1
        assert keys.known("a") is not None


@pytest.mark.parametrize(
    "jwk",
    [
        public_jwk("a", use="enc"),
        {"kty": "oct", "k": "c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0", "kid": "a", "alg": "HS256"},
        {name: value for name, value in public_jwk("a").items() if name != "kid"},
    ],
)
async def test_what_is_no_public_signing_key(jwk: dict[str, Any], autojump_clock: Clock) -> None:
    keys = Server("b")
    keys.answer = {"keys": [public_jwk("b"), jwk]}
    assert await keys.key("a") is None
    assert await keys.key("b") is not None


async def test_what_is_no_id(autojump_clock: Clock) -> None:
    keys = Server("a")
    assert [await keys.key(kid) for kid in (None, 5)] == [None, None]
    assert keys.asked == 0


@contextmanager
def serving(answer: bytes, status: int = 200) -> Iterator[str]:
    """A real URL that gives `answer`."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Location", "/elsewhere")
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *args: Any) -> None: ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/jwks"
        server.shutdown()
        thread.join()


async def test_over_http() -> None:
    with serving(json.dumps(document("a")).encode()) as url:
        assert await KeySet(url).key("a") is not None
    for answer, status in ((b"no JSON", 200), (b"[]", 200), (b"", 500), (b"", 302)):
        with serving(answer, status) as url:
            with pytest.raises(KeysUnavailable):
                await KeySet(url).key("a")
    with pytest.raises(KeysUnavailable):
        await KeySet(url).key("a")


def test_another_scheme_shows_at_once() -> None:
    with pytest.raises(ValueError, match="begins with https"):
        KeySet("file:///etc/passwd")
