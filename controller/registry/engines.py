"""Opens the one connection of a registry, as SQLite or PostgreSQL wants it."""

import fcntl
import os
from enum import Enum
from pathlib import Path
from typing import Any, Final

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError

from api.errors import RegistryUnavailable

_BUSY_TIMEOUT_MS: Final = 5000

_CONNECT_TIMEOUT_S: Final = 5


class Mode(Enum):
    """What a transaction is for."""

    READ = "read"
    OBSERVATION = "observation"
    """Writes what can be observed again: a loss of power may take the last ones, never the order."""
    DURABLE = "durable"
    """Writes what nobody could tell us again: on the disk once committed."""


def parse_url(url: str) -> URL:
    """SQLAlchemy's URL of a kind that the registry knows. Raises RegistryUnavailable."""
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise RegistryUnavailable("the registry's url is not a database URL such as sqlite:////var/lib/x.db") from None
    backend = parsed.get_backend_name()
    if backend == "postgresql":
        return parsed.set(drivername="postgresql+psycopg")
    if backend != "sqlite":
        raise RegistryUnavailable(f'the registry cannot be kept in "{backend}": use sqlite:///FILE or postgresql://...')
    if parsed.database in (None, "", ":memory:"):
        raise RegistryUnavailable("the registry's url names no file: a registry in memory would forget everything")
    return parsed.set(drivername="sqlite+pysqlite")


def where(url: URL) -> str:
    """What to call the registry in a sentence for a person; never its password."""
    if url.get_backend_name() == "sqlite":
        return f"the registry {url.database}"
    return f"the registry {url.render_as_string(hide_password=True)}"


class FileLock:
    """Held as long as this process serves the registry: two agents on one file would undo each other's work."""

    def __init__(self, database: Path) -> None:
        """Makes folder (0700) and file (0600) where they are missing. Raises OSError, RegistryUnavailable."""
        database.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._descriptor = os.open(f"{database}.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.close(os.open(database, os.O_RDWR | os.O_CREAT, 0o600))
        except BlockingIOError:
            self.release()
            raise RegistryUnavailable(
                f"the registry {database} is served by another agent: end that one first"
            ) from None
        except OSError:
            self.release()
            raise

    def release(self) -> None:
        """Lets another process have it. The file stays: removing it would let two hold it."""
        os.close(self._descriptor)


def make_engine(url: URL) -> Engine:
    """An engine with a single connection that begins each transaction as its `mode` option says."""
    if url.get_backend_name() == "sqlite":
        engine = create_engine(
            url,
            pool_size=1,
            max_overflow=0,
            hide_parameters=True,
            connect_args={"check_same_thread": False, "isolation_level": None},
        )
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
        return engine
    engine = create_engine(
        url,
        pool_size=1,
        max_overflow=0,
        # What is written is a definition, and errors are logged.
        hide_parameters=True,
        pool_pre_ping=True,
        connect_args={"connect_timeout": _CONNECT_TIMEOUT_S},
    )
    event.listen(engine, "begin", _begin_postgresql)
    return engine


def _prepare_sqlite(connection: Any, _record: object) -> None:
    for setting in ("journal_mode=WAL", "foreign_keys=ON", f"busy_timeout={_BUSY_TIMEOUT_MS}"):
        connection.execute(f"PRAGMA {setting}")


def _begin_sqlite(connection: Connection) -> None:
    # A read that turns into a write would fail at once instead of waiting for its turn: say it beforehand.
    match connection.get_execution_options()["mode"]:
        case Mode.READ:
            connection.exec_driver_sql("BEGIN")
        case mode:
            level = "FULL" if mode is Mode.DURABLE else "NORMAL"
            connection.exec_driver_sql(f"PRAGMA synchronous={level}")
            connection.exec_driver_sql("BEGIN IMMEDIATE")


def _begin_postgresql(connection: Connection) -> None:
    match connection.get_execution_options()["mode"]:
        case Mode.READ:
            # One picture for all of a read's queries.
            connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        case Mode.OBSERVATION:
            connection.exec_driver_sql("SET LOCAL synchronous_commit = off")
        case Mode.DURABLE:
            pass
