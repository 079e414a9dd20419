"""HTTP/2 frames in slices: what comes out is what went in, however it was cut, and floods are told from work."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from verbtrio.server.takeover.http2_frames import (
    BURST,
    END_HEADERS,
    MAX_SETTINGS,
    MAX_SETTINGS_FRAMES,
    PER_SECOND,
    PREFACE_BYTES,
    SETTINGS,
    SLICE_BYTES,
    SLICE_FRAMES,
    Frames,
)

PROPERTY = settings(deadline=None, max_examples=300, derandomize=True)
PREFACE = bytes(PREFACE_BYTES)
PING = 6


def frame(kind: int, size: int = 0, *, flags: int = 0) -> bytes:
    return size.to_bytes(3) + bytes([kind, flags]) + bytes(4) + bytes(size)


def begun() -> Frames:
    frames = Frames()
    assert list(frames.slices(PREFACE, 0)) == [PREFACE]
    return frames


@PROPERTY
@given(st.lists(st.tuples(st.integers(0, 12), st.integers(0, 40_000)), max_size=30), st.lists(st.integers(0, 10**6)))
def test_nothing_is_lost_or_added(frames: list[tuple[int, int]], cuts: list[int]) -> None:
    # Each block of headers is whole: one that goes on for 64 KiB is a flood. So are many SETTINGS.
    data = PREFACE + b"".join(frame(kind, size, flags=END_HEADERS) for kind, size in frames if kind != SETTINGS)
    edges = sorted({cut % (len(data) + 1) for cut in cuts} | {0, len(data)})
    meter = Frames()
    slices = [part for begin, end in pairwise(edges) for part in meter.slices(data[begin:end], 0)]
    assert b"".join(slices) == data
    assert not meter.is_flood
    assert all(0 < len(part) <= SLICE_BYTES for part in slices)


def test_a_slice_has_few_frames() -> None:
    slices = list(begun().slices(frame(PING, 8) * 100, 0))
    assert [len(part) // 17 for part in slices] == [SLICE_FRAMES] * 12 + [4]


@pytest.mark.parametrize("piece", [1, 8, 9, 10, 17, 18, 1000])
def test_frames_are_counted_however_they_are_cut(piece: int) -> None:
    meter, data = begun(), frame(PING, 8) * (int(BURST) + 1)
    pieces = [data[begin : begin + piece] for begin in range(0, len(data), piece)]
    floods = [is_flood(meter, part, 0) for part in pieces]
    first = floods.index(True) * piece
    assert len(data) - 17 - piece <= first <= len(data) - 17 + 9


def is_flood(meter: Frames, data: bytes, now: float) -> bool:
    list(meter.slices(data, now))
    return meter.is_flood


def test_time_goes_by() -> None:
    meter = begun()
    assert not any(is_flood(meter, frame(PING, 8) * int(PER_SECOND), second) for second in range(100))
    assert not is_flood(meter, frame(PING, 8) * (int(BURST) - 1), 1000)
    assert is_flood(meter, frame(PING, 8) * 3, 1000)


def test_what_belongs_to_work_is_forgiven() -> None:
    meter = begun()
    for _ in range(100):
        list(meter.slices(frame(PING, 8) * 100, 0))
        meter.forgive(100)
    assert not is_flood(meter, b"", 0)
    meter.forgive(1000)
    assert is_flood(meter, frame(PING, 8) * (int(BURST) + 1), 0), "nobody has more than the burst in hand"


@pytest.mark.parametrize(
    ("data", "counted"),
    [
        (frame(0, 1), False),
        (frame(0, flags=1), False),
        (frame(0), True),
        (frame(0, flags=8), True),
        (frame(1, 10), True),
        (frame(9, 10), True),
        (frame(4, flags=1), True),
        (frame(0xEE, 3), True),
    ],
)
def test_what_is_counted(data: bytes, counted: bool) -> None:
    meter = begun()
    list(meter.slices(data * (int(BURST) + 1), 0))
    assert meter.is_flood is counted


def test_settings() -> None:
    meter = begun()
    assert not is_flood(meter, frame(4, 6 * MAX_SETTINGS) * MAX_SETTINGS_FRAMES, 0)
    assert is_flood(meter, frame(4), 10_000)
    assert is_flood(begun(), frame(4, 6 * MAX_SETTINGS + 6), 0)


def test_nothing_behind_a_flood_is_given() -> None:
    meter = begun()
    given_out = b"".join(meter.slices(frame(PING, 8) * 5000, 0))
    assert len(given_out) <= 17 * (int(BURST) + 1)
