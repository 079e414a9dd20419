"""The heartbeat example with a clock that a test can wait for: even the page's own has 9 seconds."""

from examples import heartbeat, page
from verbtrio import App, Heartbeat

QUICK = Heartbeat(interval=0.3, timeout=1.2, code=1000, json=True)
app = App()
app.ws("/quick", heartbeat=QUICK)(heartbeat.stay)
page.add_page(app, heartbeat.__file__, heartbeat.stay, interval=QUICK.interval, timeout=QUICK.timeout)
