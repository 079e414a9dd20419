"""Examples: all of them in one application, with an index page: `nox -s demo`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # for the other examples

from examples import (
    answers,
    auth,
    broadcast,
    centrifuge,
    echo,
    heartbeat,
    lifecycle,
    rooms,
    sessions,
    streaming,
    teamchat,
    ticker,
    validation,
)
from examples.page import EXAMPLES, add_index, add_page
from verbtrio import App

samples = {
    "echo": echo.app,
    "broadcast": broadcast.app,
    "rooms": rooms.app,
    "auth": auth.app,
    "heartbeat": heartbeat.app,
    "sessions": sessions.app,
    "streaming": streaming.app,
    "ticker": ticker.app,
    "answers": answers.app,
    "validation": validation.app,
    "lifecycle": lifecycle.app,
    "teamchat": teamchat.app,
    "centrifuge": centrifuge.app,
    "guarded": App(),  # it and wss have no page of their own: only their code is shown
    "wss": App(),
}
for name in ("guarded", "wss"):
    add_page(samples[name], str(EXAMPLES / f"{name}.py"))

app = App()
add_index(app, __file__, samples)
for name, sample in samples.items():
    app.mount(f"/{name}", sample)

if __name__ == "__main__":
    app.listen()
