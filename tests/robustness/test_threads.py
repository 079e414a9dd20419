"""Routes and background tasks that are plain functions, in a real server: what they must not do does no harm."""

from __future__ import annotations

import httpx
import pytest
import trio
import trio_websocket

from tests.apps.threaded import CALLS
from tests.support.http import Exchange
from tests.support.process import Server, hypercorn
from tests.support.sse import parse

PATIENCE = 20.0


async def test_calls_from_a_thread() -> None:
    """Each is refused, in the route's thread and in the background task's; everybody is served, and the worker ends."""
    with hypercorn("tests.apps.threaded:app", "--graceful-timeout", "60") as server:
        listener = await Exchange(await trio.open_tcp_stream("127.0.0.1", server.port)).request("/events/lobby")
        async with await trio.open_tcp_stream("127.0.0.1", server.port) as stream, trio.open_nursery() as nursery:
            ws = await trio_websocket.wrap_client_stream(nursery, stream, "test", "/ws")
            with trio.fail_after(PATIENCE):
                for number, name in enumerate(CALLS):
                    await use(name, number, server, ws, listener)
                assert await trio.to_thread.run_sync(server.stop) == 0
            (event,) = parse(await listener.rest())
            assert (event.event, event.data) == ("close", '{"code":1012,"reason":"The server is restarting"}')
            with pytest.raises(trio_websocket.ConnectionClosed) as closed:
                await ws.get_message()
            assert closed.value.reason is not None
            assert closed.value.reason.code == 1012
        await listener.aclose()
        assert "Traceback" not in server.log_text()


async def use(
    name: str, number: int, server: Server, ws: trio_websocket.WebSocketConnection, listener: Exchange
) -> None:
    """Make the call, behind `number` others, and see that nothing has come of it."""
    async with httpx.AsyncClient(base_url=server.url) as client:
        while (before := (await client.get("/state")).json())["present"] != [1, 1, 1, 2]:
            await trio.sleep(0.02)
        assert "make it `async def`" in (await client.get(f"/calls/{name}")).json(), name
        while len((after := (await client.get("/state")).json())["answers"]) == number:
            await trio.sleep(0.02)
        *_, answer = after.pop("answers")
        assert "make it `async def`" in answer, name
        assert after == {key: before[key] for key in after}, f"{name} has changed nothing"
        assert (await client.get("/say")).json() == 2
        assert await ws.get_message() == "for everybody"
        assert await listener.until(b"\n\n") == b"data: for everybody\n\n"
        await ws.send_message("echo")
        assert await ws.get_message() == "echo"
