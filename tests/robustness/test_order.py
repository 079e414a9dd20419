"""The order promise: each client sees what concerns it in the order in which it was said, once, with nothing lost that
was not counted; whoever joins, leaves, is sent to directly or stalls meanwhile."""

from __future__ import annotations

import socket
from dataclasses import dataclass, field
from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from tests.support.memory import serving, shake_hands, socket_stream_pair
from verbtrio import App, Limits, WebSocket

CLIENTS, ROOMS = 4, "ab"
PADDING = "." * 300

steps = st.one_of(
    st.tuples(st.just("send"), st.integers(0, CLIENTS - 1)),
    st.tuples(st.just("broadcast"), st.sampled_from(ROOMS), st.sampled_from([None, *range(CLIENTS)])),
    st.tuples(st.just("broadcast"), st.sampled_from(ROOMS), st.none()),
    st.tuples(st.just("price"), st.sampled_from(ROOMS), st.sampled_from("xy")),
    st.tuples(st.just("join"), st.integers(0, CLIENTS - 1), st.sampled_from(ROOMS)),
    st.tuples(st.just("leave"), st.integers(0, CLIENTS - 1), st.sampled_from(ROOMS)),
    st.tuples(st.just("stall"), st.integers(0, CLIENTS - 1)),
    st.tuples(st.just("rest")),
)
plans = st.lists(st.lists(steps, max_size=25), min_size=1, max_size=3)


def narrow_pair() -> Any:
    """Sockets that hold little: a client that stalls is felt at once."""
    peer, stream = socket_stream_pair()
    stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    return peer, stream


@dataclass
class Client:
    stream: Any
    ws: WebSocket
    memberships: dict[str, Any] = field(default_factory=dict)
    expected: list[str] = field(default_factory=list)
    received: bytearray = field(default_factory=bytearray)
    stalled_until: float = 0.0

    async def read(self) -> None:
        while True:
            await trio.sleep_until(self.stalled_until)
            try:
                data = await self.stream.receive_some(1000)
            except trio.ClosedResourceError:
                return
            self.received += data

    def messages(self) -> list[str]:
        """What it has got, without the padding."""
        data, found = bytes(self.received), []
        while data:
            assert data[0] == 0x81, "text, whole"
            size = data[1] if data[1] < 126 else int.from_bytes(data[2:4], "big")
            start = 2 if data[1] < 126 else 4
            found.append(data[start : start + size].decode().rstrip("."))
            data = data[start + size :]
        return found


class Stage:
    """The server's side of it: what is said to whom, and what each should hear."""

    def __init__(self, app: App, clients: list[Client]) -> None:
        self._app = app
        self._clients = clients
        self._said = 0

    def _word(self, speaker: int) -> str:
        self._said += 1
        return f"{speaker}:{self._said}"

    async def play(self, speaker: int, plan: list[Any]) -> None:
        for step in plan:
            await getattr(self, f"_{step[0]}")(speaker, *step[1:])

    async def _send(self, speaker: int, to: int) -> None:
        client, word = self._clients[to], self._word(speaker)
        client.expected.append(word)
        client.ws.send_nowait(word + PADDING)

    async def _broadcast(self, speaker: int, name: str, exclude: int | None) -> None:
        word = self._word(speaker)
        excluded = None if exclude is None else self._clients[exclude].ws
        for client in self._clients:
            if name in client.ws.rooms and client.ws is not excluded:
                client.expected.append(word)
        self._app.room(name).broadcast(word + PADDING, exclude=excluded)

    async def _price(self, speaker: int, name: str, key: str) -> None:
        """A broadcast with a key."""
        word = f"{self._word(speaker)}:{name}{key}"
        for client in self._clients:
            if name in client.ws.rooms:
                client.expected.append(word)
        self._app.room(name).broadcast(word + PADDING, key=key)

    async def _join(self, speaker: int, number: int, name: str) -> None:
        client = self._clients[number]
        if name not in client.ws.rooms:
            client.memberships[name] = client.ws.join(name)

    async def _leave(self, speaker: int, number: int, name: str) -> None:
        if (membership := self._clients[number].memberships.pop(name, None)) is not None:
            membership.leave_nowait()

    async def _stall(self, speaker: int, number: int) -> None:
        self._clients[number].stalled_until = trio.current_time() + 2

    async def _rest(self, speaker: int) -> None:
        await trio.sleep(0.5)


async def perform(plan: list[list[Any]], pair: Any, limits: Limits) -> list[tuple[list[str], list[str], int]]:
    """What each client should have heard, what it has, and how much was dropped for it."""
    app = App(limits=limits, heartbeat=None)
    entered: list[WebSocket] = []

    @app.ws("/ws")
    async def handler(ws: WebSocket) -> None:
        entered.append(ws)
        async for _ in ws:
            pass

    async with serving(app) as service, trio.open_nursery() as readers:
        clients = []
        for _ in range(CLIENTS):
            stream = service.open_stream(pair)
            await shake_hands(stream)
            await trio.testing.wait_all_tasks_blocked()
            clients.append(Client(stream, entered.pop()))
            readers.start_soon(clients[-1].read)
        stage = Stage(app, clients)
        async with trio.open_nursery() as speakers:
            for speaker, part in enumerate(plan):
                speakers.start_soon(stage.play, speaker, part)
        await trio.sleep(60)
        results = [(client.expected, client.messages(), client.ws.dropped) for client in clients]
        for client in clients:
            await trio.aclose_forcefully(client.stream)
        del stage, clients, client
    return results


@pytest.mark.parametrize("pair", [trio.testing.memory_stream_pair, narrow_pair], ids=["a reader task", "the poller"])
@settings(deadline=None, max_examples=30, derandomize=True)
@given(plan=plans)
def test_in_order_once_and_nothing_lost(pair: Any, plan: list[list[Any]]) -> None:
    results = trio.run(perform, plan, pair, Limits(), clock=MockClock(autojump_threshold=0))
    for expected, received, dropped in results:
        assert received == expected
        assert dropped == 0


@pytest.mark.parametrize("policy", ["drop_oldest", "drop_newest"])
@settings(deadline=None, max_examples=30, derandomize=True)
@given(plan=plans)
def test_what_is_dropped_is_counted(policy: Any, plan: list[list[Any]]) -> None:
    limits = Limits(max_backlog_bytes=1000, high_water_bytes=1000, backlog_policy=policy)
    results = trio.run(perform, plan, narrow_pair, limits, clock=MockClock(autojump_threshold=0))
    for expected, received, dropped in results:
        left = iter(expected)
        assert all(word in left for word in received), "in order, and each once"
        assert len(received) + dropped == len(expected)


def key_of(word: str) -> str:
    """The room and the key of a message that has them."""
    return word.partition(":")[2].partition(":")[2]


@pytest.mark.parametrize("pair", [trio.testing.memory_stream_pair, narrow_pair], ids=["a reader task", "the poller"])
@settings(deadline=None, max_examples=30, derandomize=True)
@given(plan=plans)
def test_the_latest_of_each_key_arrives(pair: Any, plan: list[list[Any]]) -> None:
    """And all that has no key. Within a key, and without one, the order is that in which it was said."""
    limits = Limits(backlog_policy="latest")
    results = trio.run(perform, plan, pair, limits, clock=MockClock(autojump_threshold=0))
    for expected, received, dropped in results:
        assert len(received) + dropped == len(expected)
        for key in {"", *map(key_of, expected)}:
            said = [word for word in expected if key_of(word) == key]
            heard = [word for word in received if key_of(word) == key]
            if key:
                assert heard[-1] == said[-1]
                left = iter(said)
                assert all(word in left for word in heard)
            else:
                assert heard == said
