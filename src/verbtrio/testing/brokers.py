"""The tests that every broker must pass, to be run by pytest with pytest-trio (`trio_mode = true`).

    from verbtrio.testing.brokers import BrokerConformance

    class TestMyBroker(BrokerConformance):
        @asynccontextmanager
        async def brokers(self) -> AsyncIterator[Callable[[], Broker]]:
            async with my_back_end() as address:
                yield lambda: MyBroker(address)

They use real time, or the clock that a fixture of yours sets. To see values in failures, have this in `conftest.py`:
`pytest.register_assert_rewrite("verbtrio.testing.brokers")`.
"""

from verbtrio.testing.brokers.cancellation import CancellationChecks
from verbtrio.testing.brokers.histories import HistoryChecks
from verbtrio.testing.brokers.leases import LeaseChecks
from verbtrio.testing.brokers.messages import MessageChecks
from verbtrio.testing.brokers.presence import PresenceChecks
from verbtrio.testing.brokers.recording import RecordingProcess as RecordingProcess
from verbtrio.testing.brokers.sessions import SessionChecks
from verbtrio.testing.brokers.users import UserChecks


class BrokerConformance(
    MessageChecks, HistoryChecks, PresenceChecks, UserChecks, LeaseChecks, SessionChecks, CancellationChecks
):
    """What `verbtrio.brokers.Broker` and `Session` promise, checked with several processes: subclass it, and define
    `brokers`."""
