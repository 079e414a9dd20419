"""The samples, and the recorder, with WebSockets over HTTP/2."""

from examples.demo import samples
from tests.apps import recorder
from verbtrio import App

app = App(http2_websockets=True, http2_cleartext=True)
for name, sample in samples.items():
    app.mount(f"/{name}", sample)
app.mount("/recorder", recorder.app)
