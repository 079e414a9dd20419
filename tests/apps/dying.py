"""An application whose worker dies when it is asked to, of what nobody handles."""

import trio
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from verbtrio import App

app = App()


async def fall_over() -> None:
    raise RuntimeError("on purpose")


@app.get("/die")
async def die(request: Request) -> Response:
    trio.lowlevel.spawn_system_task(fall_over)  # Trio ends everything when one of these fails
    return PlainTextResponse("dying")


if __name__ == "__main__":
    app.listen()
