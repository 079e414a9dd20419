"""Both forms of a handler, and what their annotations say. (This module's annotations are strings.)"""

from __future__ import annotations

from functools import partial, wraps
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from starlette.routing import compile_path

from verbtrio.base.close import Cause, CloseInfo
from verbtrio.base.types import JSON
from verbtrio.connection.handler_kinds import HandlerKind, handler_kind, hooks_kind
from verbtrio.connection.parameters import Convertors
from verbtrio.connection.websocket import WebSocket

if TYPE_CHECKING:
    from decimal import Decimal as Hidden


class Say(msgspec.Struct):
    text: str


def params(*names: str) -> Convertors:
    """The parameters of a path that has these."""
    return compile_path("".join(f"/{{{name}}}" for name in names))[2]


class Conversation:
    """As much of a connection as a handler uses: its facade, its peer and its inbox in one."""

    closed = None

    def __init__(self, *messages: Any, **params: str) -> None:
        self.params = params
        self.ws = self.inbox = self
        self._messages = list(messages)

    def decoder(self, message: Any) -> Any:
        return message

    def __aiter__(self) -> Conversation:
        return self

    async def __anext__(self) -> Any:
        if not self._messages:
            raise StopAsyncIteration
        return self._messages.pop(0)

    async def serve(self, handle: Any) -> None:
        async for message in self:
            handle(message)


async def run(kind: HandlerKind, ws: Any) -> None:
    """A connection's life, as the connection calls it."""
    handler = kind.make(ws.params)
    await handler.run(ws)
    await handler.error(ws, ValueError("what"))
    await handler.close(ws, CloseInfo(Cause.PEER, 1001, "bye"))


class TestCoroutine:
    async def test_is_given_the_path_parameters_it_asks_for(self) -> None:
        async def chat(ws: WebSocket, room: str) -> None:
            calls.append((ws, room))

        calls: list[Any] = []
        ws = Conversation(room="lobby", other="x")
        await run(handler_kind(chat, params("room", "other")), ws)
        assert calls == [(ws, "lobby")]

    async def test_is_given_all_of_them(self) -> None:
        async def chat(ws: WebSocket, room: str, **rest: str) -> None:
            calls.append((room, rest))

        calls: list[Any] = []
        await run(handler_kind(chat, params("room", "other")), Conversation(room="lobby", other="x"))
        assert calls == [("lobby", {"other": "x"})]

    async def test_a_default_gives_way_to_the_path(self) -> None:
        async def chat(ws: WebSocket, room: str = "default") -> None:
            calls.append(room)

        calls: list[str] = []
        await run(handler_kind(chat, params("room")), Conversation(room="lobby"))
        assert calls == ["lobby"]

    async def test_a_method(self) -> None:
        class Chat:
            async def handle(self, ws: WebSocket[Say], room: str) -> None:
                calls.append((self, room))

        calls: list[Any] = []
        chat = Chat()
        kind = handler_kind(chat.handle, params("room"))
        await run(kind, Conversation(room="lobby"))
        assert calls == [(chat, "lobby")]
        assert kind.decoder.kind is Say

    async def test_a_decorated_one(self) -> None:
        def logged(function: Any) -> Any:
            @wraps(function)
            async def wrapper(*args: Any, **kwargs: Any) -> None:
                await function(*args, **kwargs)

            return wrapper

        @logged
        async def chat(ws: WebSocket[Say], room: str) -> None:
            calls.append(room)

        calls: list[str] = []
        kind = handler_kind(chat, params("room"))
        await run(kind, Conversation(room="lobby"))
        assert (calls, kind.decoder.kind) == (["lobby"], Say)

    async def test_a_partial(self) -> None:
        """How a handler is given a database."""

        async def chat(ws: WebSocket[Say], room: str, *, database: str) -> None:
            calls.append((room, database))

        calls: list[Any] = []
        kind = handler_kind(partial(chat, database="db"), params("room"))
        await run(kind, Conversation(room="lobby"))
        assert (calls, kind.decoder.kind) == ([("lobby", "db")], Say)

    def test_one_that_asks_for_what_the_path_does_not_have(self) -> None:
        async def chat(ws: WebSocket, rom: str) -> None: ...

        with pytest.raises(TypeError) as caught:
            handler_kind(chat, params("room", "id"))
        assert str(caught.value).endswith("chat asks for 'rom', which the path doesn't have (its parameters: id, room)")
        with pytest.raises(TypeError, match=r"\(its parameters: none\)"):
            handler_kind(chat, {})

    def test_one_that_asks_for_that_and_all_the_rest(self) -> None:
        async def chat(ws: WebSocket, rom: str, **rest: str) -> None: ...

        with pytest.raises(TypeError, match="asks for 'rom'"):
            handler_kind(chat, params("room"))

    def test_one_without_a_connection(self) -> None:
        async def chat() -> None: ...

        with pytest.raises(TypeError, match="chat takes too few parameters; the first one is the connection"):
            handler_kind(chat, {})

    def test_no_handlers(self) -> None:
        def plain(ws: WebSocket) -> None: ...

        async def generator(ws: WebSocket) -> Any:
            yield

        for target in (plain, generator):
            with pytest.raises(
                TypeError, match=rf"{target.__name__} is not a handler: use `async def {target.__name__}"
            ):
                handler_kind(target, {})
        with pytest.raises(TypeError, match=r"'text' is not a handler: use `async def handler\(ws\)`, or a class"):
            handler_kind("text", {})


class TestClass:
    async def test_one_instance_a_connection(self) -> None:
        class Chat:
            def __init__(self) -> None:
                self.log: list[Any] = []
                instances.append(self)

            async def open(self, ws: WebSocket) -> None:
                self.log.append("open")

            def message(self, ws: WebSocket, message: str) -> None:
                self.log.append(message)

            def error(self, ws: WebSocket, error: Exception) -> None:
                self.log.append(str(error))

            async def close(self, ws: WebSocket, code: int, reason: str) -> None:
                self.log.append((code, reason))

        instances: list[Chat] = []
        kind = handler_kind(Chat, {})
        assert instances == []
        await run(kind, Conversation("a", "b"))
        await run(kind, Conversation("c"))
        assert [chat.log for chat in instances] == [
            ["open", "a", "b", "what", (1001, "bye")],
            ["open", "c", "what", (1001, "bye")],
        ]
        assert kind.name.endswith("Chat")

    async def test_inherited_hooks(self) -> None:
        class Base:
            def message(self, ws: WebSocket[Say]) -> None: ...

        class Chat(Base):
            def message(self, ws: WebSocket, message: Say) -> None:  # type: ignore[override]
                calls.append(message)

        calls: list[Say] = []
        kind = handler_kind(Chat, {})
        await run(kind, Conversation(Say("hi")))
        assert (calls, kind.decoder.kind) == ([Say("hi")], Say)

    def test_without_hooks(self) -> None:
        class Chat:
            def say(self) -> None: ...

        with pytest.raises(TypeError, match="Chat has none of the hooks open, message, close, error"):
            handler_kind(Chat, {})


class TestFunctions:
    async def test_are_called(self) -> None:
        def message(ws: Any, message: Any) -> None:
            log.append((ws, message))

        async def close(ws: Any, code: int, reason: str) -> None:
            log.append((ws, code, reason))

        log: list[Any] = []
        ws = Conversation("a", b"b")
        kind = hooks_kind({"message": message, "close": close})
        await run(kind, ws)
        assert log == [(ws, "a"), (ws, b"b"), (ws, 1001, "bye")]
        assert kind.name.count("test_are_called") == 2

    async def test_without_a_message_hook_messages_are_read_all_the_same(self) -> None:
        """Else the inbox would fill up and the peer's pongs and Close never be read."""
        log: list[Any] = []
        ws = Conversation("a", "b")
        await run(hooks_kind({"open": log.append}), ws)
        assert log == [ws]
        assert ws._messages == []

    async def test_what_a_hook_returns_is_awaited_if_it_can_be(self) -> None:
        async def later(ws: Any) -> None:
            log.append("later")

        log: list[str] = []
        await run(hooks_kind({"open": lambda ws: later(ws)}), Conversation())
        nothing_to_await: Any = len
        await run(hooks_kind({"open": lambda ws: nothing_to_await("text")}), Conversation())
        assert log == ["later"]


async def bare(ws: WebSocket) -> None: ...
async def unannotated(ws) -> None: ...  # type: ignore[no-untyped-def]
async def anything(ws: Any) -> None: ...
async def text(ws: WebSocket[str]) -> None: ...
async def either(ws: WebSocket[str | bytes]) -> None: ...
async def struct(ws: WebSocket[Say]) -> None: ...
async def json(ws: WebSocket[JSON]) -> None: ...
async def union(ws: WebSocket[Say | None]) -> None: ...


def message_only(ws: WebSocket, message: Say) -> None: ...
def connection_only(ws: WebSocket[Say], message) -> None: ...  # type: ignore[no-untyped-def]
def both(ws: WebSocket[str], message: Say) -> None: ...
def neither(ws, message) -> None: ...  # type: ignore[no-untyped-def]


class TestKinds:
    """What is received, by the annotation."""

    @pytest.mark.parametrize(
        ("function", "kind"),
        [
            (bare, str | bytes),
            (unannotated, str | bytes),
            (anything, str | bytes),
            (text, str),
            (either, str | bytes),
            (struct, Say),
            (json, Any),
            (union, Say | None),
        ],
    )
    def test_of_a_coroutine(self, function: Any, kind: Any) -> None:
        assert handler_kind(function, {}).decoder.kind == kind

    @pytest.mark.parametrize(
        ("function", "kind"),
        [(message_only, Say), (connection_only, Say), (both, Say), (neither, str | bytes)],
    )
    def test_of_a_message_hook(self, function: Any, kind: Any) -> None:
        assert hooks_kind({"message": function}).decoder.kind == kind

    def test_of_an_annotation_that_is_no_string(self) -> None:
        async def chat(ws: Any) -> None: ...

        chat.__annotations__["ws"] = WebSocket[Say]
        assert handler_kind(chat, {}).decoder.kind is Say

    def test_of_hooks_without_messages(self) -> None:
        assert hooks_kind({"open": bare}).decoder.kind == str | bytes

    def test_something_else(self) -> None:
        async def chat(ws: Say) -> None: ...

        with pytest.raises(TypeError, match=r"chat: the connection's parameter is annotated .*Say.*; use `WebSocket`"):
            handler_kind(chat, {})

    def test_a_message_hook_without_a_message(self) -> None:
        def message(ws: WebSocket) -> None: ...

        with pytest.raises(TypeError, match=r"is called with \(ws, message\)"):
            hooks_kind({"message": message})

    def test_a_type_that_only_the_type_checker_knows(self) -> None:
        async def chat(ws: WebSocket[Hidden]) -> None: ...

        with pytest.raises(
            TypeError, match=r"the annotation 'WebSocket\[Hidden\]' can't be read .*'Hidden'.*TYPE_CHECK"
        ):
            handler_kind(chat, {})

    def test_a_type_that_is_misspelt(self) -> None:
        async def chat(ws: WebSocket[msgspec.Stuct]) -> None: ...  # type: ignore[name-defined]

        with pytest.raises(TypeError, match="can't be read"):
            handler_kind(chat, {})

    def test_other_annotations_are_not_read(self) -> None:
        """What is bound already, only the type checker needs to know (ruff's TC rules move it there)."""

        async def chat(ws: WebSocket[Say], limit: Hidden | None) -> None: ...

        assert handler_kind(partial(chat, limit=None), {}).decoder.kind is Say
