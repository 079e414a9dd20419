"""The samples over plain ASGI: the take-over switched off."""

from examples.demo import samples
from verbtrio import App

app = App(take_over=False)
for name, sample in samples.items():
    app.mount(f"/{name}", sample)
