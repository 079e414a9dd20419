"""The heartbeat example with a clock that a test can wait for: even the page's own has 9 seconds."""

from examples import heartbeat, page
from verbtrio import App, Heartbeat

app = App()
app.ws("/quick", heartbeat=Heartbeat(interval=0.3, timeout=1.2, code=1000, json=True))(heartbeat.stay)
page.add_page(app, heartbeat.__file__, heartbeat.stay, interval=0.3, timeout=1.2)
