"""Routes that are not verbtrio's, under the take-over: they do not receive while their client pings."""

import trio
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket

from verbtrio import App


async def busy(websocket: WebSocket) -> None:
    """Sends, and works, for longer than a client's keepalive waits."""
    await websocket.accept()
    for n in range(6):
        await trio.sleep(0.2)
        await websocket.send_text(str(n))
    await websocket.close(4000, "done")


app = App(routes=[WebSocketRoute("/busy", busy)], http2_websockets=True, http2_cleartext=True)
