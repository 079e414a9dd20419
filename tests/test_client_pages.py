"""The pages about clients of the Centrifuge protocol: their programs do what is said, with the JavaScript SDK, too; and
their tables leave nothing out."""

from __future__ import annotations

import base64
import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import pytest
import trio
from trio.abc import Clock

from tests.support.commands import Speaker, serving_clients
from tests.support.node import require_node
from tests.support.process import ROOT, free_port, running
from verbtrio import Limits
from verbtrio.auth import JWTAuth
from verbtrio.base.close import CANCEL_GRACE, Cause
from verbtrio.hub.drain import SPREAD_FROM
from verbtrio.multiplex.peer import MESSAGE_BYTES
from verbtrio.multiplex.recovery import RECOVERED_BYTES
from verbtrio.multiplex.running_calls import LATE
from verbtrio.multiplex.setbacks import MOST_SECONDS
from verbtrio.multiplex.settings import ClientSettings
from verbtrio.multiplex.streamed import StreamedClients
from verbtrio.multiplex.subscriptions import MAX_CHANNEL_BYTES
from verbtrio.protocols import codes
from verbtrio.protocols.codes import ProtocolError
from verbtrio.protocols.commands import Command

PAGES = ["centrifuge", "from-socketio-phoenix"]
SECRET = "a secret of thirty-two bytes, or more"
AUTH = JWTAuth(SECRET)


def text_of(page: str) -> str:
    return (ROOT / "docs" / f"{page}.md").read_text()


def blocks(page: str, language: str = "python") -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text_of(page), re.DOTALL | re.MULTILINE)


@pytest.fixture
def names(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The names of a page's program."""
    monkeypatch.setenv("SECRET_KEY", SECRET)
    names: dict[str, Any] = {"__name__": "page"}
    for number, program in enumerate(blocks(request.param)):
        exec(compile(program, f"block {number} of docs/{request.param}.md", "exec", dont_inherit=True), names)
    return names


def page(name: str) -> Any:
    return pytest.mark.parametrize("names", [name], indirect=True, ids=[name])


def token(user: str = "ada", **more: Any) -> str:
    return AUTH.connection_token(user, info={"name": user.title()}, channels=["news"], **more)


async def heard(speaker: Speaker) -> list[Any]:
    """What has been pushed, within half a second more."""
    await trio.sleep(0.5)
    pushes, speaker.lines[:] = speaker.pushes, []
    return pushes


@page("centrifuge")
class TestCentrifuge:
    async def test_a_handler(self, names: dict[str, Any], autojump_clock: Clock) -> None:
        async with serving_clients(names["app"]) as served:
            ada = await served.client(token=token())
            assert (await ada.ask("subscribe", channel="chat:cellar"))["error"] == {
                "code": 103,
                "message": "There is no such room",
            }
            result = await ada.result("subscribe", channel="chat:lobby", join_leave=True)
            assert result["data"] == {"topic": "What goes on in the lobby"}
            assert result["recoverable"]
            await ada.result("publish", channel="chat:lobby", data={"text": "hi"})
            join, said = await heard(ada)
            assert join["join"]["info"]["user"] == "ada"
            assert said["pub"]["data"] == {"text": "hi"}
            assert said["pub"]["info"]["conn_info"] == {"name": "Ada"}
            refused = await ada.ask("publish", channel="chat:lobby", data={"text": 5})
            assert refused["error"] == {"code": 107, "message": "Expected `str`, got `int` - at `$.text`"}

    async def test_what_a_name_opens(self, names: dict[str, Any], autojump_clock: Clock) -> None:
        """The table of rooms."""
        names["app"].rooms("closed:{name}", history=names["History"]())
        async with serving_clients(names["app"]) as served:
            ada, staff = await served.client(token=token()), await served.open()
            await staff.result("connect", token=AUTH.connection_token("eve", claims={"roles": ["staff"]}))
            for channel, code in {
                "nothing": 102,
                "closed:a": 103,
                "staff:a": 103,
                "private:red": 103,
            }.items():
                assert await ada.refused("subscribe", channel=channel) == code
                assert await ada.refused("publish", channel=channel, data=1) == code
            await staff.result("subscribe", channel="staff:a")
            assert await ada.refused("subscribe", channel="news") == 105, "its token has subscribed it"
            assert await ada.refused("publish", channel="news", data=1) == 103
            await ada.result("publish", channel="board:a", data="as it is")
            await ada.result("subscribe", channel="board:a")
            own = AUTH.subscription_token("ada", "private:red")
            assert await ada.refused("subscribe", channel="private:green", token=own) == 103
            await ada.result("subscribe", channel="private:red", token=own)
            assert await ada.refused("publish", channel="private:red", data=1) == 103

    async def test_calls(self, names: dict[str, Any], autojump_clock: Clock) -> None:
        async with serving_clients(names["app"]) as served:
            ada = await served.client(token=token())
            (with_timeout, cancel) = (json.loads(block) for block in blocks("centrifuge", "json"))
            await ada.say(with_timeout)
            assert (await ada.reply(with_timeout))["rpc"] == {"data": {"before": "nobody", "after": "Ada"}}
            assert await ada.refused("rpc", method="rename", data={"name": ""}) == 1001
            assert await ada.refused("rpc", method="rename", data={"name": 5}) == 107
            assert await ada.refused("rpc", method="other") == 104
            assert list(cancel) == ["send"]
            await ada.say(cancel)
            await served.settle()
            assert ada.closed is None

    async def test_a_call_that_publishes(self, names: dict[str, Any], autojump_clock: Clock) -> None:
        async with serving_clients(names["app"]) as served:
            ada = await served.client(token=token())
            asked = {"room": "lobby", "text": "who?"}
            assert await ada.refused("rpc", method="ask", data=asked) == 1002
            await ada.result("subscribe", channel="chat:lobby")
            assert await ada.refused("rpc", method="ask", data=asked | {"text": "me"}) == 1003
            await ada.result("rpc", method="ask", data=asked)
            (said,) = await heard(ada)
            assert (said["pub"]["data"], said["pub"]["info"]["user"]) == ({"text": "who?"}, "ada")

    async def test_the_deadline_is_the_callers(self, names: dict[str, Any], autojump_clock: Clock) -> None:
        seen: list[Any] = []

        async def wait(client: Any) -> None:
            seen.append(trio.current_effective_deadline() - trio.current_time())
            try:
                await trio.sleep_forever()
            finally:
                seen.append("over")

        names["app"].call("wait")(wait)
        async with serving_clients(names["app"]) as served:
            ada = await served.client(token=token())
            (with_timeout, cancel) = (json.loads(block) for block in blocks("centrifuge", "json"))
            with_timeout["rpc"] = {"method": "wait", "timeout": with_timeout["rpc"]["timeout"]}
            await ada.say(with_timeout)
            assert (await ada.reply(with_timeout))["error"] == {"code": 100, "message": "timeout", "temporary": True}
            ada.lines.clear()
            await ada.say(with_timeout)
            await served.settle()
            await ada.say(cancel)
            await heard(ada)
            assert ada.replies(17) == []
            assert seen == [2.5, "over", 2.5, "over"]
            refused = await ada.ask("rpc", method="wait")
            assert refused["error"]["message"] == "timeout"
            assert Limits().call_timeout <= seen[4] <= Limits().call_timeout * (1 + LATE)

    async def test_tokens(self, names: dict[str, Any], autojump_clock: Clock) -> None:
        async with serving_clients(names["app"]) as served:
            ada = await served.open("/members/websocket")
            result = await ada.result("connect", token=token())
            assert result["data"] == {"version": "1.0", "user": "ada"}
            assert list(result["subs"]) == ["news", "#ada"]
            nobody = await served.open("/members/websocket")
            assert await nobody.refused("connect") == 101
            late = await served.open("/members/websocket")
            assert await late.refused("connect", token=token(expires_in=-30)) == 109
            stranger = await served.open("/members/websocket")
            await stranger.say(stranger.command("connect", token="nonsense"))
            assert await stranger.end() == (3500, "invalid token")

    async def test_messages(self, names: dict[str, Any], autojump_clock: Clock) -> None:
        async with serving_clients(names["app"]) as served:
            ada = await served.client("/members/websocket", token=token())
            app = served.app
            assert await app.users.send("ada", "you") == 1
            app.connections.broadcast(b"all")
            (client,) = app.users.connections("ada")
            client.send_nowait({"only": "you"})
            await app.room("#ada").publish({"in": "your room"})
            del client
            assert await heard(ada) == [
                {"message": {"data": "you"}},
                {"message": {"data": "YWxs"}},
                {"message": {"data": {"only": "you"}}},
                {"channel": "#ada", "pub": {"data": {"in": "your room"}}},
            ]


@page("from-socketio-phoenix")
class TestFromOthers:
    async def test_what_is_said_in_rooms(self, names: dict[str, Any], autojump_clock: Clock) -> None:
        async with serving_clients(names["app"]) as served:
            ada, ben = [await served.client(token=names["sign"](user)) for user in ("ada", "ben")]
            for one in (ada, ben):
                await one.result("subscribe", channel="chat:a")
            await ada.result("publish", channel="chat:a", data={"type": "typing"})
            await ada.result("publish", channel="chat:a", data={"type": "say", "text": "hi"})
            assert (await ada.ask("publish", channel="chat:a", data={"type": "shout"}))["error"]["code"] == 107
            said = {"type": "said", "text": "hi"}
            assert [push["pub"]["data"] for push in await heard(ada)] == [said]
            assert [push["pub"]["data"] for push in await heard(ben)] == [{"type": "typing"}, said]
            assert await ada.refused("subscribe", channel="admin:x") == 103

    async def test_recovery(self, names: dict[str, Any], autojump_clock: Clock) -> None:
        async with serving_clients(names["app"]) as served:
            ada = await served.client(token=names["sign"]("ada"))
            first = await ada.result("subscribe", channel="board:1")
            assert [push["pub"]["data"] for push in await heard(ada)] == [{"all": "..."}]
            await ada.result("unsubscribe", channel="board:1")
            await served.app.room("board:1").publish({"text": "missed"})
            again = await ada.result(
                "subscribe", channel="board:1", recover=True, epoch=first["epoch"], offset=first.get("offset", 0)
            )
            assert [one["data"] for one in again["publications"]] == [{"text": "missed"}]
            assert await heard(ada) == []

    async def test_calls(self, names: dict[str, Any], autojump_clock: Clock) -> None:
        async with serving_clients(names["app"]) as served:
            ada = await served.open()
            token = names["sign"]("ada")
            assert (await ada.result("connect", token=token))["data"] == {"hello": "ada"}
            assert await ada.result("rpc", method="rename", data="Eve") == {"data": {"name": "Eve"}}
            assert await ada.refused("rpc", method="rename", data="") == 1001
            mallory = await served.open()
            assert await mallory.refused("connect", token=names["sign"]("mallory")) == 103

    async def test_sending(self, names: dict[str, Any], autojump_clock: Clock) -> None:
        names["app"].call("hello")(names["hello"])
        async with serving_clients(names["app"]) as served:
            ada, seven = [await served.client(token=names["sign"](user)) for user in ("ada", "7")]
            await ada.result("rpc", method="hello")
            hello = {"message": {"data": {"hello": 1}}}
            assert await heard(ada) == [hello, hello]
            assert await heard(seven) == [hello, hello, hello]

    async def test_managing(self, names: dict[str, Any], autojump_clock: Clock) -> None:
        names["app"].call("manage")(names["manage"])
        async with serving_clients(names["app"]) as served:
            seven, ada = [await served.client(token=names["sign"](user)) for user in ("7", "ada")]
            await ada.say(ada.command("rpc", method="manage"))
            assert await seven.end() == (3503, "force disconnect")
            assert await ada.end() == (3503, "force disconnect")
            assert [list(push) for push in ada.pushes] == [["channel", "subscribe"], ["channel", "unsubscribe"]]
            eve = await served.client(token=names["sign"]("eve"))
            assert await names["log_out"]("eve") == 1
            assert await eve.end() == (4500, "logged out")

    async def test_channels(self, names: dict[str, Any], autojump_clock: Clock) -> None:
        async with serving_clients(names["app"]) as served:
            ada = await served.client(token=names["sign"]("ada"))
            assert (await ada.ask("subscribe", channel="room:101"))["error"]["message"] == "unauthorized"
            assert (await ada.result("subscribe", channel="room:1"))["data"] == {"topic": "..."}
            await ada.result("publish", channel="room:1", data={"body": "hey"})
            feed, shout = await heard(ada)
            assert feed["pub"]["data"] == {"feed": []}
            assert shout["pub"]["data"] == {"body": "hey"}
            await ada.result("subscribe", channel="team:red")
            (present,) = (await ada.result("presence", channel="team:red"))["presence"].values()
            assert present["chan_info"] == {"status": "online"}

    def test_both_sides(self, names: dict[str, Any]) -> None:
        rows = re.findall(r"<table>.*?</table>", text_of("from-socketio-phoenix"), re.DOTALL)
        assert len(rows) > 10
        for row in rows:
            theirs, ours = re.findall(r"^```(\w+)$", row, re.MULTILINE)
            assert theirs in ("js", "elixir")
            assert ours == "python"


PRELUDE = """
import { createRequire } from "node:module";

const require = createRequire(process.env.SDK_NPM + "/package.json");
const { Centrifuge } = require("centrifuge");
const { EventSource } = require("eventsource");
Object.assign(globalThis, { WebSocket: require("ws"), EventSource, location: { origin: process.argv[2] } });
const real = fetch;
globalThis.fetch = (path, options) => real(new URL(path, location.origin), options);
const seen = [];
const show = (...what) => seen.push(what);
let older;
const showOlder = (data) => { older = data };
"""
HISTORY = """
for (const text of ["one", "two"]) await centrifuge.publish("board:red", text);
BLOCK
while (older === undefined) await new Promise((resolve) => setTimeout(resolve, 5));
await board.publish("three");
"""
EPILOGUE = """
const getToken = async () => (await post("/token?user=bob")).token;
FALLBACK
fallback.connect();
await fallback.ready();
const other = fallback.newSubscription("chat:lobby");
other.subscribe();
await other.ready();
await other.publish({ text: "me too" });
while (seen.length < 6) await new Promise((resolve) => setTimeout(resolve, 5));
console.log(JSON.stringify({ seen, data, older }));
process.exit(0);
"""


def test_the_javascript(tmp_path: Path) -> None:
    """The page's JavaScript, with the SDK in Node."""
    require_node()
    program, port = tmp_path / "program.py", free_port()
    program.write_text("\n".join([*blocks("centrifuge"), 'if __name__ == "__main__":\n    app.listen()\n']))
    first, call, history, fallback = blocks("centrifuge", "js")
    script = tmp_path / "page.mjs"
    first = first.replace('import { Centrifuge } from "centrifuge";', "")
    script.write_text(
        PRELUDE + first + call + HISTORY.replace("BLOCK", history) + EPILOGUE.replace("FALLBACK", fallback)
    )
    with running([sys.executable, str(program)], port, PORT=str(port), SECRET_KEY=SECRET) as server:
        ran = subprocess.run(["node", str(script), server.url], capture_output=True, text=True, timeout=30, check=False)
    assert ran.returncode == 0, ran.stderr
    told = json.loads(ran.stdout.splitlines()[-1])
    assert told["data"] == {"before": "nobody", "after": "Ada"}
    assert told["seen"][0] == ["What goes on in the lobby", False]
    ada, bob = [["ada", "hello"], ["ada", "is here"]], [["bob", "is here"], ["bob", "me too"]]
    assert sorted(told["seen"][1:]) == [*ada, *bob, ["three"]]
    assert told["older"] == ["two", "one"]


# Tables


def table(heading: str) -> list[list[str]]:
    section = text_of("centrifuge").partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_figures() -> None:
    """Those of the page, and of the threat model, are those of the code."""
    limits, settings = Limits(), ClientSettings()
    page = " ".join(text_of("centrifuge").split())
    assert limits.max_calls is not None
    told = [
        f"cancelled {CANCEL_GRACE * 1000:g} ms later",
        f"is the {limits.max_calls + 1}rd at once",
        f"`Limits.call_timeout` ({limits.call_timeout:g} s)",
        f"`token_slack` ({settings.token_slack:g} s)",
        f"{RECOVERED_BYTES // 1024} KiB of missed messages",
        f"up to {MESSAGE_BYTES // 1024} KiB",
        f"up to {MOST_SECONDS:g} s: until then",
        f"of more than {MAX_CHANNEL_BYTES} bytes",
        f"Of {SPREAD_FROM} clients and more",
        f"`Limits.handshake_timeout` ({limits.handshake_timeout:g} s)",
        f"has {limits.max_inbox_messages} messages, or {limits.max_inbox_bytes // 1024} KiB, waiting",
        f"random names of {len(base64.urlsafe_b64decode(StreamedClients('').add(cast('Any', None)))) * 8} bits",
    ]
    assert not [figure for figure in told if figure not in page]
    model = text_of("threat-model")
    assert f"| {MAX_CHANNEL_BYTES} bytes |" in model
    assert f"| {RECOVERED_BYTES // 1024} KiB |" in model


def test_each_close_code() -> None:
    told = {int(row[0]): row[1] for row in table("Close codes") if re.fullmatch(r"3\d{3}", row[0])}
    sent = {code: codes.reason_of(code) for code in range(3000, 4000) if codes.reason_of(code)}
    assert told == {code: reason for code, reason in sent.items() if code != codes.TOO_MANY_ERRORS}, (
        "no client gets that"
    )


def test_each_cause_of_a_close() -> None:
    told = set(re.findall(r"`(\w+)`", " ".join(row[2] for row in table("Close codes"))))
    peers = {Cause.PEER.value, Cause.GONE.value}
    assert told == {cause.value for cause in Cause} - peers - {Cause.INVALID.value}


def test_each_unsubscribe_code() -> None:
    told = {int(row[0]): row[1] for row in table("Unsubscribe codes") if row[0].isdigit()}
    sent = [codes.UNSUBSCRIBED, codes.INSUFFICIENT_STATE, codes.SUBSCRIPTION_EXPIRED, codes.SUBSCRIPTION_FAILED]
    assert sorted(told) == sorted(sent)
    assert not [code for code in sent if not told[code].startswith(codes.unsubscribe_reason(code))]


def test_each_error_code() -> None:
    told = {int(row[0]) for row in table("Error codes") if row[0].isdigit()}
    errors = {value.code for value in vars(codes).values() if isinstance(value, ProtocolError)}
    assert told == errors - {codes.EXPIRED.code}


def test_each_command() -> None:
    told = table("What is supported")[0][0].split(", ")
    assert sorted(told) == sorted(set(Command.__struct_fields__[1:]) - {"ping"})


def test_each_limit() -> None:
    defaults = {field.name: field.default for field in dataclasses.fields(Limits)}
    rows = table("Limits")
    for row in rows:
        for name in re.findall(r"`(\w+)`", row[0]):
            default = defaults[name]
            shown = {
                "max_inbox_messages": "64",
                "max_inbox_bytes": "256 KiB",
                "max_message_bytes": "1 MiB",
                "max_backlog_bytes": "1 MiB",
                "backlog_policy": '`"close"`',
            }
            if name in shown or default is None:
                assert shown.get(name, "none") in row[1]
            elif name != "message_burst":
                assert f"{default:,g}" in row[1], name
    assert (Limits().max_inbox_messages, Limits().max_inbox_bytes) == (64, 256 * 1024)
    assert (Limits().max_message_bytes, Limits().max_backlog_bytes, Limits().backlog_policy) == (2**20, 2**20, "close")
