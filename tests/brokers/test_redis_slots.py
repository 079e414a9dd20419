"""To which slot a key belongs: Redis itself is asked."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.support.redis_cluster import OPTIONS
from tests.support.redis_server import RedisServer, redis_server
from verbtrio.brokers.redis.slots import slot_of


@pytest.fixture(scope="module")
def node() -> Iterator[RedisServer]:
    with redis_server(*(word for option in OPTIONS.items() for word in option)) as server:
        yield server


@given(key=st.text(st.sampled_from("{}ab\u20ac"), min_size=1, max_size=8))
@example("123456789")
@example("a{b}c{d}")
@example("a{}c{d}")
@example("a{b")
@example("a}b{c}")
def test_slots(node: RedisServer, key: str) -> None:
    """By the hash tag, if there is one."""
    assert slot_of(key.encode()) == int(node.ask("CLUSTER", "KEYSLOT", key))
