"""The keys at a JWKS URL (RFC 7517): fetched in a thread, cached, and fetched again for a key that is not known yet.

PyJWT's own client caches them, too, but it blocks, with a thread's lock held. So a key server that hangs would hold up
every connection.
"""

from __future__ import annotations

import logging
from typing import Any

import jwt
import trio

logger = logging.getLogger("verbtrio.jwks")

RETRY_SECONDS = 5.0
"""How long after a failure no request is made."""


class KeysUnavailable(Exception):  # noqa: N818 -- a state
    """The keys can't be fetched now, and none are cached."""


class KeySet:
    """The keys of one URL.

    Args:
        url: of the JWKS document. It must not redirect.
        lifespan: seconds after which the keys are fetched again. If that fails, the cached keys stay valid.
        cooldown: the least number of seconds between two requests, however many tokens name unknown keys.
        timeout: seconds that a request may take.

    Raises:
        ValueError: the scheme of `url` is not https or http.
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
        self._thread = trio.CapacityLimiter(1)  # a request that hangs holds one thread, and no more

    def known(self, kid: object) -> jwt.PyJWK | None:
        """The cached key with the id `kid`, if there is one."""
        return self._keys.get(kid) if isinstance(kid, str) else None

    async def key(self, kid: object) -> jwt.PyJWK | None:
        """The key with the id `kid`, fetched if need be; `None` if there is no such key.

        However many tasks ask at once, one request is made. If cancelled, the request still runs to its end or its time
        limit, since the other tasks wait for it.

        Raises:
            KeysUnavailable: no keys are cached, and none can be fetched.
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
        """Fetch the document. If cancelled, the thread is abandoned."""
        fetch = self._client.fetch_data
        document: dict[str, Any] = await trio.to_thread.run_sync(fetch, abandon_on_cancel=True, limiter=self._thread)
        return document


def _is_public_signing_key(key: jwt.PyJWK) -> bool:
    """Whether the key is for signatures and not a secret (`oct`): one in a public document must not verify anything."""
    return key.public_key_use in (None, "sig") and not key.algorithm_name.startswith("HS")
