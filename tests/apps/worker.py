"""An app of which several workers run: each tells which one it is, and leaves a file when it has shut down in order."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from verbtrio import App

FOLDER = Path(os.environ["FOLDER"])


@asynccontextmanager
async def lifespan(app: App) -> AsyncIterator[None]:
    yield
    leave_a_file()


def leave_a_file() -> None:
    (FOLDER / str(os.getpid())).touch()


app = App(lifespan=lifespan)


@app.get("/")
async def tell(request: Request) -> Response:
    return JSONResponse({"pid": os.getpid()})
