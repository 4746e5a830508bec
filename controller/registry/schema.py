"""Brings a database's tables to what this version of MCP knows, and refuses what a newer one wrote."""

from pathlib import Path
from typing import Final

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text

from api.errors import RegistryUnavailable

_MIGRATIONS: Final = Path(__file__).parent / "migrations"

_LOCK: Final = 0x6D63_7072_6567
"""PostgreSQL's advisory lock under which one agent of several migrates: "mcpreg"."""


def migrate(connection: Connection, name: str) -> None:
    """Upgrades the registry called `name` within the connection's transaction: all of it or nothing.

    Raises RegistryUnavailable where the schema is one that this version does
    not know.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    scripts = ScriptDirectory.from_config(config)
    known = {script.revision for script in scripts.walk_revisions()}
    current = MigrationContext.configure(connection).get_current_revision()
    if current is not None and current not in known:
        raise RegistryUnavailable(
            f'{name} was written by a newer version of MCP (schema "{current}", this one knows up to '
            f'"{scripts.get_current_head()}"): install that version again'
        )
    if current != scripts.get_current_head():
        command.upgrade(config, "head")
