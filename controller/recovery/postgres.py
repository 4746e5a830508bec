"""A copy of a PostgreSQL registry, by PostgreSQL's own tools."""

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from api.errors import RegistryUnavailable
from controller.registry import copies

_RESTORING: Final = "restoring"
"""The schema's revision while it is half restored: no agent takes that for its own."""


def copy(url: str, target: Path) -> None:
    """Writes the registry's tables to `target` as SQL, as they are at one moment. Raises RegistryUnavailable."""
    wanted = [f"--table={table}" for table in copies.table_names()]
    _run(url, ["pg_dump", "--format=plain", "--no-owner", "--no-privileges", f"--file={target}", *wanted])
    target.chmod(0o600)


def replace(url: str, dump: Path, scratch: Path) -> None:
    """Puts what `dump` holds in place of the registry's tables, all of it or nothing.

    Afterwards no agent can open the registry until `copies.adopt` did.
    """
    before, after = scratch / "before.sql", scratch / "after.sql"
    before.write_text(f"DROP TABLE IF EXISTS {', '.join(copies.table_names())} CASCADE;\n")
    # A dump leaves no search path behind.
    after.write_text(f"RESET search_path;\nUPDATE alembic_version SET version_num = '{_RESTORING}';\n")
    files = [f"--file={file}" for file in (before, dump, after)]
    _run(url, ["psql", "--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", "--single-transaction", *files])


def _run(url: str, command: Sequence[str]) -> None:
    place, password = copies.place(url)
    environment = os.environ | ({"PGPASSWORD": password} if password else {})
    try:
        # Where the password cannot be read off the list of processes.
        subprocess.run(
            [*command, f"--dbname={place}"], check=True, env=environment, capture_output=True, text=True, umask=0o077
        )
    except FileNotFoundError as error:
        raise RegistryUnavailable(f"{command[0]} is missing: install PostgreSQL's client programs") from error
    except subprocess.CalledProcessError as error:
        said = error.stderr.strip() or f"exit status {error.returncode}"
        raise RegistryUnavailable(f"{command[0]} failed: {said}") from error
