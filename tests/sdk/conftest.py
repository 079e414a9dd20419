"""What the scenarios have: a server, the drivers of the SDKs, and a way to connect."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count

import pytest

from tests.conftest import Servers
from tests.sdk.driving import WAYS, Client, Drivers, Way, driving
from tests.support.process import Server

Connect = Callable[..., Client]
Unique = Callable[[str], str]

numbers = count(1)


@pytest.fixture(scope="session")
def drivers() -> Iterator[Drivers]:
    with driving() as drivers:
        yield drivers


@pytest.fixture(scope="session")
def server(servers: Servers) -> Server:
    return servers.get("tests.apps.sdk:app")


@pytest.fixture(params=WAYS, ids=str)
def way(request: pytest.FixtureRequest) -> Way:
    way: Way = request.param
    return way


@pytest.fixture
def client(drivers: Drivers, server: Server) -> Iterator[Connect]:
    """Make a client, not connected yet: `client(way, token=...)`. Afterwards all of them are disconnected."""

    def make(way: Way, url: str = server.url, **options: object) -> Client:
        return drivers.client(way, url, **options)

    yield make
    drivers.forget_clients()


@pytest.fixture
def unique() -> Unique:
    """A name that no other test has: `unique("open:")`."""
    return lambda prefix: f"{prefix}{next(numbers)}"
