"""Figures of real connections, as Prometheus gets them: asked for over HTTP and read by prometheus-client's parser."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import trio
import trio.testing
from httpx import ASGITransport, AsyncClient
from prometheus_client import CollectorRegistry, Counter
from prometheus_client.parser import text_string_to_metric_families
from starlette.applications import Starlette
from starlette.routing import Mount, Route

from tests.support.http import Exchange
from tests.support.memory import serving, shake_hands, socket_stream_pair
from verbtrio import App, Cause, History, HistoryGap, Limits, NotRunning, Presence, Room, WebSocket
from verbtrio.metrics import AppCollector, metrics

Clock = trio.testing.MockClock


def app_with_routes(**limits: Any) -> App:
    app = App(limits=Limits(**limits))

    @app.ws("/ws")
    async def chat(ws: WebSocket[dict[str, str]]) -> None:
        async with ws.join("lobby") as members:
            async for message in ws:
                members.broadcast(message)

    app.get("/metrics")(metrics(app))
    return app


async def scrape(asgi: Any, accept: str = "text/plain") -> dict[str, float]:
    """The figures, by name and labels, as the format writes them."""
    async with AsyncClient(transport=ASGITransport(asgi), base_url="http://x") as client:
        answer = await client.get("/metrics", headers={"Accept": accept})
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=")
    return {
        sample.name + "".join(f"{{{key}={value}}}" for key, value in sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


async def test_who_is_here_and_what_is_said(autojump_clock: Clock) -> None:
    app = app_with_routes()
    async with serving(app) as service:
        before = await scrape(app)
        ours = {name: value for name, value in before.items() if name.startswith("verbtrio_") and "{" not in name}
        assert ours == {
            "verbtrio_connections": 0,
            "verbtrio_event_streams": 0,
            "verbtrio_rooms": 0,
            "verbtrio_memberships": 0,
            "verbtrio_users": 0,
            "verbtrio_room_tasks": 0,
            "verbtrio_histories": 0,
            "verbtrio_history_bytes": 0,
            "verbtrio_presences": 0,
            "verbtrio_broker_connected": 1,
            "verbtrio_broker_dropped_total": 0,
            "verbtrio_room_gaps_total": 0,
            "verbtrio_connections_opened_total": 0,
            "verbtrio_messages_received_total": 0,
            "verbtrio_messages_sent_total": 0,
            "verbtrio_messages_dropped_total": 0,
            "verbtrio_messages_invalid_total": 0,
            "verbtrio_room_task_failures_total": 0,
            "verbtrio_resumes_total": 0,
            "verbtrio_history_gaps_total": 0,
        }
        clients = [await service.connect() for _ in range(3)]
        await clients[0].send_message('{"text":"hello"}')
        for client in clients:
            assert await client.get_message() == '{"text":"hello"}'
        await clients[0].send_message("{")
        assert '"error"' in await clients[0].get_message()
        now = await scrape(app)
        assert (now["verbtrio_connections"], now["verbtrio_rooms"], now["verbtrio_memberships"]) == (3, 1, 3)
        assert now["verbtrio_messages_received_total"] == 2
        assert now["verbtrio_messages_invalid_total"] == 1
        assert now["verbtrio_messages_sent_total"] == 4, "three heard it, and one was told of its mistake"
        for client in clients:
            await client.aclose()
        await service.wait_ended(1)
        after = await scrape(app)
        assert (after["verbtrio_connections"], after["verbtrio_rooms"]) == (0, 0)
        assert after["verbtrio_connections_opened_total"] == 3
        assert after["verbtrio_connections_ended_total{cause=peer}"] == 3


@pytest.mark.parametrize("pair", [trio.testing.memory_stream_pair, socket_stream_pair], ids=["task", "poller"])
async def test_messages_and_not_frames(autojump_clock: Clock, pair: Any) -> None:
    app = App()
    app.ws("/ws")(_echo)
    async with serving(app) as service:
        stream = service.open_stream(pair)
        await shake_hands(stream)
        await stream.send_all(b"\x01\x82\0\0\0\0he" + b"\x80\x83\0\0\0\0llo")  # in two fragments
        assert await stream.receive_some(100) == b"\x81\5hello"
        await stream.send_all(b"\x89\x80\0\0\0\0")  # a ping, and its pong
        assert await stream.receive_some(100) == b"\x8a\0"
        now = app.statistics()
        assert (now.received, now.sent) == (1, 1)
        await trio.aclose_forcefully(stream)
        await service.wait_ended(5)


async def test_plain_asgi_counts_messages(autojump_clock: Clock) -> None:
    app, told = App(take_over=False), trio.Event()
    sent: list[Any] = []
    app.ws("/ws")(_echo)
    said: Any = iter(
        [
            {"type": "websocket.connect"},
            {"type": "websocket.receive", "text": "hé", "bytes": None},
            {"type": "websocket.receive", "text": None, "bytes": b"123456"},
        ]
    )

    async def receive() -> Any:
        for message in said:
            return message
        await told.wait()
        return {"type": "websocket.disconnect", "code": 1000}

    async def send(message: Any) -> None:
        sent.append(message)
        if len(sent) == 3:
            told.set()

    async with app.lifespan():
        await app({"type": "websocket", "path": "/ws", "headers": [], "query_string": b""}, receive, send)
        now = app.statistics()
    assert (now.received, now.sent) == (2, 2)
    assert now.ended == {Cause.PEER: 1}


async def test_how_they_ended(autojump_clock: Clock) -> None:
    """Each cause is there from the beginning, and counts its own."""
    limits = Limits(max_message_bytes=100, max_bad_messages=1, max_rooms=1)
    app = App(limits=limits, heartbeat=None)

    @app.ws("/ws/:how")
    async def handler(ws: WebSocket[dict[str, str]], how: str) -> None:
        if how == "error":
            raise ValueError("a bug")
        if how == "closed":
            await ws.close(4000)
        if how == "rate":
            ws.join("one")
            ws.join("two")
        if how != "returned":
            await _stay(ws)

    app.get("/metrics")(metrics(app))
    says = {"size": b"\x81\xfe\x0f\xff\0\0\0\0", "invalid": 2 * b"\x81\x81\0\0\0\0{", "protocol": b"\xff\x80\0\0\0\0"}
    says["peer"] = b"\x88\x82\0\0\0\0\x03\xe8"
    async with serving(app) as service:
        assert {v for name, v in (await scrape(app)).items() if "_ended_" in name} == {0}
        causes = ["error", "closed", "rate", "returned", "gone", *says]
        for how in causes:
            stream = service.open_stream()
            await shake_hands(stream, f"/ws/{how}")
            if how in says:
                await stream.send_all(says[how])
                await trio.testing.wait_all_tasks_blocked()
            if how == "gone":
                await trio.aclose_forcefully(stream)
            else:
                await trio.sleep(1)
                await trio.aclose_forcefully(stream)
            await service.wait_ended(30)
        figures = await scrape(app)
        assert {cause: figures[f"verbtrio_connections_ended_total{{cause={cause}}}"] for cause in Cause} == {
            cause: float(cause in causes) for cause in Cause
        }
        assert figures["verbtrio_connections_opened_total"] == len(causes)
        assert app.statistics().refused == {}


async def test_who_was_not_let_in(autojump_clock: Clock) -> None:
    app = app_with_routes(max_connections=1)
    async with serving(app) as service:
        client = await service.connect()
        for _ in range(2):
            assert b" 503 " in await shake_hands(service.open_stream())
        elsewhere = b"Origin: http://elsewhere.example\r\n"
        assert b" 403 " in await shake_hands(service.open_stream(), headers=elsewhere)
        assert b" 404 " in await shake_hands(service.open_stream(), "/nowhere")
        assert b" 400 " in await shake_hands(service.open_stream(), headers=b"Sec-WebSocket-Key: again\r\n")
        await trio.sleep(1.5)  # they are counted when their clients have had time to read the answer
        figures = await scrape(app)
        refused = {name: value for name, value in figures.items() if "refused" in name}
        assert refused == {
            "verbtrio_upgrades_refused_total{status=503}": 2,
            "verbtrio_upgrades_refused_total{status=403}": 1,
            "verbtrio_upgrades_refused_total{status=404}": 1,
            "verbtrio_upgrades_refused_total{status=400}": 1,
        }
        assert figures["verbtrio_connections_opened_total"] == 1, "the one that was let in"
        await client.aclose()


async def test_what_was_dropped(autojump_clock: Clock) -> None:
    app = App(limits=Limits(max_backlog_bytes=10_000, high_water_bytes=5000, backlog_policy="drop_newest"))

    @app.ws("/ws")
    async def flood(ws: WebSocket) -> None:
        for _ in range(100):
            ws.send_nowait(1000 * "x")
        await ws.receive()

    async with serving(app) as service:
        pair = trio.testing.lockstep_stream_pair
        stream = service.open_stream(pair)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(shake_hands, stream)
            await trio.testing.wait_all_tasks_blocked()
        await trio.testing.wait_all_tasks_blocked()
        statistics = app.statistics()
        assert statistics.sent == 100
        assert 80 < statistics.dropped == sum(connection.dropped for connection in app.connections.here) < 100
        await trio.aclose_forcefully(stream)


async def test_event_streams_count_too(autojump_clock: Clock) -> None:
    app = App()
    app.sse("/events/:room")
    async with serving(app) as service:
        stream = service.open_stream()
        await stream.send_all(b"GET /events/lobby HTTP/1.1\r\nHost: x\r\n\r\n")
        await trio.testing.wait_all_tasks_blocked()
        app.room("lobby").broadcast("hello")
        await trio.testing.wait_all_tasks_blocked()
        now = app.statistics()
        assert (now.streams, now.opened, now.sent, now.connections) == (1, 1, 1, 0)
        await stream.aclose()
        await service.wait_ended(5)


async def test_what_rooms_remember(autojump_clock: Clock) -> None:
    app = app_with_routes()
    app.rooms("lobby", history=History(ttl=60), presence=Presence(grace=5))

    def remembered(figures: dict[str, float]) -> tuple[float, ...]:
        return tuple(figures[f"verbtrio_{name}"] for name in ("histories", "history_bytes", "presences"))

    async with serving(app) as service:
        clients = [await service.connect() for _ in range(3)]
        await trio.testing.wait_all_tasks_blocked()
        assert remembered(await scrape(app)) == (0, 0, 3)
        for text in ("hello", "you all"):
            await app.room("lobby").publish(text)
        cost = app.statistics().history_bytes
        assert remembered(await scrape(app)) == (1, cost, 3)
        assert 12 < cost < 12 + 2 * 200 + 2000, "about 200 bytes for each message, and some for the room"
        for client in clients:
            await client.aclose()
        await trio.sleep(1)
        assert remembered(await scrape(app)) == (1, cost, 3), "they may be back in a moment"
        await trio.sleep(5)
        assert remembered(await scrape(app)) == (1, cost, 0)
        await trio.sleep(60)
        assert remembered(await scrape(app)) == (0, 0, 0)


async def test_tasks_of_rooms(autojump_clock: Clock) -> None:
    app, runs = app_with_routes(), 0

    @app.room_task("lobby", linger=5)
    async def work(room: Room) -> None:
        nonlocal runs
        runs += 1
        await trio.sleep(10 if runs == 1 else 1000)
        raise ValueError("a bug")

    async def counted() -> tuple[float, float]:
        figures = await scrape(app)
        return figures["verbtrio_room_tasks"], figures["verbtrio_room_task_failures_total"]

    async with serving(app) as service:
        client = await service.connect()
        await trio.testing.wait_all_tasks_blocked()
        assert await counted() == (1, 0)
        await trio.sleep(11)
        assert await counted() == (1, 1), "it has failed, and was started again"
        await client.aclose()
        await trio.sleep(6)
        assert await counted() == (0, 1)


async def test_who_comes_back(autojump_clock: Clock) -> None:
    """To a WebSocket's room, or to an event stream; in time, or too late."""
    app = App()
    app.rooms("lobby", history=History(size=100))

    @app.ws("/ws")
    async def chat(ws: WebSocket[str]) -> None:
        async for position in ws:
            try:
                async with ws.join("lobby", since=position or None):
                    await ws.send("joined")
            except HistoryGap:
                await ws.send("gap")

    app.sse("/events", room="lobby")
    app.get("/metrics")(metrics(app))

    def counted() -> tuple[int, int]:
        return app.statistics().resumes, app.statistics().history_gaps

    async with serving(app) as service:
        lobby, client = app.room("lobby"), await service.connect()

        async def come_back(position: object) -> list[str]:
            """All that the client is told."""
            await client.send_message(str(position))
            told = [str(await client.get_message())]
            while told[-1] not in ("joined", "gap"):
                told.append(str(await client.get_message()))
            return told

        async def listen(last: object) -> None:
            stream = service.open_stream()
            await Exchange(stream).request("/events", headers={} if last is None else {"last-event-id": str(last)})
            await trio.testing.wait_all_tasks_blocked()
            await stream.aclose()

        first = await lobby.publish("0")
        assert await come_back("") == ["joined"]
        await listen(None)
        assert counted() == (0, 0), "they have not been there before"
        for number in range(1, 80):
            await lobby.publish(str(number))
        assert len(await come_back(first)) == 80
        assert counted() == (1, 0)
        await listen(first)
        assert counted() == (2, 0)
        for number in range(80, 102):
            await lobby.publish(str(number))
        assert await come_back(first) == ["gap"]
        assert counted() == (3, 1)
        await listen(first)
        await listen("no position")
        assert counted() == (5, 3)
        figures = await scrape(app)
        assert (figures["verbtrio_resumes_total"], figures["verbtrio_history_gaps_total"]) == (5, 3)
        await client.aclose()


async def test_open_metrics_for_those_who_ask(autojump_clock: Clock) -> None:
    app = app_with_routes()
    async with serving(app):
        async with AsyncClient(transport=ASGITransport(app), base_url="http://x") as client:
            answer = await client.get("/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"})
        assert answer.headers["content-type"].startswith("application/openmetrics-text")
        assert answer.text.endswith("# EOF\n")


async def test_by_default_the_process_is_there_too(autojump_clock: Clock) -> None:
    app = app_with_routes()
    async with serving(app):
        figures = await scrape(app)
    assert any(name.startswith("python_gc_objects_collected_total") for name in figures)
    if sys.platform == "linux":
        assert figures["process_open_fds"] > 0


async def test_a_registry_of_ones_own_in_another_application(autojump_clock: Clock) -> None:
    registry = CollectorRegistry()
    Counter("orders", "Orders taken.", registry=registry).inc(7)
    app = App()
    app.ws("/ws")(_stay)
    whole = Starlette(routes=[Mount("/chat", app=app), Route("/metrics", metrics(app, registry))])
    async with serving(app, whole) as service:
        client = await service.connect("/chat/ws")
        figures = await scrape(whole)
        assert figures["orders_total"] == 7
        assert figures["verbtrio_connections"] == 1
        assert not any(name.startswith("process_") for name in figures)
        await client.aclose()


async def test_an_app_that_is_not_served() -> None:
    registry = CollectorRegistry(auto_describe=True)  # as prometheus-client's own is
    app = App()
    whole = Starlette(routes=[Mount("/chat", app=app), Route("/metrics", metrics(app, registry))])
    with pytest.raises(NotRunning, match="enter its lifespan there"):
        await scrape(whole)


async def test_in_another_thread(autojump_clock: Clock) -> None:
    """prometheus-client's own server would read what Trio's thread is changing."""
    app = App()
    async with serving(app):
        with pytest.raises(RuntimeError, match="belong to Trio's thread"):
            await trio.to_thread.run_sync(lambda: list(AppCollector(app).collect()))


def test_without_prometheus_client(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    monkeypatch.delitem(sys.modules, "verbtrio.metrics")
    with pytest.raises(ImportError, match=r'pip install "verbtrio\[metrics\]"'):
        import verbtrio.metrics  # noqa: F401 -- for the error


async def _stay(ws: WebSocket[Any]) -> None:
    async for _ in ws:
        pass


async def _echo(ws: WebSocket) -> None:
    async for message in ws:
        await ws.send(message)
