"""What keeps the order between nodes, and what a link listens to."""

from __future__ import annotations

from functools import partial

from hypothesis import given
from hypothesis import strategies as st

from verbtrio.brokers.redis.echoes import Echoes
from verbtrio.brokers.redis.listening import Listening
from verbtrio.brokers.redis.ordering import Ordering


@given(steps=st.lists(st.sampled_from(["begin", "end", "do"])))
def test_what_follows_waits_and_keeps_its_order(steps: list[str]) -> None:
    """Until everything that was to be first is carried out."""
    ordering, sent, ahead, asked = Ordering(), list[int](), 0, 0
    for step in steps:
        if step == "begin":
            ordering.begin()
            ahead += 1
        elif step == "end" and ahead:
            ordering.end()
            ahead -= 1
        elif step == "do":
            before = len(sent)
            ordering.do(partial(sent.append, asked))
            assert len(sent) == before + (not ahead)
            asked += 1
        if not ahead:
            assert sent == list(range(asked))
    for _ in range(ahead):
        ordering.end()
    assert sent == list(range(asked))


def test_a_subscription_that_ends_by_itself() -> None:
    """One that is left, and wanted again before that is confirmed, ends as it was to; the next time it does not."""
    listening = Listening()
    listening.add([b"a", b"b"])
    listening.discard([b"a"])
    listening.add([b"a"])
    assert listening.ended(b"a")
    assert not listening.ended(b"a")
    assert not listening.ended(b"b")
    listening.discard([b"b"])
    assert listening.ended(b"b")
    assert listening.ended(b"c")


def test_echoes_go_each_way() -> None:
    """A channel is chosen for each connection; all have to be back."""
    echoes = Echoes(lambda number: b"%d" % number)
    channels = echoes.choose(lambda channel: int(channel) // 10, 3)
    assert list(channels) == [b"0", b"10", b"20"]
    assert list(echoes.begin()) == [b"0", b"10", b"20"]
    assert [echoes.take(channel) for channel in (b"0", b"1", b"10", b"20")] == [True, False, True, True]
