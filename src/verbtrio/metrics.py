"""An app's figures for Prometheus, by prometheus-client: `pip install "verbtrio[metrics]"`.

    app.get("/metrics")(metrics(app))

They are those of `app.statistics()`, read when they are asked for: nothing is done for them in between. Each process
has its own. A page like this tells everybody how many are here: put it where only your Prometheus comes, or behind
middleware.
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
    """What prometheus-client asks for an app's figures: `registry.register(AppCollector(app))`.

    No label's values are for a client to choose: there are `Cause`s, and HTTP statuses.
    """

    def __init__(self, app: App) -> None:
        self._app = app

    def describe(self) -> Iterator[Metric]:
        """Nothing: else a registry would call `collect` when it is registered, before the app is served."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """The figures of this moment. Synchronous.

        Raises:
            NotRunning: the app is not being served. The message says what to do.
            RuntimeError: called in another thread than Trio's: prometheus-client's own server has one.
        """
        now = self._app.statistics()
        for name, text, value in (
            ("connections", "Open WebSocket connections.", now.connections),
            ("event_streams", "Open event streams.", now.streams),
            ("rooms", "Rooms that somebody is in.", now.rooms),
            ("memberships", "Members of all rooms: a connection counts in each of its rooms.", now.memberships),
            ("users", "Users with at least one connection or event stream.", now.users),
        ):
            yield GaugeMetricFamily(f"verbtrio_{name}", text, value)
        for name, text, value in (
            ("connections_opened", "Connections and event streams that have begun.", now.opened),
            ("messages_received", "Messages from clients, refused ones included.", now.received),
            ("messages_invalid", "Messages from clients that are not what the handler takes.", now.invalid),
            ("messages_sent", "Messages for clients, one for each receiver, dropped ones included.", now.sent),
            ("messages_dropped", "Messages for clients that read too slowly, dropped by policy.", now.dropped),
        ):
            yield CounterMetricFamily(f"verbtrio_{name}", text, value)
        ended = {cause.value: now.ended.get(cause, 0) for cause in Cause}  # all of them: `rate` needs a beginning
        yield _by("connections_ended", "Connections and event streams that have ended, by cause.", "cause", ended)
        yield _by("upgrades_refused", "Refused upgrade requests, by the answer's status.", "status", now.refused)


def _by(name: str, text: str, label: str, values: Mapping[Any, int]) -> Metric:
    family = CounterMetricFamily(f"verbtrio_{name}", text, labels=[label])
    for key, value in values.items():
        family.add_metric([str(key)], value)
    return family


def metrics(app: App, registry: CollectorRegistry | None = None) -> Callable[[Request], Coroutine[Any, Any, Response]]:
    """An endpoint that serves an app's figures, in the format the client asks for (Prometheus' text, or OpenMetrics).

    For a route of the app's own, or of the Starlette application it is mounted in: `Route("/metrics", metrics(app))`.

    Args:
        app: whose figures.
        registry: where the app's collector is registered, and what is served: `prometheus_client.REGISTRY`, for one,
            with your own metrics. `None`: one of its own, with the process' memory, CPU time and descriptors, and
            Python's garbage collector, as prometheus-client's own has them.

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
