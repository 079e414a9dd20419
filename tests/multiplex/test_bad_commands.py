"""What clients send that is wrong, out of order or too much: it is answered by the protocol's codes, costs nobody else
anything, and leaves nothing."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.requests import HTTPConnection
from starlette.responses import Response
from trio.abc import Clock

from tests.support.commands import KEY, ClientService, serving_clients, token
from tests.support.memory import socket_stream_pair
from tests.support.turns import Turns
from verbtrio import App, CallError, Client, Limits, Subscription
from verbtrio.auth import JWTAuth
from verbtrio.brokers import History
from verbtrio.middleware import CallNext

METHODS = [
    "subscribe", "unsubscribe", "publish", "presence", "presence_stats", "history", "ping", "send", "rpc", "refresh",
    "sub_refresh", "connect",
]  # fmt: skip
ENDS = [(3500, "invalid token"), (3501, "bad request"), (3502, "stale"), (3005, "connection expired")]
ROOMS = ["open:a", "chat:a", "all:a", "token:a", "plain", "", "x" * 300]


def app_with(limits: Limits | None = None, **settings: Any) -> App:
    app = App(limits=limits)
    app.centrifuge("/connection", auth=JWTAuth(KEY), anonymous=True, message=take, **settings)
    app.rooms("open:{name}", subscribe=True)
    app.rooms("all:{name}", publish=True, history=History(size=3), presence=True, join_leave=True)
    app.rooms("token:{name}", token=True)
    app.rooms("chat:{name}")(chat)
    app.call("take")(take)
    app.call("wait")(wait)
    return app


async def as_ada(request: HTTPConnection, call_next: CallNext) -> Response:
    request.scope["user"] = {"id": "ada"}
    return await call_next(request)


async def take(client: Client, data: int) -> int:
    if data < 0:
        raise CallError(400, "negative")
    return data


async def wait(client: Client) -> None:
    await trio.sleep_forever()


async def chat(sub: Subscription[int]) -> None:
    async for said in sub:
        if said == 13:
            break
        await sub.publish(said)


@contextmanager
def no_tracebacks() -> Iterator[None]:
    """Nothing that clients send is a failure of ours, or of the application's."""
    records: list[logging.LogRecord] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.exc_info or record.levelno >= logging.ERROR:
                records.append(record)

    handler = Handler()
    logging.getLogger("verbtrio").addHandler(handler)
    try:
        yield
    finally:
        logging.getLogger("verbtrio").removeHandler(handler)
    assert not records, [record.getMessage() for record in records]


NUMBERS = st.sampled_from([0, 1, 2, 3, 4, 5, 13, 2**31 - 1])
WRONG_NUMBERS = st.sampled_from([-1, 2**32, -(2**63), 2**63 - 1, 2**70])
JUNK = st.recursive(
    st.none() | st.booleans() | NUMBERS | WRONG_NUMBERS | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)
RIGHT = {
    "channel": st.sampled_from(ROOMS),
    "data": JUNK,
    "token": st.sampled_from(["", "x", token(""), token("", channel="token:a"), token("", exp=1)]),
    "recover": st.booleans(),
    "epoch": st.sampled_from(["", "x"]),
    "offset": NUMBERS,
    "join_leave": st.booleans(),
    "flag": NUMBERS,
    "limit": NUMBERS,
    "since": st.none() | st.fixed_dictionaries({}, optional={"offset": NUMBERS, "epoch": st.sampled_from(["", "x"])}),
    "reverse": st.booleans(),
    "method": st.sampled_from(["take", "wait", "nothing"]),
    "timeout": st.sampled_from([0, 1, -1, 1e300, 0.5]),
    "cancel": NUMBERS,
    "unknown": JUNK,
}
REQUESTS = st.fixed_dictionaries(
    {"channel": RIGHT["channel"]}, optional={n: s for n, s in RIGHT.items() if n != "channel"}
)
WRONG = st.fixed_dictionaries({}, optional=dict.fromkeys(RIGHT, JUNK))
COMMANDS = st.tuples(
    st.integers(1, 6) | NUMBERS, st.sampled_from(METHODS[:-1]), st.one_of(REQUESTS, REQUESTS, REQUESTS, WRONG)
).map(lambda parts: {"id": parts[0], parts[1]: parts[2]})
LINES = st.one_of(
    COMMANDS.map(json.dumps),
    COMMANDS.map(json.dumps),
    COMMANDS.map(json.dumps),
    COMMANDS.map(json.dumps),
    st.tuples(COMMANDS.map(json.dumps), st.integers(0, 60)).map(lambda parts: parts[0][: -parts[1]]),
    JUNK.map(json.dumps),
    st.sampled_from(["{}", "", " ", '{"id": 1}', '{"id":1,"unknown":{}}', '{"id":1,"connect":{}}', "[" * 200_000]),
)
Messages: TypeAlias = list[tuple[list[str], float]]
MESSAGES: st.SearchStrategy[Messages] = st.lists(
    st.tuples(st.lists(LINES, min_size=1, max_size=8), st.sampled_from([0, 0, 0, 0.001, 1])), max_size=6
)


@settings(max_examples=15)
@given(st.lists(st.tuples(MESSAGES, st.sampled_from([True, True, False]), st.booleans()), min_size=1, max_size=5))
def test_whatever_is_sent(scenes: list[tuple[Messages, bool, bool]]) -> None:
    with no_tracebacks():
        trio.run(_play, scenes, clock=trio.testing.MockClock(autojump_threshold=0))


async def _play(scenes: list[tuple[Messages, bool, bool]]) -> None:
    app = app_with(Limits(max_rooms=3, max_calls=2))
    async with serving_clients(app) as clients:
        witness = await clients.client()
        await witness.result("subscribe", channel="open:a")
        for scene in scenes:
            await _send(clients, *scene)
        assert witness.published() == list(range(len(witness.published())))
        assert len(witness.published()) == sum(len(messages) for messages, _, _ in scenes)


async def _send(clients: ClientService, messages: Messages, connects: bool, hangs_up: bool) -> None:
    witness, room = clients.speakers[0], clients.app.room("open:a")
    speaker = await clients.open()
    if connects:
        await speaker.result("connect")
    sent: Counter[int] = Counter()
    for lines, pause in messages:
        room.broadcast(len(witness.published()))
        sent += _answerable(lines)
        await speaker.raw("\n".join(lines))
        await trio.sleep(pause)
        await clients.settle()
    if hangs_up:
        await speaker.hang_up()
    await trio.sleep(35)  # longer than calls may run
    answered = Counter(line["id"] for line in speaker.lines if "id" in line)
    answered[1] -= connects
    assert all(count <= sent[number] for number, count in answered.items())
    if speaker.closed is None:
        cancelled = any('"cancel"' in line for lines, _ in messages for line in lines)
        assert cancelled or all(answered[number] == count for number, count in sent.items())
    elif not hangs_up:
        assert speaker.closed in ENDS
    codes = {line["error"]["code"] for line in speaker.lines if "error" in line}
    assert codes <= {100, *range(101, 110), 111, 112, 400}


def _answerable(lines: list[str]) -> Counter[int]:
    """The ids of what may be answered; where nothing is wrong with a message, of what is."""
    found: Counter[int] = Counter()
    for line in lines:
        try:
            command = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if not isinstance(command, dict):
            continue
        method = next((name for name in _IN_ORDER if command.get(name) is not None), None)
        number = command.get("id")
        if method is not None and method != "send" and isinstance(number, int) and number:
            found[number] += 1
    return found


_IN_ORDER = ["connect", *METHODS[:-1]]


class TestAMessage:
    async def test_of_many_commands(self, autojump_clock: Clock) -> None:
        """They are all answered, and others have their turns meanwhile."""
        app = app_with()
        async with serving_clients(app) as clients, trio.open_nursery() as nursery:
            speaker, turns = await clients.open(pair=socket_stream_pair), Turns()
            await speaker.result("connect")
            nursery.start_soon(turns.run)
            commands = [speaker.command("ping") for _ in range(10_000)]
            await speaker.say(*commands)
            before = turns.number
            await speaker.reply(commands[-1])
            assert turns.number - before > 250
            nursery.cancel_scope.cancel()
            assert [line["id"] for line in speaker.lines[1:]] == [command["id"] for command in commands]
            assert len(speaker.messages) < 400

    @pytest.mark.parametrize(
        "message",
        [
            "x", "[", "[]", "5", "null", '"x"', "{", '{"id": 1', '{"id": "1", "ping": {}}', '{"id": 1.5, "ping": {}}',
            '{"id": 1' + "0" * 5000 + ', "ping": {}}', '{"id": -1, "ping": {}}', '{"id": 4294967296, "ping": {}}',
            '{"send": {"cancel": -1}}', '{"id": 1, "rpc": {"timeout": -1}}', '{"id": 1}', '{"id": 1, "unknown": {}}',
            '{"id": 1, "subscribe": []}', '{"id": 1, "subscribe": {"channel": 5}}', "[" * 300_000,
            '{"id": 1, "publish": {"channel": "a", "data": ' + "[" * 300_000 + "}}", '{"id": 1, "ping": {}} x',
            '{"id": 1, "rpc": {"timeout": "x"}}', '{"id":1,"ping":{}}\\n{', "\ufeff{}",
        ],
    )  # fmt: skip
    @pytest.mark.parametrize("is_binary", [False, True])
    async def test_that_can_not_be_read(self, message: str, is_binary: bool, autojump_clock: Clock) -> None:
        async with serving_clients(app_with()) as clients:
            speaker = await clients.client()
            await speaker.raw(message.encode() if is_binary else message)
            assert await speaker.end() == (3501, "bad request")

    async def test_whose_first_part_is_right(self, autojump_clock: Clock) -> None:
        """That still counts, and is answered."""
        async with serving_clients(app_with()) as clients:
            speaker = await clients.client()
            await speaker.raw(json.dumps(speaker.command("subscribe", channel="open:a")) + "\n{")
            assert await speaker.end() == (3501, "bad request")
            assert speaker.lines[1:] == [{"id": 2, "subscribe": {}}]

    async def test_with_empty_lines(self, autojump_clock: Clock) -> None:
        async with serving_clients(app_with()) as clients:
            speaker = await clients.client()
            await speaker.raw('\n\n{"id": 7, "ping": {}}\n \r\n\n{"id": 8, "ping": {"more": 1}, "more": 2}\n')
            await speaker.raw("")
            await clients.settle()
            assert [line["id"] for line in speaker.lines[1:]] == [7, 8]

    @pytest.mark.parametrize("number", [1, 2**31, 2**32 - 1])
    async def test_with_any_id(self, number: int, autojump_clock: Clock) -> None:
        async with serving_clients(app_with()) as clients:
            speaker = await clients.client()
            await speaker.say({"id": number, "ping": {}}, {"id": number, "rpc": {"method": "take", "data": 1}})
            await clients.settle()
            assert [line["id"] for line in speaker.lines[1:]] == [number, number]
            assert speaker.lines[2]["rpc"] == {"data": 1}

    async def test_with_two_requests(self, autojump_clock: Clock) -> None:
        async with serving_clients(app_with()) as clients:
            speaker = await clients.client()
            await speaker.say({"id": 5, "ping": {}, "subscribe": {"channel": "open:a"}})
            await clients.settle()
            assert speaker.lines[1:] == [{"id": 5, "subscribe": {}}]


class TestARate:
    async def test_is_the_clients_own(self, autojump_clock: Clock) -> None:
        app = app_with(Limits(max_messages_per_second=10, message_burst=20))
        async with serving_clients(app) as clients:
            speaker = await clients.client()
            commands = [speaker.command("ping") for _ in range(30)]
            await speaker.say(*commands)
            await clients.settle()
            codes = [line["error"]["code"] for line in speaker.lines[1:]]
            assert codes == [108] * 19 + [111] * 11
            await trio.sleep(5)
            assert await speaker.refused("ping") == 108
            assert speaker.closed is None

    async def test_that_does_not_stop_ends_it(self, autojump_clock: Clock) -> None:
        app = app_with(Limits(max_messages_per_second=10, message_burst=20))
        async with serving_clients(app) as clients:
            speaker = await clients.client()
            await speaker.say(*[speaker.command("ping") for _ in range(100)])
            assert await speaker.end() == (3013, "too many requests")
            assert len(speaker.lines) <= 41

    async def test_counts_what_is_not_answered(self, autojump_clock: Clock) -> None:
        app = app_with(Limits(max_messages_per_second=10, message_burst=20))
        async with serving_clients(app) as clients:
            speaker = await clients.client()
            await speaker.say(*[{"send": {"data": 1}}] * 50)
            assert await speaker.end() == (3013, "too many requests")

    @pytest.mark.parametrize("known", ["at once", "later"])
    async def test_is_shared(self, known: str, autojump_clock: Clock) -> None:
        """One that keeps to it is not ended for what others send; and its own is not forgotten for that of all."""
        limits = Limits(max_messages_per_second=10, message_burst=20, max_messages_per_second_per_user=100)
        app = app_with(limits, middleware=[as_ada] if known == "at once" else [])
        async with serving_clients(app) as clients:
            speakers = [await clients.client(token=token()) for _ in range(8)]
            await trio.sleep(10)
            for speaker in speakers:
                await speaker.say(*[speaker.command("ping") for _ in range(15)])
            await clients.settle()
            codes = Counter(line["error"]["code"] for speaker in speakers for line in speaker.lines if "error" in line)
            assert codes == {108: 100, 111: 20}
            assert all(speaker.closed is None for speaker in speakers)
            await trio.sleep(10)
            await speakers[0].say(*[speakers[0].command("ping") for _ in range(50)])
            assert await speakers[0].end() == (3013, "too many requests")

    async def test_is_none_by_default(self, autojump_clock: Clock) -> None:
        async with serving_clients(app_with()) as clients:
            speaker = await clients.client()
            commands = [speaker.command("ping") for _ in range(1000)]
            await speaker.say(*commands)
            assert (await speaker.reply(commands[-1]))["error"]["code"] == 108


@pytest.mark.parametrize("method", ["rpc", "publish"])
async def test_too_many_that_are_not_what_the_application_takes(method: str, autojump_clock: Clock) -> None:
    """Each is answered, the last one, too."""
    app = App()

    @app.rooms("chat:{name}")
    async def chat(sub: Subscription[int]) -> None:
        async for _ in sub:
            pass

    @app.call("add")
    def add(client: Client, data: int) -> int:
        return data + 1

    app.centrifuge("/connection", limits=Limits(max_bad_messages=2))
    async with serving_clients(app) as clients:
        speaker = await clients.client()
        await speaker.result("subscribe", channel="chat:a")
        what: dict[str, Any] = {"method": "add"} if method == "rpc" else {"channel": "chat:a"}
        await speaker.result(method, data=1, **what)
        for _ in range(3):
            assert await speaker.refused(method, data="x", **what) == 107
        assert await speaker.end() == (3509, "too many errors")
