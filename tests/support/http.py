"""An HTTP/1.1 client over any Trio stream, by h11: it takes a response piece by piece, and may stop or leave."""

from __future__ import annotations

import h11
import trio

PATIENCE = 500.0
"""Seconds, mostly virtual ones, after which a body that does not end is a failure."""


class Exchange:
    """One connection to the server."""

    def __init__(self, stream: trio.abc.HalfCloseableStream) -> None:
        self.stream = stream
        self._h11 = h11.Connection(h11.CLIENT)
        self.status = 0
        self.headers: dict[str, str] = {}

    async def request(
        self, path: str, *, method: str = "GET", headers: dict[str, str] | None = None, body: bytes = b""
    ) -> Exchange:
        """Send a request and take the answer's head."""
        await self.begin(path, method=method, headers={"content-length": str(len(body)), **(headers or {})})
        await self.send(h11.Data(data=body))
        await self.send(h11.EndOfMessage())
        return await self.head()

    async def begin(self, path: str, *, method: str, headers: dict[str, str]) -> None:
        """Send a request's head alone."""
        await self.send(h11.Request(method=method, target=path, headers=[("host", "test"), *headers.items()]))

    async def send(self, event: h11.Event) -> None:
        if data := self._h11.send(event):
            await self.stream.send_all(data)

    async def head(self) -> Exchange:
        """Take the answer's head."""
        event = await self._next()
        assert isinstance(event, h11.Response), event
        self.status = event.status_code
        self.headers = {name.decode(): value.decode() for name, value in event.headers}
        return self

    async def piece(self) -> bytes | None:
        """The next piece of the body; `None` at its end.

        Raises:
            h11.RemoteProtocolError: the connection ended before the body did.
        """
        event = await self._next()
        if isinstance(event, h11.Data):
            return bytes(event.data)
        assert isinstance(event, h11.EndOfMessage), event
        return None

    async def until(self, end: bytes) -> bytes:
        """The body up to and with `end`, which has to be the last there is so far."""
        body = b""
        with trio.fail_after(PATIENCE):
            while not body.endswith(end):
                piece = await self.piece()
                assert piece is not None, f"the body ended with {body!r}"
                body += piece
        return body

    async def rest(self) -> bytes:
        """What is left of the body."""
        body = b""
        with trio.fail_after(PATIENCE):
            while (piece := await self.piece()) is not None:
                body += piece
        return body

    async def aclose(self) -> None:
        await trio.aclose_forcefully(self.stream)

    async def _next(self) -> object:
        while True:
            event = self._h11.next_event()
            if event is not h11.NEED_DATA:
                return event
            self._h11.receive_data(bytes(await self.stream.receive_some(65536)))
