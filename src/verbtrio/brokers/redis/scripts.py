"""All scripts: each connection loads them when it begins. Pure."""

from __future__ import annotations

from verbtrio.brokers.redis import message_scripts, presence_scripts, process_scripts
from verbtrio.brokers.redis.script import Script

MODULES = (message_scripts, presence_scripts, process_scripts)
ALL = tuple(value for module in MODULES for value in vars(module).values() if isinstance(value, Script))
"""Each of them."""
