"""The tables are what the mappings say, however the database came to be."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, create_engine, text

from api.errors import RegistryUnavailable
from controller.registry import Registry, migrations
from controller.registry.schema import known_revisions
from controller.registry.tables import Base
from tests.unit.controller.registry.conftest import sqlite_url
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


def test_each_migration_is_in_a_file_named_for_its_revision():
    scripts = ScriptDirectory(str(Path(migrations.__file__).parent))
    assert known_revisions() == [script.revision for script in reversed(list(scripts.walk_revisions()))]


def test_an_agent_on_sqlite_that_starts_again_loads_neither_alembic_nor_psycopg(tmp_path):
    script = (
        "import asyncio, sys; from controller.registry import Registry\n"
        f"registry = asyncio.run(Registry.open('{sqlite_url(tmp_path)}', 'rift'))\n"
        "print(*sorted({'alembic', 'psycopg', 'sqlalchemy'} & sys.modules.keys()))"
    )
    printed = [
        subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout.split()
        for _ in range(2)
    ]
    assert printed == [["alembic", "sqlalchemy"], ["sqlalchemy"]]


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
