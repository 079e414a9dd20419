"""Brokers: what connects the processes of an application, and remembers for them.

    from verbtrio.brokers import MemoryBroker

    app = App(broker=MemoryBroker(max_history_bytes=256 * 1024 * 1024))

`MemoryBroker` is the default. To write another, see `Broker`; `verbtrio.testing.brokers` has the tests it must pass.
"""

from verbtrio.brokers.base import Broker as Broker
from verbtrio.brokers.base import Process as Process
from verbtrio.brokers.base import Session as Session
from verbtrio.brokers.memory import MemoryBroker as MemoryBroker
from verbtrio.brokers.records import ConnectionChange as ConnectionChange
from verbtrio.brokers.records import Health as Health
from verbtrio.brokers.records import History as History
from verbtrio.brokers.records import Lease as Lease
from verbtrio.brokers.records import Page as Page
from verbtrio.brokers.records import PresenceChange as PresenceChange
from verbtrio.brokers.records import Present as Present
from verbtrio.brokers.records import PresentConnection as PresentConnection
from verbtrio.brokers.records import Publication as Publication
from verbtrio.brokers.records import Usage as Usage
