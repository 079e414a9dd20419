"""A frame as another process gets it."""

from __future__ import annotations

import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from verbtrio.brokers.redis.items import decode_item, encode_item
from verbtrio.messages.frame import Frame, TransientFrame, transient
from verbtrio.messages.published import ClientInfo, SignedFrame

NAMES = st.text(max_size=20)
RAW = st.none() | st.binary(min_size=1, max_size=20).map(msgspec.Raw)


@given(
    payload=st.binary(max_size=200),
    text=st.booleans(),
    is_json=st.booleans(),
    is_broadcast=st.booleans(),
    exclude=st.lists(NAMES, max_size=4),
    exclude_user=st.none() | NAMES,
)
def test_frames_come_back(
    payload: bytes, text: bool, is_json: bool, is_broadcast: bool, exclude: list[str], exclude_user: str | None
) -> None:
    """With all that their receivers must know of them."""
    frame = Frame(payload, text=text, is_json=is_json)
    data = encode_item(frame, 0.0, is_broadcast=is_broadcast, exclude=exclude, exclude_user=exclude_user)
    item = decode_item(data, "room", 0.0)
    assert item is not None
    assert type(item.frame) is Frame
    assert (item.frame.payload, item.frame.text, item.frame.is_json) == (payload, text, is_json)
    assert (item.is_broadcast, item.exclude, item.exclude_user) == (is_broadcast, tuple(exclude), exclude_user)


@given(key=st.none() | NAMES, ttl=st.none() | st.floats(0.001, 1e6), passed=st.floats(0, 1e6))
def test_a_transient_frame(key: str | None, ttl: float | None, passed: float) -> None:
    """What is left of its time goes along, by another clock there. Its key is one of the room's there."""
    frame = transient(Frame(b"x", text=True), "room", key, ttl, 50.0)
    item = decode_item(encode_item(frame, 50.0 + passed), "room", 9000.0)
    left = math.inf if ttl is None else 50.0 + ttl - (50.0 + passed)
    if left <= 0:
        assert item is None
        return
    assert item is not None
    assert isinstance(item.frame, TransientFrame)
    assert item.frame.key == (None if key is None else ("room", key))
    assert item.frame.expires == pytest.approx(9000.0 + left)


@given(NAMES, NAMES, RAW, RAW)
def test_a_signed_frame(user: str, client: str, conn: msgspec.Raw | None, chan: msgspec.Raw | None) -> None:
    """Who has published it goes along."""
    frame = SignedFrame(Frame(b"{}", text=True, is_json=True), ClientInfo(user, client, conn, chan))
    item = decode_item(encode_item(frame, 0.0), "room", 0.0)
    assert item is not None
    assert isinstance(item.frame, SignedFrame)
    info = item.frame.info
    assert (info.user, info.client) == (user, client)
    assert [None if raw is None else bytes(raw) for raw in (info.conn_info, info.chan_info)] == [
        None if raw is None else bytes(raw) for raw in (conn, chan)
    ]


@given(st.binary(max_size=60))
def test_what_is_no_item(data: bytes) -> None:
    """Another program may publish on our channels: it is a `ValueError`, or some frame."""
    try:
        decode_item(data, "room", 0.0)
    except ValueError:
        return
    assert data
