"""Real parts that tests of several folders share."""

import uuid
from collections.abc import Iterator

import pytest

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


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of real parts run one after the other; whoever else works beside them has all others."""
    for item in items:
        if "system" in item.path.relative_to(item.config.rootpath).parts:
            item.add_marker(pytest.mark.xdist_group("system"))
