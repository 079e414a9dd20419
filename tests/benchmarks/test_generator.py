"""The load generator and the checks before it: what does not do its work is found out, whatever its speed."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from benchmarks import generator
from benchmarks.catalogue import BY_NAME, Place
from benchmarks.dialects import MARK, Centrifuge, Dialect, SocketIO
from benchmarks.loads import MESSAGE, Load
from benchmarks.process import Process, ServerError, free_port
from benchmarks.run import start
from benchmarks.verify import verify
from tests.benchmarks.support import needs_compiler

needs_compiler()


@pytest.fixture(scope="module")
def minimal() -> Iterator[Process]:
    process = start(BY_NAME["minimal"], Place(free_port()))
    yield process
    process.stop()


@pytest.fixture(scope="module")
def clients() -> Iterator[Process]:
    process = start(BY_NAME["verbtrio-clients"], Place(free_port()))
    yield process
    process.stop()


def load(mode: str, path: str, **options: str | int) -> Load:
    return Load("", "", mode, path, {"clients": 3, "payload": MESSAGE, **options})


def test_messages_are_counted(minimal: Process) -> None:
    values = generator.run(load("echo", "/echo"), minimal, "", 0.1)
    assert values["messages"] > 0
    assert values["missing"] == 0
    assert values["rate"] == pytest.approx(values["messages"] / values["seconds"], rel=0.01)


def test_a_number_of_messages(minimal: Process) -> None:
    """What the count of instructions is based on: 20 messages to two others each are 40 deliveries."""
    with generator.Generator(load("chat", "/room", messages=20), minimal.port, "", 5) as run:
        assert run.answer() == {"messages": 40}


def test_a_number_of_connections(minimal: Process) -> None:
    with generator.Generator(load("connect", "/echo", messages=20), minimal.port, "", 5) as run:
        assert run.answer() == {"messages": 20}


def spoken(mode: str, **options: str | int) -> Load:
    return Load("", "", mode, "/connection", {"clients": 3, "payload": MESSAGE, **options})


@pytest.mark.parametrize(
    ("mode", "messages"), [("echo", 20), ("chat", 60), ("fanout", 80)], ids=["calls", "a chat", "a broadcast"]
)
def test_messages_within_messages_are_counted(clients: Process, mode: str, messages: int) -> None:
    """Replies that are not the data's are not counted: 20 calls, 20 messages to three, 20 to four."""
    said = Centrifuge().translate(spoken(mode, messages=20))
    with generator.Generator(said, clients.port, "", 5, own=True) as run:
        assert run.answer() == {"messages": messages}


def test_visitors_wait_for_the_answer_to_their_hello(clients: Process) -> None:
    said = Centrifuge().translate(spoken("connect", messages=20))
    with generator.Generator(said, clients.port, "", 5) as run:
        assert run.answer() == {"messages": 20}


def test_a_hello_that_is_not_answered(clients: Process) -> None:
    said = Centrifuge().translate(spoken("chat", patience=1))
    said.options["ready"] = "never"
    with generator.Generator(said, clients.port, "", 5) as run:
        with pytest.raises(ServerError, match="does not answer a client's hello"):
            run.answer()


def test_a_call_is_no_room(clients: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is said in a protocol is verified, too: nobody hears what was published elsewhere."""
    monkeypatch.setattr("benchmarks.verify.TIMEOUT", 1.0)
    verify(load("echo", "/echo"), clients.port, "", own=True, dialect=Centrifuge())
    verify(load("chat", "/room"), clients.port, "", own=True, dialect=Centrifuge())
    with pytest.raises(ServerError, match="a message too many"):
        verify(load("chat", "/room"), clients.port, "", own=False, dialect=Centrifuge())


@pytest.mark.parametrize(
    ("dialect", "message", "heard"),
    [
        (Centrifuge(), '{}\n{"id":3,"publish":{}}\n{"push":{"channel":"room","pub":{"data":{"a":1}}}}', ['{"a":1}']),
        (Centrifuge(), '{"id":3,"rpc":{"data":[1]}}\n{"id":4,"error":{"code":100}}', ["[1]"]),
        (SocketIO(), '42["say",{"a":1}]', ['{"a":1}']),
        (SocketIO(), '433[{"a":1}]', ['{"a":1}']),
        (SocketIO(), '0{"sid":"x"}', []),
        (SocketIO(), "2", []),
    ],
)
def test_what_is_heard(dialect: Dialect, message: str, heard: list[str]) -> None:
    assert list(dialect.heard(message)) == heard


def test_a_mark_stands_once_in_the_data() -> None:
    for dialect in (Centrifuge(), SocketIO()):
        for mode in ("echo", "chat"):
            assert str(dialect.translate(spoken(mode)).options["payload"]).count(MARK) == 1


@pytest.mark.parametrize(
    ("mode", "path", "options"),
    [
        ("echo", "/room", {"clients": 1}),
        ("fanout", "/echo", {"clients": 1}),
        ("latency", "/room", {"clients": 1}),
        ("rooms", "/echo", {"members": 3}),
    ],
)
def test_a_server_that_does_not_answer_hangs(
    minimal: Process, mode: str, path: str, options: dict[str, str | int]
) -> None:
    with pytest.raises(ServerError, match="the server hangs"):
        generator.run(load(mode, path, patience=1, **options), minimal, "", 3)


def test_a_stall_is_not_typical(minimal: Process) -> None:
    """A server that stands still once, for 0.3 s of 2: that is in the p99 of all, and not in a typical quarter's."""
    with generator.Generator(load("latency", "/echo", rate=2000), minimal.port, "", 2) as run:
        run.expect("begin")
        minimal.pause()
        time.sleep(0.3)
        minimal.resume()
        run.expect("end")
        values = run.answer()
    assert values["p99"] > 100_000 > values["typical_p99"] > values["p50"]


@pytest.mark.parametrize("members", [0, 1, 2])
def test_rooms_of_an_impossible_size_are_refused(minimal: Process, members: int) -> None:
    with generator.Generator(load("rooms", "/rooms", members=members), minimal.port, "", 1) as run:
        with pytest.raises(ServerError, match="out of its range"):
            run.answer()


def test_a_misspelt_option_is_refused(minimal: Process) -> None:
    with generator.Generator(load("echo", "/echo", windows=1), minimal.port, "", 1) as run:
        with pytest.raises(ServerError, match="unknown option windows"):
            run.answer()


def test_an_echo_is_no_room(minimal: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.verify.TIMEOUT", 1.0)
    with pytest.raises(ServerError, match="timed out"):
        verify(load("chat", "/room"), minimal.port, "", own=True)
    verify(load("chat", "/room"), minimal.port, "")
    verify(load("echo", "/echo"), minimal.port, "")


def test_nobody_listens() -> None:
    with pytest.raises(ServerError, match="refused"):
        verify(load("echo", "/echo"), free_port(), "")
