"""An app behind hypercorn's own middleware for proxies, which copies each scope deeply."""

from typing import Any

from hypercorn.middleware import ProxyFixMiddleware

from verbtrio import App, WebSocket
from verbtrio.base.types import EXTENSION

chat = App()


@chat.ws("/ws")
async def tell(ws: WebSocket) -> None:
    await ws.send({"client": ws.scope["client"][0], "taken": ws.scope["extensions"][EXTENSION].is_taken})


_asgi: Any = chat
app = ProxyFixMiddleware(_asgi)
