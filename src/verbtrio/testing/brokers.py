"""The tests that every broker must pass, to be run by pytest with pytest-trio (`trio_mode = true`).

    from verbtrio.testing.brokers import BrokerConformance

    class TestMyBroker(BrokerConformance):
        @asynccontextmanager
        async def brokers(self) -> AsyncIterator[Callable[[], Broker]]:
            async with my_back_end() as address:
                yield lambda: MyBroker(address)

They use real time, or the clock that a fixture of yours sets. To see values in failures, have this in `conftest.py`:
`pytest.register_assert_rewrite("verbtrio.testing")`.
"""

from verbtrio.testing.broker_cancellation import CancellationChecks
from verbtrio.testing.broker_connections import ConnectionChecks
from verbtrio.testing.broker_forwards import ForwardChecks
from verbtrio.testing.broker_histories import HistoryChecks
from verbtrio.testing.broker_leases import LeaseChecks
from verbtrio.testing.broker_messages import MessageChecks
from verbtrio.testing.broker_presence import PresenceChecks
from verbtrio.testing.broker_sessions import SessionChecks
from verbtrio.testing.broker_users import UserChecks
from verbtrio.testing.recording import RecordingProcess as RecordingProcess


class BrokerConformance(
    MessageChecks,
    HistoryChecks,
    PresenceChecks,
    ConnectionChecks,
    UserChecks,
    ForwardChecks,
    LeaseChecks,
    SessionChecks,
    CancellationChecks,
):
    """What `verbtrio.brokers.Broker` and `Session` promise, checked with several processes: subclass it, and define
    `brokers`."""
