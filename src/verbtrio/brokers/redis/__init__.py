"""The broker that connects processes and machines by Redis (6.2 or newer) or Valkey. It needs the extra `redis`.

from verbtrio.brokers.redis import RedisBroker

app = App(broker=RedisBroker("redis://localhost"))
"""

try:
    import coredis as coredis
except ImportError as error:  # pragma: no cover -- the tests have it
    raise ImportError("RedisBroker needs coredis: pip install 'verbtrio[redis]'") from error

from verbtrio.brokers.redis.broker import RedisBroker as RedisBroker
