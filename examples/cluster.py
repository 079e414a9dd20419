"""Cluster: a room in four processes, connected by Redis: kill one, and its clients go on in the others.

As a program this starts two hypercorns of two workers each, on one port, and starts each again when it ends. (hypercorn
ends its other worker when one dies.) It needs a system that spreads the connections to a port over the processes that
have it: Linux does. Without REDIS_URL in the environment it starts a redis-server, too, that forgets all at its end.

For your own machine only: whoever opens the page can kill processes. The page's SDK is as for the example centrifuge.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import trio

sys.path.insert(0, str(Path(__file__).parents[1]))  # for examples.page

from examples.page import EXAMPLES, add_page, add_sdk
from verbtrio import App, Client, Denied, History, Subscription
from verbtrio.brokers.redis import RedisBroker

HOST = "127.0.0.1"  # see above
REDIS_URL = os.environ.get("REDIS_URL")
HYPERCORN = [sys.executable, "-m", "hypercorn", "-k", "trio", "-w", "2"]
PAUSE = 1.0  # seconds until a hypercorn starts again: one that fails at its start is not to keep a core busy
PATIENCE = 10.0  # seconds that a hypercorn has to end: one that has just begun to start does not listen to signals


class Worker(msgspec.Struct):
    """The process that serves a client."""

    worker: int


app = App(broker=RedisBroker(REDIS_URL or "redis://127.0.0.1"))


@app.rooms("lobby", history=History(size=1000, ttl=300), presence=True, join_leave=True)
async def lobby(sub: Subscription[int, None]) -> None:
    """Runs for each client, in the process that serves it. All of them are in one room, whose history is in Redis."""
    await sub.accept(presence=Worker(os.getpid()))  # who comes back is sent what was missed, whoever served it before
    async for number in sub:
        await sub.publish(number)


@app.call("kill")
async def kill(client: Client) -> None:
    """Kill the process that serves the caller, without a word to anybody."""
    if client.client is None or client.client.host != HOST:
        raise Denied("Only from this machine")
    os.kill(os.getpid(), signal.SIGKILL)


def welcome(client: Client) -> Worker:
    return Worker(os.getpid())


app.centrifuge("/connection", connect=welcome)
add_page(app, __file__, lobby, kill, welcome, **add_sdk(app))


# -- as a program


async def main(port: int) -> None:
    """Run all processes until SIGINT or SIGTERM. Redis ends last: the workers take leave of it."""
    check(port)
    command = None if REDIS_URL else redis_command()
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals, TemporaryDirectory() as folder:
        url = REDIS_URL or f"unix://{folder}/socket"
        async with trio.open_nursery() as outer:
            if command:
                outer.start_soon(run_redis, command, folder)  # the workers wait for it, if need be
            async with trio.open_nursery() as servers:
                for _ in range(2):
                    servers.start_soon(keep_running, port, url)
                say(f"Starting. The page: http://{HOST}:{port}. Redis: {url} (Ctrl+C to quit)")
                async for _ in signals:
                    servers.cancel_scope.cancel()
            outer.cancel_scope.cancel()


def check(port: int) -> None:
    """Exit if the servers can't share the port, or would share it with whoever has it already."""
    if not hasattr(socket, "SO_REUSEPORT"):
        sys.exit("Two servers can't share a port on this system: it has no SO_REUSEPORT")
    try:
        socket.create_server((HOST, port)).close()
    except OSError as error:
        sys.exit(f"Port {port} can't be had ({os.strerror(error.errno or 0)}): set PORT to another")


def redis_command() -> str:
    """The Redis to run. Exits if there is none."""
    command = shutil.which("redis-server") or shutil.which("valkey-server")
    if command is None:
        sys.exit("No redis-server found: install it (Debian: apt-get install redis-server), or set REDIS_URL")
    return command


async def run_redis(command: str, folder: str) -> None:
    """Run a Redis that keeps nothing on disk, until cancelled. It has a Unix socket: no port, which might be taken."""
    options = [
        "--port",
        "0",
        "--unixsocket",
        f"{folder}/socket",
        "--unixsocketperm",
        "700",
        "--save",
        "",
        "--dir",
        folder,
    ]
    await trio.run_process([command, *options], stdout=subprocess.DEVNULL, process_group=0)


async def keep_running(port: int, redis_url: str) -> None:
    """Run a hypercorn, and another whenever it has ended. When this is cancelled, it is told to end, and waited for.

    It has a process group of its own, as Redis has: Ctrl+C, which all of a group get, is for this program alone.
    """
    command = [*HYPERCORN, "--bind", f"{HOST}:{port}", "examples.cluster:app"]
    environment = {**os.environ, "REDIS_URL": redis_url}
    while True:
        await trio.run_process(
            command, check=False, deliver_cancel=end, cwd=EXAMPLES.parent, env=environment, process_group=0
        )
        say("A hypercorn has ended, and starts again")
        await trio.sleep(PAUSE)


async def end(process: trio.Process) -> None:
    """Tell it to end. What is left of its group is killed: without hypercorn, its workers would never end."""
    try:
        process.terminate()
        await trio.sleep(PATIENCE)  # cancelled as soon as it has ended
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    trio.run(main, int(os.environ.get("PORT", "3000")))
