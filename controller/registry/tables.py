"""The registry's tables.

What must be unique across services is a table of its own, so that the database
guards it. What is only ever read and written with its service is a JSON column
of it, so that one row tells nearly all of a service. Keys are natural ones,
(node, service, ...): each row belongs to one node, and no row needs a join to
say whose it is.
"""

from datetime import UTC, datetime
from typing import Any

from pydantic import TypeAdapter
from sqlalchemy import (
    BigInteger,
    DateTime,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Text,
    TypeDecorator,
    UniqueConstraint,
    false,
    text,
)
from sqlalchemy.engine import Dialect
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from api.conditions import Condition
from api.service import Component, Finalizer, Suspension
from api.spec import ServiceSpec


class Json(TypeDecorator[Any]):
    """A pydantic value as JSON text: exact, alike on every database, and able to hold an escaped NUL."""

    impl = Text
    cache_ok = True

    def __init__(self, kind: Any) -> None:
        super().__init__()
        self.kind = kind
        self._adapter: TypeAdapter[Any] = TypeAdapter(kind)

    def process_bind_param(self, value: Any, dialect: Dialect) -> str:  # noqa: ARG002
        """To the database."""
        return self._adapter.dump_json(value).decode()

    def process_result_value(self, value: str | None, dialect: Dialect) -> Any:  # noqa: ARG002
        """From the database. Raises pydantic.ValidationError where it holds something else."""
        return self._adapter.validate_json(value or "")


class UtcDateTime(TypeDecorator[datetime]):
    """A time in UTC, in and out; SQLite would forget the zone and PostgreSQL answers in the session's."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """To the database. Raises ValueError for a time without a zone."""
        return value and in_utc(value)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """From the database."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def in_utc(value: datetime) -> datetime:
    """The same moment, in UTC. Raises ValueError for a time without a zone."""
    if value.tzinfo is None:
        raise ValueError(f"time {value} has no zone")
    return value.astimezone(UTC)


class Base(DeclarativeBase):
    """Names every constraint, so that a migration can speak of it."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {str: Text(), int: BigInteger(), datetime: UtcDateTime()}  # noqa: RUF012  # SQLAlchemy's own


def _owner() -> ForeignKeyConstraint:
    return ForeignKeyConstraint(["node", "service"], ["services.node", "services.name"], ondelete="CASCADE")


class ServiceRow(Base):
    """A service: its desired state, and what was observed of it."""

    __tablename__ = "services"

    node: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    uid: Mapped[str] = mapped_column(unique=True)
    generation: Mapped[int]
    actor: Mapped[str] = mapped_column(server_default=text("''"))
    spec: Mapped[ServiceSpec] = mapped_column(Json(ServiceSpec))
    restarts: Mapped[dict[str, int]] = mapped_column(Json(dict[str, int]), server_default=text("'{}'"))
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]
    deletion_requested_at: Mapped[datetime | None]
    suspended: Mapped[Suspension | None] = mapped_column(
        Json(Suspension | None), nullable=False, server_default=text("'null'")
    )
    finalizers: Mapped[tuple[Finalizer, ...]] = mapped_column(Json(tuple[Finalizer, ...]))
    conditions: Mapped[tuple[Condition, ...]] = mapped_column(Json(tuple[Condition, ...]))
    components: Mapped[tuple[Component, ...]] = mapped_column(Json(tuple[Component, ...]))


class RevisionRow(Base):
    """What a service was to be in one generation."""

    __tablename__ = "revisions"
    __table_args__ = (_owner(),)

    node: Mapped[str] = mapped_column(primary_key=True)
    service: Mapped[str] = mapped_column(primary_key=True)
    generation: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    spec: Mapped[ServiceSpec] = mapped_column(Json(ServiceSpec))
    actor: Mapped[str]
    at: Mapped[datetime]
    note: Mapped[str] = mapped_column(server_default=text("''"))
    digests: Mapped[dict[str, str]] = mapped_column(Json(dict[str, str]), server_default=text("'{}'"))


class PortRow(Base):
    """A host port; nobody else on the node has it."""

    __tablename__ = "ports"
    __table_args__ = (_owner(), UniqueConstraint("node", "port"))

    node: Mapped[str] = mapped_column(primary_key=True)
    service: Mapped[str] = mapped_column(primary_key=True)
    component: Mapped[str] = mapped_column(primary_key=True)
    route: Mapped[str] = mapped_column(primary_key=True)
    slot: Mapped[int] = mapped_column(primary_key=True, autoincrement=False, server_default=text("0"))
    port: Mapped[int]
    contested: Mapped[bool]


class CertificateRow(Base):
    """A certificate; no other lies at its path."""

    __tablename__ = "certificates"
    __table_args__ = (_owner(), UniqueConstraint("node", "cert_path"))

    node: Mapped[str] = mapped_column(primary_key=True)
    service: Mapped[str] = mapped_column(primary_key=True)
    hostname: Mapped[str] = mapped_column(primary_key=True)
    issuer: Mapped[str]
    serial: Mapped[str]
    fingerprint: Mapped[str]
    not_before: Mapped[datetime]
    not_after: Mapped[datetime]
    renew_at: Mapped[datetime]
    cert_path: Mapped[str]
    key_path: Mapped[str]
    error: Mapped[str] = mapped_column(server_default=text("''"))
    failures: Mapped[int] = mapped_column(server_default=text("0"))
    retry_at: Mapped[datetime | None]


class ClaimRow(Base):
    """A name on a listener; its key is what makes it unique."""

    __tablename__ = "claims"
    __table_args__ = (_owner(), Index(None, "node", "service"))

    node: Mapped[str] = mapped_column(primary_key=True)
    listener: Mapped[str] = mapped_column(primary_key=True)
    hostname: Mapped[str] = mapped_column(primary_key=True)
    service: Mapped[str]
    component: Mapped[str]
    route: Mapped[str]
    mode: Mapped[str]
    backend: Mapped[str]
    certificate: Mapped[str]


class FileRow(Base):
    """What was pushed to a path of a service, once; the last of each path is `current`."""

    __tablename__ = "files"
    __table_args__ = (_owner(), Index(None, "node", "sha256"))

    node: Mapped[str] = mapped_column(primary_key=True)
    service: Mapped[str] = mapped_column(primary_key=True)
    path: Mapped[str] = mapped_column(primary_key=True)
    revision: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    sha256: Mapped[str]
    size: Mapped[int]
    mode: Mapped[int]
    owner: Mapped[str]
    managed: Mapped[bool]
    restart: Mapped[bool]
    component: Mapped[str]
    actor: Mapped[str]
    at: Mapped[datetime]
    generation: Mapped[int]
    current: Mapped[bool]
    laid: Mapped[bool]
    """Since it was pushed last."""
    ever_laid: Mapped[bool]
    removed: Mapped[bool] = mapped_column(server_default=false())
    """Nothing is wanted there any more; current until that is carried out."""


class FileContentRow(Base):
    """A content, once for all files that have it; gone with the last of them."""

    __tablename__ = "file_contents"

    node: Mapped[str] = mapped_column(primary_key=True)
    sha256: Mapped[str] = mapped_column(primary_key=True)
    content: Mapped[bytes] = mapped_column(LargeBinary)


class ImageRow(Base):
    """An image that this node's MCP pulled: only such may be removed again."""

    __tablename__ = "images"

    node: Mapped[str] = mapped_column(primary_key=True)
    reference: Mapped[str] = mapped_column(primary_key=True)
    """As definitions name it. A tag that moved has stood for several images."""
    image_id: Mapped[str] = mapped_column(primary_key=True)
    digest: Mapped[str]
    pulled_at: Mapped[datetime]
    used_at: Mapped[datetime]
    """When it was last seen in use, or brought."""


class AdoptedRow(Base):
    """A container that MCP took over and did not make."""

    __tablename__ = "adopted"
    __table_args__ = (_owner(), Index(None, "node", "service"))

    node: Mapped[str] = mapped_column(primary_key=True)
    container_id: Mapped[str] = mapped_column(primary_key=True)
    service: Mapped[str]
    labels: Mapped[dict[str, str]] = mapped_column(Json(dict[str, str]))
    """What its own would be, had MCP made it."""


class DrainRow(Base):
    """A node that is kept empty; there is none of one that is not."""

    __tablename__ = "drains"

    node: Mapped[str] = mapped_column(primary_key=True)
    actor: Mapped[str]
    at: Mapped[datetime]


class EventRow(Base):
    """One line of the timeline; it outlives its service."""

    __tablename__ = "events"
    __table_args__ = (Index(None, "node", "id"), Index(None, "node", "service", "id"))

    # SQLite numbers rows by itself only where the type is exactly INTEGER.
    id: Mapped[int] = mapped_column(BigInteger().with_variant(Integer(), "sqlite"), primary_key=True)
    node: Mapped[str]
    at: Mapped[datetime]
    service: Mapped[str]
    generation: Mapped[int]
    actor: Mapped[str]
    kind: Mapped[str]
    message: Mapped[str]
    drift: Mapped[bool]


class TokenRow(Base):
    """A token that this node's agent made; of the secret itself there is only its hash."""

    __tablename__ = "tokens"

    node: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    sha256: Mapped[str] = mapped_column(unique=True)
    role: Mapped[str]
    created_by: Mapped[str]
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]


class AuditRow(Base):
    """One call that wrote, or was refused. Rows are added and, once old, dropped; none is ever changed."""

    __tablename__ = "audit"
    __table_args__ = (Index(None, "node", "id"), Index(None, "node", "service", "id"))

    id: Mapped[int] = mapped_column(BigInteger().with_variant(Integer(), "sqlite"), primary_key=True)
    node: Mapped[str]
    at: Mapped[datetime]
    actor: Mapped[str]
    role: Mapped[str]
    address: Mapped[str]
    how: Mapped[str]
    method: Mapped[str]
    service: Mapped[str]
    generation: Mapped[int]
    outcome: Mapped[str]
    detail: Mapped[str]
