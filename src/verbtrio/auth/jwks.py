"""The keys behind a JWKS URL (RFC 7517): fetched in a thread, kept, and fetched again for a key nobody knows yet.

PyJWT's own client caches as well, but it blocks, and holds a thread's lock while it does: with it, a key server that
hangs would hold up every connection.
"""

from __future__ import annotations

import logging
from typing import Any

import jwt
import trio

logger = logging.getLogger("verbtrio.jwks")

RETRY_SECONDS = 5.0
"""After a failure, nobody asks again for this long."""


class KeysUnavailable(Exception):  # noqa: N818 -- a state
    """The keys can't be had now, and none are known from before."""


class KeySet:
    """The keys of one URL.

    Args:
        url: of the JWKS document. Its answer must not be a redirect.
        lifespan: seconds after which the keys are fetched again. Where that fails, those known go on to count.
        cooldown: seconds between two requests at least, however many tokens name keys that nobody knows.
        timeout: seconds a request may take.

    Raises:
        ValueError: `url` has another scheme.
    """

    def __init__(self, url: str, *, lifespan: float = 300.0, cooldown: float = 30.0, timeout: float = 5.0) -> None:
        if not url.startswith(("https://", "http://")):
            raise ValueError(f"a JWKS URL begins with https:// (or http://), not {url!r}")
        self._client = jwt.PyJWKClient(url, cache_jwk_set=False, timeout=timeout)
        self._url = url
        self._lifespan = lifespan
        self._cooldown = cooldown
        self._timeout = timeout
        self._keys: dict[str, jwt.PyJWK] = {}
        self._fresh_until = float("-inf")
        self._next_request = float("-inf")
        self._requests = 0
        self._lock = trio.Lock()
        self._thread = trio.CapacityLimiter(1)  # a request that hangs past its time holds one thread, and no more

    def known(self, kid: object) -> jwt.PyJWK | None:
        """The key of that id among those there are, without asking anybody."""
        return self._keys.get(kid) if isinstance(kid, str) else None

    async def key(self, kid: object) -> jwt.PyJWK | None:
        """The key of that id, if need be after asking the URL; `None` where there is none.

        However many ask at once, one request is made. If cancelled, it still goes on, within its time limit: the others
        wait for it.

        Raises:
            KeysUnavailable: nothing is known, and the URL gives nothing.
        """
        if not isinstance(kid, str):
            return None
        key = self._keys.get(kid)
        if key is not None and (trio.current_time() < self._fresh_until or self._lock.locked()):
            return key
        requests = self._requests
        async with self._lock:
            if requests == self._requests and trio.current_time() >= self._next_request:
                await self._refresh()
        if not self._keys:
            raise KeysUnavailable
        return self._keys.get(kid)

    async def _refresh(self) -> None:
        self._requests += 1
        try:
            with trio.fail_after(self._timeout, shield=True):
                document = await self._fetch()
            found = jwt.PyJWKSet.from_dict(document).keys
        except (trio.TooSlowError, OSError, jwt.PyJWTError, ValueError, TypeError, KeyError, AttributeError) as error:
            logger.warning("no keys from %s: %r", self._url, error)
            self._next_request = trio.current_time() + min(RETRY_SECONDS, self._cooldown)
            return
        now = trio.current_time()
        self._keys = {key.key_id: key for key in found if key.key_id and _is_public_signing_key(key)}
        self._fresh_until, self._next_request = now + self._lifespan, now + self._cooldown

    async def _fetch(self) -> dict[str, Any]:
        """The document. If cancelled, the thread is left to itself."""
        fetch = self._client.fetch_data
        document: dict[str, Any] = await trio.to_thread.run_sync(fetch, abandon_on_cancel=True, limiter=self._thread)
        return document


def _is_public_signing_key(key: jwt.PyJWK) -> bool:
    """A secret (`oct`) in a public document is none, and must not verify anything."""
    return key.public_key_use in (None, "sig") and not key.algorithm_name.startswith("HS")
