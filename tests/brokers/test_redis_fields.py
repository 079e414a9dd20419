"""Several byte strings in one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verbtrio.brokers.redis.fields import pack, unpack
from verbtrio.brokers.redis.names import Names, to_bytes, to_text

FIELDS = st.lists(st.none() | st.binary(max_size=300))


@given(FIELDS)
def test_fields_come_back(fields: list[bytes | None]) -> None:
    """Whatever they are: empty ones, and ones that are not there."""
    assert unpack(pack(fields)) == fields


@given(FIELDS, st.data())
def test_what_is_cut_off(fields: list[bytes | None], data: st.DataObject) -> None:
    """It is refused, or the fields before the cut are there: nothing else is made of it."""
    whole = pack(fields)
    cut = whole[: data.draw(st.integers(0, len(whole)))]
    try:
        found = unpack(cut)
    except ValueError:
        assert cut != whole
    else:
        assert found == fields[: len(found)]
        assert pack(found) == cut


@given(st.text() | st.text(st.characters(categories=["Cs"])))
def test_any_text_comes_back(text: str) -> None:
    """A lone surrogate, too: a client's token may have one."""
    assert to_text(to_bytes(text)) == text


@given(st.text(), st.text(), st.text(min_size=1, max_size=3))
def test_names_never_meet(one: str, other: str, prefix: str) -> None:
    """Two rooms have no key and no channel in common, nor has a room one with a process, a lease or another room's
    other key."""
    names = Names(prefix)
    kinds = ("channel", "top", "history", "counts", "connections", "users", "lease", "fence", "inbox", "rooms")
    keys = {(kind, text): getattr(names, kind)(text) for kind in kinds for text in {one, other}}
    keys |= {(name, ""): getattr(names, name) for name in ("processes", "graves", "beat", "everybody")}
    assert len(set(keys.values())) == len(keys)
    assert names.room_of(names.channel(one)) == one
    assert names.room_of(names.inbox(one)) is None
    assert names.room_of(names.everybody) is None


@pytest.mark.parametrize("room", ["", "a", "}", "a}b", "{a}", "x{y"])
def test_a_rooms_keys_have_one_tag(room: str) -> None:
    """What Redis hashes to find a key's slot: the text between the first `{` and the next `}`, if there is any."""
    names = Names("app")
    tags = set()
    for key in (names.channel(room), names.top(room), names.history(room), names.counts(room), names.users(room)):
        start = key.index(b"{") + 1
        tags.add(key[start : key.index(b"}", start)])
    assert len(tags) == 1
    assert tags != {b""}
