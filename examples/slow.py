"""A client that reads slowly, for the example ticker: `python examples/slow.py http://127.0.0.1:3000/events`."""

import sys
from urllib.parse import urlsplit

import trio

RECEIVE_BYTES = 4096
"""What the system receives ahead. (By default it takes megabytes before a server notices anything.)"""
READ_BYTES = 1000
PAUSE_SECONDS = 0.1


async def main(url: str) -> None:
    """Ask for an event stream, and print 10 KB a second of the answer."""
    address = urlsplit(url)
    with trio.socket.socket() as client:
        client.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_RCVBUF, RECEIVE_BYTES)
        await client.connect((address.hostname, address.port or 80))
        await client.send(f"GET {address.path} HTTP/1.0\r\nHost: {address.netloc}\r\n\r\n".encode())
        while data := await client.recv(READ_BYTES):
            print(data.decode(), end="", flush=True)
            await trio.sleep(PAUSE_SECONDS)


if __name__ == "__main__":
    trio.run(main, sys.argv[1])
