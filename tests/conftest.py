"""Real parts that tests of several folders share."""

import uuid
from collections.abc import Iterator

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from stack.postgres import Postgres, postgres


@pytest.fixture(scope="session")
def postgres_cluster() -> Iterator[Postgres]:
    """One PostgreSQL cluster for all tests of the session, started when the first asks for it."""
    with postgres() as cluster:
        yield cluster


@pytest.fixture
def postgres_url(postgres_cluster: Postgres) -> Iterator[str]:
    """SQLAlchemy's URL (psycopg 3) of an empty database that lasts for one test."""
    database = f"test_{uuid.uuid4().hex[:12]}"
    postgres_cluster.create(database)
    yield postgres_cluster.url(database)
    postgres_cluster.drop(database)


class RealPartsInTurn(LoadScopeScheduling):
    """Tests of real parts run one after the other, by one worker; whoever else works beside it has all others.

    The proxy's are among the others: they start no containers, and the first worker has most to do.
    """

    def _split_scope(self, nodeid: str) -> str:
        if nodeid.startswith("tests/system/mcproxy/"):
            return "proxy"
        return "system" if nodeid.startswith("tests/system/") else nodeid


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadScopeScheduling:
    return RealPartsInTurn(config, log)
