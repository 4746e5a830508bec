"""What it takes to make a copy of a registry serve again: brought to this version, and with everything left alone.

Nothing in here goes through `Registry`: a copy is changed before any agent may
open it, in one transaction.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from sqlalchemy import inspect, select, text, update
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from api.errors import RegistryUnavailable
from api.service import Suspension
from controller.registry.desired import DesiredState
from controller.registry.engines import FileLock, Mode, make_engine, parse_url, where
from controller.registry.failures import reason
from controller.registry.schema import current_revision, known_revisions, migrate
from controller.registry.store import Transaction
from controller.registry.tables import Base, RevisionRow, ServiceRow
from controller.registry.timeline import Timeline

_VERSION: Final = "alembic_version"


def database_file(url: str) -> Path | None:
    """Where a SQLite registry lies; None for PostgreSQL. Raises RegistryUnavailable."""
    parsed = parse_url(url)
    return Path(str(parsed.database)) if parsed.get_backend_name() == "sqlite" else None


def place(url: str) -> tuple[str, str]:
    """A PostgreSQL registry as PostgreSQL's own programs take it, and its password, which may be empty."""
    parsed = parse_url(url).set(drivername="postgresql")
    return parsed.set(password=None).render_as_string(hide_password=False), str(parsed.password or "")


def table_names() -> tuple[str, ...]:
    """All tables of a registry."""
    return (*sorted(Base.metadata.tables), _VERSION)


def is_known(revision: str) -> bool:
    """Whether this version of MCP can read, or upgrade, such a schema."""
    return revision in known_revisions()


def revision(url: str) -> str | None:
    """The schema's revision; None where there is no registry yet. Raises RegistryUnavailable."""
    file = database_file(url)
    if file is not None and (not file.exists() or file.stat().st_size == 0):
        return None
    with _transaction(url, Mode.READ) as session:
        return current_revision(session.connection())


def services(url: str) -> int:
    """How many services a registry knows, of all nodes; 0 where there is none. Raises RegistryUnavailable."""
    with _transaction(url, Mode.READ) as session:
        if not inspect(session.connection()).has_table(ServiceRow.__tablename__):
            return 0
        return int(session.scalar(text("SELECT count(*) FROM services")) or 0)


def others(url: str) -> int:
    """How many other sessions use a PostgreSQL registry: each agent has one. Raises RegistryUnavailable."""
    query = (
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
        " AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
    )
    with _transaction(url, Mode.READ) as session:
        return int(session.scalar(text(query)) or 0)


@contextmanager
def held(file: Path) -> Iterator[None]:
    """No agent serves this SQLite registry meanwhile; the file is made where there is none.

    Raises RegistryUnavailable, also where an agent does.
    """
    try:
        lock = FileLock(file)
    except OSError as error:
        raise RegistryUnavailable(
            f"the registry {file} cannot be opened: {error.strerror}: {error.filename}"
        ) from error
    try:
        yield
    finally:
        lock.release()


def adopt(url: str, revision: str, *, old_node: str, node: str, suspension: Suspension) -> int:
    """Makes a copy whose schema has that revision one that an agent may open; how many services it has.

    It is migrated, the services of `old_node` are now those of `node`, and
    every service is left alone until somebody resumes it.
    """
    with _transaction(url, Mode.DURABLE) as session:
        session.execute(text(f"UPDATE {_VERSION} SET version_num = :revision"), {"revision": revision})  # noqa: S608
        migrate(session.connection(), where(parse_url(url)))
        if old_node != node:
            _rename(session, old_node, node)
        for name in session.scalars(select(ServiceRow.node).distinct()).all():
            DesiredState(name, Timeline(name)).suspend_all(Transaction(session), suspension)
        session.flush()
        return int(session.scalar(text("SELECT count(*) FROM services")) or 0)


def _rename(session: Session, old: str, new: str) -> None:
    """Of SQLite only: keys are checked at the end of the transaction."""
    session.execute(text("PRAGMA defer_foreign_keys = ON"))
    for table in Base.metadata.sorted_tables:
        if "node" in table.columns:
            session.execute(update(table).where(table.c.node == old).values(node=new))
    services = session.scalars(select(ServiceRow).where(ServiceRow.node == new))
    revisions = session.scalars(select(RevisionRow).where(RevisionRow.node == new))
    for row in (*services, *revisions):
        if row.spec.node == old:
            row.spec = row.spec.model_copy(update={"node": new})


@contextmanager
def _transaction(url: str, mode: Mode) -> Iterator[Session]:
    parsed = parse_url(url)
    engine = make_engine(parsed)
    try:
        with Session(engine) as session:
            session.connection(execution_options={"mode": mode})
            yield session
            session.commit()
    except DBAPIError as error:
        raise RegistryUnavailable(f"{where(parsed)} cannot be used: {reason(error)}") from error
    finally:
        engine.dispose()
