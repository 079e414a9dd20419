"""What an `App` says in an asyncio event loop: one sentence, with the command to use instead.

uvicorn, hypercorn without `-k trio`, Starlette's `TestClient` and others call an ASGI application from asyncio. Without
this, the first use of Trio would fail, with a long traceback that names neither the cause nor the cure.
"""

from __future__ import annotations

import logging
import re
import sys
from pathlib import Path

import trio
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from verbtrio.base.errors import NotRunning
from verbtrio.guards.middleware import deny

logger = logging.getLogger("verbtrio.app")

_APPLICATION = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*").fullmatch
"""How a server's command names an application."""


def is_asyncio() -> bool:
    """Whether the caller runs on asyncio, and not on Trio."""
    if trio.lowlevel.in_trio_run():
        return False
    import asyncio  # here: under Trio it is not needed

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def check(message: str | None = None) -> None:
    """Raise `NotRunning` if the caller runs on asyncio. `message`: instead of `sentence`."""
    if is_asyncio():
        raise NotRunning(message or sentence())


async def check_start() -> None:
    """The same at an app's start; if hypercorn's own command has started this process, the process ends."""
    if is_asyncio():
        await _exit_from_hypercorn(sentence())
        raise NotRunning(sentence())


def sentence(scope: Scope | None = None) -> str:
    """What is wrong, and what to do instead. `scope`: the request's, if there is one."""
    if _is_test_client(scope):
        return (
            'this App needs Trio, and TestClient runs it by asyncio: use `TestClient(app, backend="trio")`, '
            "and for WebSockets, rooms and users in a `with` block"
        )
    application = next(filter(_APPLICATION, sys.argv[1:]), "module:app")
    return f"this App needs Trio, and this server runs it by asyncio: use `hypercorn -k trio {application}`"


async def refuse(scope: Scope, receive: Receive, send: Send) -> None:
    """The ASGI application for a caller that runs on asyncio. The lifespan's startup fails; a request is answered with
    500, with a line in the log.

    Raises:
        NotRunning: after a failed startup (servers expect an exception after the message), and in Starlette's
            `TestClient`.
    """
    message = sentence(scope)
    if scope["type"] == "lifespan":
        await receive()
        await _exit_from_hypercorn(message)
        await send({"type": "lifespan.startup.failed", "message": message})
    elif not _is_test_client(scope):
        logger.error("%s", message)
        response = PlainTextResponse("Internal Server Error", 500)
        if scope["type"] == "websocket":
            await deny(response, scope, receive, send)
        else:
            await response(scope, receive, send)
        return
    raise NotRunning(message)


def _is_test_client(scope: Scope | None) -> bool:
    """Whether Starlette's `TestClient` calls. It names itself as the client of its requests, which is no address; in
    the lifespan it is in the call stack."""
    if scope is not None and (scope.get("client") or ("",))[0] == "testclient":
        return True
    frame = sys._getframe()
    while (caller := frame.f_back) is not None:
        frame = caller
        if frame.f_globals.get("__name__") == "starlette.testclient":
            return True
    return False


async def _exit_from_hypercorn(message: str) -> None:
    """If hypercorn's own command has started this process, or its parent (a worker has its parent's arguments), end
    the process with `message` alone, and exit code 1.

    hypercorn raises an exception for a failed start, and prints the traceback: the sentence would be the last of sixty
    lines. asyncio would log a `SystemExit` that a task raises, so a callback raises it. The task is cancelled when the
    loop is closed. Then what Starlette reports to the server (that the start has failed) is not heard any more.
    """
    import asyncio

    program = Path(sys.argv[0])
    if program.stem != "hypercorn" and program.parts[-2:] != ("hypercorn", "__main__.py"):
        return
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda *_: None)
    loop.call_soon(sys.exit, message)
    await loop.create_future()
