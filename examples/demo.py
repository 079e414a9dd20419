"""The first five samples in one application, with an index page: `nox -s demo`."""

import sys
from pathlib import Path

from starlette.requests import Request
from starlette.responses import FileResponse
from starlette.staticfiles import StaticFiles

sys.path.insert(0, str(Path(__file__).parent.parent))  # so that `python examples/demo.py` finds the others, too

from examples import auth, broadcast, echo, heartbeat, rooms
from verbtrio import App

PAGES = Path(__file__).parent / "pages"
samples = {
    "echo": echo.app,
    "broadcast": broadcast.app,
    "rooms": rooms.app,
    "auth": auth.app,
    "heartbeat": heartbeat.app,
}
app = App()


@app.get("/")
async def index(request: Request) -> FileResponse:
    return FileResponse(PAGES / "index.html")


app.mount("/pages", StaticFiles(directory=PAGES))
for name, sample in samples.items():
    app.mount(f"/{name}", sample)

if __name__ == "__main__":
    app.listen()
