"""The tables are what the mappings say, however the database came to be."""

from collections.abc import Iterator

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Engine, create_engine, text

from api.errors import RegistryUnavailable
from controller.registry import Registry
from controller.registry.tables import Base
from tests.unit.controller.registry.samples import spec


@pytest.fixture
async def engine(url: str) -> Iterator[Engine]:
    """An engine of the test's own, on a registry that is closed again."""
    registry = await Registry.open(url, "rift")
    await registry.apply(spec(), actor="ann")
    await registry.close()
    engine = create_engine(url)
    yield engine
    engine.dispose()


async def test_migrations_make_what_the_mappings_say(engine):
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, Base.metadata) == []


async def test_opening_again_keeps_everything(engine, url):
    registry = await Registry.open(url, "rift")
    assert [service.name for service in await registry.services()] == ["hello"]
    await registry.close()


async def test_a_newer_schema_is_refused_in_one_sentence_and_left_alone(engine, url):
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(RegistryUnavailable, match=r'written by a newer version of MCP [(]schema "9999"') as refusal:
        await Registry.open(url, "rift")
    assert refusal.value.message.startswith("the registry ")
    assert "\n" not in refusal.value.message
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT version_num FROM alembic_version")) == "9999"
        assert connection.scalar(text("SELECT count(*) FROM services")) == 1
