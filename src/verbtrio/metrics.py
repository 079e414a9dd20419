"""An app's figures for Prometheus, with prometheus-client: `pip install "verbtrio[metrics]"`.

    app.get("/metrics")(metrics(app))

They are the figures of `app.statistics()`, read on request; in between they cost nothing. Each process has its own.
They tell how many users there are, so protect the page by middleware, or let only your Prometheus reach it.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator, Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from verbtrio.app import App
from verbtrio.base.close import Cause

try:
    from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
    from prometheus_client.exposition import choose_encoder
    from prometheus_client.registry import Collector
except ImportError as error:
    raise ImportError('verbtrio.metrics needs prometheus-client: pip install "verbtrio[metrics]"') from error


class AppCollector(Collector):
    """A collector of an app's figures for prometheus-client: `registry.register(AppCollector(app))`.

    Clients can't choose the values of labels, which are `Cause`s and HTTP statuses.
    """

    def __init__(self, app: App) -> None:
        self._app = app

    def describe(self) -> Iterator[Metric]:
        """Yield nothing. Otherwise a registry would call `collect` on registration, before the app is served."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """The current figures. Synchronous.

        Raises:
            NotRunning: the app is not being served. The message says what to do.
            RuntimeError: called outside Trio's thread, for example by prometheus-client's own server.
        """
        now = self._app.statistics()
        for name, text, value in (
            ("connections", "Open WebSocket connections.", now.connections),
            ("event_streams", "Open event streams.", now.streams),
            ("rooms", "Rooms with at least one member.", now.rooms),
            ("memberships", "Members of all rooms: a connection counts in each of its rooms.", now.memberships),
            ("users", "Users with at least one connection or event stream.", now.users),
            ("room_tasks", "Tasks of rooms that are running.", now.room_tasks),
            ("histories", "Rooms that have a history.", now.histories),
            ("history_bytes", "What all histories cost, as max_history_bytes counts it.", now.history_bytes),
            ("broker_connected", "1 while the broker can be reached, else 0.", int(now.broker_connected)),
            ("presences", "Users who are present in rooms: in each of them once.", now.presences),
        ):
            yield GaugeMetricFamily(f"verbtrio_{name}", text, value)
        for name, text, value in (
            ("connections_opened", "Connections and event streams that have begun.", now.opened),
            ("messages_received", "Messages from clients, refused ones included.", now.received),
            ("messages_invalid", "Messages from clients that the handler does not take.", now.invalid),
            ("messages_sent", "Messages for clients, one for each receiver, dropped ones included.", now.sent),
            ("messages_dropped", "Messages for clients that read too slowly, dropped or replaced.", now.dropped),
            ("room_task_failures", "Runs of rooms' tasks that have failed.", now.room_task_failures),
            ("resumes", "Joins that went on from a position in a history, or could not.", now.resumes),
            ("room_gaps", "Times that messages for a room may have been lost on the way here.", now.missed),
            ("broker_dropped", "Broadcasts dropped on the way to other processes.", now.broker_dropped),
            ("history_gaps", "Of those, how many could not: the history did not reach back.", now.history_gaps),
        ):
            yield CounterMetricFamily(f"verbtrio_{name}", text, value)
        # All causes, since `rate` needs a first value of 0.
        ended = {cause.value: now.ended.get(cause, 0) for cause in Cause}
        text = "Connections and event streams that have ended, by cause."
        yield _labelled("connections_ended", text, "cause", ended)
        yield _labelled("upgrades_refused", "Refused upgrade requests, by the answer's status.", "status", now.refused)


def _labelled(name: str, text: str, label: str, values: Mapping[Any, int]) -> Metric:
    family = CounterMetricFamily(f"verbtrio_{name}", text, labels=[label])
    for key, value in values.items():
        family.add_metric([str(key)], value)
    return family


def metrics(app: App, registry: CollectorRegistry | None = None) -> Callable[[Request], Coroutine[Any, Any, Response]]:
    """Return an endpoint that serves an app's figures in the format that the client asks for: Prometheus' text format,
    or OpenMetrics.

    It is for a route of the app, or of the Starlette application that it is mounted in:
    `Route("/metrics", metrics(app))`.

    Args:
        app: the app.
        registry: the registry to serve, in which the app's collector is registered, for example
            `prometheus_client.REGISTRY` with your own metrics. `None`: a new one, with the process's memory, CPU time
            and descriptors, and Python's garbage collector, as in prometheus-client's default registry.

    Raises:
        ValueError: (from the registry) it has metrics of these names already.
    """
    if registry is None:
        registry = CollectorRegistry()
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=registry)
    registry.register(AppCollector(app))
    served = registry

    async def endpoint(request: Request) -> Response:
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        return Response(encode(served), headers={"Content-Type": content_type})

    return endpoint
