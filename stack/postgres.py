"""A PostgreSQL cluster of its own in a temporary folder, tuned for tests: nothing needs to survive a crash."""

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from pwd import getpwnam
from typing import Final

from stack import processes
from stack.layout import Layout, Owner
from stack.processes import StackError

_FAST: Final = (
    "fsync=off",
    "synchronous_commit=off",
    "full_page_writes=off",
    "shared_buffers=32MB",
    "max_connections=50",
)


@dataclass(frozen=True)
class Postgres:
    """A running cluster that listens on a Unix socket in `folder` alone; its superuser is `user`."""

    folder: Path
    user: str

    def url(self, database: str) -> str:
        """SQLAlchemy's URL of one database."""
        return f"postgresql+psycopg://{self.user}@/{database}?host={self.folder}"

    def create(self, database: str) -> None:
        """Makes an empty database."""
        self._execute(f'CREATE DATABASE "{database}"')

    def drop(self, database: str) -> None:
        """Drops a database, ending the sessions in it."""
        self._execute(f'DROP DATABASE "{database}" WITH (FORCE)')

    def _execute(self, statement: str) -> None:
        subprocess.run(
            ["psql", "--host", self.folder, "--username", self.user, "--dbname", "postgres", "-qc", statement],
            check=True,
            capture_output=True,
        )


@contextmanager
def postgres() -> Iterator[Postgres]:
    """A cluster that is gone afterwards; it runs as `postgres` when we are root, which it refuses to be."""
    folder = Path(tempfile.mkdtemp(prefix="mcp-pg"))
    owner = _owner(folder)
    layout = Layout(folder, owner)
    user = "postgres"
    try:
        layout.make()
        programs, data = _programs(), folder / "data"
        _initialise(programs, data, user, owner)
        options = [word for setting in _FAST for word in ("-c", setting)]
        processes.start(
            layout,
            "postgres",
            [programs / "postgres", "-D", data, "-k", folder, "-h", "", *options],
            env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C.UTF-8"},
            owner=owner,
        )
        ready: list[str | Path] = [programs / "pg_isready", "--quiet", "--host", folder]
        processes.wait_until(layout, "postgres", lambda: subprocess.run(ready, check=False).returncode == 0, seconds=30)
        yield Postgres(folder, user)
    finally:
        processes.stop(layout, "postgres", sig=signal.SIGINT)
        shutil.rmtree(folder)


def _owner(folder: Path) -> Owner | None:
    if os.getuid() != 0:
        return None
    account = getpwnam("postgres")
    os.chown(folder, account.pw_uid, account.pw_gid)
    return Owner(account.pw_uid, account.pw_gid, folder)


def _programs() -> Path:
    """The folder of the server's programs: Debian keeps them out of the path, one folder a version."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[4]))
    on_path = shutil.which("initdb")
    if not found and on_path is None:
        raise StackError("PostgreSQL is missing: run scripts/setup")
    return found[-1].parent if found else Path(str(on_path)).parent


def _initialise(programs: Path, data: Path, user: str, owner: Owner | None) -> None:
    options = ["--username", user, "--auth", "trust", "--no-sync", "--encoding", "UTF8", "--locale", "C.UTF-8"]
    command: list[str | Path] = [programs / "initdb", "-D", data, *options]
    subprocess.run(
        command,
        check=True,
        capture_output=True,
        **processes.identity(owner),
    )
