"""A copy of a SQLite registry, taken while an agent serves it."""

import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Final
from urllib.parse import quote

from api.errors import Refused, RegistryUnavailable
from controller.recovery.archive import sync_file

_PATIENCE_S: Final = 30.0


def copy(database: Path, target: Path) -> None:
    """Makes `target` a copy of the database as it is at one moment, on the disk. Raises RegistryUnavailable.

    It reads beside the agent and never writes or checkpoints: the agent's is
    the only connection that does, which SQLite before 3.51.3 relies on. The
    target's folder must be nobody else's: VACUUM INTO heeds no wish for rights.
    """
    mask = os.umask(0o077)
    try:
        with closing(_opened(database, "ro")) as connection:
            connection.execute("VACUUM INTO ?", (str(target),))
    except sqlite3.Error as error:
        raise RegistryUnavailable(f"the registry {database} cannot be copied: {error}") from error
    finally:
        os.umask(mask)
    sync_file(target)


def check(database: Path) -> tuple[str, int]:
    """The schema's revision and the number of services of a copy that is whole. Raises Refused where it is not."""
    try:
        with closing(_opened(database, "ro&immutable=1")) as connection:
            found = connection.execute("PRAGMA integrity_check").fetchone()[0]
            if found != "ok":
                raise Refused(f"the copy of the registry is corrupt: {found}")
            if lost := connection.execute("PRAGMA foreign_key_check").fetchone():
                raise Refused(f"the copy of the registry is corrupt: a row of {lost[0]} belongs to nothing")
            (revision,) = connection.execute("SELECT version_num FROM alembic_version").fetchone()
            (services,) = connection.execute("SELECT count(*) FROM services").fetchone()
    except (sqlite3.Error, TypeError) as error:
        raise Refused(f"the copy of the registry is no registry of MCP: {error}") from error
    return str(revision), int(services)


def _opened(database: Path, mode: str) -> sqlite3.Connection:
    return sqlite3.connect(f"file:{quote(str(database))}?mode={mode}", uri=True, timeout=_PATIENCE_S)
