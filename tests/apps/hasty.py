"""The recorder, with little time for handshakes."""

from dataclasses import replace

from tests.apps.recorder import app

app.limits = replace(app.limits, handshake_timeout=1.5)
