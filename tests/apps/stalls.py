"""The recorder behind a proxy that writes `Forwarded`, and a route whose messages have numbers for keys."""

from __future__ import annotations

from typing import Annotated

import msgspec

from tests.apps import recorder
from verbtrio import App, TrustedProxies, WebSocket

app = App(
    limits=recorder.app.limits,
    trusted_proxies=TrustedProxies(["127.0.0.1"], header="forwarded"),
)

Bounded = Annotated[int, msgspec.Meta(ge=0, le=2**32)]


@app.ws("/keys")
async def keys(ws: WebSocket[dict[Bounded, int]]) -> None:
    async for message in ws:
        await ws.send(len(message))


app.mount("/", recorder.app)
