"""A proxy that knows nothing of WebSockets: the SDK falls back to what goes through."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from tests.sdk.conftest import Connect, Unique
from tests.sdk.driving import JS, Way
from tests.support.process import Server


@contextmanager
def ignorant_proxy(upstream: int) -> Iterator[str]:
    """Passes everything on, but for what HTTP says is between neighbours: `Upgrade` and `Connection`."""
    listener = socket.create_server(("127.0.0.1", 0))
    sockets: list[socket.socket] = [listener]

    def passing(source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
        with suppress(OSError):
            target.shutdown(socket.SHUT_WR)

    def request(client: socket.socket) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            data = client.recv(65536)
            if not data:
                return
            head += data
        lines, _, body = head.partition(b"\r\n\r\n")
        kept = [line for line in lines.split(b"\r\n") if not line.lower().startswith((b"upgrade:", b"connection:"))]
        server = socket.create_connection(("127.0.0.1", upstream))
        sockets.append(server)
        server.sendall(b"\r\n".join(kept) + b"\r\nConnection: close\r\n\r\n" + body)
        threading.Thread(target=passing, args=(client, server), daemon=True).start()
        passing(server, client)
        client.close()

    def accept() -> None:
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                sockets.append(client)
                threading.Thread(target=request, args=(client,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        for each in sockets:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()


@pytest.mark.parametrize(
    ("way", "names"),
    [
        (Way(JS, "http_stream"), ["websocket", "http_stream", "sse"]),
        (Way(JS, "http_stream", protobuf=True), ["websocket", "http_stream"]),
        (Way(JS, "sse"), ["websocket", "sse"]),
    ],
    ids=str,
)
def test_the_list_of_transports(way: Way, names: list[str], client: Connect, server: Server, unique: Unique) -> None:
    room = unique("open:")
    with ignorant_proxy(server.port) as url:
        transports = [
            {"transport": name, "endpoint": f"{url}/connection/{name}".replace("http", "ws", name == "websocket")}
            for name in names
        ]
        ada = client(way, url, transports=transports, emulation=f"{url}/emulation")

        connected = ada.connect()
        ada.subscribe(room)
        ada.publish(room, "it goes through")

        assert connected["transport"] == way.transport
        assert ada.received(room, 1) == ["it goes through"]
