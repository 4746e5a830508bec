"""Brings a database's tables to what this version of MCP knows, and refuses what a newer one wrote."""

from pathlib import Path
from typing import Final

from sqlalchemy import Connection, inspect, text

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
    known = known_revisions()
    current = current_revision(connection)
    if current == known[-1]:
        return
    if current is not None and current not in known:
        raise RegistryUnavailable(
            f'{name} was written by a newer version of MCP (schema "{current}", this one knows up to '
            f'"{known[-1]}"): install that version again'
        )
    _upgrade(connection)


def known_revisions() -> list[str]:
    """All revisions, oldest first, told by their files' names."""
    return sorted(path.stem.partition("_")[0] for path in (_MIGRATIONS / "versions").glob("[0-9]*.py"))


def current_revision(connection: Connection) -> str | None:
    """The revision of the tables; None where there are none."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    version: str | None = connection.scalar(text("SELECT version_num FROM alembic_version"))
    return version


def _upgrade(connection: Connection) -> None:
    # Only faster: an agent that starts again has nothing to migrate, and saves 10 MB.
    from alembic import command  # noqa: PLC0415
    from alembic.config import Config  # noqa: PLC0415

    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    command.upgrade(config, "head")
